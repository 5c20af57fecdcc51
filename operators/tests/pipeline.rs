//! The stage of features as a whole, on the production step of a task: what comes out does not depend on how epochs
//! fall, on crashes, on partitions, or on records that come too late.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeMap;

use common::{
    INSTRUMENTS, assert_same, bodies, by_key, bytes, delta, features, level, minute, score, snapshot, trade,
};
use tidewire_engine::driver::TestDriver;
use tidewire_schemas::{Kind, topics};

fn whole() -> (TestDriver, Vec<tidewire_engine::driver::Seen>) {
    let mut driver = TestDriver::new(features(2).build());
    minute(&driver);
    let mut seen = driver.run();
    seen.extend(driver.wait_ms(60_000));
    (driver, seen)
}

#[test]
fn everything_comes_out_of_it() {
    let (driver, seen) = whole();
    assert!(driver.dead_letters().is_empty(), "{:?}", driver.dead_letters());
    assert!(driver.late().is_empty(), "all disorder is within the bound: {:?}", driver.late());
    let mut counts = BTreeMap::<Kind, usize>::new();
    seen.iter().for_each(|seen| *counts.entry(seen.record.kind()).or_default() += 1);
    // Three instruments over 54 seconds with trades.
    assert!((100..=165).contains(&counts[&Kind::Bar]), "{counts:?}");
    assert!(counts[&Kind::FeatureVector] > 60, "{counts:?}");
    assert!(counts[&Kind::MarkPrice] > 500, "{counts:?}");
    assert!(counts[&Kind::Signal] >= 6 && counts[&Kind::OrderIntent] >= 6, "{counts:?}");
    assert!(counts[&Kind::Alert] >= 6, "each feed fell silent, came again, and ended: {counts:?}");
    // Nothing is written into the past.
    for topic in [topics::BARS, topics::FEATURES, topics::SIGNALS] {
        for partition in 0..2 {
            let times: Vec<_> = seen
                .iter()
                .filter(|s| s.topic == topic && s.partition == partition)
                .map(|s| s.time_ms)
                .collect();
            assert!(times.is_sorted(), "{topic}");
        }
    }
}

#[test]
fn epochs_of_any_size_and_crashes_give_the_same_bytes() {
    let (driver, _) = whole();
    let expected = bytes(&driver);
    for max_records in [1, 7, 50] {
        let mut driver =
            TestDriver::new(features(2).with(|spec| spec.caps.max_records = max_records).build());
        minute(&driver);
        driver.run();
        (0..300).for_each(|_| _ = driver.wait_ms(200));
        assert_same(&bytes(&driver), &expected, &format!("epochs of {max_records}"));
    }
    let mut driver = TestDriver::new(features(2).with(|spec| spec.caps.max_records = 40).build());
    minute(&driver);
    let mut crashes = 0;
    loop {
        while driver.worker().unwrap().is_recovering() || driver.worker().unwrap().tasks().count() == 0 {
            driver.step_once().unwrap();
        }
        let mut worked = false;
        for _ in 0..5 {
            driver.clock(1_500);
            worked = driver.step_once().unwrap().worked;
        }
        if !worked {
            break;
        }
        driver.crash();
        crashes += 1;
        assert!(crashes < 500);
    }
    assert!(crashes > 5, "{crashes}");
    driver.wait_ms(60_000);
    assert_same(&bytes(&driver), &expected, &format!("{crashes} crashes"));
}

#[test]
fn partitions_do_not_show_in_what_a_key_gives() {
    let run = |partitions: u32| {
        let mut driver = TestDriver::new(features(partitions).build());
        minute(&driver);
        let mut seen = driver.run();
        seen.extend(driver.wait_ms(60_000));
        by_key(&seen)
    };
    let (one, four) = (run(1), run(4));
    let keys: Vec<_> = one.keys().collect();
    assert_eq!(keys, four.keys().collect::<Vec<_>>());
    for (key, records) in &one {
        if key.0 == topics::INTENTS {
            // Several tasks write the account's partition: compare as a set.
            let sorted = |records: &[String]| {
                let mut sorted = records.to_vec();
                sorted.sort();
                sorted
            };
            assert_same(&sorted(records), &sorted(&four[key]), "intents");
        } else {
            assert_same(records, &four[key], &format!("{key:?}"));
        }
    }
}

#[test]
fn what_comes_a_day_late_changes_nothing_but_the_late_records() {
    let run = |late: bool| {
        let mut driver = TestDriver::new(features(1).build());
        minute(&driver);
        driver.run();
        if late {
            let then = 31_000 - 86_400_000;
            for name in INSTRUMENTS {
                driver.append(topics::TICKS, name, then, trade(name, 999_999, then, "1"));
                driver.append(topics::TICKS, name, then, snapshot(name, then, 1, "1", "2"));
                driver.append(topics::TICKS, name, then, delta(name, then, 1, vec![level("9", "9")], vec![]));
                driver.append(
                    topics::TICKS,
                    name,
                    then,
                    tidewire_schemas::Quote {
                        instrument: name.into(),
                        event_time: common::ms(then),
                        ..Default::default()
                    },
                );
            }
            driver.append(topics::SENTIMENT, "BTC", then, score("*", then, -1.0));
            driver.run();
        }
        // More that depends on all that is held.
        for step in 0..40_i64 {
            let now = 61_200 + step * 100;
            for (place, name) in INSTRUMENTS.iter().enumerate() {
                let id = 10_000 + step * 3 + i64::try_from(place).unwrap();
                driver.append(topics::TICKS, name, now, trade(name, id, now, "1234.5"));
            }
        }
        driver.run();
        driver.wait_ms(60_000);
        driver
    };
    let (without, with) = (run(false), run(true));
    assert_same(&bodies(&with), &bodies(&without), "day late");
    assert!(without.late().is_empty());
    let mut operators: Vec<_> = with.late().into_iter().map(|late| late.operator.to_string()).collect();
    operators.sort();
    // A trade is late for the bars and for the jump; the score for the sentiment.
    assert_eq!(operators, ["bars", "bars", "bars", "jump", "jump", "jump", "mood"]);
    let bar = with.late().into_iter().find(|late| late.operator == "bars").unwrap();
    assert_eq!(bar.window_end.micros_since(bar.window_start), 1_000_000);
    assert_eq!(bar.source_topic, topics::TICKS);
}
