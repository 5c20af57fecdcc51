//! Made trades, for measurements: as many symbols, as skewed, as disordered and as late as wished, the same for each seed.

use bytes::Bytes;
use tidewire_engine::log::NewRecord;
use tidewire_engine::partition::partition_of;
use tidewire_schemas::{Aggressor, EventTime, Price, Quantity, ReceivedTime, Record, SchemaBook, Trade};

use crate::random::Random;

/// What is wished.
#[derive(Debug, Clone, Copy)]
pub struct Market {
    /// Where chance begins.
    pub seed: u64,
    /// Instruments.
    pub symbols: usize,
    /// Exponent of Zipf's law: 0 for all alike, 1 where the second has half the trades of the first.
    pub skew: f64,
    /// Trades in a second of event time, all instruments together.
    pub per_s: u64,
    /// Up to how much before its place a trade's event time lies, in milliseconds.
    pub disorder_ms: u64,
    /// Time of the first trade, in microseconds since 1970.
    pub from_us: i64,
    /// Partitions that instruments are spread over.
    pub partitions: u32,
}

impl Default for Market {
    fn default() -> Self {
        let from_us = 1_723_161_600_000_000;
        Self { seed: 1, symbols: 100, skew: 1.0, per_s: 2_000, disorder_ms: 0, from_us, partitions: 4 }
    }
}

/// A trade as it lies in a log.
pub fn record(book: &SchemaBook, trade: Trade) -> NewRecord {
    let (timestamp_ms, key) = (trade.event_time.as_ms(), Bytes::copy_from_slice(trade.instrument.as_bytes()));
    let mut value = Vec::new();
    book.encode(&Record::from(trade), &mut value).unwrap();
    NewRecord { timestamp_ms, key: Some(key), value: Some(value.into()), headers: Vec::new() }
}

/// The trades, without end.
pub struct Trades {
    market: Market,
    random: Random,
    number: u64,
    instruments: Vec<Instrument>,
    /// Share of trades up to and with each instrument.
    shares: Vec<f64>,
}

struct Instrument {
    name: String,
    partition: u32,
    /// In hundredths.
    price: i64,
    trades: i64,
}

impl Market {
    /// The trades of this market.
    pub fn trades(self) -> Trades {
        let mut random = Random::new(self.seed);
        let instruments = (0..self.symbols)
            .map(|number| {
                let name = format!("S{number}.PEER");
                let partition = partition_of(name.as_bytes(), self.partitions);
                let price = 1_000 + i64::try_from(random.below(6_000_000)).unwrap();
                Instrument { name, partition, price, trades: 0 }
            })
            .collect();
        let mut sum = 0.0;
        #[expect(clippy::cast_precision_loss, reason = "few instruments")]
        let weight = |rank: usize| 1.0 / libm::pow(rank as f64 + 1.0, self.skew);
        let mut shares: Vec<f64> = (0..self.symbols)
            .map(|rank| {
                sum += weight(rank);
                sum
            })
            .collect();
        shares.iter_mut().for_each(|share| *share /= sum);
        Trades { market: self, random, number: 0, instruments, shares }
    }

    /// A trade of each instrument, all at one time, with its partition.
    pub fn each(self, time_us: i64) -> Vec<(u32, Trade)> {
        let instruments = self.trades().instruments;
        let one = |instrument| trade(instrument, time_us, time_us, 1, true);
        instruments.iter().map(|instrument| (instrument.partition, one(instrument))).collect()
    }

    /// For each partition with an instrument a trade so late that it closes all windows before `after` trades.
    pub fn last(self, after: u64) -> Vec<(u32, Trade)> {
        let time_us = self.from_us + i64::try_from(after * 1_000_000 / self.per_s).unwrap() + 600_000_000;
        let mut last = Vec::new();
        for instrument in self.trades().instruments {
            if last.iter().all(|(partition, _)| *partition != instrument.partition) {
                last.push((instrument.partition, trade(&instrument, time_us, i64::MAX, 1, true)));
            }
        }
        last
    }
}

impl Iterator for Trades {
    type Item = (u32, Trade);

    /// The next trade, with its partition.
    fn next(&mut self) -> Option<(u32, Trade)> {
        let Market { from_us, per_s, disorder_ms, .. } = self.market;
        let share = self.random.share();
        let which = self.shares.partition_point(|upto| *upto <= share).min(self.instruments.len() - 1);
        let mut time_us = from_us + i64::try_from(self.number * 1_000_000 / per_s).unwrap();
        if disorder_ms > 0 {
            let back_ms = self.random.below(usize::try_from(disorder_ms).unwrap() + 1);
            time_us -= i64::try_from(back_ms).unwrap() * 1_000;
        }
        self.number += 1;
        let up = i64::try_from(self.random.below(2_001)).unwrap() - 1_000;
        let quantity = 1 + i64::try_from(self.random.below(100_000)).unwrap();
        let buyer = self.random.below(2) == 0;
        let instrument = &mut self.instruments[which];
        // A walk by up to five basis points.
        instrument.price = (instrument.price + instrument.price * up / 2_000_000).max(100);
        instrument.trades += 1;
        let instrument = &self.instruments[which];
        Some((instrument.partition, trade(instrument, time_us, instrument.trades, quantity, buyer)))
    }
}

/// `quantity` in thousandths.
fn trade(instrument: &Instrument, time_us: i64, trade_id: i64, quantity: i64, buyer: bool) -> Trade {
    Trade {
        instrument: instrument.name.as_str().into(),
        event_time: EventTime::from_micros(time_us),
        received_time: ReceivedTime::from_nanos((time_us + 500) * 1_000),
        trade_id,
        price: Price::from_units(i128::from(instrument.price) * 10_000_000_000).unwrap(),
        quantity: Quantity::from_units(i128::from(quantity) * 1_000_000_000).unwrap(),
        aggressor: if buyer { Aggressor::Buyer } else { Aggressor::Seller },
        market: true,
    }
}
