//! Verification on a log in memory: ranges, the cut that is begun from, what is named as the first difference, stretches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{stage, trade};
use tidewire_engine::driver::TestDriver;
use tidewire_engine::log::{Log as _, TopicPartition};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::verify::{
    Edge, Epochs, Range, RangeError, Sample, Stretches, VerifyError, VerifyReport, cuts, epochs_of,
    rerun_epochs, verify_epochs,
};
use tidewire_schemas::{EpochRecord, EventTime};

const TICKS: &str = "market.ticks.v1";

fn load(driver: &TestDriver, from: i64, to: i64) {
    let mut seed = 7_u64 + from.unsigned_abs();
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for i in from..to {
        let key = ["A.X", "B.X", "C.X", "D.X"][random(4) as usize];
        let time_ms = i * 97 - i64::try_from(random(90)).unwrap();
        driver.append(TICKS, key, time_ms, trade(key, i, time_ms, "1.5"));
    }
}

/// Steps until nothing is left to do; the clock goes on, so that state is flushed every few epochs.
fn run(driver: &mut TestDriver) {
    while driver.step_once().unwrap().worked {
        driver.clock(9);
    }
}

fn ran(change: impl FnOnce(&mut StageSpec)) -> TestDriver {
    let mut driver = TestDriver::new(stage(2, |spec| {
        spec.caps.max_records = 5;
        change(spec);
    }));
    load(&driver, 0, 600);
    run(&mut driver);
    driver
}

fn epochs(driver: &TestDriver, task: i32) -> Vec<EpochRecord> {
    let all: Vec<EpochRecord> = driver.epochs().into_iter().filter(|record| record.task == task).collect();
    assert!(all.len() > 40, "{} epochs", all.len());
    assert!(all.iter().filter(|record| record.flush).count() > 6);
    all
}

fn verify(driver: &TestDriver, from: Option<u64>, to: Option<u64>) -> Result<VerifyReport, VerifyError> {
    verify_with(driver, driver.spec(), from, to)
}

fn verify_with(
    driver: &TestDriver,
    spec: &Arc<StageSpec>,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<VerifyReport, VerifyError> {
    verify_epochs(&**driver.log(), spec, driver.book(), 0, from, to, &mut |_| true)
}

fn find(driver: &TestDriver, from: Option<Edge>, to: Option<Edge>) -> Result<Epochs, RangeError> {
    let range = Range { from, to };
    epochs_of(&**driver.log(), driver.spec(), driver.book(), 0, &range).map(Option::unwrap)
}

fn outputs(records: &[EpochRecord], from: i64, to: i64) -> u64 {
    let within = records.iter().filter(|record| (from..=to).contains(&record.epoch));
    within.map(|record| u64::try_from(record.output_count).unwrap()).sum()
}

fn changed(driver: &TestDriver, change: impl FnOnce(&mut StageSpec)) -> Arc<StageSpec> {
    let mut spec = (**driver.spec()).clone();
    change(&mut spec);
    Arc::new(spec)
}

#[test]
fn a_range_begins_from_the_last_cut_before_it_and_compares_what_lies_in_it() {
    let driver = ran(|_| {});
    let records = epochs(&driver, 0);
    for (from, to) in [(20, 30), (1, 1), (23, 23), (40, i64::try_from(records.len()).unwrap())] {
        let cut = records.iter().rfind(|record| record.flush && record.epoch < from);
        let cut = cut.map_or(0, |record| record.epoch);
        let report = verify(&driver, u64::try_from(from).ok(), u64::try_from(to).ok()).unwrap();
        assert_eq!(report.difference, None);
        assert_eq!(i64::try_from(report.began_after), Ok(cut), "{from}..={to}");
        assert_eq!(i64::try_from(report.not_compared), Ok(from - 1 - cut));
        assert_eq!(i64::try_from(report.epochs), Ok(to - from + 1));
        assert_eq!(report.compared, outputs(&records, from, to));
        assert_eq!(report.last.unwrap().epoch, u64::try_from(to).unwrap());
    }
    let whole = verify(&driver, None, None).unwrap();
    assert_eq!((whole.epochs, whole.began_after), (records.len() as u64, 0));
    assert_eq!(whole.span_ms.unwrap().1, records.last().unwrap().stream_time_ms.unwrap());
}

#[test]
fn a_time_stands_for_the_epochs_whose_stream_time_lies_there() {
    let driver = ran(|_| {});
    let records = epochs(&driver, 0);
    let stream = |place: usize| records[place].stream_time_ms.unwrap();
    // An epoch that moved stream time on, so that its time is its own.
    let place = (20..records.len()).find(|place| stream(*place) > stream(place - 1)).unwrap();
    let at = |ms: i64| Some(Edge::Time(EventTime::from_ms(ms)));
    let number = u64::try_from(records[place].epoch).unwrap();
    assert_eq!(find(&driver, at(stream(place)), None).unwrap().from, Some(number));
    assert_eq!(find(&driver, at(stream(place - 1) + 1), None).unwrap().from, Some(number));
    assert_eq!(find(&driver, None, at(stream(place) - 1)).unwrap().to, number - 1);
    let same = records.iter().rfind(|record| record.stream_time_ms == Some(stream(place))).unwrap().epoch;
    assert_eq!(i64::try_from(find(&driver, None, at(stream(place))).unwrap().to), Ok(same));
    let found = find(&driver, at(-5), at(i64::from(i32::MAX))).unwrap();
    assert_eq!((found.from, found.to), (Some(1), records.len() as u64), "the whole is within");
    let error = find(&driver, at(stream(records.len() - 1) + 1), None).unwrap_err();
    assert!(
        error.to_string().contains("is not there yet: the epoch records in test.epochs-0 end with"),
        "{error}"
    );
    let gap = (21..records.len()).find(|place| stream(*place) > stream(place - 1) + 1).unwrap();
    let error = find(&driver, at(stream(gap - 1) + 1), at(stream(gap) - 1)).unwrap_err();
    assert!(matches!(error, RangeError::Empty { .. }), "{error}");
    assert!(error.to_string().contains(&format!("epoch {}", records[gap].epoch)), "{error}");
}

#[test]
fn ranges_beyond_what_is_kept_are_refused() {
    let driver = ran(|_| {});
    let records = epochs(&driver, 0);
    let last = records.len() as u64;
    assert!(matches!(find(&driver, Some(Edge::Epoch(last + 1)), None), Err(RangeError::AfterLast { .. })));
    assert!(matches!(find(&driver, None, Some(Edge::Epoch(last + 1))), Err(RangeError::AfterLast { .. })));
    let empty = find(&driver, Some(Edge::Epoch(9)), Some(Edge::Epoch(8))).unwrap_err();
    assert!(empty.to_string().contains("no epoch lies from epoch 9 to epoch 8"), "{empty}");
    let at = TopicPartition::new("test.epochs", 0);
    let offset =
        driver.records("test.epochs").iter().filter(|(task, _)| *task == 0).nth(14).unwrap().1.offset;
    driver.log().truncate_before(&at, offset).unwrap();
    let error = find(&driver, Some(Edge::Epoch(14)), None).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("epoch 14 is not kept: the epoch records in test.epochs-0 begin with epoch 15")
    );
    let before = EventTime::from_ms(records[14].stream_time_ms.unwrap() - 1);
    assert!(matches!(find(&driver, Some(Edge::Time(before)), None), Err(RangeError::NotKept { .. })));
    assert_eq!(find(&driver, Some(Edge::Epoch(15)), None).unwrap().from, Some(15));
    // Without a range it begins with the first cut behind what is kept.
    let cut = records.iter().find(|record| record.flush && record.epoch >= 14).unwrap();
    let report = verify(&driver, None, None).unwrap();
    assert_eq!(i64::try_from(report.began_after), Ok(cut.epoch));
    assert_eq!((report.epochs, report.difference), (last - u64::try_from(cut.epoch).unwrap(), None));
}

#[test]
fn a_cut_of_which_compaction_left_only_a_part_is_not_begun_from() {
    let mut driver = TestDriver::new(stage(2, |spec| spec.caps.max_records = 5));
    load(&driver, 0, 300);
    run(&mut driver);
    driver.log().set_now_ms(1_000_000);
    assert!(driver.log().compact("test.features.changelog").unwrap() > 0);
    let half = epochs_so_far(&driver);
    load(&driver, 300, 700);
    run(&mut driver);
    let records = epochs(&driver, 0);
    let last_before = records.iter().rfind(|record| record.flush && record.epoch <= half).unwrap().epoch;
    let all = cuts(&**driver.log(), driver.spec(), driver.book(), 0).unwrap();
    let whole: Vec<i64> = all.iter().filter(|cut| cut.is_whole).map(|cut| cut.marker.epoch).collect();
    assert_eq!(whole[0], last_before, "what was compacted is only there as of its last cut");
    assert!(whole.len() > 3);
    let from = u64::try_from(last_before).unwrap();
    let early = verify(&driver, Some(from), None).unwrap();
    assert_eq!((early.began_after, early.not_compared, early.difference), (0, from - 1, None));
    let late = verify(&driver, Some(from + 1), None).unwrap();
    assert_eq!((late.began_after, late.not_compared, late.difference), (from, 0, None));
    // Nor can it begin before, once the first epochs are gone.
    let at = TopicPartition::new("test.epochs", 0);
    driver.log().truncate_before(&at, 12).unwrap();
    let error = verify(&driver, Some(from), None).unwrap_err();
    assert!(
        error.to_string().contains(&format!("the earliest usable cut is that of epoch {from}")),
        "{error}"
    );
}

fn epochs_so_far(driver: &TestDriver) -> i64 {
    driver.epochs().iter().filter(|record| record.task == 0).map(|record| record.epoch).max().unwrap()
}

#[test]
fn of_what_differs_for_one_cause_the_operator_furthest_up_is_named() {
    // What is further down stands first in the order of outputs.
    let driver = ran(|spec| spec.outputs.reverse());
    assert_eq!(driver.spec().outputs[0].topic, "signals.v1");
    let other = changed(&driver, |spec| spec.nodes[2].settings = "scale = 1.0000001".parse().unwrap());
    let difference = verify_with(&driver, &other, None, None).unwrap().difference.unwrap();
    assert_eq!((difference.what.as_str(), difference.operator.as_deref()), ("value", Some("count")));
    assert_eq!(difference.at.unwrap().topic, "features.values.v1");
    assert!(difference.cause.unwrap().starts_with("timer:"), "what the operator had taken is told");
    assert!(difference.upstream.is_empty(), "what feeds it is on topics, and is as it was");
    assert_ne!(difference.found, difference.rerun);
    // Within a range that begins later, the first one in it is found.
    let from = u64::try_from(difference.epoch).unwrap() + 10;
    let later = verify_with(&driver, &other, Some(from), None).unwrap();
    assert!(later.difference.unwrap().epoch >= i64::try_from(from).unwrap());
    assert!(later.not_compared > 0 || later.began_after + 1 == from);
}

#[test]
fn what_differs_before_the_range_is_not_called_a_difference_within_it() {
    let driver = ran(|spec| {
        spec.outputs.truncate(1);
        spec.outputs[0].from = vec![0, 1];
    });
    let records = epochs(&driver, 0);
    // How many outputs of an epoch came of a timer of an operator.
    let made = |record: &EpochRecord, operator: &str| {
        let last = record.closing_sequence;
        let ids: Vec<String> =
            (last - record.output_count + 1..=last).map(|n| format!("features/0/{n}")).collect();
        let outputs = driver.records("features.values.v1");
        let of = outputs.iter().filter(|(_, stored)| {
            let header = |name| String::from_utf8_lossy(stored.record.header(name).unwrap()).into_owned();
            ids.contains(&header("tw-id")) && header("tw-cause").starts_with(&format!("timer:{operator}/"))
        });
        of.count()
    };
    let place = (10..records.len()).find(|place| {
        let since = records[..*place].iter().rev().take_while(|record| !record.flush);
        let record = &records[*place];
        since.clone().any(|record| made(record, "long") > 0)
            && made(record, "long") == 0
            && made(record, "short") > 0
            && !record.flush
    });
    let from = u64::try_from(records[place.unwrap()].epoch).unwrap();
    let other = changed(&driver, |spec| spec.outputs[0].from = vec![0]);
    let report = verify_with(&driver, &other, Some(from), Some(from)).unwrap();
    assert!(report.not_compared > 0 && report.compared > 0, "{report:?}");
    assert_eq!(report.difference, None);
}

#[test]
fn operators_that_no_topic_shows_are_named_as_where_it_may_have_begun() {
    let driver = ran(|spec| {
        spec.outputs.retain(|output| output.topic == "signals.v1");
    });
    let other = changed(&driver, |spec| spec.nodes[2].settings = "scale = 1.5".parse().unwrap());
    let difference = verify_with(&driver, &other, None, None).unwrap().difference.unwrap();
    assert_eq!(difference.operator.as_deref(), Some("again"));
    assert_eq!(difference.upstream, ["short", "long", "count"]);
}

#[test]
fn state_that_differs_before_any_output_does_is_named_by_its_operator() {
    let driver = ran(|spec| spec.outputs[0].from = vec![0]);
    // Windows of another length: nothing but state shows it until the first one closes.
    let other = changed(&driver, |spec| spec.nodes[1].settings = "width_ms = 50000".parse().unwrap());
    let difference = verify_with(&driver, &other, None, None).unwrap().difference.unwrap();
    assert_eq!(difference.what, "state of another digest");
    assert_eq!(difference.operator.as_deref(), Some("long"));
    assert!(difference.key.unwrap().ends_with(".X"));
}

#[test]
fn an_operator_that_fails_where_it_did_not_is_a_difference() {
    let driver = ran(|_| {});
    // Timers that wait in the cut belong to windows of another length: their operator panics at the first one.
    let other = changed(&driver, |spec| spec.nodes[1].settings = "width_ms = 7000".parse().unwrap());
    let difference = verify_with(&driver, &other, Some(20), None).unwrap().difference.unwrap();
    assert_eq!(difference.operator.as_deref(), Some("long"), "{difference:?}");
    assert!(difference.what.starts_with("fails now: panic"), "{}", difference.what);
    assert!(difference.cause.unwrap().starts_with("timer:long/"));
}

#[test]
fn records_that_nothing_made_and_those_that_are_gone_are_told_apart() {
    let driver = ran(|_| {});
    // A record that claims to be the task's: nothing made it.
    let at = TopicPartition::new("signals.v1", 0);
    let mut forged = driver
        .records("signals.v1")
        .into_iter()
        .find(|(_, stored)| stored.record.header("tw-id").is_some_and(|id| id.starts_with(b"features/0/")));
    let forged = forged.take().unwrap().1.record;
    driver.log().append(&at, vec![forged.clone()]).unwrap();
    let difference = verify(&driver, None, None).unwrap().difference.unwrap();
    assert_eq!(difference.what, "extra");
    assert_eq!(difference.id.as_deref().map(str::as_bytes), forged.header("tw-id").map(|id| &**id));
    // What retention deleted is counted, not called missing.
    let driver = ran(|_| {});
    driver.log().truncate_before(&at, 40).unwrap();
    let report = verify(&driver, None, None).unwrap();
    assert_eq!(report.difference, None);
    assert!(report.deleted > 5 && report.compared > 50, "{report:?}");
}

#[test]
fn a_check_beside_a_running_task_takes_each_stretch_once_as_cuts_appear() {
    let mut driver = TestDriver::new(stage(2, |spec| spec.caps.max_records = 5));
    load(&driver, 0, 200);
    run(&mut driver);
    let log = Arc::clone(driver.log());
    let (spec, book) = (Arc::clone(driver.spec()), Arc::clone(driver.book()));
    let mut stretches = Stretches::new(&*log, &spec, &book, 0, Sample::ALL, 1..=u64::MAX, true).unwrap();
    let mut seen: Vec<(u64, u64)> = Vec::new();
    let mut compared = 0;
    for round in 1..4 {
        while let Some(stretch) = stretches.next(&mut |_| true).unwrap() {
            let report = stretch.report.unwrap();
            assert_eq!(report.difference, None);
            assert_eq!((report.began_after, report.not_compared), (stretch.after, 0));
            assert_eq!(report.last.map(|last| last.epoch), stretch.to);
            compared += report.compared;
            seen.push((stretch.after, stretch.to.unwrap()));
        }
        assert!(stretches.next(&mut |_| true).unwrap().is_none(), "nothing new");
        let last_cut = driver.epochs().into_iter().filter(|record| record.task == 0 && record.flush);
        let last_cut = last_cut.map(|record| record.epoch).max().unwrap();
        assert_eq!(i64::try_from(seen.last().unwrap().1), Ok(last_cut), "round {round}");
        load(&driver, round * 200, round * 200 + 200);
        run(&mut driver);
    }
    assert!(seen.len() > 10, "{seen:?}");
    assert_eq!(seen[0].0, 0);
    assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].0), "without a gap, and none twice: {seen:?}");
    let last = seen.last().unwrap().1;
    assert_eq!(compared, outputs(&epochs(&driver, 0), 0, i64::try_from(last).unwrap()));
}

#[test]
fn a_sample_is_some_of_the_stretches_and_finds_what_differs_in_them() {
    let driver = ran(|_| {});
    let draw = |spec: &Arc<StageSpec>, sample: Sample| {
        let (log, book) = (driver.log(), driver.book());
        let mut stretches = Stretches::new(&**log, spec, book, 0, sample, 1..=u64::MAX, false).unwrap();
        let mut all = Vec::new();
        while let Some(stretch) = stretches.next(&mut |_| true).unwrap() {
            all.push(stretch);
        }
        all
    };
    let sample = Sample { share_ppm: 400_000, seed: 3 };
    let some = draw(driver.spec(), sample);
    assert_eq!(some, draw(driver.spec(), sample));
    let drawn = some.iter().filter(|stretch| stretch.report.is_some()).count();
    assert!(drawn > 0 && drawn < some.len(), "{drawn} of {}", some.len());
    let whole = draw(driver.spec(), Sample::ALL);
    assert_eq!(whole.len(), some.len());
    let epochs: u64 = whole.iter().map(|stretch| stretch.report.as_ref().unwrap().epochs).sum();
    assert_eq!(epochs, verify(&driver, None, None).unwrap().epochs, "all stretches are all epochs");
    // Each stretch begins from what was recorded, so each one shows the change by itself.
    let other = changed(&driver, |spec| spec.nodes[2].settings = "scale = 1.5".parse().unwrap());
    let differing: BTreeSet<u64> = draw(&other, sample)
        .iter()
        .filter(|stretch| stretch.report.as_ref().is_some_and(|report| report.difference.is_some()))
        .map(|stretch| stretch.after)
        .collect();
    assert!(differing.len() > 1, "{differing:?}");
}

#[test]
fn one_who_looks_on_may_stop_it() {
    let driver = ran(|_| {});
    let mut left = 7;
    let report = verify_epochs(&**driver.log(), driver.spec(), driver.book(), 0, None, None, &mut |_| {
        left -= 1;
        left > 0
    });
    let report = report.unwrap();
    assert!(report.stopped && report.epochs == 7 && report.difference.is_none(), "{report:?}");
    let twice =
        [0, 1].map(|_| rerun_epochs(&**driver.log(), driver.spec(), driver.book(), 0, 30, 35).unwrap());
    assert_eq!((twice[0].len(), &twice[0]), (6, &twice[1]));
    assert!(twice[0].iter().all(|rerun| rerun.difference.is_none()));
}
