//! Bytes to records and back.

use std::collections::BTreeMap;
use std::hint::black_box;

use bytes::Bytes;
use smol_str::SmolStr;
use tidewire_schemas::wire::{PREFIX_BYTES, put_prefix};
use tidewire_schemas::{
    Direction, EpochRecord, EventTime, FeatureVector, InputProgress, Kind, Record, SchemaBook, Signal,
};

use super::Case;
use super::market::{self, FROM_MS, Made};

/// Records a round, each of them another.
const RECORDS: usize = 1_000;
/// A schema id that is not this build's.
const OLDER: u32 = 1_000;

/// Makes the records of a round.
type Records = fn() -> Vec<Record>;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let made: [(&str, Records); 7] = [
        ("Trade", || records(market::trades(100, 2_000))),
        ("Quote", || records(market::quotes())),
        ("BookDelta", || records(market::book().skip_while(|made| made.record.kind() != Kind::BookDelta))),
        ("Bar", || records(market::bars(100))),
        ("FeatureVector", || (0..RECORDS).map(|n| vector(n).into()).collect()),
        ("Signal", || (0..RECORDS).map(|n| signal(n).into()).collect()),
        ("EpochRecord", || (0..RECORDS).map(|n| epoch(n).into()).collect()),
    ];
    for (name, records) in made {
        cases.push(decode(format!("codec/decode {name}"), move || {
            let book = SchemaBook::of_this_build();
            (encoded(&book, &records()), book)
        }));
        cases.push(Case::new(format!("codec/encode {name}"), "record", RECORDS, move || {
            let (book, records) = (SchemaBook::of_this_build(), records());
            let mut out = Vec::with_capacity(4_096);
            let run = move |()| {
                for record in &records {
                    out.clear();
                    book.encode(black_box(record), &mut out).unwrap();
                    black_box(&out);
                }
            };
            (|| (), run)
        }));
    }
    cases.push(decode("codec/decode Trade of an older writer".to_owned(), || {
        let mut book = SchemaBook::of_this_build();
        (older(&mut book, &records(market::trades(100, 2_000))), book)
    }));
    cases
}

fn decode(name: String, made: impl Fn() -> (Vec<Vec<u8>>, SchemaBook) + 'static) -> Case {
    Case::new(name, "record", RECORDS, move || {
        let (values, book) = made();
        let run = move |()| {
            for value in &values {
                black_box(book.decode(black_box(value)).unwrap());
            }
        };
        (|| (), run)
    })
}

fn records(made: impl Iterator<Item = Made>) -> Vec<Record> {
    made.take(RECORDS).map(|made| made.record).collect()
}

fn encoded(book: &SchemaBook, records: &[Record]) -> Vec<Vec<u8>> {
    let encode = |record: &Record| {
        let mut value = Vec::new();
        book.encode(record, &mut value).unwrap();
        value
    };
    records.iter().map(encode).collect()
}

/// The records as a writer wrote them whose schema had one field more, which was given up since: they are rewritten
/// before they are read.
fn older(book: &mut SchemaBook, records: &[Record]) -> Vec<Vec<u8>> {
    let json = Kind::Trade.schema_json();
    let fields = json.strip_suffix("}]}").expect("the schema ends with its last field");
    let json = format!(r#"{fields}}},{{"name":"note","type":["null","string"]}}]}}"#);
    book.add_writer(OLDER, &json).unwrap();
    let rewrite = |value: Vec<u8>| {
        let mut out = Vec::new();
        put_prefix(&mut out, OLDER);
        out.extend_from_slice(&value[PREFIX_BYTES..]);
        out.push(0);
        out
    };
    encoded(book, records).into_iter().map(rewrite).collect()
}

fn values(n: usize) -> BTreeMap<SmolStr, f64> {
    let names = ["ema_fast", "ema_slow", "microprice", "rsi", "sentiment", "spread_bps"];
    names.into_iter().zip(n..).map(|(name, n)| (name.into(), n as f64 * 0.731)).collect()
}

fn time(n: usize) -> EventTime {
    EventTime::from_ms(FROM_MS + n as i64 * 7)
}

fn vector(n: usize) -> FeatureVector {
    FeatureVector { instrument: market::name(n % 100), event_time: time(n), values: values(n) }
}

fn signal(n: usize) -> Signal {
    Signal {
        id: format!("trend:{}:{n}", market::name(n % 100)).into(),
        instrument: market::name(n % 100),
        strategy: "trend".into(),
        direction: if n.is_multiple_of(2) { Direction::Long } else { Direction::Short },
        strength: 0.4,
        confidence: 0.7,
        event_time: time(n),
        horizon_ms: 60_000,
        expiry: time(n).plus_ms(60_000),
        values: values(n),
    }
}

/// An epoch of a stage with two inputs.
fn epoch(n: usize) -> EpochRecord {
    let first_offset = n as i64 * 250;
    let digest = || Bytes::copy_from_slice(&(n as u128).to_le_bytes());
    let input = |topic: &str| InputProgress {
        topic: topic.into(),
        first_offset,
        next_offset: first_offset + 250,
        records: 250,
        digest: digest(),
        greatest_event_time_ms: Some(time(n).as_ms()),
        ..InputProgress::default()
    };
    EpochRecord {
        pipeline: "market-intel".into(),
        stage: "signals".into(),
        epoch: n as i64,
        stamp_ms: time(n).as_ms(),
        closing_sequence: n as i64 * 40,
        inputs: vec![input("market.ticks.v1"), input("reference.instruments.v1")],
        watermark_ms: Some(time(n).as_ms() - 250),
        stream_time_ms: Some(time(n).as_ms()),
        output_count: 40,
        output_digest: digest(),
        writer: "market-intel.signals-1".into(),
        build_digest: digest(),
        schema_digest: digest(),
        pipeline_digest: digest(),
        ..EpochRecord::default()
    }
}
