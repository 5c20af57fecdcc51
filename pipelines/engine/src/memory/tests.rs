//! What only the log in memory does: failures on demand, and transactions that stay open.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

fn at(partition: u32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

fn records(values: &[&'static str]) -> Vec<NewRecord> {
    let record = |value: &&'static str| NewRecord {
        key: Some("k".into()),
        value: Some(value.as_bytes().into()),
        ..NewRecord::default()
    };
    values.iter().map(record).collect()
}

fn log() -> (MemoryLog, Box<dyn Member>) {
    let log = MemoryLog::new();
    log.create_topic(&TopicSpec::new("t", 2).compacted(0)).unwrap();
    let member = log.join("g", "m", "t").unwrap();
    (log, member)
}

/// Writes `values` to both partitions and moves the group's position in the first to `offset`.
fn commit(member: &mut dyn Member, values: &[&'static str], offset: u64) -> Result<(), CommitError> {
    let generation = member.poll().unwrap().generation;
    let position = CommittedOffset { offset, metadata: String::new() };
    member.commit(Transaction {
        generation,
        appends: vec![(at(0), records(values)), (at(1), records(values))],
        offsets: vec![(at(0), position)],
    })
}

fn values(log: &MemoryLog, partition: u32) -> Vec<String> {
    let records = log.records(&at(partition)).unwrap();
    records.iter().map(|s| String::from_utf8(s.record.value.clone().unwrap().to_vec()).unwrap()).collect()
}

fn offset(log: &MemoryLog) -> Option<u64> {
    log.committed("g", &at(0)).unwrap().map(|position| position.offset)
}

#[test]
fn faults_come_in_turn_and_do_what_they_say() {
    let (log, mut member) = log();
    let faults = log.faults();
    faults.next_commit("m", CommitFault::Abort);
    faults.next_commit("m", CommitFault::UnknownNotWritten);
    faults.next_commit("m", CommitFault::UnknownWritten);
    faults.next_commit("other", CommitFault::Abort);
    assert!(matches!(commit(&mut *member, &["a"], 1), Err(CommitError::Aborted(_))));
    assert!(matches!(commit(&mut *member, &["b"], 2), Err(CommitError::Unknown(_))));
    assert_eq!((values(&log, 0).len(), offset(&log)), (0, None));
    assert!(matches!(commit(&mut *member, &["c"], 3), Err(CommitError::Unknown(_))));
    assert_eq!((values(&log, 1), offset(&log)), (vec!["c".to_owned()], Some(3)));
    commit(&mut *member, &["d"], 4).unwrap();
    assert_eq!((values(&log, 0), offset(&log)), (vec!["c".to_owned(), "d".to_owned()], Some(4)));
}

#[test]
fn readers_stop_before_an_open_transaction() {
    for committed in [true, false] {
        let (log, mut member) = log();
        log.append(&at(0), records(&["before"])).unwrap();
        log.faults().next_commit("m", CommitFault::HoldBack { commit: committed });
        assert!(matches!(commit(&mut *member, &["a", "b"], 7), Err(CommitError::Unknown(_))));
        log.append(&at(0), records(&["after"])).unwrap();
        assert_eq!(values(&log, 0), ["before"]);
        let fetched = log.fetch(&at(0), 0, 1000).unwrap();
        assert_eq!((fetched.next_offset, fetched.at_end), (1, true));
        let bounds = log.bounds(&at(0)).unwrap();
        assert_eq!((bounds.stable_end, bounds.high_watermark), (1, 4));
        // Beyond what is stable there is nothing to read, and no end either.
        let fetched = log.fetch(&at(0), 3, 1000).unwrap();
        assert_eq!((fetched.records.len(), fetched.next_offset, fetched.at_end), (0, 3, false));
        let unstable = LogError::Unstable { group: "g".into(), at: at(0) };
        assert_eq!(log.committed("g", &at(0)), Err(unstable));
        assert_eq!(log.committed("g", &at(1)), Ok(None));
        log.compact("t").unwrap();
        log.apply_retention();
        assert_eq!(values(&log, 0), ["before"]);

        assert_eq!(log.settle("somebody else"), 0);
        assert_eq!(log.settle("m"), 1);
        let fetched = log.fetch(&at(0), 1, 1000).unwrap();
        assert_eq!((fetched.next_offset, fetched.at_end), (4, true));
        match committed {
            true => assert_eq!(values(&log, 0), ["before", "a", "b", "after"]),
            false => assert_eq!(values(&log, 0), ["before", "after"]),
        }
        assert_eq!(values(&log, 1).len(), if committed { 2 } else { 0 });
        assert_eq!(offset(&log), committed.then_some(7));
    }
}

#[test]
fn a_new_life_ends_what_the_former_left_open() {
    let (log, mut member) = log();
    log.faults().next_commit("m", CommitFault::HoldBack { commit: true });
    commit(&mut *member, &["a"], 1).unwrap_err();
    let other = log.join("g2", "m2", "t").unwrap();
    assert!(values(&log, 0).is_empty(), "another name's join ends nothing");
    let mut second = log.join("g", "m", "t").unwrap();
    assert_eq!((values(&log, 0), offset(&log)), (vec!["a".to_owned()], Some(1)));
    let zombie = Transaction { generation: second.poll().unwrap().generation, ..Transaction::default() };
    assert!(matches!(member.commit(zombie), Err(CommitError::Fenced(_))));
    drop(other);
    assert_eq!(log.settle_all(), 0);
}

#[test]
fn a_member_can_expire_on_its_way_to_a_commit() {
    let (log, mut member) = log();
    let mut other = log.join("g", "other", "t").unwrap();
    log.faults().next_commit("m", CommitFault::Expire);
    assert!(matches!(commit(&mut *member, &["a"], 1), Err(CommitError::Fenced(_))));
    assert!(values(&log, 0).is_empty());
    assert_eq!(other.poll().unwrap().tasks, [0, 1]);
}

#[test]
fn nothing_can_be_reached_in_an_outage_and_nothing_is_lost() {
    let (log, mut member) = log();
    commit(&mut *member, &["a"], 1).unwrap();
    let transaction = Transaction { generation: member.poll().unwrap().generation, ..Transaction::default() };
    log.faults().set_outage(true);
    assert!(matches!(log.fetch(&at(0), 0, 1), Err(LogError::Store { .. })));
    assert!(matches!(log.bounds(&at(0)), Err(LogError::Store { .. })));
    assert!(matches!(member.poll(), Err(LogError::Store { .. })));
    assert!(matches!(member.commit(transaction.clone()), Err(CommitError::Log(LogError::Store { .. }))));
    log.faults().set_outage(false);
    member.commit(transaction).unwrap();
    assert_eq!(values(&log, 0), ["a"]);
}

#[test]
fn control_records_take_offsets_that_nobody_reads() {
    let log = MemoryLog::with_control_records();
    log.create_topic(&TopicSpec::new("t", 2)).unwrap();
    let mut member = log.join("g", "m", "t").unwrap();
    commit(&mut *member, &["a", "b"], 1).unwrap();
    log.append(&at(0), records(&["c"])).unwrap();
    commit(&mut *member, &["d"], 2).unwrap();
    let offsets: Vec<u64> = log.records(&at(0)).unwrap().iter().map(|stored| stored.offset).collect();
    assert_eq!(offsets, [0, 1, 3, 4]);
    let last = log.fetch(&at(0), 4, 1000).unwrap();
    assert_eq!((last.records.len(), last.next_offset, last.at_end), (1, 6, true));
    let page = log.fetch(&at(0), 0, 40).unwrap();
    assert_eq!((page.records.len(), page.next_offset, page.at_end), (2, 2, false));
}

#[test]
fn the_front_can_be_cut_off() {
    let (log, _member) = log();
    log.append(&at(0), records(&["a", "b", "c"])).unwrap();
    log.truncate_before(&at(0), 2).unwrap();
    assert_eq!(values(&log, 0), ["c"]);
    let truncated = LogError::Truncated { at: at(0), asked: 1, start: 2 };
    assert_eq!(log.fetch(&at(0), 1, 1), Err(truncated));
    log.truncate_before(&at(0), 1).unwrap();
    log.truncate_before(&at(0), 99).unwrap();
    assert_eq!(log.bounds(&at(0)).unwrap(), Bounds { start: 3, stable_end: 3, high_watermark: 3 });
    assert!(log.compact("nothing").is_err());
}
