//! Nothing is known before it could be: what is made up to a time does not depend on what became available later.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire::backtest::tally::is_output;
use tidewire::files::{Loaded, load_pipeline};
use tidewire::reprocess::{Job, Limits, in_memory};
use tidewire_engine::identity::RECEIVED_HEADER;
use tidewire_engine::intake::available_ms;
use tidewire_engine::log::{Log, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::memory::MemoryLog;
use tidewire_ingest::ImportOptions;
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::open_book;
use tidewire_runtime::reprocess::{InputOrder, ReprocessOptions};
use tidewire_schemas::SchemaBook;

const INPUTS: [&str; 3] = ["market.ticks.v1", "market.sentiment.v1", "reference.instruments.v1"];
const SIGNALS: &str = "signals.v1";

type Records = BTreeMap<TopicPartition, Vec<NewRecord>>;

/// The recorded sample, and how it is run.
struct Bed {
    inputs: Records,
    book: Arc<SchemaBook>,
    loaded: Loaded,
}

impl Bed {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        let mut demo = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        demo.args(["demo", "--json", "--data"]).arg(&data).stdout(Stdio::null());
        assert!(demo.status().unwrap().success());
        let log = EmbeddedLog::open(&data, EmbeddedOptions::default()).unwrap();
        let book = Arc::new(open_book(&*log).unwrap());
        let inputs = all(&*log, |topic| INPUTS.contains(&topic));
        Self { inputs, book, loaded: load_pipeline(Path::new("market-intel")).unwrap() }
    }

    /// All outputs over these inputs.
    fn run(&self, inputs: &Records, order: InputOrder) -> Records {
        let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
        for topic in INPUTS {
            let partitions = inputs.keys().filter(|at| at.topic == topic).count();
            log.create_topic(&TopicSpec::new(topic, u32::try_from(partitions).unwrap())).unwrap();
        }
        for (at, records) in inputs {
            log.append(at, records.clone()).unwrap();
        }
        let job = Job {
            log: &log,
            book: &self.book,
            loaded: &self.loaded,
            options: ReprocessOptions { order, ..ReprocessOptions::default() },
            limits: Limits::File,
            files: Vec::new(),
            inputs: None,
            reading: ImportOptions::default(),
        };
        let (outputs, _) = in_memory(&job, &AtomicBool::new(false), |_| {}).unwrap();
        all(&*outputs, |topic| is_output(topic) && topic != "risk.limits.v1" && !INPUTS.contains(&topic))
    }

    /// What is made before `until_ms`, and is not the same to the byte when inputs that were available only then or later are
    /// left out, or are others. `None`: nothing.
    fn seen_too_early(
        &self,
        inputs: &Records,
        order: InputOrder,
        full: &Records,
        until_ms: i64,
    ) -> Option<String> {
        let wanted = made_before(full, until_ms);
        let dropped = changed_from(inputs, until_ms, |_, _| None);
        let thinned = changed_from(inputs, until_ms, |place, record| {
            (!place.is_multiple_of(3)).then(|| record.clone())
        });
        let runs = [("dropped", dropped), ("thinned", thinned)];
        runs.iter().find_map(|(name, inputs)| {
            let found = made_before(&self.run(inputs, order), until_ms);
            let all: BTreeSet<&TopicPartition> = wanted.keys().chain(found.keys()).collect();
            all.into_iter().find_map(|at| {
                let of = |records: &Records| records.get(at).cloned().unwrap_or_default();
                let (wanted, found) = (of(&wanted), of(&found));
                // Where the inputs end, time goes on without them and windows close: more may come, but behind what was.
                let most = if *name == "dropped" { wanted.len() } else { wanted.len().max(found.len()) };
                let place = (0..most).find(|place| wanted.get(*place) != found.get(*place))?;
                let counts = (wanted.len(), found.len());
                Some(format!("{name}: {at}, {counts:?}, {:?} {:?}", wanted.get(place), found.get(place)))
            })
        })
    }

    /// A signal in the midst of the run: when it was made, and its partition's number.
    fn signal(&self, full: &Records) -> (i64, u32, NewRecord) {
        let signals = full.iter().filter(|(at, _)| at.topic == SIGNALS);
        let mut all: Vec<(i64, u32, NewRecord)> = signals
            .flat_map(|(at, records)| {
                records.iter().map(|record| (available_ms(record), at.partition, record.clone()))
            })
            .collect();
        all.sort_by_key(|(made_ms, partition, _)| (*made_ms, *partition));
        assert!(all.len() > 10);
        all[all.len() / 2].clone()
    }
}

fn all(log: &dyn Log, wanted: impl Fn(&str) -> bool) -> Records {
    let mut all = Records::new();
    for topic in log.topics().unwrap().into_iter().filter(|topic| wanted(&topic.name)) {
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(topic.name.clone(), partition);
            let (mut from, mut records) = (0, Vec::new());
            loop {
                let fetched = log.read(&at, from, 1 << 20).unwrap();
                records.extend(fetched.records.into_iter().map(|stored| stored.record));
                if fetched.at_end {
                    break;
                }
                from = fetched.next_offset;
            }
            all.insert(at, records);
        }
    }
    all
}

/// What was made before a time, by what each record says of it.
fn made_before(outputs: &Records, until_ms: i64) -> Records {
    let early = |records: &Vec<NewRecord>| -> Vec<NewRecord> {
        records.iter().filter(|record| available_ms(record) < until_ms).cloned().collect()
    };
    outputs
        .iter()
        .map(|(at, records)| (at.clone(), early(records)))
        .filter(|(_, early)| !early.is_empty())
        .collect()
}

/// When each record of a partition can be had: not before those ahead of it.
fn available(records: &[NewRecord]) -> impl Iterator<Item = i64> {
    records.iter().scan(i64::MIN, |latest, record| {
        *latest = available_ms(record).max(*latest);
        Some(*latest)
    })
}

/// The same inputs up to a time, and from there on what `change` makes of them.
fn changed_from(
    inputs: &Records,
    from_ms: i64,
    change: impl Fn(usize, &NewRecord) -> Option<NewRecord>,
) -> Records {
    let of_partition = |records: &Vec<NewRecord>| -> Vec<NewRecord> {
        let placed = records.iter().zip(available(records)).enumerate();
        placed
            .filter_map(
                |(place, (record, at_ms))| {
                    if at_ms < from_ms { Some(record.clone()) } else { change(place, record) }
                },
            )
            .collect()
    };
    inputs.iter().map(|(at, records)| (at.clone(), of_partition(records))).collect()
}

fn received_at(record: &NewRecord, received_ms: i64) -> NewRecord {
    let mut record = record.clone();
    record.headers.retain(|(name, _)| name != RECEIVED_HEADER);
    let nanos = (received_ms * 1_000_000).to_string();
    record.headers.push((SmolStr::new_static(RECEIVED_HEADER), Bytes::from(nanos)));
    record
}

#[test]
fn what_is_made_up_to_a_time_does_not_depend_on_what_became_available_later() {
    let bed = Bed::new();
    let full = bed.run(&bed.inputs, InputOrder::Availability);
    let (made_ms, _, _) = bed.signal(&full);
    for until_ms in [made_ms - 15_000, made_ms - 1, made_ms, made_ms + 1, made_ms + 2, made_ms + 1_000] {
        let records: usize = made_before(&full, until_ms).values().map(Vec::len).sum();
        assert!(records > 200, "{records} at {until_ms}");
        let seen = bed.seen_too_early(&bed.inputs, InputOrder::Availability, &full, until_ms);
        assert_eq!(seen, None, "at {until_ms}, a signal at {made_ms}");
    }
}

#[test]
fn a_decisive_tick_that_comes_one_millisecond_later_moves_its_signal_and_nothing_before() {
    let bed = Bed::new();
    let full = bed.run(&bed.inputs, InputOrder::Availability);
    let (made_ms, partition, signal) = bed.signal(&full);
    let ticks = TopicPartition::new("market.ticks.v1", partition);
    let mut inputs = bed.inputs.clone();
    let records = inputs.get_mut(&ticks).unwrap();
    let decisive = available(records).position(|at_ms| at_ms >= made_ms).unwrap();
    assert_eq!(available_ms(&records[decisive]), made_ms, "the signal was made when a tick came");
    records[decisive] = received_at(&records[decisive], made_ms + 1);
    let later = bed.run(&inputs, InputOrder::Availability);
    assert_eq!(made_before(&full, made_ms), made_before(&later, made_ms));
    let at = TopicPartition::new(SIGNALS, partition);
    assert!(made_before(&full, made_ms + 1)[&at].contains(&signal));
    let early = made_before(&later, made_ms + 1);
    let same = |other: &NewRecord| other.key == signal.key && other.value == signal.value;
    assert!(!early.get(&at).is_some_and(|signals| signals.iter().any(same)), "it was made too early");
    assert_ne!(full[&at], later[&at]);
}

#[test]
fn the_test_sees_a_run_that_looks_ahead() {
    let bed = Bed::new();
    let full = bed.run(&bed.inputs, InputOrder::Availability);
    let (made_ms, partition, _) = bed.signal(&full);
    // From two seconds before the signal on, ticks of its partition come twenty seconds late.
    let mut inputs = bed.inputs.clone();
    let records = inputs.get_mut(&TopicPartition::new("market.ticks.v1", partition)).unwrap();
    for record in records.iter_mut() {
        let received_ms = available_ms(record);
        if received_ms >= made_ms - 2_000 {
            *record = received_at(record, received_ms + 20_000);
        }
    }
    let seen = |order| {
        let full = bed.run(&inputs, order);
        bed.seen_too_early(&inputs, order, &full, made_ms + 3_000)
    };
    assert_eq!(seen(InputOrder::Availability), None);
    assert!(seen(InputOrder::Recorded).is_some(), "by timestamp they are used before they could be had");
    assert!(seen(InputOrder::Event).is_some(), "by event time they are used before they could be had");
}
