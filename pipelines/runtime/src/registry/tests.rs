//! The log's registry: ids, versions, rules, and what several processes do at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use tidewire_engine::log::{Log, NewRecord, TopicSpec};
use tidewire_engine::memory::MemoryLog;
use tidewire_schemas::{FeatureValue, Kind, Record, Trade};

use super::log::place;
use super::*;

/// A record of the topic as the first builds wrote it.
fn line(id: u32, subject: &str, version: u32, schema: &str) -> NewRecord {
    let value = json!({ "id": id, "subject": subject, "version": version, "schema": schema });
    NewRecord {
        key: Some(Bytes::from(format!("{subject}/{version}"))),
        value: Some(value.to_string().into()),
        ..NewRecord::default()
    }
}

fn log_with(records: Vec<NewRecord>) -> MemoryLog {
    let log = MemoryLog::with_control_records();
    log.create_topic(&TopicSpec::new(SCHEMAS_TOPIC, 1)).unwrap();
    log.append(&place(), records).unwrap();
    log
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

const A: &str = r#"{"name":"a","type":"int"}"#;
const B: &str = r#"{"name":"b","type":"int"}"#;
const B_DEFAULT: &str = r#"{"name":"b","type":"int","default":0}"#;

#[test]
fn every_kind_of_this_build_can_be_written_and_read_back() {
    let log = MemoryLog::with_control_records();
    let book = open_book(&log).unwrap();
    for &kind in Kind::ALL {
        let id = book.id_of(kind).unwrap_or_else(|| panic!("{kind} has no id"));
        assert_eq!(book.json_of(id), Some(kind.schema_json()));
    }
    let record = Record::from(Trade { instrument: "BTCUSDT.BINANCE_USDM".into(), ..Trade::default() });
    let mut bytes = Vec::new();
    book.encode(&record, &mut bytes).unwrap();
    assert_eq!(open_book(&log).unwrap().decode(&bytes), Ok(record.clone()));
    assert_eq!(read_book(&log).unwrap().decode(&bytes), Ok(record));
}

#[test]
fn a_second_opening_registers_nothing_and_gives_the_same_ids() {
    let log = MemoryLog::new();
    let first = open_book(&log).unwrap();
    let end = log.bounds(&place()).unwrap().stable_end;
    let second = open_book(&log).unwrap();
    let third = read_book(&log).unwrap();
    assert_eq!(log.bounds(&place()).unwrap().stable_end, end);
    for &kind in Kind::ALL {
        assert_eq!(first.id_of(kind), second.id_of(kind));
        assert_eq!(first.id_of(kind), third.id_of(kind));
    }
}

#[test]
fn a_schema_on_two_topics_has_one_id_and_two_subjects() {
    let log = MemoryLog::new();
    let more = [Placement::on("my.trades", Kind::Trade), Placement::on("p.epochs", Kind::EpochRecord)];
    open_book_with(&log, &RegistryOptions::default(), &more).unwrap();
    let all = registered(&log).unwrap();
    let subjects: BTreeSet<_> = all.iter().map(|entry| entry.subject.as_str()).collect();
    assert_eq!(subjects.len(), all.len());
    for subject in [
        "market.ticks.v1-tidewire.Trade",
        "my.trades-tidewire.Trade",
        "p.epochs-tidewire.EpochRecord",
        "tidewire.FeatureValue",
    ] {
        assert!(subjects.contains(subject), "{subject}: {subjects:?}");
    }
    let ids: BTreeSet<_> = all.iter().map(|entry| entry.id).collect();
    assert_eq!(ids.len(), Kind::ALL.len());
}

#[test]
fn ids_of_older_builds_are_kept_and_new_ones_go_on_after_them() {
    let mut old: serde_json::Value = serde_json::from_str(Kind::FeatureValue.schema_json()).unwrap();
    old["doc"] = "as it was".into();
    let old = old.to_string();
    let log = log_with(vec![line(7, "tidewire.FeatureValue", 1, &old)]);
    let book = open_book(&log).unwrap();
    assert_eq!(book.json_of(7), Some(old.as_str()));
    let id = book.id_of(Kind::FeatureValue).unwrap();
    assert!(id > 7, "{id}");
    let newer = registered(&log).unwrap().into_iter().find(|entry| entry.id == id).unwrap();
    assert_eq!(newer.version, 2);
    let mut bytes = Vec::new();
    book.encode(&Record::from(FeatureValue::default()), &mut bytes).unwrap();
    assert!(book.decode(&bytes).is_ok());
}

/// Ids of a registry beside the log may be any number of 32 bits.
#[test]
fn large_ids_are_ids() {
    for id in [100_000, i32::MAX.cast_unsigned()] {
        let log = log_with(vec![line(id, "market.ticks.v1-tidewire.Trade", 1, Kind::Trade.schema_json())]);
        let book = read_book(&log).unwrap();
        assert_eq!(book.id_of(Kind::Trade), Some(id));
        let trade = Record::from(Trade::default());
        let mut bytes = Vec::new();
        book.encode(&trade, &mut bytes).unwrap();
        assert_eq!(bytes[1..5], id.to_be_bytes());
        assert_eq!(book.decode(&bytes), Ok(trade));
    }
    // And after the last one there is none.
    let log = log_with(vec![line(i32::MAX.cast_unsigned(), "x-R", 1, &record(A))]);
    assert_eq!(open_book(&log).unwrap_err(), RegistryError::Full);
}

#[test]
fn of_two_that_took_the_same_id_the_first_in_the_log_holds() {
    let (trade, quote) = (Kind::Trade.schema_json(), Kind::Quote.schema_json());
    let log = log_with(vec![
        line(1, "market.ticks.v1-tidewire.Trade", 1, trade),
        line(1, "market.ticks.v1-tidewire.Quote", 1, quote),
    ]);
    let book = open_book(&log).unwrap();
    assert_eq!(book.id_of(Kind::Trade), Some(1));
    assert_ne!(book.id_of(Kind::Quote), Some(1));
    assert_eq!(book.json_of(1), Some(trade));
}

/// The second of two that took the same version was compared without knowing the first.
#[test]
fn of_two_that_took_the_same_version_the_first_in_the_log_holds() {
    let log = log_with(vec![
        line(1, "s", 1, &record(A)),
        line(2, "s", 2, &record(&[A, B_DEFAULT].join(","))),
        line(3, "s", 2, &record("")),
    ]);
    let registry = LogRegistry::new(&log as &dyn Log);
    let versions = registry.versions("s").unwrap();
    assert_eq!(versions.iter().map(|entry| (entry.version, entry.id)).collect::<Vec<_>>(), [(1, 1), (2, 2)]);
    assert_eq!(registry.lookup("s", &record("")).unwrap(), None);
    // Its id keeps its meaning all the same, and is taken when it is registered again.
    assert_eq!(registry.schema(3).unwrap().as_deref(), Some(record("").as_str()));
    assert_eq!(registry.register("s", &record("")).unwrap(), 3);
    assert_eq!(registry.versions("s").unwrap().last().unwrap().version, 3);
}

#[test]
fn many_that_register_at_once_agree() {
    let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
    let schema = |n: usize| record(&format!(r#"{{"name":"f{n}","type":"int","default":0}}"#));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (log, schema) = (&log, &schema);
            scope.spawn(move || {
                // Each has a registry of its own, as a process has.
                let registry = LogRegistry::new(Arc::clone(log));
                for n in 0..10 {
                    let n = (n + worker * 3) % 10;
                    registry.register(&format!("s{}", n % 3), &schema(n)).unwrap();
                }
            });
        }
    });
    let registry = LogRegistry::new(log);
    let mut ids = BTreeSet::new();
    for n in 0..10 {
        ids.insert(registry.lookup(&format!("s{}", n % 3), &schema(n)).unwrap().unwrap());
    }
    assert_eq!(ids.len(), 10);
    for subject in ["s0", "s1", "s2"] {
        let versions: Vec<u32> =
            registry.versions(subject).unwrap().iter().map(|entry| entry.version).collect();
        assert_eq!(versions, (1..=u32::try_from(versions.len()).unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn the_same_schema_written_otherwise_is_the_same() {
    let log = MemoryLog::new();
    let registry = LogRegistry::new(&log as &dyn Log);
    let id = registry.register("s", &record(A)).unwrap();
    let other = r#"{ "name": "R", "fields": [ {"type": "int", "name": "a"} ], "type": "record" }"#;
    assert_eq!(registry.register("s", other).unwrap(), id);
    assert_eq!(registry.register("t", other).unwrap(), id);
    assert_eq!(registry.versions("s").unwrap().len(), 1);
}

#[test]
fn an_incompatible_schema_is_refused_with_version_and_reason() {
    let log = MemoryLog::new();
    let registry = LogRegistry::new(&log as &dyn Log);
    registry.register("s", &record(A)).unwrap();
    let error = registry.register("s", &record(&[A, B].join(","))).unwrap_err().to_string();
    for part in ["subject s", "version 1 (BACKWARD_TRANSITIVE)", "R.b: the writer has no such field"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(registry.versions("s").unwrap().len(), 1);
    registry.register("s", &record(&[A, B_DEFAULT].join(","))).unwrap();
    // Version 2 could be read, version 1 could not.
    let third = record(&[A, B].join(","));
    assert!(registry.register("s", &third).is_err());
    registry.set_level(Some("s"), Some(Level::Backward)).unwrap();
    registry.register("s", &third).unwrap();
    // Each rule on its own.
    registry.set_level(Some("s"), Some(Level::Forward)).unwrap();
    let error = registry.register("s", &record("")).unwrap_err().to_string();
    assert!(error.contains("reading the new with the old: R.b"), "{error}");
    registry.set_level(Some("s"), None).unwrap();
    registry.set_level(None, Some(Level::None)).unwrap();
    registry.register("s", r#""string""#).unwrap();
}

#[test]
fn what_is_no_schema_is_refused() {
    let log = MemoryLog::new();
    let registry = LogRegistry::new(&log as &dyn Log);
    let error = registry.register("s", "{").unwrap_err().to_string();
    assert!(error.contains("subject s") && error.contains("not a valid Avro schema"), "{error}");
    for subject in ["", "a\nb", &"x".repeat(600)] {
        assert!(matches!(registry.register(subject, r#""int""#), Err(RegistryError::Invalid { .. })));
    }
    assert_eq!(log.topics().unwrap(), Vec::new());
}

#[test]
fn a_deleted_version_is_listed_no_more_and_its_id_stays() {
    let log = MemoryLog::new();
    let registry = LogRegistry::new(&log as &dyn Log);
    let id = registry.register("s", &record(A)).unwrap();
    registry.delete("s", &[1]).unwrap();
    assert_eq!(registry.versions("s").unwrap(), Vec::new());
    assert_eq!(registry.subjects().unwrap(), Vec::<String>::new());
    assert_eq!(registry.lookup("s", &record(A)).unwrap(), None);
    assert_eq!(registry.schema(id).unwrap().as_deref(), Some(record(A).as_str()));
    // Nor is anything compared with it. A version is never given twice.
    registry.register("s", &record(B)).unwrap();
    assert_eq!(registry.versions("s").unwrap().last().unwrap().version, 2);
    let again = LogRegistry::new(&log as &dyn Log);
    assert_eq!(again.versions("s").unwrap(), registry.versions("s").unwrap());
}

#[test]
fn without_auto_register_what_is_missing_is_named() {
    let log = MemoryLog::new();
    let options = RegistryOptions { auto_register: false, ..RegistryOptions::default() };
    let error = open_book_with(&log, &options, &[]).unwrap_err();
    let RegistryError::Missing { subjects, .. } = &error else { panic!("{error}") };
    assert_eq!(subjects.len(), standard_placements().len());
    assert!(error.to_string().contains("tidewire schemas register"), "{error}");
    assert_eq!(log.topics().unwrap(), Vec::new());
    open_book(&log).unwrap();
    open_book_with(&log, &options, &[]).unwrap();
}

#[test]
fn reading_alone_writes_nothing() {
    let log = MemoryLog::new();
    assert!(!read_book(&log).unwrap().knows(1));
    assert_eq!(log.topics().unwrap(), Vec::new());
}

#[test]
fn a_foreign_record_is_named_by_its_offset() {
    let record = NewRecord { value: Some(Bytes::from_static(b"no json")), ..NewRecord::default() };
    let log = log_with(vec![record]);
    let error = open_book(&log).unwrap_err().to_string();
    assert!(error.starts_with("_schemas-0, offset 0: "), "{error}");
}

/// Keys as Confluent's registry writes them.
#[test]
fn the_topic_of_another_registry_is_left_alone() {
    for key in [
        r#"{"keytype":"NOOP","magic":0}"#,
        r#"{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}"#,
        r#"{"subject":"s","magic":0,"keytype":"CONFIG"}"#,
    ] {
        let record = NewRecord { key: Some(key.into()), value: None, ..NewRecord::default() };
        let log = log_with(vec![record]);
        let end = log.bounds(&place()).unwrap().stable_end;
        let error = open_book(&log).unwrap_err().to_string();
        assert!(error.contains("`url` in `[schema_registry]`") && error.contains("keytype"), "{error}");
        assert_eq!(log.bounds(&place()).unwrap().stable_end, end);
    }
    let log = MemoryLog::new();
    log.create_topic(&TopicSpec::new(SCHEMAS_TOPIC, 3)).unwrap();
    assert!(matches!(open_book(&log), Err(RegistryError::Foreign { .. })));
}
