//! Each order of a run, made again from the records of its account and its instrument alone, from the nearest cut on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tidewire::files::load_pipeline;
use tidewire_engine::identity::{CAUSE_HEADER, Identity};
use tidewire_engine::log::{Log, NewRecord, TopicPartition};
use tidewire_engine::only::{Asked, OnlyKeys, compare};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::reader::PartitionReader;
use tidewire_engine::verify::Journal;
use tidewire_runtime::embedded::{EmbeddedOptions, open_any};
use tidewire_runtime::registry::read_book;
use tidewire_schemas::{Record, SchemaBook};

use super::*;

struct Run {
    log: Arc<dyn Log>,
    book: Arc<SchemaBook>,
    stages: Vec<Arc<StageSpec>>,
    /// By stage and task, the last sequence number of each epoch.
    closing: BTreeMap<(String, u32), Vec<(u64, u64)>>,
}

impl Run {
    fn of(data: &Path) -> Self {
        let log = open_any(data, EmbeddedOptions::default()).unwrap().log();
        let book = Arc::new(read_book(&*log).unwrap());
        let stages = load_pipeline(Path::new("market-intel")).unwrap().pipeline.stages;
        let mut closing: BTreeMap<(String, u32), Vec<(u64, u64)>> = BTreeMap::new();
        for spec in &stages {
            for task in 0..spec.tasks() {
                let mut journal = Journal::new(&*log, spec, &book, task).unwrap();
                while let Some(record) = journal.next_record().unwrap() {
                    let numbers = [record.epoch, record.closing_sequence].map(|n| u64::try_from(n).unwrap());
                    closing.entry((spec.name.to_string(), task)).or_default().push(numbers.into());
                }
            }
        }
        Self { log, book, stages, closing }
    }

    /// Makes a record again from the records of `key` alone; returns how many epochs that took.
    fn make_again(&self, id: &Identity, key: &str) -> u64 {
        let spec = self.stages.iter().find(|spec| spec.name == id.stage).unwrap();
        let epochs = &self.closing[&(id.stage.to_string(), id.task)];
        let epoch = epochs[epochs.partition_point(|(_, last)| *last < id.sequence)].0;
        let keys = Arc::new(OnlyKeys::new([key]));
        let asked = Asked { keys, from: epoch, to: epoch, is_partial: false };
        let mut is_there = false;
        let report = compare(&*self.log, spec, &self.book, id.task, &asked, None, |_, sequences| {
            is_there |= sequences.contains(&id.sequence);
        });
        let report = report.unwrap();
        assert_eq!(report.difference, None, "{id} from {key} alone");
        assert!(is_there, "{id} does not come of {key} alone");
        assert_eq!(report.compared, report.outputs, "{id}");
        report.epochs
    }

    fn all(&self, topic: &str) -> Vec<NewRecord> {
        let partitions = self.log.topic(topic).unwrap().unwrap().partitions;
        let mut records = Vec::new();
        for partition in 0..partitions {
            let at = TopicPartition::new(topic, partition);
            let mut reader = PartitionReader::from_start(&*self.log, at).unwrap();
            while let Some(stored) = reader.next_record().unwrap() {
                records.push(stored.record);
            }
        }
        records
    }
}

#[test]
fn each_order_is_made_again_from_the_records_of_its_keys_alone() {
    let data = demo();
    let _alone = alone();
    let run = Run::of(data);
    let intents: BTreeMap<Identity, Record> = run
        .all("intents.v1")
        .iter()
        .map(|record| {
            (Identity::of(record).unwrap(), run.book.decode(record.value.as_deref().unwrap()).unwrap())
        })
        .collect();
    let (mut orders, mut epochs, mut times_us) = (0, 0, Vec::new());
    for record in run.all("orders.v1") {
        let Ok(Record::Order(order)) = run.book.decode(record.value.as_deref().unwrap()) else {
            panic!("no order");
        };
        let cause = text(record.header(CAUSE_HEADER).unwrap());
        // Later states of an order follow from the venue's reports.
        let Some(cause) = cause.parse().ok().filter(|cause| intents.contains_key(cause)) else { continue };
        let begun = Instant::now();
        epochs += run.make_again(&Identity::of(&record).unwrap(), &order.account);
        epochs += run.make_again(&cause, &order.instrument);
        times_us.push(begun.elapsed().as_micros());
        orders += 1;
    }
    times_us.sort_unstable();
    println!("{orders} orders, {epochs} epochs; {times_us:?} us");
    assert!(orders >= 90, "{orders}");
    // From a cut nearby, not from the beginning: a flush is due every ten seconds.
    assert!(epochs < orders * 40, "{epochs} epochs for {orders} orders");
}

#[test]
fn an_order_is_explained_from_its_own_bundle_as_from_the_whole_log() {
    let data = demo();
    let folder = tempfile::tempdir().unwrap();
    let mut ids: Vec<String> = Vec::new();
    {
        let _alone = alone();
        let run = Run::of(data);
        for record in run.all("orders.v1") {
            let Ok(Record::Order(order)) = run.book.decode(record.value.as_deref().unwrap()) else {
                panic!("no order");
            };
            if !ids.contains(&order.order_id.to_string()) {
                ids.push(order.order_id.to_string());
            }
        }
    }
    let path = folder.path().join("order.tidewire");
    let mut from_outside = [0, 0];
    for id in ids.iter().step_by(9) {
        ok(&["bundle", path.to_str().unwrap(), "--order", id, "--force"], data);
        let explain = |data: &Path| json(&["explain", id, "--prove", "--json"], data);
        let (whole, own) = (explain(data), explain(&path));
        assert_eq!(own["proof"]["verdict"], "same", "{id}: {:#}", own["proof"]);
        assert_eq!(own["why"], whole["why"], "{id}");
        assert_eq!(own["root"]["value"], whole["root"]["value"], "{id}");
        assert_eq!(own["root"]["made"]["state_before"], whole["root"]["made"]["state_before"], "{id}");
        assert_eq!(own["root"]["made"]["epoch"], whole["root"]["made"]["epoch"], "{id}");
        for (sum, explanation) in from_outside.iter_mut().zip([&whole, &own]) {
            *sum += explanation["size"]["external"].as_u64().unwrap();
        }
        // What came of it is numbered as it lies in the log.
        assert_eq!(own["root"]["identity"], whole["root"]["identity"], "{id}");
    }
    println!("{from_outside:?} records from outside");
    // A bundle lacks what lies before its stretch, and little else.
    assert!(from_outside[1] * 10 > from_outside[0] * 8, "{from_outside:?}");

    let step = ["step", "--stage", "risk", "--operator", "orders", "--json", "--max", "5", "--task"];
    let mut stops = 0;
    for task in ["0", "1", "2", "3"] {
        let output = super::run(&[&step[..], &[task]].concat(), &path);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{err}");
        assert!(!err.contains("gives something else"), "{err}");
        stops += out.lines().count();
    }
    assert!(stops > 0);
}
