//! Bundles of some keys, and what makes them possible: no result depends on which other keys a task holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use tidewire::files::load_pipeline;
use tidewire_engine::cut::owner_of;
use tidewire_engine::identity::{LEFT_OUT_HEADER, RECEIVED_HEADER, is_left_out};
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_engine::only::{Asked, OnlyKeys, compare, run_again};
use tidewire_engine::partition::partition_of_compound;
use tidewire_engine::plan::StageSpec;
use tidewire_engine::reader::PartitionReader;
use tidewire_runtime::embedded::{EmbeddedOptions, open_any};
use tidewire_runtime::registry::read_book;
use tidewire_schemas::SchemaBook;

use super::*;

/// It shares its partition with another instrument.
const ETH: &str = "ETHUSDT.BINANCE_USDM";

/// The other instruments of the recording.
fn others(all: &BTreeSet<String>, key: &str) -> Vec<String> {
    all.iter().filter(|other| *other != key).cloned().collect()
}

/// The keys of the driving input of a stage.
fn keys_of(log: &dyn Log, spec: &StageSpec) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for task in 0..spec.tasks() {
        let at = TopicPartition::new(spec.driving().unwrap().topic.clone(), task);
        let mut reader = PartitionReader::from_start(log, at).unwrap();
        while let Some(stored) = reader.next_record().unwrap() {
            keys.insert(text(&stored.record.key.unwrap()));
        }
    }
    keys
}

fn check(log: &dyn Log, book: &Arc<SchemaBook>, spec: &Arc<StageSpec>, key: &str, from: u64) -> u64 {
    let task = partition_of_compound(key, spec.tasks());
    let keys = Arc::new(OnlyKeys::new([key]));
    let asked = Asked { keys, from, to: u64::MAX, is_partial: false };
    let (mut noted, mut given) = (0, 0);
    let report =
        compare(log, spec, book, task, &asked, None, |_, sequences| noted += sequences.len() as u64).unwrap();
    assert_eq!(report.difference, None, "{} {key} from epoch {from}", spec.name);
    assert_eq!(report.compared + report.compacted, report.outputs);
    assert_eq!(report.began_after == 0, from == 1, "{} {key}", spec.name);
    let again = run_again(log, spec, book, task, &asked, |_, outputs| given += outputs.len() as u64).unwrap();
    assert_eq!((noted, given, again.epochs), (report.outputs, report.outputs, report.epochs));
    report.outputs
}

#[test]
fn each_key_alone_gives_what_it_gave_among_the_others() {
    let data = demo();
    let _alone = alone();
    let opened = open_any(data, EmbeddedOptions::default()).unwrap();
    let log = opened.log();
    let book = Arc::new(read_book(&*log).unwrap());
    let stages = load_pipeline(Path::new("market-intel")).unwrap().pipeline.stages;
    for (stage, at_least) in [("signals", 4), ("risk", 4), ("venue", 3)] {
        let spec = stages.iter().find(|spec| spec.name == stage).unwrap();
        let keys = keys_of(&*log, spec);
        assert!(keys.len() >= at_least, "{stage}: {keys:?}");
        for key in &keys {
            let all = check(&*log, &book, spec, key, 1);
            let rest = check(&*log, &book, spec, key, 40);
            assert!(all > 0 && rest <= all, "{stage} {key}: {rest} of {all}");
        }
    }
}

#[test]
fn a_key_that_nobody_has_gives_nothing() {
    let data = demo();
    let _alone = alone();
    let opened = open_any(data, EmbeddedOptions::default()).unwrap();
    let log = opened.log();
    let book = Arc::new(read_book(&*log).unwrap());
    let stages = load_pipeline(Path::new("market-intel")).unwrap().pipeline.stages;
    for spec in &stages {
        assert_eq!(check(&*log, &book, spec, "nobody", 1), 0, "{}", spec.name);
    }
}

#[test]
fn what_belongs_to_other_keys_stays_out() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--stage", "signals", "--key", ETH, "--from", FROM, "--to", TO];
    let (path, said) = bundle(&folder, "eth.tidewire", &more);
    assert_eq!(said["keys"], serde_json::json!([ETH]));
    let verified = json(&["verify", "--json"], &path);
    let compared = all_the_same(&verified);
    assert!(compared > 30, "{verified:#}");
    assert_eq!(verified["tasks"][0]["keys"], serde_json::json!([ETH]));
    assert!(ok(&["verify"], &path).contains(&format!("run again with {ETH} alone")));

    let all: BTreeSet<String> = ok(&["tail", "market.ticks.v1", "--json"], demo())
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["key"].as_str().unwrap().to_owned())
        .collect();
    let others = others(&all, ETH);
    assert!(others.len() >= 3);
    let (mut husks, mut kept) = (0, 0);
    for (at, stored) in records(&path) {
        // Read whole by every task, and the file that says what was to be traded.
        if at.topic == "reference.instruments.v1" || at.topic == "_pipelines" {
            continue;
        }
        // What belongs to the task as a whole comes from those.
        let key = stored.record.key.as_deref().unwrap_or_default();
        if at.topic.ends_with(".changelog") && owner_of(key).is_none_or(|owner| owner.is_none()) {
            continue;
        }
        for other in &others {
            assert!(!holds(&stored, other), "{at} offset {}: {other}", stored.offset);
        }
        if at.topic == "market.ticks.v1" {
            match &stored.record.key {
                Some(key) => kept += u64::from(&**key == ETH.as_bytes()),
                None => {
                    husks += 1;
                    assert!(stored.record.value.is_none() && stored.record.timestamp_ms > 0);
                    assert!(is_left_out(&stored.record));
                    let headers = stored.record.headers.iter().map(|(name, _)| name.as_str());
                    assert!(
                        headers.into_iter().all(|name| [RECEIVED_HEADER, LEFT_OUT_HEADER].contains(&name))
                    );
                }
            }
        }
    }
    // Another instrument lies in the same partition, so there was something to take out.
    assert!(kept > 500 && husks > 500, "{kept}, {husks}");

    let error = fails(&["bundle", folder.path().join("x").to_str().unwrap()], &path, 1);
    assert!(error.contains("restricted to some keys"), "{error}");
}

#[test]
fn accounts_and_instruments_are_restricted_together_and_a_change_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--key", BTC, "--key", "paper-main", "--from", FROM, "--to", TO];
    let (path, said) = bundle(&folder, "both.tidewire", &more);
    let stages: BTreeSet<&str> =
        said["tasks"].as_array().unwrap().iter().map(|task| task["stage"].as_str().unwrap()).collect();
    assert_eq!(stages.len(), 3, "{said:#}");
    assert!(all_the_same(&json(&["verify", "--json"], &path)) > 100);

    // The same file with another setting gives something else, and that is found.
    let changed =
        std::fs::read_to_string(tidewire_tests::root().join("pipelines/market-intel.toml")).unwrap();
    let changed = changed.replace("period = 5\n", "period = 4\n");
    let file = folder.path().join("changed.toml");
    std::fs::write(&file, changed).unwrap();
    let output = run(&["verify", file.to_str().unwrap(), "--stage", "signals"], &path);
    assert_eq!(output.status.code(), Some(3), "{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("first difference of signals/"), "{}", text(&output.stdout));
}

#[test]
fn the_way_of_an_order_is_bundled_by_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let orders = ok(&["tail", "orders.v1", "--json"], demo());
    let orders: Vec<Value> = orders.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = &orders.last().unwrap()["value"];
    let id = last["order_id"].as_str().unwrap();
    let (path, said) = bundle(&folder, "order.tidewire", &["--order", id]);
    let keys: BTreeSet<&str> =
        said["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    assert_eq!(
        keys,
        BTreeSet::from([last["account"].as_str().unwrap(), last["instrument"].as_str().unwrap()])
    );
    assert_eq!(said["order"], id);
    assert!(all_the_same(&json(&["verify", "--json"], &path)) > 0);
    let states = |data: &Path| {
        let all = ok(&["tail", "orders.v1", "--json"], data);
        all.lines().filter(|line| line.contains(&format!("\"{id}\""))).count()
    };
    assert_eq!(states(&path), states(demo()), "all of its life");
    assert!(ok(&["tail", "intents.v1", "--json"], &path).contains(last["intent_id"].as_str().unwrap()));

    let error = fails(&["bundle", folder.path().join("x").to_str().unwrap(), "--order", "none"], demo(), 1);
    assert!(error.contains("no order none"), "{error}");
}
