#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use bytes::Bytes;
use tempfile::TempDir;
use tidewire_engine::log::{Bounds, Log as _, LogError, NewRecord, StoredRecord, TopicPartition, TopicSpec};

use super::*;

fn record(offset: u64) -> StoredRecord {
    let record = NewRecord {
        timestamp_ms: 1_000 + offset.cast_signed() * 3,
        key: (!offset.is_multiple_of(4)).then(|| Bytes::from(format!("key {}", offset % 7))),
        value: (!offset.is_multiple_of(5))
            .then(|| Bytes::from(format!("value of record {offset}").repeat(20))),
        headers: vec![("tw-id".into(), Bytes::from(format!("s/0/{offset}")))],
    };
    StoredRecord { offset, record }
}

/// Two partitions of 2000 and 3 records at every third offset from 50 on, one without a record, one never begun.
fn write(path: &std::path::Path, force: bool) -> Result<Finished, BundleError> {
    let mut writer = BundleWriter::create(path, force)?;
    writer.topic(&TopicSpec::new("b", 2));
    writer.topic(&TopicSpec::new("a", 2).compacted(5));
    for (topic, partition, count) in [("b", 1, 2_000), ("a", 0, 3), ("a", 1, 0)] {
        writer.begin(&TopicPartition::new(topic, partition), 50)?;
        for n in 0..count {
            writer.push(&record(51 + n * 3))?;
        }
        writer.end(if count == 0 { 50 } else { 52 + count * 3 });
    }
    writer.finish(&About { from: Some("x".into()), ..About::default() })
}

fn bundle() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.tidewire");
    write(&path, false).unwrap();
    (folder, path)
}

#[test]
fn what_was_written_is_read_from_any_offset() {
    let (_folder, path) = bundle();
    let log = BundleLog::open(&path).unwrap();
    log.check(|_| {}).unwrap();
    assert_eq!(log.about().from.as_deref(), Some("x"));
    assert_eq!(log.topics().unwrap().len(), 2);
    assert!(log.topic("a").unwrap().unwrap().compacted);
    let at = TopicPartition::new("b", 1);
    assert_eq!(log.bounds(&at).unwrap(), Bounds { start: 50, stable_end: 6_052, high_watermark: 6_052 });
    for max_bytes in [1, 10_000, 1 << 30] {
        for begin in [50, 51, 52, 53, 3_000, 6_048, 6_049, 6_052] {
            let (mut from, mut found) = (begin, Vec::new());
            loop {
                let fetched = log.read(&at, from, max_bytes).unwrap();
                assert!(max_bytes > 1 || fetched.records.len() <= 1);
                found.extend(fetched.records);
                if fetched.at_end {
                    assert_eq!(fetched.next_offset, 6_052);
                    break;
                }
                assert!(fetched.next_offset > from);
                from = fetched.next_offset;
            }
            let wanted: Vec<_> =
                (0..2_000).map(|n| 51 + n * 3).filter(|offset| *offset >= begin).map(record).collect();
            assert_eq!(found, wanted, "from {begin}, {max_bytes} bytes");
        }
    }
    assert!(matches!(log.fetch(&at, 49, 1), Err(LogError::Truncated { start: 50, .. })));
    assert!(matches!(log.fetch(&at, 6_053, 1), Err(LogError::BeyondEnd { end: 6_052, .. })));
    let empty = log.fetch(&TopicPartition::new("a", 1), 50, 1).unwrap();
    assert!(empty.records.is_empty() && empty.at_end);
    assert!(log.fetch(&TopicPartition::new("b", 0), 0, 1).unwrap().at_end);
    assert!(matches!(log.fetch(&TopicPartition::new("c", 0), 0, 1), Err(LogError::UnknownTopic(_))));
    assert!(matches!(log.bounds(&TopicPartition::new("b", 2)), Err(LogError::UnknownPartition { .. })));
}

#[test]
fn nothing_can_be_written_to_it() {
    let (_folder, path) = bundle();
    let log = BundleLog::open(&path).unwrap();
    let at = TopicPartition::new("a", 0);
    let told = [
        log.append(&at, vec![NewRecord::default()]).unwrap_err(),
        log.create_topic(&TopicSpec::new("c", 1)).unwrap_err(),
        log.join("g", "m", "a").err().unwrap(),
    ];
    for error in told {
        assert!(error.to_string().contains("can only be read"), "{error}");
    }
    assert_eq!(log.committed("g", &at).unwrap(), None);
}

#[test]
fn the_same_records_give_the_same_bytes_and_no_file_is_written_over() {
    let (folder, path) = bundle();
    let error = write(&path, false).unwrap_err().to_string();
    assert!(error.contains("--force"), "{error}");
    let first = std::fs::read(&path).unwrap();
    write(&path, true).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    let mut broken = BundleWriter::create(&folder.path().join("c.tidewire"), false).unwrap();
    broken.begin(&TopicPartition::new("a", 0), 5).unwrap();
    broken.push(&record(7)).unwrap();
    assert!(matches!(broken.push(&record(7)), Err(BundleError::Order { offset: 7, .. })));
    drop(broken);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn every_changed_byte_and_every_cut_is_found() {
    let (folder, path) = bundle();
    let bytes = std::fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.tidewire");
    let found = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        BundleLog::open(&damaged).and_then(|log| log.check(|_| {}))
    };
    found(&bytes).unwrap();
    // A walk over the file in steps that reach every part of it, each time with another bit.
    let mut at = 0;
    while at < bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let error = found(&changed).expect_err(&format!("byte {at}")).to_string();
        assert!(error.contains("damaged") || at < 12, "byte {at}: {error}");
        found(&bytes[..at]).expect_err("cut off");
        at += if at < 64 || at + 150 > bytes.len() { 1 } else { 397 };
    }
    found(&[&bytes[..], b"more"].concat()).unwrap_err();
}

#[test]
fn a_damaged_block_is_named_and_the_others_are_read() {
    let (_folder, path) = bundle();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let log = BundleLog::open(&path).unwrap();
    let error = log.fetch(&TopicPartition::new("b", 1), 50, 1).unwrap_err().to_string();
    assert!(error.contains("block 0 of b-1 (offsets 51.."), "{error}");
    assert_eq!(log.fetch(&TopicPartition::new("a", 0), 50, 1 << 20).unwrap().records.len(), 3);
}

#[test]
fn notes_are_given_by_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.tidewire");
    let mut writer = BundleWriter::create(&path, false).unwrap();
    writer.topic(&TopicSpec::new(NOTES_TOPIC, 1));
    writer.begin(&TopicPartition::new(NOTES_TOPIC, 0), 0).unwrap();
    let notes = [("s", 3, &[7_u64, 9][..]), ("other", 3, &[8]), ("s", 6, &[10])];
    for (offset, (stage, epoch, sequences)) in (0..).zip(notes) {
        writer.push(&StoredRecord { offset, record: note_record(stage, epoch, sequences) }).unwrap();
    }
    writer.finish(&About::default()).unwrap();
    let log = BundleLog::open(&path).unwrap();
    let mut notes = BundleNotes::new(&log, "s", 0).unwrap();
    let mut of = |epoch| tidewire_engine::only::Notes::outputs_of(&mut notes, epoch).unwrap();
    assert_eq!([of(2), of(3), of(4), of(6), of(7)], [vec![], vec![7, 9], vec![], vec![10], vec![]]);
}
