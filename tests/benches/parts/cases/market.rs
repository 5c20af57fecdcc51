//! Made market records, without end and the same from each start: what operators take.

use smol_str::{SmolStr, format_smolstr};
use tidewire_schemas::{
    Amount, AssetClass, Bar, BarKind, BookDelta, BookSnapshot, EventTime, FeatureValue, FeatureVector,
    Instrument, Level, Price, Quantity, Quote, Record, SentimentScore,
};
use tidewire_tests::random::Random;
use tidewire_tests::ticks::Market;

/// Time of the first record.
pub const FROM_MS: i64 = 1_723_161_600_000;
/// Instruments, where nothing else is said.
pub const SYMBOLS: usize = 100;
/// Records in a millisecond of event time, where nothing else is said.
const PER_MS: usize = 2;

/// Inputs of a stage, by rank: what is keyed, what all tasks read, what is taken before the rest.
pub const KEYED: usize = 0;
pub const SHARED: usize = 1;
pub const CONTROL: usize = 2;

/// A record on its way to a stage.
pub struct Made {
    pub input: usize,
    pub time_ms: i64,
    pub key: SmolStr,
    pub record: Record,
}

impl Made {
    pub fn of(input: usize, time: EventTime, key: &str, record: impl Into<Record>) -> Self {
        Self { input, time_ms: time.as_ms(), key: key.into(), record: record.into() }
    }
}

/// Name of an instrument, as [`Market`] gives it.
pub fn name(symbol: usize) -> SmolStr {
    format_smolstr!("S{symbol}.PEER")
}

pub fn price(cents: i64) -> Price {
    Price::from_units(i128::from(cents) * 10_000_000_000).unwrap()
}

/// From thousandths.
pub fn quantity(thousandths: usize) -> Quantity {
    Quantity::from_units(thousandths as i128 * 1_000_000_000).unwrap()
}

pub fn time_of(number: usize) -> EventTime {
    EventTime::from_ms(FROM_MS + (number / PER_MS) as i64)
}

/// Prices that walk by up to five basis points, in hundredths.
pub struct Walks {
    pub random: Random,
    cents: Vec<i64>,
}

impl Walks {
    pub fn new(symbols: usize) -> Self {
        let mut random = Random::new(7);
        let cents = (0..symbols).map(|_| 100_000 + random.below(6_000_000) as i64).collect();
        Self { random, cents }
    }

    pub fn step(&mut self, symbol: usize) -> i64 {
        let up = self.random.below(2_001) as i64 - 1_000;
        let cents = &mut self.cents[symbol];
        *cents = (*cents + *cents * up / 2_000_000).max(10_000);
        *cents
    }

    pub fn at(&self, symbol: usize) -> i64 {
        self.cents[symbol]
    }
}

/// Trades, up to 200 ms out of order.
pub fn trades(symbols: usize, per_s: u64) -> impl Iterator<Item = Made> {
    let market = Market { symbols, per_s, disorder_ms: 200, partitions: 1, ..Market::default() };
    market.trades().map(|(_, trade)| Made::of(KEYED, trade.event_time, &trade.instrument.clone(), trade))
}

/// A quote of one of all instruments: the price moves in one of three.
pub fn quote(walks: &mut Walks, number: usize) -> Quote {
    let symbol = walks.random.below(SYMBOLS);
    let cents = if number.is_multiple_of(3) { walks.step(symbol) } else { walks.at(symbol) };
    Quote {
        instrument: name(symbol),
        event_time: time_of(number),
        update_id: number as i64 + 1,
        bid_price: price(cents - 1),
        bid_quantity: quantity(1 + walks.random.below(50_000)),
        ask_price: price(cents + 1),
        ask_quantity: quantity(1 + walks.random.below(50_000)),
        ..Quote::default()
    }
}

pub fn quotes() -> impl Iterator<Item = Made> {
    let mut walks = Walks::new(SYMBOLS);
    (0..).map(move |number| {
        let quote = quote(&mut walks, number);
        Made::of(KEYED, quote.event_time, &quote.instrument.clone(), quote)
    })
}

/// Books of 20 instruments with 50 levels a side, and changes of four levels each, most of them near the touch.
pub fn book() -> impl Iterator<Item = Made> {
    const BOOKS: usize = 20;
    const LEVELS: usize = 50;
    const MIDDLE: i64 = 500_000;
    let mut random = Random::new(5);
    let level = |random: &mut Random, down: bool, place: usize| {
        let away = 1 + place as i64;
        let cents = if down { MIDDLE - away } else { MIDDLE + away };
        // One change in eight takes the level away; the deepest stays, so that there are always two sides.
        let gone = place + 1 < LEVELS && random.below(8) == 0;
        Level {
            price: price(cents),
            quantity: if gone { Quantity::ZERO } else { quantity(1 + random.below(90_000)) },
        }
    };
    let mut update = 0;
    (0..).map(move |number| {
        let (instrument, event_time) = (name(number % BOOKS), time_of(number));
        if number < BOOKS {
            let side = |down: bool| {
                let cents = |place: i64| if down { MIDDLE - place } else { MIDDLE + place };
                (1..=LEVELS as i64)
                    .map(|place| Level { price: price(cents(place)), quantity: quantity(5_000) })
                    .collect()
            };
            let (bids, asks) = (side(true), side(false));
            let snapshot = BookSnapshot {
                instrument: instrument.clone(),
                event_time,
                bids,
                asks,
                ..BookSnapshot::default()
            };
            return Made::of(KEYED, event_time, &instrument, snapshot);
        }
        if number.is_multiple_of(BOOKS) {
            update += 1;
        }
        let mut side = |down: bool| {
            let near = random.below(8);
            let far = random.below(LEVELS);
            vec![level(&mut random, down, near), level(&mut random, down, far)]
        };
        let delta = BookDelta {
            instrument: instrument.clone(),
            event_time,
            first_update_id: update,
            last_update_id: update,
            bids: side(true),
            asks: side(false),
            ..BookDelta::default()
        };
        Made::of(KEYED, event_time, &instrument, delta)
    })
}

/// Bars of a second of as many instruments.
pub fn bars(symbols: usize) -> impl Iterator<Item = Made> {
    let mut walks = Walks::new(symbols);
    (0..).map(move |number| {
        let (symbol, second) = (number % symbols, (number / symbols) as i64);
        let (open, close) = (walks.at(symbol), walks.step(symbol));
        let end = EventTime::from_ms(FROM_MS + (second + 1) * 1_000);
        let volume = quantity(1 + walks.random.below(90_000));
        let bar = Bar {
            instrument: name(symbol),
            event_time: end,
            bar_kind: BarKind::Time,
            window_start: end.minus_ms(1_000),
            window_end: end,
            interval_ms: 1_000,
            open: price(open),
            high: price(open.max(close) + 1),
            low: price(open.min(close) - 1),
            close: price(close),
            volume,
            buy_volume: volume,
            notional: price(close).checked_mul(volume).unwrap_or(Amount::ZERO),
            vwap: price(close),
            trade_count: 20,
            revision: 0,
            is_final: true,
        };
        Made::of(KEYED, end, &name(symbol), bar)
    })
}

/// A value of a feature as it swings around its middle within twenty seconds; each instrument at another point of it.
fn swing(symbol: usize, tenths: usize, middle: f64, by: f64) -> f64 {
    let turn = (symbol * 37 + tenths) % 200;
    middle + by * libm::sin(turn as f64 / 200.0 * std::f64::consts::TAU)
}

/// The features of the shipped pipeline, each once a second for each instrument.
pub fn features() -> impl Iterator<Item = Made> {
    const NAMES: [&str; 6] = ["ema_fast", "ema_slow", "rsi", "spread_bps", "microprice", "sentiment"];
    (0..).map(|number| {
        let (feature, symbol) = (number % NAMES.len(), number / NAMES.len() % SYMBOLS);
        let second = number / NAMES.len() / SYMBOLS;
        // Spread over the second.
        let event_time = EventTime::from_ms(FROM_MS + second as i64 * 1_000 + symbol as i64 * 10);
        let value = FeatureValue {
            instrument: name(symbol),
            event_time,
            name: NAMES[feature].into(),
            value: swing(symbol, second * 10, 100.0, 5.0),
        };
        Made::of(KEYED, event_time, &name(symbol), value)
    })
}

/// Vectors, one a second for each instrument: the fast average leads and falls behind in turns.
pub fn vectors() -> impl Iterator<Item = Made> {
    (0..).map(|number| {
        let (symbol, second) = (number % SYMBOLS, number / SYMBOLS);
        let event_time = EventTime::from_ms(FROM_MS + (second as i64 + 1) * 1_000);
        let values = [
            ("ema_fast", swing(symbol, second * 10, 100.0, 0.05)),
            ("ema_slow", 100.0),
            ("microprice", 100.0),
            ("rsi", swing(symbol, second * 10, 50.0, 20.0)),
            ("sentiment", swing(symbol, second * 10, 0.0, 0.4)),
            ("spread_bps", 2.0),
        ];
        let values = values.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let vector = FeatureVector { instrument: name(symbol), event_time, values };
        Made::of(KEYED, event_time, &name(symbol), vector)
    })
}

/// What is written about instruments, between their trades: a score for a hundred trades, one in twenty about all.
pub fn opinions() -> impl Iterator<Item = Made> {
    let mut random = Random::new(3);
    let mut trades = trades(SYMBOLS, 2_000);
    let made = (0..).map(move |number: usize| {
        if !number.is_multiple_of(100) {
            return trades.next().expect("trades have no end");
        }
        let asset = if number.is_multiple_of(2_000) {
            "*".into()
        } else {
            format_smolstr!("S{}", random.below(SYMBOLS))
        };
        let event_time = time_of(number);
        let score = random.share() * 2.0 - 1.0;
        let score = SentimentScore {
            asset: asset.clone(),
            event_time,
            score,
            confidence: 0.8,
            ..SentimentScore::default()
        };
        Made::of(SHARED, event_time, &asset, score)
    });
    instruments().chain(made)
}

/// What is known of the instruments before anything else comes.
pub fn instruments() -> impl Iterator<Item = Made> {
    (0..SYMBOLS).map(|symbol| {
        let time = EventTime::from_ms(FROM_MS - 10_000);
        let instrument = Instrument {
            instrument: name(symbol),
            symbol: name(symbol),
            asset_class: AssetClass::Perpetual,
            base: format_smolstr!("S{symbol}"),
            quote: "USDT".into(),
            settle: "USDT".into(),
            contract_multiplier: Quantity::ONE,
            tick_size: price(1),
            lot_size: quantity(1),
            event_time: time,
            ..Instrument::default()
        };
        Made::of(SHARED, time, &name(symbol), instrument)
    })
}
