//! The engine's promises on a log in memory: order, time, faults, recovery and upgrades.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::{stage, trade};
use tidewire_engine::driver::{Seen, TestDriver};
use tidewire_engine::recovery::RecoveryOptions;
use tidewire_engine::worker::WorkerOptions;
use tidewire_schemas::{ControlCommand, EventTime, Record, SentimentScore};

const TICKS: &str = "market.ticks.v1";

fn score(value: f64) -> SentimentScore {
    SentimentScore { asset: "*".into(), score: value, ..SentimentScore::default() }
}

/// A mixed load over four keys, with disorder, a broadcast and control records; complete before the start.
fn load(driver: &TestDriver) {
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for i in 0..400_i64 {
        let key = ["A.X", "B.X", "C.X", "D.X"][random(4) as usize];
        let time_ms = i * 97 - i64::try_from(random(90)).unwrap();
        driver.append(TICKS, key, time_ms, trade(key, i, time_ms, "1.5"));
        if i % 50 == 3 {
            driver.append("market.sentiment.v1", "*", time_ms + 40, score(0.25));
        }
    }
    driver.append("control.v1", "*", 5, ControlCommand::default());
}

fn features(seen: &[Seen]) -> Vec<(String, String, f64)> {
    let values = seen.iter().filter_map(|seen| match &seen.record {
        Record::FeatureValue(value) => Some((seen.key.to_string(), value.name.to_string(), value.value)),
        _ => None,
    });
    values.collect()
}

/// What promise 1 and 2 compare: topic, partition, key, body, identity, in order, per writer.
fn bytes(driver: &TestDriver) -> Vec<String> {
    let mut all = Vec::new();
    for output in &driver.spec().outputs {
        for (partition, stored) in driver.records(&output.topic) {
            let record = stored.record;
            let id = record.header("tw-id").cloned().unwrap();
            let body = record.value.unwrap().slice(5..);
            all.push(format!("{} {partition} {:?} {id:?} {body:?}", output.topic, record.key));
        }
    }
    all.sort();
    all
}

#[test]
fn windows_close_with_the_watermark_and_then_in_silence() {
    let mut driver = TestDriver::new(stage(1, |_| {}));
    assert!(driver.pipe(TICKS, "A.X", 100, trade("A.X", 1, 100, "2")).is_empty());
    assert!(driver.pipe(TICKS, "A.X", 1050, trade("A.X", 2, 1050, "3")).is_empty(), "held back by disorder");
    let seen = driver.pipe(TICKS, "A.X", 1100, trade("A.X", 3, 1100, "4"));
    let sums: Vec<_> = features(&seen).into_iter().filter(|(_, name, _)| name == "sum").collect();
    assert_eq!(sums, [("A.X".to_owned(), "sum".to_owned(), 2.0)]);
    // Nothing comes any more: time goes on by the clock, less idle_after and out_of_orderness.
    assert!(driver.wait_ms(1_999).iter().all(|seen| features(std::slice::from_ref(seen))[0].1 != "sum"));
    let seen = driver.wait_ms(1);
    assert!(features(&seen).contains(&("A.X".to_owned(), "sum".to_owned(), 7.0)), "{seen:#?}");
    let timer = seen.iter().find(|seen| seen.cause.starts_with("timer:short/A.X@2000000")).unwrap();
    assert_eq!(timer.id.as_ref().unwrap().stage, "features");
}

#[test]
fn epochs_of_any_size_give_the_same_bytes() {
    let whole = {
        let mut driver = TestDriver::new(stage(2, |_| {}));
        load(&driver);
        driver.run();
        driver.wait_ms(60_000);
        bytes(&driver)
    };
    assert!(whole.len() > 300, "{}", whole.len());
    for max_records in [1, 2, 3, 17, 100] {
        let mut driver = TestDriver::new(stage(2, |spec| spec.caps.max_records = max_records));
        load(&driver);
        driver.run();
        // Silence in many small steps.
        for _ in 0..600 {
            driver.wait_ms(100);
        }
        let parts = bytes(&driver);
        for (part, whole) in parts.iter().zip(&whole) {
            assert_eq!(part, whole, "epochs of {max_records}");
        }
        assert_eq!(parts.len(), whole.len());
    }
}

#[test]
fn a_crash_at_any_epoch_changes_nothing() {
    let whole = {
        let mut driver = TestDriver::new(stage(2, |_| {}));
        load(&driver);
        driver.run();
        driver.wait_ms(60_000);
        bytes(&driver)
    };
    let mut driver = TestDriver::new(stage(2, |spec| spec.caps.max_records = 5));
    load(&driver);
    let mut crashes = 0;
    // One crash after every few steps, with flushes now and then.
    loop {
        let mut worked = false;
        while driver.worker().unwrap().is_recovering() || driver.worker().unwrap().tasks().count() == 0 {
            driver.step_once().unwrap();
        }
        for _ in 0..7 {
            driver.clock(13);
            worked = driver.step_once().unwrap().worked;
        }
        if !worked {
            break;
        }
        driver.crash();
        crashes += 1;
        assert!(crashes < 1000);
    }
    assert!(crashes > 5, "{crashes}");
    driver.wait_ms(60_000);
    assert_eq!(bytes(&driver), whole);
    let epochs = driver.epochs();
    assert!(epochs.iter().any(|epoch| epoch.flush), "flushes were among them");
    assert!(driver.last_step().halted.is_empty());
}

#[test]
fn what_can_not_be_processed_is_a_dead_letter_and_the_rest_is_as_if_it_had_not_come() {
    let expected = {
        let mut driver = TestDriver::new(stage(1, |_| {}));
        for i in 0..20 {
            driver.append(TICKS, "A.X", i * 300, trade("A.X", i, i * 300, "1"));
        }
        driver.run();
        driver.wait_ms(60_000);
        bytes(&driver)
    };
    let mut driver = TestDriver::new(stage(1, |_| {}));
    for i in 0..20 {
        let time_ms = i * 300;
        match i {
            3 => driver.append_raw(TICKS, "A.X", time_ms, vec![7, 0, 0, 0, 1, 2]),
            4 => driver.append_raw(TICKS, "A.X", time_ms, vec![0, 0]),
            5 => driver.append_raw(TICKS, "A.X", time_ms, vec![0, 0, 0, 99, 99, 1]),
            6 => driver.append(TICKS, "A.X", time_ms, trade("A.X", 666, time_ms, "1")),
            7 => driver.append(TICKS, "A.X", time_ms, trade("A.X", 667, time_ms, "1")),
            8 => driver.append_received(
                TICKS,
                "A.X",
                3_600_000 + time_ms,
                time_ms,
                trade("A.X", 1, 3_600_000, "1"),
            ),
            15 => driver.append(TICKS, "A.X", -86_400_000, trade("A.X", 1, -86_400_000, "1")),
            _ => {}
        }
        driver.append(TICKS, "A.X", time_ms, trade("A.X", i, time_ms, "1"));
    }
    driver.run();
    driver.wait_ms(60_000);
    assert_eq!(bytes(&driver).len(), expected.len());
    let bodies = |all: Vec<String>| -> Vec<String> {
        // Identities count what was written, dead letters included; the bodies must be the same.
        let strip = |line: String| {
            let (head, body) = line.split_once(" b\"features/").unwrap();
            format!("{head} {}", body.split_once('"').unwrap().1)
        };
        let mut all: Vec<_> = all.into_iter().map(strip).collect();
        all.sort();
        all
    };
    assert_eq!(bodies(bytes(&driver)), bodies(expected));
    let letters = driver.dead_letters();
    let reasons: Vec<_> =
        letters.iter().map(|letter| (letter.source_offset, letter.reason.as_str())).collect();
    assert_eq!(reasons.len(), 6, "{letters:#?}");
    for reason in ["panic", "refused", "future-skew"] {
        assert!(reasons.iter().any(|(_, found)| *found == reason), "{reasons:?}");
    }
    assert_eq!(reasons.iter().filter(|(_, reason)| *reason == "undecodable").count(), 3);
    let panic = letters.iter().find(|letter| letter.reason == "panic").unwrap();
    assert!(panic.error.contains("devil") && panic.operator.as_deref() == Some("short"), "{panic:?}");
    let late = driver.late();
    assert_eq!(late.len(), 2, "both windows were missed");
    assert_eq!(late[0].window_end, EventTime::from_ms(-86_399_000));
    // And all of it is recovered as it was.
    driver.crash();
    driver.run();
    assert!(driver.last_step().halted.is_empty(), "{:?}", driver.last_step());
}

/// Ticks and scores, complete before the start, with or without a tick from the future among them.
fn caught_up(from_the_future: bool) -> TestDriver {
    let mut driver = TestDriver::new(stage(1, |_| {}));
    for i in 0..100 {
        let time_ms = i * 100;
        if from_the_future && i == 20 {
            let ahead_ms = time_ms + 3_600_000;
            driver.append_received(TICKS, "A.X", ahead_ms, time_ms, trade("A.X", 5, ahead_ms, "1"));
        }
        driver.append(TICKS, "A.X", time_ms, trade("A.X", i, time_ms, "1"));
        driver.append("market.sentiment.v1", "*", time_ms, score(0.5));
    }
    driver.run();
    driver.wait_ms(60_000);
    driver
}

#[test]
fn a_record_from_the_future_holds_up_nothing_that_lies_behind_it() {
    let driver = caught_up(true);
    assert_eq!(driver.dead_letters().len(), 1);
    assert_eq!(driver.late(), []);
    assert_eq!(
        driver.records("features.values.v1").len(),
        caught_up(false).records("features.values.v1").len()
    );
}

#[test]
fn a_timer_that_fails_is_a_dead_letter() {
    let mut driver = TestDriver::new(stage(1, |spec| {
        spec.nodes.truncate(1);
        spec.outputs.truncate(1);
        spec.outputs[0].from = vec![0];
    }));
    driver.pipe(TICKS, "A.X", 100, trade("A.X", 1, 100, "666"));
    driver.pipe(TICKS, "A.X", 5_000, trade("A.X", 2, 5_000, "1"));
    let letters = driver.dead_letters();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].error.contains("timer:short/A.X@1000000#0"), "{letters:?}");
    driver.crash();
    driver.wait_ms(10_000);
    assert!(driver.last_step().halted.is_empty(), "{:?}", driver.last_step());
    assert_eq!(driver.dead_letters().len(), 1);
}

fn half_done(flush_interval_ms: i64) -> TestDriver {
    let mut driver = TestDriver::new(stage(1, |spec| {
        spec.flush_interval_ms = flush_interval_ms;
        spec.caps.max_records = 10;
    }));
    load(&driver);
    for _ in 0..20 {
        driver.clock(7);
        driver.step_once().unwrap();
    }
    driver
}

fn note(settings: &str) -> toml::Table {
    settings.parse().unwrap()
}

#[test]
fn upgrades_go_on_or_are_refused_with_the_ways_out() {
    // A clean stop, then another build with effect: goes on.
    let mut driver = half_done(1_000_000);
    driver.stop();
    driver.restart_with(WorkerOptions::default(), |spec| {
        spec.build_digest = [1; 16];
        spec.nodes[2].settings = note("scale = 3.0");
    });
    driver.run();
    assert!(driver.last_step().halted.is_empty(), "{:?}", driver.last_step());

    // Killed, and changed without effect on outputs: goes on from a new cut.
    let mut driver = half_done(1_000_000);
    driver.restart_with(WorkerOptions::default(), |spec| {
        spec.build_digest = [1; 16];
        spec.nodes[2].settings = note("note = 'rewritten'");
    });
    driver.run();
    assert!(driver.last_step().halted.is_empty(), "{:?}", driver.last_step());
    let report = driver.last_step().recovered[0].1;
    assert!(report.changed && report.epochs > 5, "{report:?}");
    assert!(driver.epochs().iter().any(|epoch| epoch.kind == tidewire_schemas::EpochKind::Cut));

    // Killed, and changed with effect: refused.
    let mut driver = half_done(1_000_000);
    let change = |spec: &mut tidewire_engine::plan::StageSpec| {
        spec.build_digest = [1; 16];
        spec.nodes[2].settings = note("scale = 3.0");
    };
    driver.restart_with(WorkerOptions::default(), change);
    driver.run();
    let (_, why) = driver.last_step().halted[0].clone();
    assert!(why.contains("--recover-only") && why.contains("--accept-change"), "{why}");

    // First way out: the old build recovers and releases, then the new one starts.
    driver.restart_with(WorkerOptions { recover_only: true, ..WorkerOptions::default() }, |spec| {
        spec.build_digest = [0; 16];
        spec.nodes[2].settings = note("");
    });
    driver.run();
    assert!(driver.last_step().finished || driver.last_step().halted.is_empty());
    driver.restart_with(WorkerOptions::default(), change);
    driver.run();
    assert!(driver.last_step().halted.is_empty(), "{:?}", driver.last_step());

    // Second way out: the change is accepted, and numbering goes on.
    let mut driver = half_done(1_000_000);
    let accept =
        WorkerOptions { recovery: RecoveryOptions { accept_change: true }, ..WorkerOptions::default() };
    driver.restart_with(accept.clone(), change);
    driver.run();
    assert!(driver.last_step().halted.is_empty(), "{:?}", driver.last_step());
    let mut sequences: Vec<u64> = Vec::new();
    for output in &driver.spec().outputs {
        for (_, stored) in driver.records(&output.topic) {
            sequences.push(tidewire_engine::identity::Identity::of(&stored.record).unwrap().sequence);
        }
    }
    sequences.sort_unstable();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "no identity lost or doubled");

    // A stage that makes orders may not be waved through.
    let mut driver = half_done(1_000_000);
    driver.restart_with(accept, |spec| {
        change(spec);
        spec.makes_orders = true;
    });
    driver.run();
    let (_, why) = driver.last_step().halted[0].clone();
    assert!(why.contains("--recover-only") && !why.contains("--accept-change"), "{why}");

    // State of another layout is refused, never misread.
    let mut driver = half_done(1_000_000);
    driver.stop();
    driver.restart_with(WorkerOptions::default(), |spec| {
        spec.nodes[2].operator = common::WINDOWED_SUM_AS_COUNTER
    });
    driver.run();
    let (_, why) = driver.last_step().halted[0].clone();
    assert!(why.contains("another layout"), "{why}");
}

#[test]
fn state_untouched_for_long_is_dropped_and_a_crash_changes_nothing_of_it() {
    let forgetful = || {
        stage(1, |spec| {
            spec.nodes.truncate(1);
            spec.nodes[0].operator = common::FORGETFUL;
            spec.nodes[0].settings = toml::Table::new();
            spec.outputs.truncate(1);
            spec.outputs[0].from = vec![0];
        })
    };
    let counts = |crash: bool| {
        let mut driver = TestDriver::new(forgetful());
        let mut seen = Vec::new();
        for (key, time_ms) in
            [("A.X", 0), ("B.X", 100), ("B.X", 600), ("A.X", 900), ("B.X", 2_500), ("A.X", 2_600)]
        {
            driver.clock(60);
            seen.extend(driver.pipe(TICKS, key, time_ms, trade(key, time_ms, time_ms, "1")));
            if crash {
                driver.crash();
            }
        }
        let view = driver.worker().unwrap().tasks().next().map(tidewire_engine::task::Task::view);
        (features(&seen).into_iter().map(|(key, _, count)| (key, count)).collect::<Vec<_>>(), view, driver)
    };
    let (straight, view, _) = counts(false);
    let expected = [("A.X", 1.0), ("B.X", 1.0), ("B.X", 2.0), ("A.X", 2.0), ("B.X", 3.0), ("A.X", 1.0)]
        .map(|(k, n)| (k.to_owned(), n));
    // One second to live and an eighth: at 2,500 the watermark is 2,400, and A.X, last seen at 900, goes.
    assert_eq!(straight, expected);
    let operator = &view.unwrap().operators[0];
    assert_eq!(operator.size.keys, 2, "two keys are held");
    assert_eq!((operator.work.taken, operator.work.given), (6, 6));
    assert_eq!(counts(true).0, expected);
}
