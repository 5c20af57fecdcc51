//! Topics, appends and reads.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewire_engine::log::{Bounds, Fetched, LogError, NewRecord, TopicSpec};
use tidewire_engine::log_limits::{MAX_HEADERS, MAX_PARTITIONS, MAX_RECORD_BYTES};

use super::logs::*;

pub fn topics_are_created_once(s: &mut dyn Subject) {
    let compacted = TopicSpec { retention_bytes: Some(9), ..TopicSpec::new("b", 3).compacted(7) };
    s.log().create_topic(&compacted).unwrap();
    create(&*s.log(), "a", 1);
    s.step();
    s.log().create_topic(&compacted).unwrap();
    assert_eq!(s.log().topic("b").unwrap(), Some(compacted.clone()));
    assert_eq!(s.log().topic("c").unwrap(), None);
    assert_eq!(s.log().topics().unwrap(), [TopicSpec::new("a", 1), compacted]);
    let error = s.log().create_topic(&TopicSpec::new("b", 3)).unwrap_err();
    assert!(matches!(error, LogError::TopicDiffers { .. }));
    let text = error.to_string();
    assert!(
        text.contains("b exists with 3 partitions, compacted after 7 ms, retention no bound and 9 bytes"),
        "{text}"
    );
    create(&*s.log(), "c", 2);
    s.step();
    assert_eq!(s.log().topics().unwrap().len(), 3);
}

pub fn topics_that_no_log_takes_are_refused(s: &mut dyn Subject) {
    for (name, partitions) in [
        ("", 1),
        ("a b", 1),
        ("..", 1),
        ("ä", 1),
        (&*"x".repeat(250), 1),
        ("a", 0),
        ("a", MAX_PARTITIONS + 1),
    ] {
        let error = s.log().create_topic(&TopicSpec::new(name, partitions)).unwrap_err();
        assert!(matches!(error, LogError::Invalid(_)), "{error}");
    }
    assert!(s.log().topics().unwrap().is_empty());
}

pub fn unknown_topics_and_partitions_are_named(s: &mut dyn Subject) {
    create(&*s.log(), "t", 2);
    let log = s.log();
    let unknown = LogError::UnknownTopic("u".into());
    assert_eq!(log.fetch(&at("u", 0), 0, 1).unwrap_err(), unknown);
    assert_eq!(log.bounds(&at("u", 0)).unwrap_err(), unknown);
    assert_eq!(log.committed("g", &at("u", 0)).unwrap_err(), unknown);
    assert_eq!(log.append(&at("u", 0), numbered(0, 1)).unwrap_err(), unknown);
    assert_eq!(s.groups().join("g", "m", "u").err().unwrap(), unknown);
    let unknown = LogError::UnknownPartition { topic: "t".into(), partition: 2, partitions: 2 };
    assert_eq!(log.fetch(&at("t", 2), 0, 1).unwrap_err(), unknown);
    assert_eq!(log.append(&at("t", 2), numbered(0, 1)).unwrap_err(), unknown);
    assert_eq!(unknown.to_string(), "topic t has 2 partitions, so no partition 2");
}

pub fn records_come_back_as_they_were_written(s: &mut dyn Subject) {
    create(&*s.log(), "t", 2);
    let header = |name: &str, value: &'static [u8]| (name.into(), Bytes::from_static(value));
    let records = vec![
        NewRecord::default(),
        NewRecord { timestamp_ms: -1, key: Some(Bytes::new()), value: None, headers: vec![] },
        NewRecord {
            timestamp_ms: i64::MAX,
            key: None,
            value: Some(Bytes::new()),
            headers: vec![header("", b"")],
        },
        NewRecord {
            timestamp_ms: i64::MIN,
            key: Some(Bytes::from_static(&[0, 255, 128])),
            value: Some(Bytes::from(vec![7; 3000])),
            headers: vec![header("id", b"\x00\xff"), header("id", b"again"), header("zürich", b"")],
        },
        record("k", "v"),
    ];
    assert_eq!(s.log().append(&at("t", 1), records.clone()).unwrap(), 0);
    s.step();
    assert_eq!(s.log().append(&at("t", 1), records.clone()).unwrap(), 5);
    s.step();
    let stored = read(&*s.log(), &at("t", 1));
    assert_eq!(stored.iter().map(|s| s.offset).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!(stored.into_iter().map(|s| s.record).collect::<Vec<_>>(), [records.clone(), records].concat());
    assert!(read(&*s.log(), &at("t", 0)).is_empty());
}

pub fn reads_page_by_bytes(s: &mut dyn Subject) {
    create(&*s.log(), "t", 1);
    let at = at("t", 0);
    let records: Vec<NewRecord> = (0..300).map(|n| record("k", &"x".repeat(1 + n * 7 % 200))).collect();
    for chunk in records.chunks(47) {
        s.log().append(&at, chunk.to_vec()).unwrap();
        s.step();
    }
    for max_bytes in [0, 1, 100, 1000, 30_000, 1 << 20] {
        let stored = read_from(&*s.log(), &at, 0, max_bytes);
        assert_eq!(stored.iter().map(|s| &s.record).collect::<Vec<_>>(), records.iter().collect::<Vec<_>>());
    }
    for from in [1, 46, 47, 48, 150, 299, 300] {
        let stored = read_from(&*s.log(), &at, from, 500);
        assert_eq!(stored.len() as u64, 300 - from);
        assert_eq!(stored.first().map(|s| s.offset), (from < 300).then_some(from));
    }
    let page = s.log().fetch(&at, 10, 1000).unwrap();
    let size = |n: usize| records[10..10 + n].iter().map(NewRecord::size).sum::<usize>();
    assert!(size(page.records.len()) <= 1000 && size(page.records.len() + 1) > 1000, "a page is filled");
    assert!(!page.at_end);
}

pub fn an_empty_partition_is_at_its_end(s: &mut dyn Subject) {
    create(&*s.log(), "t", 1);
    s.step();
    let fetched = s.log().fetch(&at("t", 0), 0, 100).unwrap();
    assert_eq!(fetched, Fetched { records: vec![], next_offset: 0, at_end: true });
    let bounds = s.log().bounds(&at("t", 0)).unwrap();
    assert_eq!(bounds, Bounds { start: 0, stable_end: 0, high_watermark: 0 });
    assert_eq!(s.log().committed("g", &at("t", 0)).unwrap(), None);
}

pub fn reads_outside_of_the_partition_are_refused(s: &mut dyn Subject) {
    create(&*s.log(), "t", 1);
    s.log().append(&at("t", 0), numbered(0, 3)).unwrap();
    s.step();
    let error = s.log().fetch(&at("t", 0), 4, 100).unwrap_err();
    assert_eq!(error, LogError::BeyondEnd { at: at("t", 0), asked: 4, end: 3 });
    assert!(s.log().fetch(&at("t", 0), 3, 100).unwrap().at_end);
    assert!(s.log().fetch(&at("t", 0), u64::MAX, 100).is_err());
}

pub fn appending_nothing_changes_nothing(s: &mut dyn Subject) {
    create(&*s.log(), "t", 1);
    s.log().append(&at("t", 0), numbered(0, 2)).unwrap();
    s.step();
    assert_eq!(s.log().append(&at("t", 0), vec![]).unwrap(), 2);
    assert_eq!(s.log().bounds(&at("t", 0)).unwrap().high_watermark, 2);
}

pub fn large_appends_keep_their_order(s: &mut dyn Subject) {
    create(&*s.log(), "t", 1);
    let records: Vec<NewRecord> = (0..4000_u64)
        .map(|n| record(&format!("{n}"), &format!("{n} ").repeat(1 + (n % 100) as usize)))
        .collect();
    assert_eq!(s.log().append(&at("t", 0), records.clone()).unwrap(), 0);
    s.step();
    let stored = read_from(&*s.log(), &at("t", 0), 0, 10_000);
    assert_eq!(stored.len(), 4000);
    for (n, stored) in stored.into_iter().enumerate() {
        assert_eq!((stored.offset, stored.record), (n as u64, records[n].clone()));
    }
    let middle = s.log().fetch(&at("t", 0), 3333, 1).unwrap();
    assert_eq!((middle.records[0].offset, &middle.records[0].record), (3333, &records[3333]));
}

pub fn what_is_too_large_is_refused_whole(s: &mut dyn Subject) {
    create(&*s.log(), "t", 1);
    let sized = |size: usize| {
        let mut record = record("k", "");
        record.value = Some(Bytes::from(vec![1; size - record.size()]));
        record
    };
    s.log().append(&at("t", 0), vec![sized(MAX_RECORD_BYTES), sized(MAX_RECORD_BYTES)]).unwrap();
    let error = s.log().append(&at("t", 0), vec![record("k", "v"), sized(MAX_RECORD_BYTES + 1)]).unwrap_err();
    let LogError::TooLarge { what, size, limit } = &error else { panic!("{error}") };
    assert_eq!((*size, *limit), (MAX_RECORD_BYTES + 1, MAX_RECORD_BYTES));
    assert!(what.contains("record 1 for t-0"), "{error}");
    let headers = vec![("h".into(), Bytes::new()); MAX_HEADERS + 1];
    let error = s.log().append(&at("t", 0), vec![NewRecord { headers, ..record("k", "v") }]).unwrap_err();
    assert!(error.to_string().contains("65 headers"), "{error}");
    let headers = vec![("h".repeat(256).into(), Bytes::new())];
    s.log().append(&at("t", 0), vec![NewRecord { headers, ..record("k", "v") }]).unwrap_err();
    s.step();
    assert_eq!(s.log().bounds(&at("t", 0)).unwrap().high_watermark, 2);
    assert_eq!(read_from(&*s.log(), &at("t", 0), 0, 1)[1].record, sized(MAX_RECORD_BYTES));
}

pub fn wait_returns_when_something_was_appended(s: &mut dyn Subject) {
    create(&*s.log(), "t", 1);
    let (log, writer) = (s.log(), s.log());
    log.append(&at("t", 0), numbered(0, 1)).unwrap();
    // What happened before the first call ends the first call, and is then seen.
    log.wait(Duration::from_secs(20));
    let start = Instant::now();
    log.wait(Duration::from_millis(60));
    assert!(start.elapsed() >= Duration::from_millis(55), "woke for nothing after {:?}", start.elapsed());
    log.append(&at("t", 0), numbered(1, 1)).unwrap();
    let start = Instant::now();
    log.wait(Duration::from_secs(20));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            writer.append(&at("t", 0), numbered(2, 1)).unwrap();
        });
        log.wait(Duration::from_secs(20));
    });
    assert!(start.elapsed() < Duration::from_secs(10), "slept through an append");
    assert_eq!(log.bounds(&at("t", 0)).unwrap().stable_end, 3);
}

/// One thread's wake-up must not use up another's.
pub fn every_waiting_thread_wakes(s: &mut dyn Subject) {
    create(&*s.log(), "t", 1);
    let log = s.log();
    let (ready, appended) = (Barrier::new(4), Barrier::new(4));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..3 {
            let (log, ready, appended) = (&log, &ready, &appended);
            scope.spawn(move || {
                log.wait(Duration::from_millis(10));
                ready.wait();
                appended.wait();
                std::thread::sleep(Duration::from_millis(30 * n));
                log.wait(Duration::from_secs(20));
            });
        }
        ready.wait();
        log.append(&at("t", 0), numbered(0, 1)).unwrap();
        appended.wait();
    });
    assert!(start.elapsed() < Duration::from_secs(10), "a thread slept through an append");
}
