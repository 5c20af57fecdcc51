//! What decoding and encoding a tick costs: the compiled codec against one written by hand for this record alone,
//! and the rewriting of another version's bytes. `cargo bench -p tidewire-schemas`
//!
//! Prints medians of nanoseconds a record, and ratios to the hand-written code; read the ratios. Fails when the
//! compiled codec takes more than 1.5 times as long.

#![allow(clippy::unwrap_used, clippy::cast_possible_wrap, reason = "a bench")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a bench measures time and prints it"
)]

use smol_str::SmolStr;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;
use tidewire_schemas::wire::{Cursor, PREFIX_BYTES, put_prefix};
use tidewire_schemas::{
    Aggressor, DecodeError, EventTime, Kind, Price, Quantity, ReceivedTime, Record, SchemaBook, Trade,
};

const RECORDS: usize = 1_000;
const ROUNDS: usize = 201;
const MOST: f64 = 1.5;

fn main() -> ExitCode {
    let trades: Vec<Trade> = (0..RECORDS as i64).map(trade).collect();
    let mut book = SchemaBook::of_this_build();
    let values: Vec<Vec<u8>> = trades.iter().map(|t| encoded(&book, t)).collect();
    let resolving = older_writer(&mut book, &values);
    println!("{RECORDS} trades of {} bytes, median of {ROUNDS} rounds", values[0].len());

    // The rounds take turns, so that a busy machine slows all alike.
    let mut out = Vec::with_capacity(128);
    let names = [
        "decode by hand",
        "decode compiled",
        "decode as Record",
        "decode by the book",
        "decode and rewrite",
        "encode by hand",
        "encode compiled",
    ];
    let mut times = vec![Vec::with_capacity(ROUNDS); names.len()];
    for _ in 0..ROUNDS {
        times[0].push(time(&values, |v| _ = black_box(by_hand::decode(black_box(&v[PREFIX_BYTES..])))));
        times[1].push(time(&values, |v| _ = black_box(compiled(black_box(&v[PREFIX_BYTES..])))));
        times[2].push(time(&values, |v| {
            _ = black_box(Record::decode(Kind::Trade, black_box(&v[PREFIX_BYTES..])))
        }));
        times[3].push(time(&values, |v| _ = black_box(book.decode(black_box(v)))));
        times[4].push(time(&resolving, |v| _ = black_box(book.decode(black_box(v)))));
        times[5].push(time(&trades, |t| {
            out.clear();
            by_hand::encode(black_box(t), &mut out);
            black_box(&out);
        }));
        times[6].push(time(&trades, |t| {
            out.clear();
            black_box(t).encode(&mut out);
            black_box(&out);
        }));
    }
    let medians: Vec<f64> = times.iter_mut().map(|t| median(t)).collect();
    for (i, name) in names.iter().enumerate() {
        let by_hand = medians[if i < 5 { 0 } else { 5 }];
        println!("{name:<20} {:>6.1} ns  {:>5.2}x", medians[i], medians[i] / by_hand);
    }
    let worst = (medians[1] / medians[0]).max(medians[6] / medians[5]);
    if worst > MOST {
        println!("the compiled codec takes {worst:.2} times as long as by hand, more than {MOST}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn trade(i: i64) -> Trade {
    Trade {
        instrument: "BTCUSDT.BINANCE_USDM".into(),
        event_time: EventTime::from_micros(1_715_171_400_000_000 + i * 1_003),
        received_time: ReceivedTime::from_nanos(1_715_171_401_000_000_000 + i * 1_003_007),
        trade_id: 4_900_000_000 + i,
        price: Price::from_units(i128::from(62_000_000 + i * 10) * 1_000_000_000).unwrap(),
        quantity: Quantity::from_units(i128::from(1 + i % 900) * 1_000_000_000).unwrap(),
        aggressor: if i % 3 == 0 { Aggressor::Buyer } else { Aggressor::Seller },
        market: true,
    }
}

fn encoded(book: &SchemaBook, trade: &Trade) -> Vec<u8> {
    let mut out = Vec::new();
    book.encode_body(trade, &mut out).unwrap();
    out
}

/// The same trades from a writer with one field more, at the end.
fn older_writer(book: &mut SchemaBook, values: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let more = r#"},{"name":"note","type":["null","string"]}]}"#;
    let json = Kind::Trade.schema_json();
    let json = format!("{}{more}", json.strip_suffix("}]}").unwrap());
    book.add_writer(1_000, &json).unwrap();
    values
        .iter()
        .map(|value| {
            let mut out = Vec::new();
            put_prefix(&mut out, 1_000);
            out.extend_from_slice(&value[PREFIX_BYTES..]);
            out.push(0);
            out
        })
        .collect()
}

fn compiled(body: &[u8]) -> Result<Trade, DecodeError> {
    let mut cursor = Cursor::new(body);
    let trade = Trade::decode(&mut cursor)?;
    cursor.finish()?;
    Ok(trade)
}

fn time<T>(items: &[T], mut run: impl FnMut(&T)) -> f64 {
    let start = Instant::now();
    for item in items {
        run(item);
    }
    start.elapsed().as_secs_f64() * 1e9 / items.len() as f64
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// What someone would write for this one record, with the same checks: bounds, UTF-8, digits.
mod by_hand {
    use super::*;

    pub fn decode(bytes: &[u8]) -> Option<Trade> {
        let mut at = bytes;
        let text = slice(&mut at)?;
        let trade = Trade {
            instrument: SmolStr::new(std::str::from_utf8(text).ok()?),
            event_time: EventTime::from_micros(long(&mut at)?),
            received_time: ReceivedTime::from_nanos(long(&mut at)?),
            trade_id: long(&mut at)?,
            price: Price::from_units(units(slice(&mut at)?)?).ok()?,
            quantity: Quantity::from_units(units(slice(&mut at)?)?).ok()?,
            aggressor: *Aggressor::ALL.get(usize::try_from(long(&mut at)?).ok()?)?,
            market: match at.split_first()? {
                (0, []) => false,
                (1, []) => true,
                _ => return None,
            },
        };
        Some(trade)
    }

    fn slice<'a>(at: &mut &'a [u8]) -> Option<&'a [u8]> {
        let length = usize::try_from(long(at)?).ok()?;
        let (slice, rest) = at.split_at_checked(length)?;
        *at = rest;
        Some(slice)
    }

    fn long(at: &mut &[u8]) -> Option<i64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let (&byte, rest) = at.split_first()?;
            *at = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    fn units(bytes: &[u8]) -> Option<i128> {
        let mut value = if *bytes.first()? >= 0x80 { -1i128 } else { 0 };
        if bytes.len() > 16 {
            return None;
        }
        for byte in bytes {
            value = (value << 8) | i128::from(*byte);
        }
        Some(value)
    }

    pub fn encode(trade: &Trade, out: &mut Vec<u8>) {
        put_slice(out, trade.instrument.as_bytes());
        put_long(out, trade.event_time.as_micros());
        put_long(out, trade.received_time.as_nanos());
        put_long(out, trade.trade_id);
        for units in [trade.price.units(), trade.quantity.units()] {
            let bytes = units.to_be_bytes();
            let mut from = 0;
            while from < 15
                && bytes[from] == if units < 0 { 0xff } else { 0 }
                && (bytes[from + 1] >= 0x80) == (units < 0)
            {
                from += 1;
            }
            put_slice(out, &bytes[from..]);
        }
        put_long(out, trade.aggressor as i64);
        out.push(u8::from(trade.market));
    }

    fn put_slice(out: &mut Vec<u8>, bytes: &[u8]) {
        put_long(out, i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        out.extend_from_slice(bytes);
    }

    fn put_long(out: &mut Vec<u8>, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            out.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
}
