//! The state of every operator is shown by its layout alone: what the layout says can be written is taken back by the
//! operator, listed as the same bytes, and shown with the names of its fields.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;

use serde_json::Value;
use tidewire_contract::{Entry, Interner, Layout, NodeLayout, Persist as _, Plain, StateLayout};
use tidewire_operators::OPERATORS;
use tidewire_schemas::{
    Body, BookDelta, CancelOrder, ControlCommand, Instrument, MarkPrice, NewOrder, Order, OrderIntent, Quote,
    ReplaceOrder, RiskLimits, SentimentScore, Trade,
};

/// Settings with which each operator can be made.
const SETTINGS: &[(&str, &str)] = &[
    ("as_of", "features = [\"a\"]\nevery_ms = 1_000\nmax_age_ms = 10_000"),
    ("ema", "period = 5\nname = \"x\""),
    ("intents", "account = \"a\"\nnotional = \"1000\""),
    ("marks", ""),
    ("microprice", "name = \"x\""),
    ("mid", "name = \"x\""),
    ("momentum", "strategy = \"s\"\nfast = \"f\"\nslow = \"g\"\nhorizon_ms = 60_000"),
    ("order_book", ""),
    ("paper_venue", "delay_ms = 20\nfee_bps = \"5\""),
    ("price_jump", "window_ms = 10_000\nthreshold_bps = 4.0\ncooldown_ms = 20_000"),
    ("risk_orders", "pnl_interval_ms = 1_000"),
    ("rsi", "period = 9\nname = \"x\""),
    ("sentiment", "name = \"x\"\nhalf_life_ms = 600_000\nevery_ms = 1_000"),
    ("spread", "name = \"x\""),
    ("stale_feed", "after_ms = 5_000"),
    ("time_bars", "interval_ms = 1_000"),
];

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn body<B: Body + Default>() -> Vec<u8> {
    let mut bytes = Vec::new();
    B::default().encode(&mut bytes);
    bytes
}

fn record(name: &str) -> Vec<u8> {
    match name {
        "tidewire.Instrument" => body::<Instrument>(),
        "tidewire.MarkPrice" => body::<MarkPrice>(),
        "tidewire.NewOrder" => body::<NewOrder>(),
        "tidewire.Order" => body::<Order>(),
        "tidewire.OrderIntent" => body::<OrderIntent>(),
        "tidewire.Quote" => body::<Quote>(),
        "tidewire.RiskLimits" => body::<RiskLimits>(),
        "tidewire.SentimentScore" => body::<SentimentScore>(),
        "tidewire.Trade" => body::<Trade>(),
        "tidewire.BookDelta" => body::<BookDelta>(),
        "tidewire.CancelOrder" => body::<CancelOrder>(),
        "tidewire.ReplaceOrder" => body::<ReplaceOrder>(),
        "tidewire.ControlCommand" => body::<ControlCommand>(),
        other => panic!("add {other} to this list"),
    }
}

/// A value of the layout.
fn put(layout: &Layout, random: &mut Random, out: &mut Vec<u8>) {
    match layout {
        Layout::Plain(plain) => put_plain(*plain, random, out),
        Layout::Optional(inner) => {
            let is_some = random.below(2) == 1;
            is_some.save(out);
            if is_some {
                put(inner, random, out);
            }
        }
        Layout::List(inner) => {
            // One at most: sets and maps are written in the order of their keys.
            let len = u32::try_from(random.below(2)).unwrap();
            len.save(out);
            (0..len).for_each(|_| put(inner, random, out));
        }
        Layout::Map(key, value) => {
            let len = u32::try_from(random.below(2)).unwrap();
            len.save(out);
            for _ in 0..len {
                put(key, random, out);
                put(value, random, out);
            }
        }
        Layout::Tuple(parts) => parts.iter().for_each(|part| put(part, random, out)),
        Layout::Struct(fields) => fields.iter().for_each(|(_, field)| put(field, random, out)),
        Layout::Choice(names) => out.push(u8::try_from(random.below(names.len() as u64)).unwrap()),
        Layout::Record(reader) => {
            let bytes = record(reader.record_name().unwrap());
            u32::try_from(bytes.len()).unwrap().save(out);
            out.extend(bytes);
        }
    }
}

fn put_plain(plain: Plain, random: &mut Random, out: &mut Vec<u8>) {
    let bytes = random.next().to_le_bytes();
    let small = i64::try_from(random.below(1 << 50)).unwrap();
    match plain {
        Plain::U8 | Plain::I8 => out.push(bytes[0]),
        Plain::U16 | Plain::I16 => out.extend(&bytes[..2]),
        Plain::U32 | Plain::I32 => out.extend(&bytes[..4]),
        Plain::U64 | Plain::I64 => out.extend(bytes),
        Plain::U128 | Plain::I128 => {
            out.extend(bytes);
            out.extend(bytes);
        }
        Plain::F32 => 1.5_f32.save(out),
        Plain::F64 => f64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).save(out),
        Plain::Bool => bytes[0].is_multiple_of(2).save(out),
        Plain::Unit => {}
        Plain::Text => smol_str::SmolStr::new(format!("text {small}")).save(out),
        Plain::EventTime | Plain::ReceivedTime => small.save(out),
        Plain::Price | Plain::Quantity | Plain::Amount => i128::from(small).save(out),
    }
}

/// Entries of a state of the layout.
fn entries(layout: &StateLayout, random: &mut Random) -> Vec<Entry> {
    let value = |layout: &Layout, random: &mut Random| {
        let mut bytes = Vec::new();
        put(layout, random, &mut bytes);
        bytes
    };
    match layout {
        StateLayout::None => Vec::new(),
        StateLayout::Whole(layout) => vec![(Vec::new(), value(layout, random))],
        StateLayout::Entries(key, layout) => {
            let mut subs = BTreeSet::new();
            let all = (0..random.below(4)).map(|_| (value(key, random), value(layout, random)));
            all.filter(|(sub, _)| subs.insert(sub.clone())).collect()
        }
        StateLayout::Queue(layout) => {
            let first = random.below(1_000);
            let len = random.below(4);
            (first..first + len)
                .map(|number| (number.to_be_bytes().to_vec(), value(layout, random)))
                .collect()
        }
        StateLayout::Parts(parts) => {
            let mut all = Vec::new();
            for (place, (_, layout)) in (0_u8..).zip(parts) {
                for (sub, value) in entries(layout, random) {
                    all.push(([&[place], &*sub].concat(), value));
                }
            }
            all
        }
    }
}

/// The names in the layout that must be in what is shown of these entries.
fn check_names(layout: &StateLayout, entries: &[Entry], shown: &Value) {
    match layout {
        StateLayout::Whole(layout) => check_value(layout, shown),
        StateLayout::Entries(_, layout) => {
            let shown = shown.as_object().unwrap();
            assert_eq!(shown.len(), entries.len());
            shown.values().for_each(|value| check_value(layout, value));
        }
        StateLayout::Queue(layout) => {
            let shown = shown.as_array().unwrap();
            assert_eq!(shown.len(), entries.len());
            shown.iter().for_each(|value| check_value(layout, value));
        }
        StateLayout::Parts(parts) => {
            for (place, (name, layout)) in (0_u8..).zip(parts) {
                let own = entries.iter().filter(|(sub, _)| sub[0] == place);
                let own: Vec<Entry> = own.map(|(sub, value)| (sub[1..].to_vec(), value.clone())).collect();
                check_names(layout, &own, shown.get(name).unwrap());
            }
        }
        StateLayout::None => assert!(shown.is_null()),
    }
}

fn check_value(layout: &Layout, shown: &Value) {
    match layout {
        Layout::Struct(fields) => {
            for (name, field) in fields {
                check_value(field, shown.get(name).unwrap_or_else(|| panic!("{name} is not in {shown}")));
            }
        }
        Layout::Choice(names) => assert!(names.iter().any(|name| shown == name)),
        Layout::Record(_) => assert!(shown.get("event_time").is_some() || shown.get("instrument").is_some()),
        Layout::List(_) => assert!(shown.is_array()),
        Layout::Map(..) => assert!(shown.is_object()),
        _ => {}
    }
}

#[test]
fn every_operators_state_is_shown_by_its_layout() {
    let names: Vec<&str> = OPERATORS.iter().map(|operator| operator.name).collect();
    let known: Vec<&str> = SETTINGS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "each operator needs settings here");
    for (operator, (name, settings)) in OPERATORS.iter().zip(SETTINGS) {
        let settings = toml::from_str(settings).unwrap();
        let make = || (operator.build)(&settings).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (_, text) = make().state_layout();
        let layout = NodeLayout::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"));
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..200 {
            let mut made = make();
            let mut names = Interner::default();
            let key = names.intern("A.X");
            for (layout, key) in [(&layout.key, Some(key)), (&layout.task, None)] {
                let mut written = entries(layout, &mut random);
                for (sub, value) in &written {
                    made.restore(key, sub, value, 1).unwrap_or_else(|error| panic!("{name}: {error}"));
                }
                let mut listed: Vec<Entry> = Vec::new();
                made.list(key, &mut |sub, value| listed.push((sub.to_vec(), value.to_vec())));
                let shown = layout.show(&listed).unwrap_or_else(|error| panic!("{name}: {error}"));
                check_names(layout, &listed, &shown);
                listed.sort();
                written.sort();
                assert_eq!(listed, written, "{name}");
            }
        }
    }
}
