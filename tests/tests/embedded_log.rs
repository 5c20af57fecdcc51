//! What only the embedded log promises: its folder, its upkeep, and damage that is found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod logs;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use logs::{at, commit, create, noise, numbered, open, options, position, read, read_from, record, texts};
use tidewire_engine::log::{Log, LogError, NewRecord, TopicSpec, Transaction};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions, OpenError};

#[test]
fn a_log_is_open_in_one_place_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let error = EmbeddedLog::open(dir.path(), options(0).1).unwrap_err();
    let OpenError::InUse { holder, .. } = &error else { panic!("{error}") };
    assert!(holder.contains(&std::process::id().to_string()), "{error}");
    assert!(error.to_string().contains("is open already"), "{error}");
    drop(log);
    open(dir.path());
}

#[test]
fn a_member_keeps_the_log_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    create(&*log, "in", 1);
    let mut member = log.join("g", "m", "in").unwrap();
    drop(log);
    assert!(EmbeddedLog::open(dir.path(), options(0).1).is_err());
    commit(
        &mut *member,
        Transaction { offsets: vec![(at("in", 0), position(1, ""))], ..Transaction::default() },
    );
    drop(member);
    assert!(open(dir.path()).committed("g", &at("in", 0)).unwrap().is_some());
}

#[test]
fn other_formats_and_other_folders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    for (text, expected) in [
        ("tidewire-log 2\n", "has format 2, this build knows formats up to 1: use a newer build"),
        ("tidewire-log\n", "not a Tidewire log's"),
        ("", "not a Tidewire log's"),
    ] {
        fs::write(dir.path().join("format"), text).unwrap();
        let error = EmbeddedLog::open(dir.path(), options(0).1).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("photos.zip"), "x").unwrap();
    let error = EmbeddedLog::open(foreign.path(), options(0).1).unwrap_err().to_string();
    assert!(error.contains("photos.zip") && error.contains("choose an empty folder"), "{error}");
    let file = foreign.path().join("photos.zip");
    assert!(EmbeddedLog::open(file, options(0).1).is_err());
}

#[test]
fn an_opening_cut_short_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    for early in ["lock", "format.new", "endpoint"] {
        fs::write(dir.path().join(early), "").unwrap();
    }
    create(&*open(dir.path()), "t", 1);
    assert_eq!(open(dir.path()).topics().unwrap().len(), 1);
}

#[test]
fn many_small_blocks_become_few() {
    const EPOCHS: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    create(&*log, "in", 1);
    create(&*log, "out", 1);
    let mut member = log.join("g", "m", "in").unwrap();
    for n in 0..EPOCHS {
        let appends = vec![(at("out", 0), numbered(n, 1))];
        commit(&mut *member, Transaction { appends, ..Transaction::default() });
    }
    let before = read(&*log, &at("out", 0));
    let done = log.maintain(0, u64::MAX).unwrap();
    assert_eq!(done.merged_blocks, EPOCHS);
    assert_eq!(read(&*log, &at("out", 0)), before);
    assert_eq!(log.maintain(0, u64::MAX).unwrap().merged_blocks, 0, "once is enough");
    commit(
        &mut *member,
        Transaction { appends: vec![(at("out", 0), numbered(EPOCHS, 1))], ..Transaction::default() },
    );
    drop((member, log));
    let log = open(dir.path());
    let after = read(&*log, &at("out", 0));
    assert_eq!((&after[..EPOCHS as usize], after.len() as u64), (&before[..], EPOCHS + 1));
    assert_eq!(read_from(&*log, &at("out", 0), 777, 300).len() as u64, EPOCHS + 1 - 777);
}

#[test]
fn a_budget_ends_a_round_and_the_next_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    create(&*log, "t", 8);
    for p in 0..8 {
        for n in 0..300 {
            log.append(&at("t", p), numbered(n, 1)).unwrap();
        }
    }
    let mut rounds = 0;
    let mut merged = 0;
    loop {
        let done = log.maintain(0, 1).unwrap();
        merged += done.merged_blocks;
        rounds += 1;
        if !done.more {
            break;
        }
    }
    assert_eq!((rounds, merged), (8, 8 * 300));
}

#[test]
fn deleted_records_give_their_disk_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.create_topic(&TopicSpec { retention_bytes: Some(1 << 20), ..TopicSpec::new("t", 1) }).unwrap();
    for n in 0..160 {
        let records = (0..5).map(|m| NewRecord { value: Some(noise(n * 5 + m, 200_000)), ..record("k", "") });
        log.append(&at("t", 0), records.collect()).unwrap();
    }
    let before = log.disk_bytes().unwrap();
    log.maintain(0, u64::MAX).unwrap();
    let after = log.disk_bytes().unwrap();
    println!("{} MB, then {} MB", before >> 20, after >> 20);
    assert!(before > 150 << 20, "only {before} bytes were written");
    // Journals are of a fixed size, and stay.
    assert!(after < 100 << 20, "{before} bytes before, {after} after");
    let files: u64 = files(dir.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(files < 100 << 20, "{files} bytes in files");
    let bounds = log.bounds(&at("t", 0)).unwrap();
    assert_eq!(read(&*log, &at("t", 0)).len() as u64, bounds.stable_end - bounds.start);
}

#[test]
fn compaction_runs_by_itself_when_it_is_worth_while() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.create_topic(&TopicSpec::new("t", 1).compacted(1000)).unwrap();
    for n in 0..40 {
        let records =
            (0..8).map(|m| NewRecord { value: Some(noise(n * 8 + m, 9000)), ..record(&format!("{m}"), "") });
        log.append(&at("t", 0), records.collect()).unwrap();
    }
    assert_eq!(log.maintain(999, u64::MAX).unwrap().compacted_records, 0, "too young");
    assert_eq!(log.maintain(1000, u64::MAX).unwrap().compacted_records, 0, "looked a moment ago");
    assert_eq!(log.maintain(61_000, u64::MAX).unwrap().compacted_records, 39 * 8);
    assert_eq!(read(&*log, &at("t", 0)).len(), 8);
    assert_eq!(log.maintain(200_000, u64::MAX).unwrap().compacted_records, 0);
}

#[test]
fn housekeeping_ends_with_its_handle_and_keeps_nothing_open() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    create(&*log, "t", 1);
    for n in 0..300 {
        log.append(&at("t", 0), numbered(n, 1)).unwrap();
    }
    let house = log.keep_house(Duration::from_millis(5), u64::MAX).unwrap();
    let start = Instant::now();
    // Merged blocks are found by their absence: nothing is left to merge.
    while log.maintain(0, u64::MAX).unwrap().merged_blocks > 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    drop(log);
    let start = Instant::now();
    let reopened = loop {
        match EmbeddedLog::open(dir.path(), options(0).1) {
            Ok(log) => break log,
            Err(_) => assert!(start.elapsed() < Duration::from_secs(20), "the thread kept the log open"),
        }
    };
    drop(house);
    let house = reopened.keep_house(Duration::from_secs(3600), u64::MAX).unwrap();
    let start = Instant::now();
    drop(house);
    assert!(start.elapsed() < Duration::from_secs(10), "the handle waited for the next round");
}

/// Writers, readers and maintenance at once. A read of a topic that is not compacted has no gap, whatever retention
/// deletes meanwhile; a read of a compacted one never misses the last record of a key.
#[test]
fn reads_are_right_while_blocks_are_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), EmbeddedOptions { cache_bytes: 40_000, ..options(0).1 }).unwrap();
    log.create_topic(&TopicSpec { retention_bytes: Some(30_000), ..TopicSpec::new("short", 1) }).unwrap();
    log.create_topic(&TopicSpec::new("table", 1).compacted(0)).unwrap();
    const KEYS: u64 = 20;
    let row = |n: u64| record(&format!("{}", n % KEYS), &format!("{n}"));
    let stop = AtomicBool::new(false);
    let seconds = std::env::var("TIDEWIRE_TEST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    std::thread::scope(|scope| {
        let (log, stop) = (&log, &stop);
        let going = move || !stop.load(Ordering::Relaxed);
        scope.spawn(move || {
            let mut n = 0;
            while going() {
                let value = |n: u64| NewRecord {
                    timestamp_ms: n.cast_signed(),
                    value: Some(noise(n, 100)),
                    ..record("k", "")
                };
                log.append(&at("short", 0), (n..n + 5).map(value).collect()).unwrap();
                log.append(&at("table", 0), (n..n + 5).map(row).collect()).unwrap();
                n += 5;
            }
        });
        scope.spawn(move || {
            while going() {
                log.apply_retention(0).unwrap();
                log.compact_topic("table", 0).unwrap();
                log.maintain(0, u64::MAX).unwrap();
            }
        });
        let truncated = scope.spawn(move || {
            let (mut truncated, mut from) = (0, 0);
            while going() {
                match log.fetch(&at("short", 0), from, 5000) {
                    Ok(fetched) => {
                        for (stored, offset) in fetched.records.iter().zip(from..) {
                            assert_eq!(stored.offset, offset, "a gap after {from}");
                            assert_eq!(stored.record.value, Some(noise(offset, 100)));
                        }
                        assert_eq!(fetched.next_offset, from + fetched.records.len() as u64);
                        // Behind the front of retention, so that it is met.
                        from = if fetched.at_end {
                            log.bounds(&at("short", 0)).unwrap().start
                        } else {
                            fetched.next_offset
                        };
                    }
                    Err(LogError::Truncated { start, .. }) => {
                        truncated += 1;
                        from = start;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            truncated
        });
        scope.spawn(move || {
            while going() {
                let end = log.bounds(&at("table", 0)).unwrap().stable_end;
                let stored = read_from(&**log, &at("table", 0), 0, 3000);
                stored.iter().for_each(|s| assert_eq!(s.record, row(s.offset)));
                for key in 0..KEYS.min(end) {
                    let last = stored.iter().rev().find(|s| s.offset % KEYS == key).map(|s| s.offset);
                    assert!(
                        last.is_some_and(|last| last + KEYS >= end),
                        "key {key} was last seen at {last:?} of {end}"
                    );
                }
            }
        });
        std::thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        let truncated: u64 = truncated.join().unwrap();
        println!("{truncated} reads were overtaken by retention");
    });
    assert!(log.bounds(&at("short", 0)).unwrap().start > 100);
}

/// Retention takes the front away while it is read: a read has the record it asked for, or is told that it is gone.
#[test]
fn a_read_at_the_front_is_right_or_truncated() {
    const BLOCKS: u64 = 6000;
    let dir = tempfile::tempdir().unwrap();
    let (now_ms, options) = options(0);
    let log = EmbeddedLog::open(dir.path(), options).unwrap();
    log.create_topic(&TopicSpec { retention_ms: Some(1), ..TopicSpec::new("t", 1) }).unwrap();
    for n in 0..BLOCKS {
        now_ms.store(n, Ordering::Relaxed);
        log.append(&at("t", 0), numbered(n, 1)).unwrap();
    }
    let done = AtomicBool::new(false);
    let reads: Vec<u64> = std::thread::scope(|scope| {
        let reader = || {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let start = log.bounds(&at("t", 0)).unwrap().start;
                match log.fetch(&at("t", 0), start, 1) {
                    Ok(fetched) if start < BLOCKS => {
                        assert_eq!(fetched.records[0].offset, start);
                        reads += 1;
                    }
                    Ok(fetched) => assert!(fetched.at_end),
                    Err(LogError::Truncated { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            reads
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for now_ms in 0..=BLOCKS {
            log.apply_retention(now_ms).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap()).into()
    });
    assert_eq!(log.bounds(&at("t", 0)).unwrap().start, BLOCKS);
    assert!(reads.iter().sum::<u64>() > 10, "nobody read");
}

/// Every file of a log, with one byte changed at a time: what is read is right, or an error says what is wrong.
#[test]
fn damaged_files_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    {
        let log = open(dir.path());
        create(&*log, "t", 2);
        for n in 0..12 {
            let records = (0..3)
                .map(|m| NewRecord { value: Some(noise(n * 3 + m, 60_000)), ..record(&format!("{n}"), "") });
            log.append(&at("t", 0), records.collect()).unwrap();
            log.append(&at("t", 1), numbered(n, 1)).unwrap();
        }
    }
    let whole = everything(dir.path()).unwrap();
    let (mut errors, mut same, mut shorter) = (0, 0, 0);
    let mut random = std::env::var("TIDEWIRE_TEST_SEED").map_or(7_u64, |text| text.parse().unwrap());
    for file in files(dir.path()) {
        let text = fs::read(&file).unwrap();
        let written = text.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for _ in 0..12.min(written) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let copy = tempfile::tempdir().unwrap();
            copy_folder(dir.path(), copy.path());
            let place = (random >> 33) as usize % written;
            let damaged = copy.path().join(file.strip_prefix(dir.path()).unwrap());
            let mut text = text.clone();
            text[place] ^= 1 << (random >> 30 & 7);
            fs::write(&damaged, text).unwrap();
            let what = || format!("{} at byte {place}", damaged.display());
            match everything(copy.path()) {
                Err(error) => {
                    assert!(!error.is_empty(), "{}", what());
                    errors += 1;
                }
                Ok(read) if read == whole => same += 1,
                Ok(read) => {
                    // A journal whose end is damaged looks like one that was cut by a crash.
                    let prefix = read.iter().zip(&whole).all(|(read, whole)| whole.starts_with(read));
                    assert!(
                        prefix && damaged.extension().is_some_and(|e| e == "jnl"),
                        "{}: wrong records",
                        what()
                    );
                    shorter += 1;
                }
            }
        }
    }
    println!("{errors} errors, {same} without effect, {shorter} journals cut short");
    assert!(errors > 20);
}

/// Keys and values of all partitions.
fn everything(dir: &Path) -> Result<Vec<Vec<String>>, String> {
    let log = EmbeddedLog::open(dir, options(0).1).map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    for topic in log.topics().map_err(|e| e.to_string())? {
        for at in (0..topic.partitions).map(|p| at(&topic.name, p)) {
            let mut records = Vec::new();
            let mut next = log.bounds(&at).map_err(|e| e.to_string())?.start;
            loop {
                let fetched = log.fetch(&at, next, 100_000).map_err(|e| e.to_string())?;
                records.extend(fetched.records);
                next = fetched.next_offset;
                if fetched.at_end {
                    break;
                }
            }
            all.push(texts(&records));
        }
    }
    Ok(all)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_folder(&path, &target),
            false => drop(fs::copy(&path, &target).unwrap()),
        }
    }
}

#[test]
fn the_default_waits_for_the_disk() {
    assert_eq!(EmbeddedOptions::default().durability, Durability::Fsync);
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), EmbeddedOptions::default()).unwrap();
    create(&*log, "t", 1);
    let records = Arc::new(log);
    records.append(&at("t", 0), numbered(0, 3)).unwrap();
    assert_eq!(read(&**records, &at("t", 0)).len(), 3);
}
