//! Stages and records that the tests share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use tidewire_engine::driver::{Seen, StageBuilder, TestDriver};
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_schemas::{
    Aggressor, AssetClass, BookDelta, BookSnapshot, EventTime, Instrument, Level, Quantity, SentimentScore,
    Trade, topics,
};

/// An operator by its name.
pub fn operator(name: &str) -> tidewire_contract::OperatorType {
    *tidewire_operators::find(name).unwrap_or_else(|| panic!("no operator {name}"))
}

pub fn dec<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub fn ms(ms: i64) -> EventTime {
    EventTime::from_ms(ms)
}

/// The stage that turns ticks into intents, as it ships, with intervals short enough for tests.
pub fn features(partitions: u32) -> StageBuilder {
    let (ticks, instruments, sentiment) = (topics::TICKS, topics::INSTRUMENTS, topics::SENTIMENT);
    StageBuilder::new("features")
        .input(ticks, Role::Driving, partitions)
        .tuned(|input| input.out_of_orderness_ms = 200)
        .input(instruments, Role::Broadcast, 1)
        .input(sentiment, Role::Broadcast, 1)
        .node("book", operator("order_book"), "", &[ticks])
        .node("bars", operator("time_bars"), "interval_ms = 1000\nallowed_lateness_ms = 2000", &[ticks])
        .node("fast", operator("ema"), "period = 2\nname = 'fast'", &["bars"])
        .node("slow", operator("ema"), "period = 5\nname = 'slow'", &["bars"])
        .node("rsi", operator("rsi"), "period = 3\nname = 'rsi'", &["bars"])
        .node("mid", operator("mid"), "", &["book"])
        .node("spread", operator("spread"), "in_bps = true", &["book"])
        .node("micro", operator("microprice"), "", &["book"])
        .node("mood", operator("sentiment"), "half_life_ms = 5000\nevery_ms = 1000", &[ticks, instruments, sentiment])
        .node(
            "join",
            operator("as_of"),
            "features = ['fast', 'slow', 'rsi', 'mid']\noptional = ['sentiment', 'spread_bps', 'microprice']\n\
             every_ms = 1000\nmax_age_ms = 5000",
            &["fast", "slow", "rsi", "mid", "spread", "micro", "mood"],
        )
        .node(
            "rule",
            operator("momentum"),
            "strategy = 'cross'\nfast = 'fast'\nslow = 'slow'\nrsi = 'rsi'\nrsi_low = 5\nrsi_high = 100\n\
             hysteresis_bps = 0.5\nhorizon_ms = 20000",
            &["join"],
        )
        .node("marks", operator("marks"), "min_interval_ms = 500", &["book"])
        .node("orders", operator("intents"), "account = 'acc'\nquantity = '1'", &["rule", "marks", instruments])
        .node("jump", operator("price_jump"), "window_ms = 2000\nthreshold_bps = 30\ncooldown_ms = 3000", &[ticks])
        .node("silence", operator("stale_feed"), "after_ms = 4000", &[ticks])
        .output(topics::BARS, partitions, &["bars"], &["instrument"])
        .output(topics::FEATURES, partitions, &["join"], &["instrument"])
        .output(topics::SIGNALS, partitions, &["rule"], &["instrument"])
        .output(topics::MARKS, partitions, &["marks"], &["instrument"])
        .output(topics::INTENTS, 1, &["orders"], &["account"])
        .output(topics::ALERTS, partitions, &["book", "jump", "silence"], &["scope"])
        .with(|spec| {
            for output in &mut spec.outputs {
                output.kinds = tidewire_schemas::topics::find(&output.topic).unwrap().kinds.to_vec();
            }
        })
}

/// A stage of one operator: all of `inputs` keyed, `broadcasts` broadcast, all that comes out on one topic.
pub fn single(name: &str, settings: &str, inputs: &[&str], broadcasts: &[&str]) -> StageSpec {
    let mut stage = StageBuilder::new("single");
    for (place, input) in inputs.iter().enumerate() {
        let role = if place == 0 { Role::Driving } else { Role::Keyed };
        stage = stage.input(input, role, 1);
    }
    for broadcast in broadcasts {
        stage = stage.input(broadcast, Role::Broadcast, 1);
    }
    let from: Vec<_> = inputs.iter().chain(broadcasts).copied().collect();
    stage.node("op", operator(name), settings, &from).output("out", 1, &["op"], &[]).build()
}

pub const INSTRUMENTS: [&str; 3] = ["BTCUSDT.X", "ETHUSDT.X", "SOLUSDT.X"];

pub fn instrument(name: &str) -> Instrument {
    Instrument {
        instrument: name.into(),
        asset_class: AssetClass::Perpetual,
        base: name.split("USDT").next().unwrap().into(),
        quote: "USDT".into(),
        settle: "USDT".into(),
        contract_multiplier: Quantity::ONE,
        tick_size: dec("0.01"),
        lot_size: dec("0.001"),
        ..Instrument::default()
    }
}

pub fn trade(name: &str, id: i64, at: i64, price: &str) -> Trade {
    Trade {
        instrument: name.into(),
        event_time: ms(at),
        trade_id: id,
        price: dec(price),
        quantity: dec("0.5"),
        aggressor: Aggressor::Buyer,
        market: true,
        ..Trade::default()
    }
}

pub fn level(price: &str, quantity: &str) -> Level {
    Level { price: dec(price), quantity: dec(quantity) }
}

pub fn snapshot(name: &str, at: i64, update_id: i64, bid: &str, ask: &str) -> BookSnapshot {
    BookSnapshot {
        instrument: name.into(),
        event_time: ms(at),
        update_id,
        bids: vec![level(bid, "2")],
        asks: vec![level(ask, "3")],
        ..BookSnapshot::default()
    }
}

pub fn delta(name: &str, at: i64, update_id: i64, bids: Vec<Level>, asks: Vec<Level>) -> BookDelta {
    BookDelta {
        instrument: name.into(),
        event_time: ms(at),
        first_update_id: update_id,
        last_update_id: update_id,
        bids,
        asks,
        ..BookDelta::default()
    }
}

pub fn score(asset: &str, at: i64, value: f64) -> SentimentScore {
    SentimentScore {
        asset: asset.into(),
        event_time: ms(at),
        score: value,
        confidence: 0.8,
        ..SentimentScore::default()
    }
}

/// Numbers that look drawn and are the same every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, bound: u64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((self.0 >> 33) % bound).unwrap()
    }
}

/// A minute of three instruments: books, trades out of order within 200 ms, sentiment, and a pause of six seconds.
pub fn minute(driver: &TestDriver) {
    for name in INSTRUMENTS {
        driver.append(topics::INSTRUMENTS, name, 0, instrument(name));
    }
    let mut numbers = Numbers(11);
    let mut prices = [6_000_000_i64, 300_000, 15_000];
    let cents = |price: i64| format!("{}.{:02}", price / 100, price % 100);
    let mut books: [Option<(i64, i64)>; 3] = [None; 3];
    for step in 0..1_200_i64 {
        let now = 1_000 + step * 50;
        if (24_000..30_000).contains(&now) {
            continue;
        }
        let which = usize::try_from(numbers.below(3)).unwrap();
        let name = INSTRUMENTS[which];
        // Three waves a minute, so that averages cross.
        let drift = if (now / 10_000) % 2 == 0 { 1 } else { -1 };
        prices[which] += drift * prices[which] / 20_000 + numbers.below(5) - 2;
        let price = prices[which];
        let late = now - numbers.below(180);
        driver.append(topics::TICKS, name, late, trade(name, step + 1, late, &cents(price)));
        let (bid, ask) = (price - 3, price + 2);
        let update = step + 1;
        match books[which].replace((bid, ask)) {
            None => {
                driver.append(topics::TICKS, name, now, snapshot(name, now, update, &cents(bid), &cents(ask)))
            }
            Some((old_bid, old_ask)) => {
                let bids = vec![level(&cents(old_bid), "0"), level(&cents(bid), "2")];
                let asks = vec![level(&cents(old_ask), "0"), level(&cents(ask), "3")];
                let mut delta = delta(name, now, update, bids, asks);
                delta.first_update_id = 1;
                driver.append(topics::TICKS, name, now, delta);
            }
        }
        if step % 100 == 7 {
            let value = [0.9, -0.7, 0.3][usize::try_from(numbers.below(3)).unwrap()];
            driver.append(topics::SENTIMENT, "BTC", now, score(["BTC", "ETH", "*"][which], now, value));
        }
    }
}

/// What replay must give again: topic, key, time, body and identity. Sorted, as several tasks may write one partition
/// and only each writer's own order is given.
pub fn bytes(driver: &TestDriver) -> Vec<String> {
    lines(driver, true)
}

/// The same without identities: a late record takes a number of its own, which moves those after it.
pub fn bodies(driver: &TestDriver) -> Vec<String> {
    lines(driver, false)
}

fn lines(driver: &TestDriver, with_identity: bool) -> Vec<String> {
    let mut all = Vec::new();
    for output in &driver.spec().outputs {
        for (partition, stored) in driver.records(&output.topic) {
            let record = stored.record;
            let id = record.header("tw-id").cloned().filter(|_| with_identity);
            let (key, time, body) = (record.key, record.timestamp_ms, record.value.unwrap().slice(5..));
            all.push(format!("{} {partition} {id:?} {key:?} {time} {body:?}", output.topic));
        }
    }
    all.sort();
    all
}

/// Records alone, sorted by topic, key and place among those of the key: what must not depend on partitions.
pub fn by_key(seen: &[Seen]) -> std::collections::BTreeMap<(String, String), Vec<String>> {
    let mut all = std::collections::BTreeMap::<_, Vec<String>>::new();
    for seen in seen {
        all.entry((seen.topic.to_string(), seen.key.to_string()))
            .or_default()
            .push(format!("{:?}", seen.record));
    }
    all
}

/// Says where two runs differ first, without printing all of both.
pub fn assert_same(got: &[String], expected: &[String], what: &str) {
    for (place, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got, expected, "{what}: record {place}");
    }
    assert_eq!(got.len(), expected.len(), "{what}: number of records");
}
