//! Random operations on the embedded log give what they give on the log in memory.
//!
//! The log in memory is short enough to be believed; it is the model. Both see the same appends, transactions,
//! rebalances, compactions and reads at the same times; the embedded one is also merged, reopened and read from the
//! store. After every few steps all that can be seen of them must be equal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod logs;

use logs::{Embedded, Memory, Subject, at, noise, position, read, record, tombstone};
use tidewire_engine::log::{CommitError, Member, NewRecord, TopicPartition, TopicSpec, Transaction};
use tidewire_engine::memory::MemoryLog;

const SEEDS: u64 = 15;
const STEPS: usize = 250;
const TOPICS: [(&str, u32); 3] = [("plain", 2), ("table", 2), ("aged", 1)];
const LAG_MS: u64 = 40;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn partition(&mut self) -> TopicPartition {
        let (topic, partitions) = TOPICS[self.below(TOPICS.len() as u64) as usize];
        at(topic, self.below(partitions.into()) as u32)
    }

    fn record(&mut self, n: u64) -> NewRecord {
        let key = format!("{}", self.below(6));
        let mut record = match self.below(5) {
            0 => tombstone(&key),
            1 => NewRecord { value: Some(noise(n, self.below(900) as usize)), ..record(&key, "") },
            _ => record(&key, &format!("{n} {}", "x".repeat(self.below(60) as usize))),
        };
        record.timestamp_ms = self.below(1000).cast_signed() - 500;
        if self.below(4) == 0 {
            record.headers.push(("n".into(), format!("{n}").into()));
        }
        record
    }

    fn records(&mut self, n: &mut u64) -> Vec<NewRecord> {
        let count = if self.below(30) == 0 { self.below(700) } else { self.below(5) };
        *n += count;
        (*n - count..*n).map(|n| self.record(n)).collect()
    }
}

/// A member of the same name on both logs.
type MemberPair = (String, Box<dyn Member>, Box<dyn Member>);

/// The model, the log under test, and a member of the same group in each.
struct Pair {
    model: Memory,
    tested: Embedded,
    members: Vec<MemberPair>,
    now_ms: u64,
    appended: u64,
    merged_blocks: u64,
}

impl Pair {
    fn new(cache_bytes: usize) -> Self {
        let pair = Self {
            model: Memory(MemoryLog::new()),
            tested: Embedded::with_cache(cache_bytes),
            members: Vec::new(),
            now_ms: 0,
            appended: 0,
            merged_blocks: 0,
        };
        for (name, partitions) in TOPICS {
            let mut spec = TopicSpec::new(name, partitions);
            match name {
                "table" => spec = spec.compacted(LAG_MS),
                "aged" => spec.retention_ms = Some(LAG_MS * 3),
                _ => {}
            }
            pair.model.log().create_topic(&spec).unwrap();
            pair.tested.log().create_topic(&spec).unwrap();
        }
        pair
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(20) {
            0..=5 => {
                let (at, records) = (random.partition(), random.records(&mut self.appended));
                let expected = self.model.log().append(&at, records.clone());
                assert_eq!(self.tested.log().append(&at, records), expected);
            }
            6..=10 => self.commit(random),
            11 => self.join(random),
            12 if !self.members.is_empty() => {
                let place = random.below(self.members.len() as u64) as usize;
                let (name, model, tested) = self.members.swap_remove(place);
                match random.below(3) {
                    0 => drop((model, tested)),
                    1 => assert_eq!(model.leave(), tested.leave()),
                    _ => assert_eq!(self.model.expire("g", &name), self.tested.expire("g", &name)),
                }
            }
            13 => self.members.iter_mut().for_each(|(_, model, tested)| {
                let Ok(assignment) = model.poll() else { return };
                assert_eq!(model.release(&assignment.revoking), tested.release(&assignment.revoking));
            }),
            14 | 15 => {
                self.now_ms += random.below(30);
                self.model.set_now_ms(self.now_ms);
                self.tested.set_now_ms(self.now_ms);
            }
            16 => assert_eq!(self.model.compact("table"), self.tested.compact("table"), "records that went"),
            17 => {
                self.model.apply_retention();
                self.tested.apply_retention();
            }
            18 => {
                self.model.apply_retention();
                // Merges after a start and after a compaction. There is not enough for it to compact by itself.
                let done = self.tested.embedded().maintain(self.now_ms, u64::MAX).unwrap();
                assert_eq!(done.compacted_records, 0);
                self.merged_blocks += done.merged_blocks;
            }
            _ => {
                // Groups end with the process.
                self.members.clear();
                self.tested.reopen();
            }
        }
    }

    fn join(&mut self, random: &mut Random) {
        let name = format!("m{}", random.below(3));
        let model = self.model.log().join("g", &name, "plain").unwrap();
        let tested = self.tested.log().join("g", &name, "plain").unwrap();
        self.members.push((name, model, tested));
    }

    fn commit(&mut self, random: &mut Random) {
        if self.members.is_empty() {
            return self.join(random);
        }
        let place = random.below(self.members.len() as u64) as usize;
        let mut transaction = Transaction::default();
        for _ in 0..random.below(4) {
            transaction.appends.push((random.partition(), random.records(&mut self.appended)));
        }
        for partition in 0..random.below(3) as u32 {
            transaction.offsets.push((at("plain", partition), position(random.below(99), "m")));
        }
        let (_, model, tested) = &mut self.members[place];
        let (expected, found) = (model.poll(), tested.poll());
        let current = expected.as_ref().map_or(7, |assignment| assignment.generation);
        transaction.generation = if random.below(8) == 0 { current.saturating_sub(1) } else { current };
        if let (Ok(expected), Ok(found)) = (&expected, &found) {
            assert_eq!((&expected.tasks, &expected.revoking), (&found.tasks, &found.revoking));
        }
        let kind = |outcome: Result<(), CommitError>| outcome.map_err(|error| format!("{error:?}"));
        // A reopened log counts generations anew.
        let generation = found.as_ref().map_or(7, |assignment| assignment.generation);
        let shifted = Transaction {
            generation: (transaction.generation + generation).saturating_sub(current),
            ..transaction.clone()
        };
        let (expected, found) = (kind(model.commit(transaction)), kind(tested.commit(shifted)));
        assert_eq!(expected.is_ok(), found.is_ok(), "{expected:?} {found:?}");
        let word =
            |outcome: Result<(), String>| outcome.err().map(|e| e.split('(').next().unwrap_or("").to_owned());
        assert_eq!(word(expected), word(found));
    }

    fn compare(&self, what: &str) {
        let (model, tested) = (self.model.log(), self.tested.log());
        for (topic, partitions) in TOPICS {
            for at in (0..partitions).map(|p| at(topic, p)) {
                let (expected, found) = (model.bounds(&at).unwrap(), tested.bounds(&at).unwrap());
                assert_eq!(expected.stable_end, found.stable_end, "{what}: {at}");
                assert_eq!(expected.high_watermark, found.high_watermark, "{what}: {at}");
                // Whole blocks are deleted, so a little more may be kept.
                assert!(
                    found.start <= expected.start,
                    "{what}: {at} begins at {}, not {}",
                    found.start,
                    expected.start
                );
                let mut kept = read(&*tested, &at);
                kept.retain(|stored| stored.offset >= expected.start);
                let model_kept = read(&*model, &at);
                let offsets = |records: &[tidewire_engine::log::StoredRecord]| {
                    records.iter().map(|stored| stored.offset).collect::<Vec<_>>()
                };
                assert_eq!(offsets(&kept), offsets(&model_kept), "{what}: offsets of {at}");
                assert!(kept == model_kept, "{what}: records of {at}");
                assert_eq!(tested.committed("g", &at), model.committed("g", &at), "{what}: {at}");
            }
        }
    }
}

#[test]
fn random_operations_give_what_they_give_in_memory() {
    let mut merged_blocks = 0;
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let mut pair = Pair::new([0, 3000, 1 << 20][seed as usize % 3]);
        for step in 0..STEPS {
            pair.step(&mut random);
            if step % 16 == 0 {
                pair.compare(&format!("seed {seed}, step {step}"));
            }
        }
        pair.compare(&format!("seed {seed}, at the end"));
        merged_blocks += pair.merged_blocks;
    }
    assert!(merged_blocks > SEEDS * 10, "only {merged_blocks} blocks were merged");
}
