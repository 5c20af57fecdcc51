//! Each operator alone on the production step of a task: warm-up, duplicate, idle and late, one row each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use common::{dec, delta, instrument, level, ms, score, single, snapshot, trade};
use smol_str::SmolStr;
use tidewire_engine::driver::{Seen, TestDriver};
use tidewire_schemas::{
    Alert, Bar, Body as _, Direction, FeatureValue, FeatureVector, MarkPrice, OrderIntent, Quote, Record,
    Signal, topics,
};

const TICKS: &str = topics::TICKS;
/// Feature values are on no topic of ours; the engine takes any record from any.
const VALUES: &str = "test.values";

fn bar(at: i64, close: &str, revision: i32) -> Bar {
    Bar { instrument: "A.X".into(), event_time: ms(at), close: dec(close), revision, ..Bar::default() }
}

fn quote(at: i64, bid: &str, ask: &str) -> Quote {
    Quote {
        instrument: "A.X".into(),
        event_time: ms(at),
        bid_price: dec(bid),
        bid_quantity: dec("1"),
        ask_price: dec(ask),
        ask_quantity: dec("1"),
        ..Quote::default()
    }
}

fn value(name: &str, at: i64, value: f64) -> FeatureValue {
    FeatureValue { instrument: "A.X".into(), event_time: ms(at), name: name.into(), value }
}

fn vector(at: i64, fast: f64) -> FeatureVector {
    let values = [("f", fast), ("s", 100.0)].map(|(name, value)| (SmolStr::from(name), value));
    FeatureVector { instrument: "A.X".into(), event_time: ms(at), values: values.into() }
}

fn signal(at: i64, direction: Direction) -> Signal {
    Signal {
        id: format!("s{at}").into(),
        instrument: "A.X".into(),
        strategy: "x".into(),
        direction,
        event_time: ms(at),
        expiry: ms(at + 5_000),
        ..Signal::default()
    }
}

enum Do {
    /// A record of the instrument on a topic.
    Send(&'static str, i64, Box<Record>),
    /// The clock goes on, in milliseconds.
    Wait(i64),
}

fn send(topic: &'static str, at: i64, record: impl Into<Record>) -> Do {
    Do::Send(topic, at, Box::new(record.into()))
}

/// What came out, in short.
fn short(seen: &Seen) -> String {
    match &seen.record {
        Record::Bar(b) => format!("bar {} x{} r{}", b.window_end.as_ms(), b.trade_count, b.revision),
        Record::FeatureValue(v) => format!("{} {}", v.name, v.value),
        Record::FeatureVector(v) => {
            format!("vector {} {:?}", v.event_time.as_ms(), v.values.values().collect::<Vec<_>>())
        }
        Record::Signal(s) => format!("{} {}", s.direction, s.event_time.as_ms()),
        Record::MarkPrice(m) => format!("mark {}", m.mark),
        Record::Quote(q) => format!("{} {}", q.bid_price, q.ask_price),
        Record::OrderIntent(i) => format!("{} {}", i.side, i.quantity),
        Record::Alert(a) => format!("{} {}", a.kind, a.state),
        other => other.kind().to_string(),
    }
}

/// An operator, what happens, and after each step what comes out; then how many records were late.
type Row = (&'static str, &'static str, Vec<(Do, &'static [&'static str])>, usize);

fn rows() -> Vec<Row> {
    const DAY: i64 = 86_400_000;
    let t = DAY; // everything happens a day after 1970
    vec![
        (
            "time_bars",
            "interval_ms = 1000",
            vec![
                (send(TICKS, t + 100, trade("A.X", 1, t + 100, "5")), &[]),
                (send(TICKS, t + 200, trade("A.X", 2, t + 200, "6")), &[]),
                (send(TICKS, t + 200, trade("A.X", 2, t + 200, "6")), &[]), // twice
                (send(TICKS, t + 1_000, trade("A.X", 3, t + 1_000, "6")), &["bar 86401000 x2 r0"]),
                (send(TICKS, t + 999, trade("A.X", 4, t + 999, "6")), &[]), // late
                (Do::Wait(2_000), &["bar 86402000 x1 r0"]),                 // idle: time goes on by the clock
                (send(TICKS, 5, trade("A.X", 5, 5, "6")), &[]),             // a day late
            ],
            2,
        ),
        (
            "ema",
            "period = 2\nname = 'e'",
            vec![
                (send(topics::BARS, t, bar(t, "1", 0)), &[]), // warm-up
                (send(topics::BARS, t + 10, bar(t + 10, "2", 0)), &["e 1.5"]),
                (send(topics::BARS, t + 10, bar(t + 10, "2", 0)), &[]), // twice
                (send(topics::BARS, t + 10, bar(t + 10, "9", 1)), &[]), // a revision
                (send(topics::BARS, 5, bar(5, "9", 0)), &[]),           // a day late
                (Do::Wait(9_000), &[]),
                (send(topics::BARS, t + 20, bar(t + 20, "1.5", 0)), &["e 1.5"]),
            ],
            0,
        ),
        (
            "rsi",
            "period = 2\nname = 'r'",
            vec![
                (send(topics::BARS, t, bar(t, "1", 0)), &[]),
                (send(topics::BARS, t + 10, bar(t + 10, "2", 0)), &[]),
                (send(topics::BARS, t + 20, bar(t + 20, "1", 0)), &["r 50"]),
                (send(topics::BARS, t + 20, bar(t + 20, "1", 0)), &[]),
                (send(topics::BARS, 5, bar(5, "9", 0)), &[]),
            ],
            0,
        ),
        (
            "mid",
            "",
            vec![
                (send(TICKS, t, quote(t, "0", "12")), &[]), // one side only
                (send(TICKS, t, quote(t, "10", "12")), &["mid 11"]),
                (send(TICKS, 5, quote(5, "1", "2")), &[]),
            ],
            0,
        ),
        (
            "spread",
            "",
            vec![
                (send(TICKS, t, quote(t, "10", "12")), &["spread 2"]),
                (send(TICKS, 5, quote(5, "1", "2")), &[]),
            ],
            0,
        ),
        (
            "microprice",
            "",
            vec![
                (send(TICKS, t, quote(t, "10", "12")), &["microprice 11"]),
                (send(TICKS, 5, quote(5, "1", "2")), &[]),
            ],
            0,
        ),
        (
            "order_book",
            "",
            vec![
                (send(TICKS, t, delta("A.X", t, 7, vec![level("9", "1")], vec![])), &[]), // warm-up
                (send(TICKS, t + 1, snapshot("A.X", t + 1, 6, "8", "10")), &["9 10"]),
                (send(TICKS, t + 2, delta("A.X", t, 7, vec![level("9", "1")], vec![])), &[]), // twice
                (send(TICKS, 5, delta("A.X", 5, 3, vec![level("9.5", "1")], vec![])), &[]),   // a day late
                (send(TICKS, t + 3, delta("A.X", t, 9, vec![], vec![])), &["book-gap RAISED"]),
                (Do::Wait(9_000), &[]),
            ],
            0,
        ),
        (
            "marks",
            "min_interval_ms = 1000",
            vec![
                (send(TICKS, t, quote(t, "10", "12")), &["mark 11"]),
                (send(TICKS, t, quote(t, "10", "12")), &[]),
                (send(TICKS, 5, quote(5, "1", "2")), &[]),
                (send(TICKS, t + 1_000, quote(t + 1_000, "10", "12")), &["mark 11"]),
            ],
            0,
        ),
        (
            "as_of",
            "features = ['a', 'b']\nevery_ms = 100\nmax_age_ms = 250",
            vec![
                (send(VALUES, t + 10, value("a", t + 10, 1.0)), &[]),
                (send(VALUES, t + 110, value("b", t + 110, 2.0)), &[]), // b was missing at the boundary
                (send(VALUES, t + 110, value("b", t + 110, 2.0)), &[]), // twice
                (send(VALUES, 5, value("b", 5, 9.0)), &[]),             // a day late
                (send(VALUES, t + 205, value("a", t + 205, 3.0)), &["vector 86400200 [1.0, 2.0]"]),
                // Idle: until a value is too old.
                (Do::Wait(9_000), &["vector 86400300 [3.0, 2.0]"]),
            ],
            0,
        ),
        (
            "momentum",
            "strategy = 'm'\nfast = 'f'\nslow = 's'\nhorizon_ms = 500",
            vec![
                (send(topics::FEATURES, t, FeatureVector { values: [].into(), ..vector(t, 0.0) }), &[]),
                (send(topics::FEATURES, t + 1, vector(t + 1, 101.0)), &["LONG 86400001"]),
                (send(topics::FEATURES, t + 1, vector(t + 1, 101.0)), &[]),
                (send(topics::FEATURES, 5, vector(5, 99.0)), &[]),
                (Do::Wait(9_000), &["FLAT 86400501"]), // the horizon is over
            ],
            0,
        ),
        (
            "intents",
            "account = 'a'\nquantity = '1'",
            vec![
                (send(topics::SIGNALS, t, signal(t, Direction::Long)), &["intent-not-made RAISED"]), // no touch yet
                (
                    send(
                        topics::MARKS,
                        t,
                        MarkPrice {
                            instrument: "A.X".into(),
                            event_time: ms(t),
                            bid: dec("1"),
                            ask: dec("2"),
                            ..MarkPrice::default()
                        },
                    ),
                    &[],
                ),
                (send(topics::SIGNALS, t + 1, signal(t + 1, Direction::Long)), &["BUY 1"]),
                (send(topics::SIGNALS, t + 1, signal(t + 1, Direction::Long)), &[]), // twice
                (send(topics::SIGNALS, 5, signal(5, Direction::Short)), &["intent-not-made RAISED"]), // a day late
            ],
            0,
        ),
        (
            "sentiment",
            "half_life_ms = 1000\nevery_ms = 1000\nepsilon = 0.3",
            vec![
                (send(TICKS, t, trade("A.X", 1, t, "5")), &[]), // warm-up
                (
                    send(topics::SENTIMENT, t, score("*", t, 1.0)),
                    &["sentiment 0.4444444444444445", "sentiment_dispersion 0", "sentiment_volume 0.8"],
                ),
                (send(topics::SENTIMENT, 5, score("*", 5, -1.0)), &[]), // a day late
                // Idle: fades until it is below epsilon.
                (
                    Do::Wait(9_000),
                    &["sentiment 0.28571428571428575", "sentiment_dispersion 0", "sentiment_volume 0.4"],
                ),
            ],
            1,
        ),
        (
            "price_jump",
            "window_ms = 1000\nthreshold_bps = 100\ncooldown_ms = 2000",
            vec![
                (send(TICKS, t, trade("A.X", 1, t, "100")), &[]),
                (send(TICKS, t + 1, trade("A.X", 2, t + 1, "101")), &["price_jump RAISED"]),
                (send(TICKS, t + 1, trade("A.X", 2, t + 1, "101")), &[]), // twice
                (send(TICKS, 5, trade("A.X", 3, 5, "1")), &[]),           // a day late
                (Do::Wait(9_000), &["price_jump RECOVERED"]),
            ],
            1,
        ),
        (
            "stale_feed",
            "after_ms = 1000",
            vec![
                (send(TICKS, t, trade("A.X", 1, t, "100")), &[]),
                (Do::Wait(1_999), &[]), // an input is idle after 1000 ms only
                (Do::Wait(1), &["stale_feed RAISED"]),
                (send(TICKS, 5, trade("A.X", 2, 5, "100")), &[]),
                (send(TICKS, t + 9_000, trade("A.X", 3, t + 9_000, "100")), &["stale_feed RECOVERED"]),
            ],
            0,
        ),
    ]
}

#[test]
fn warm_up_duplicate_idle_and_late() {
    for (name, settings, steps, late) in rows() {
        let keyed: &[&str] = match name {
            "intents" => &[topics::SIGNALS, topics::MARKS],
            "as_of" => &[VALUES],
            "momentum" => &[topics::FEATURES],
            "ema" | "rsi" => &[topics::BARS],
            _ => &[TICKS],
        };
        let spec = single(name, settings, keyed, &[topics::INSTRUMENTS, topics::SENTIMENT]);
        let mut driver = TestDriver::new(spec);
        driver.pipe(topics::INSTRUMENTS, "A.X", 0, instrument("A.X"));
        for (number, (step, expected)) in steps.into_iter().enumerate() {
            let seen = match step {
                Do::Send(topic, at, record) => driver.pipe(topic, "A.X", at, *record),
                Do::Wait(ms) => driver.wait_ms(ms),
            };
            let got: Vec<_> = seen.iter().map(short).collect();
            assert_eq!(got, expected, "{name}, step {number}");
            for seen in &seen {
                assert_eq!(seen.key, "A.X");
                let (intent, alert) =
                    (OrderIntent::of(&seen.record).is_some(), Alert::of(&seen.record).is_some());
                assert!(intent || alert || seen.record.instrument() == Some("A.X"), "{name}: {seen:?}");
            }
        }
        assert_eq!(driver.late().len(), late, "{name}");
        assert!(driver.dead_letters().is_empty(), "{name}: {:?}", driver.dead_letters());
    }
}

#[test]
fn what_an_operator_refuses_is_a_dead_letter_and_the_rest_goes_on() {
    let mut driver = TestDriver::new(single("time_bars", "interval_ms = 1000", &[TICKS], &[]));
    driver.append(TICKS, "A.X", 10, trade("A.X", 1, 10, "5"));
    driver.append(TICKS, "A.X", 20, trade("A.X", 2, 20, "9999999999999999"));
    driver.append(
        TICKS,
        "A.X",
        30,
        tidewire_schemas::Trade { quantity: dec("-1"), ..trade("A.X", 3, 30, "5") },
    );
    driver.append(
        TICKS,
        "A.X",
        40,
        tidewire_schemas::Trade { quantity: dec("3"), ..trade("A.X", 4, 40, "9999999999999999") },
    );
    driver.append(TICKS, "A.X", 1_000, trade("A.X", 5, 1_000, "5"));
    let seen = driver.run();
    let bar = seen[0].record.as_bar().unwrap();
    assert_eq!((seen.len(), bar.trade_count, bar.volume), (1, 2, dec("1")));
    let letters = driver.dead_letters();
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().any(|letter| format!("{letter:?}").contains("bad-trade")), "{letters:?}");
    assert!(letters.iter().any(|letter| format!("{letter:?}").contains("overflow")), "{letters:?}");
}
