//! Groups, transactions and fencing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidewire_engine::log::{Assignment, CommitError, LogError, Member, TopicSpec, Transaction};
use tidewire_engine::log_limits::MAX_METADATA_BYTES;

use super::logs::*;

fn assignment(generation: u32, tasks: &[u32], revoking: &[u32]) -> Assignment {
    Assignment { generation, tasks: tasks.to_vec(), revoking: revoking.to_vec() }
}

pub fn a_transaction_writes_records_and_positions_together(s: &mut dyn Subject) {
    create(&*s.log(), "in", 2);
    create(&*s.log(), "out", 3);
    for round in 0..3_u64 {
        let mut member = s.groups().join("g", "m", "in").unwrap();
        let appends = (0..3).map(|p| (at("out", p), numbered(round * 2, 2))).collect();
        let offsets = (0..2).map(|p| (at("in", p), position(round, &format!("epoch {round}")))).collect();
        commit(&mut *member, Transaction { appends, offsets, ..Transaction::default() });
        member.leave().unwrap();
        s.step();
        for p in 0..3 {
            let keys = (0..round * 2 + 2).map(|n| format!("k{n}=v{n}")).collect::<Vec<_>>();
            assert_eq!(texts(&read(&*s.log(), &at("out", p))), keys);
        }
        for p in 0..2 {
            let committed = s.log().committed("g", &at("in", p)).unwrap();
            assert_eq!(committed, Some(position(round, &format!("epoch {round}"))));
        }
    }
    assert_eq!(s.log().committed("g", &at("out", 0)).unwrap(), None);
}

/// A writer moves two partitions and a position in step; whoever reads one after the other sees the later one at least
/// as far.
pub fn a_reader_never_sees_half_a_transaction(s: &mut dyn Subject) {
    create(&*s.log(), "in", 1);
    create(&*s.log(), "out", 2);
    let mut member = s.groups().join("g", "m", "in").unwrap();
    let (done, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let log = s.log();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let count = |p: u32| read_from(&*log, &at("out", p), 0, 1 << 20).len() as u64;
            while !done.load(Ordering::Acquire) {
                let look = looks.fetch_add(1, Ordering::Relaxed);
                let order = if look.is_multiple_of(2) { [0, 1] } else { [1, 0] };
                let offset = log.committed("g", &at("in", 0)).unwrap().map_or(0, |position| position.offset);
                let [first, second] = order.map(count);
                assert!(second >= first, "saw {first} of one partition, then {second} of the other");
                assert!(first >= offset * 3, "the position {offset} was ahead of the {first} records");
                assert!(first.is_multiple_of(3) && second.is_multiple_of(3), "half a transaction");
            }
        });
        let start = Instant::now();
        let mut n = 0;
        while n < 100 || (looks.load(Ordering::Relaxed) < 20 && start.elapsed() < Duration::from_secs(20)) {
            let appends = (0..2).map(|p| (at("out", p), numbered(n * 3, 3))).collect();
            let offsets = vec![(at("in", 0), position(n + 1, ""))];
            commit(&mut *member, Transaction { appends, offsets, ..Transaction::default() });
            n += 1;
            std::thread::sleep(Duration::from_micros(200));
        }
        done.store(true, Ordering::Release);
    });
    assert!(looks.into_inner() >= 20, "the reader did not get to look");
}

pub fn a_refused_transaction_leaves_nothing(s: &mut dyn Subject) {
    create(&*s.log(), "in", 2);
    s.log().create_topic(&TopicSpec::new("table", 1).compacted(0)).unwrap();
    {
        let mut member = s.groups().join("g", "m", "in").unwrap();
        let good = Transaction {
            appends: vec![(at("in", 0), numbered(0, 2))],
            offsets: vec![(at("in", 0), position(1, ""))],
            ..transaction(&mut *member)
        };
        let with = |change: &dyn Fn(&mut Transaction)| {
            let mut transaction = good.clone();
            change(&mut transaction);
            transaction
        };
        let keyless = tidewire_engine::log::NewRecord { key: None, ..record("", "v") };
        let bad = [
            with(&|t| t.appends.push((at("in", 9), numbered(0, 1)))),
            with(&|t| t.appends.push((at("nowhere", 0), numbered(0, 1)))),
            with(&|t| t.appends.push((at("in", 0), numbered(0, 1)))),
            with(&|t| t.appends.push((at("table", 0), vec![keyless.clone()]))),
            with(&|t| t.offsets.push((at("in", 0), position(2, "")))),
            with(&|t| t.offsets.push((at("nowhere", 0), position(2, "")))),
            with(&|t| t.offsets.push((at("in", 1), position(2, &"x".repeat(MAX_METADATA_BYTES + 1))))),
        ];
        for (n, transaction) in bad.into_iter().enumerate() {
            let error = member.commit(transaction).unwrap_err();
            assert!(matches!(error, CommitError::Log(_)), "{n}: {error}");
        }
    }
    s.step();
    assert_eq!(s.log().bounds(&at("in", 0)).unwrap().high_watermark, 0);
    assert_eq!(s.log().committed("g", &at("in", 0)).unwrap(), None);
}

pub fn positions_belong_to_their_group(s: &mut dyn Subject) {
    create(&*s.log(), "in", 1);
    for (group, offset) in [("g1", 5), ("g2", 7), ("g1", 6)] {
        let mut member = s.groups().join(group, "m", "in").unwrap();
        let offsets = vec![(at("in", 0), position(offset, group))];
        commit(&mut *member, Transaction { offsets, ..Transaction::default() });
        drop(member);
        s.step();
    }
    assert_eq!(s.log().committed("g1", &at("in", 0)).unwrap(), Some(position(6, "g1")));
    assert_eq!(s.log().committed("g2", &at("in", 0)).unwrap(), Some(position(7, "g2")));
    assert_eq!(s.log().committed("g", &at("in", 0)).unwrap(), None);
}

pub fn a_second_member_of_a_name_fences_the_first(s: &mut dyn Subject) {
    create(&*s.log(), "in", 2);
    let log = s.groups();
    let mut first = log.join("g", "m", "in").unwrap();
    let zombie = Transaction { appends: vec![(at("in", 0), numbered(0, 1))], ..transaction(&mut *first) };
    let mut second = log.join("g", "m", "in").unwrap();
    assert_eq!(second.poll().unwrap().tasks, [0, 1]);
    assert!(matches!(first.commit(zombie.clone()).unwrap_err(), CommitError::Fenced(_)));
    assert!(matches!(first.poll().unwrap_err(), LogError::Fenced(_)));
    assert!(matches!(first.release(&[0]).unwrap_err(), LogError::Fenced(_)));
    // Even under the generation of the second one.
    let current = Transaction { generation: second.poll().unwrap().generation, ..zombie };
    assert!(matches!(first.commit(current.clone()).unwrap_err(), CommitError::Fenced(_)));
    drop(first);
    assert_eq!(second.poll().unwrap().tasks, [0, 1], "the first one's end does not concern the second");
    assert_eq!(s.log().bounds(&at("in", 0)).unwrap().high_watermark, 0);
    second.commit(current).unwrap();
    assert_eq!(read(&*s.log(), &at("in", 0)).len(), 1);
}

pub fn an_expired_member_is_a_zombie(s: &mut dyn Subject) {
    create(&*s.log(), "in", 2);
    let log = s.groups();
    let mut slow = log.join("g", "slow", "in").unwrap();
    let zombie = Transaction {
        appends: vec![(at("in", 0), numbered(0, 1))],
        offsets: vec![(at("in", 0), position(1, ""))],
        ..transaction(&mut *slow)
    };
    let mut other = log.join("g", "other", "in").unwrap();
    assert!(s.expire("g", "slow"));
    assert!(!s.expire("g", "slow") && !s.expire("nobody", "slow"));
    assert_eq!(other.poll().unwrap().tasks, [0, 1]);
    assert!(matches!(slow.commit(zombie).unwrap_err(), CommitError::Fenced(_)));
    assert!(matches!(slow.poll().unwrap_err(), LogError::Fenced(_)));
    assert_eq!(s.log().bounds(&at("in", 0)).unwrap().high_watermark, 0);
    assert_eq!(s.log().committed("g", &at("in", 0)).unwrap(), None);
    drop(slow);
    let mut back = log.join("g", "slow", "in").unwrap();
    assert!(back.poll().unwrap().tasks.is_empty());
    assert_eq!(other.poll().unwrap().revoking.len(), 1);
}

pub fn a_stale_generation_is_aborted_and_can_be_sent_again(s: &mut dyn Subject) {
    create(&*s.log(), "in", 2);
    let log = s.groups();
    let mut member = log.join("g", "m", "in").unwrap();
    let sent = Transaction {
        appends: vec![(at("in", 0), numbered(0, 1))],
        offsets: vec![(at("in", 0), position(1, "")), (at("in", 1), position(1, ""))],
        ..transaction(&mut *member)
    };
    let other = log.join("g", "other", "in").unwrap();
    assert!(matches!(member.commit(sent.clone()).unwrap_err(), CommitError::Aborted(_)));
    assert_eq!(s.log().bounds(&at("in", 0)).unwrap().high_watermark, 0);
    // Both tasks are still held, though one is to be given up.
    assert_eq!(member.poll().unwrap().tasks, [0, 1]);
    commit(&mut *member, sent);
    assert_eq!(read(&*s.log(), &at("in", 0)).len(), 1);
    drop(other);
}

pub fn positions_of_tasks_not_held_are_refused(s: &mut dyn Subject) {
    create(&*s.log(), "in", 2);
    create(&*s.log(), "side", 4);
    let log = s.groups();
    let mut a = log.join("g", "a", "in").unwrap();
    let mut b = log.join("g", "b", "in").unwrap();
    a.release(&[1]).unwrap();
    let with = |generation, at| Transaction {
        generation,
        offsets: vec![(at, position(1, ""))],
        ..Transaction::default()
    };
    let generation = b.poll().unwrap().generation;
    assert!(matches!(b.commit(with(generation, at("in", 0))).unwrap_err(), CommitError::Aborted(_)));
    assert!(matches!(a.commit(with(generation, at("in", 1))).unwrap_err(), CommitError::Aborted(_)));
    b.commit(with(generation, at("in", 1))).unwrap();
    // Positions in other topics are nobody's task.
    b.commit(with(generation, at("side", 3))).unwrap();
    assert_eq!(s.log().committed("g", &at("in", 0)).unwrap(), None);
}

pub fn tasks_move_when_they_are_released(s: &mut dyn Subject) {
    create(&*s.log(), "in", 4);
    let log = s.groups();
    let mut a = log.join("g", "a", "in").unwrap();
    assert_eq!(a.poll().unwrap(), assignment(1, &[0, 1, 2, 3], &[]));
    let mut b = log.join("g", "b", "in").unwrap();
    assert_eq!(a.poll().unwrap(), assignment(2, &[0, 1, 2, 3], &[2, 3]));
    assert_eq!(b.poll().unwrap(), assignment(2, &[], &[]));
    // The last transaction of a task that is given up.
    let offsets = vec![(at("in", 2), position(9, "released"))];
    commit(&mut *a, Transaction { offsets, ..Transaction::default() });
    a.release(&[2]).unwrap();
    assert_eq!(a.poll().unwrap(), assignment(3, &[0, 1, 3], &[3]));
    assert_eq!(b.poll().unwrap(), assignment(3, &[2], &[]));
    a.release(&[3]).unwrap();
    assert_eq!(b.poll().unwrap(), assignment(4, &[2, 3], &[]));
    commit(&mut *b, Transaction { offsets: vec![(at("in", 2), position(10, ""))], ..Transaction::default() });
}

pub fn leaving_and_dropping_give_tasks_away(s: &mut dyn Subject) {
    create(&*s.log(), "in", 3);
    let log = s.groups();
    let a = log.join("g", "a", "in").unwrap();
    let b = log.join("g", "b", "in").unwrap();
    let mut c = log.join("g", "c", "in").unwrap();
    a.leave().unwrap();
    drop(b);
    // One that is dropped in another process is gone when its connection is.
    let all = |member: &mut dyn Member| {
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            member.poll().unwrap().tasks == [0, 1, 2]
        })
    };
    assert!(all(&mut *c));
    assert!(c.poll().unwrap().revoking.is_empty());
    drop(c);
    let mut d = log.join("g", "d", "in").unwrap();
    assert!(all(&mut *d));
}

pub fn members_of_one_group_share_one_driving_topic(s: &mut dyn Subject) {
    create(&*s.log(), "in", 1);
    create(&*s.log(), "other", 2);
    let log = s.groups();
    let a = log.join("g", "a", "in").unwrap();
    let error = log.join("g", "b", "other").err().unwrap();
    assert!(error.to_string().contains("group g spreads the partitions of in"), "{error}");
    drop(a);
    let mut b = log.join("g", "b", "other").unwrap();
    assert_eq!(b.poll().unwrap().tasks, [0, 1]);
    assert!(log.join("g", "no good", "other").is_err() && log.join("", "m", "other").is_err());
}

pub fn two_writers_of_one_partition_take_turns(s: &mut dyn Subject) {
    const ROUNDS: u64 = 300;
    create(&*s.log(), "in", 2);
    create(&*s.log(), "out", 1);
    let log = s.groups();
    std::thread::scope(|scope| {
        for name in ["a", "b"] {
            let log = &log;
            scope.spawn(move || {
                let mut member = log.join(&format!("group-{name}"), name, "in").unwrap();
                for n in 0..ROUNDS {
                    let records = (0..3).map(|m| record(name, &format!("{}", n * 3 + m))).collect();
                    let appends = vec![(at("out", 0), records)];
                    commit(&mut *member, Transaction { appends, ..Transaction::default() });
                }
            });
        }
    });
    let stored = texts(&read(&*s.log(), &at("out", 0)));
    assert_eq!(stored.len() as u64, ROUNDS * 6);
    for name in ["a", "b"] {
        let own: Vec<&String> = stored.iter().filter(|text| text.starts_with(name)).collect();
        assert_eq!(own.len() as u64, ROUNDS * 3);
        assert!(own.iter().zip(0..).all(|(text, n)| **text == format!("{name}={n}")), "order is kept");
    }
    assert!(
        stored.chunks(3).all(|three| three.iter().all(|t| t[..1] == three[0][..1])),
        "no other's between"
    );
}
