//! Bytes from anywhere give a record or an error: no panic, and no more memory than the bytes justify.
//!
//! The mutations come from a fixed seed; `fuzz/` looks further with a fuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]
#![allow(clippy::disallowed_macros, reason = "a failing run shows how far it came")]

mod common;

use cap::Cap;
use common::sample::{Fill, sample};
use common::varint;
use std::alloc::System;
use tidewire_schemas::resolve::Plan;
use tidewire_schemas::{JsonReader, Kind, Record, SchemaBook};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What decoding may cost: a level of a book takes 4 bytes on the wire and 32 in memory, a vector that grows has
/// both its old and its new place; the rest is for names and messages.
const BYTES_PER_BYTE: usize = 100;
const BYTES_IN_ANY_CASE: usize = 100_000;

/// One test, so that nothing else allocates meanwhile.
#[test]
fn any_bytes_are_a_record_or_an_error() {
    let mut random = Random(20_261_120);
    let mut outcomes = [0usize; 2];
    for &kind in Kind::ALL {
        println!("{kind}");
        let generic = JsonReader::new(kind.schema_json()).unwrap();
        let corpus = corpus(kind.schema_json());
        for _ in 0..20_000 {
            let bytes = random.mutated(&corpus);
            within_bounds(&bytes, || {
                let decoded = Record::decode(kind, &bytes);
                outcomes[usize::from(decoded.is_ok())] += 1;
                // The two readers agree on what is a record, but for what JSON cannot hold: they name no key twice.
                let shown = generic.read(&bytes);
                assert!(decoded.is_err() || shown.is_ok(), "{kind}: {shown:?}");
            });
        }
    }
    // Mutations that are all refused at once, or never, would test little.
    assert!(outcomes.iter().all(|n| *n > 25_000), "{outcomes:?}");

    for (name, writer, reader) in common::evolutions::all() {
        println!("{name}");
        let plan = Plan::new(&writer, &reader).unwrap();
        let generic = JsonReader::new(&reader).unwrap();
        let corpus = corpus(&writer);
        for _ in 0..20_000 {
            let bytes = random.mutated(&corpus);
            within_bounds(&bytes, || {
                let mut out = Vec::new();
                if plan.rewrite(&bytes, &mut out).is_ok() {
                    generic
                        .read(&out)
                        .unwrap_or_else(|e| panic!("{name}: rewritten bytes are no datum: {e}"));
                }
            });
        }
    }
    prefixes(&mut random);
    counts_that_lie();
    long_lists();
}

/// Bytes that a schema allows, to start from.
fn corpus(schema: &str) -> Vec<Vec<u8>> {
    let data = common::datum(schema);
    (0..12).map(|seed| common::draw(&data, seed)).collect()
}

fn prefixes(random: &mut Random) {
    let book = SchemaBook::of_this_build();
    for _ in 0..50_000 {
        let length = random.below(12);
        let bytes: Vec<u8> =
            (0..length).map(|_| if random.below(3) == 0 { 0 } else { random.byte() }).collect();
        within_bounds(&bytes, || _ = book.decode(&bytes));
    }
}

/// Counts and lengths far beyond the bytes, where a decoder could set memory aside.
fn counts_that_lie() {
    for &kind in Kind::ALL {
        let body = sample(kind.schema_json(), Fill::Full);
        for at in 0..body.len() {
            for lie in [1 << 20, 1 << 31, 1 << 40, i64::MAX, -1, -(1 << 20), i64::MIN] {
                let bytes = [&body[..at], &varint(lie), &body[at..]].concat();
                within_bounds(&bytes, || _ = Record::decode(kind, &bytes));
            }
        }
    }
}

/// A count that the bytes behind could just justify, of items that take far more in memory.
fn long_lists() {
    for &kind in Kind::ALL {
        let body = sample(kind.schema_json(), Fill::Least);
        for at in 0..body.len() {
            let bytes = [&body[..at], &varint(250_000), &[0; 250_100]].concat();
            within_bounds(&bytes, || _ = Record::decode(kind, &bytes));
        }
    }
}

fn within_bounds(bytes: &[u8], run: impl FnOnce()) {
    let limit = MEMORY.allocated() + BYTES_IN_ANY_CASE + bytes.len() * BYTES_PER_BYTE;
    MEMORY.set_limit(limit).unwrap();
    // Beyond the limit the allocation fails and the process with it: `--nocapture` shows at which name.
    run();
    MEMORY.set_limit(usize::MAX).unwrap();
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// One of the corpus after one to four changes.
    fn mutated(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0 => bytes.truncate(at),
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = self.byte(),
                3 => bytes.insert(at, self.byte()),
                4 if !bytes.is_empty() => _ = bytes.remove(at),
                5 => {
                    let end = at + self.below(bytes.len() - at + 1);
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                6 => {
                    let shift = self.below(63);
                    let number = varint((self.next() >> shift) as i64);
                    bytes.splice(at..at, number);
                }
                _ => {
                    let other = corpus[self.below(corpus.len())].clone();
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes
    }
}
