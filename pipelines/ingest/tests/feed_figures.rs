//! The whole public feeds: what comes out is what is known of them by other means.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{feeds, import};
use std::collections::BTreeMap;
use tidewire_ingest::{ImportOptions, Item, Summary, Venue};
use tidewire_schemas::{Aggressor, Amount, Kind, Price, Quantity, Record, Trade, topics};

/// Lines of each file by kind of message, counted with `zcat FILE | grep -c`.
struct Counts {
    file: &'static str,
    instrument: &'static str,
    venue: Venue,
    trades: u64,
    deltas: u64,
    quotes: u64,
}

const FILES: &[Counts] = &[
    Counts {
        file: "usdm_btcusdt_20240808.gz",
        instrument: "BTCUSDT.BINANCE_USDM",
        venue: Venue::UsdM,
        trades: 21_313,
        deltas: 6_551,
        quotes: 66_089,
    },
    Counts {
        file: "usdm_ethusdt_20240808.gz",
        instrument: "ETHUSDT.BINANCE_USDM",
        venue: Venue::UsdM,
        trades: 14_076,
        deltas: 6_586,
        quotes: 53_992,
    },
    Counts {
        file: "spot_btcusdt_20240808.gz",
        instrument: "BTCUSDT.BINANCE_SPOT",
        venue: Venue::Spot,
        trades: 9_757,
        deltas: 3_451,
        quotes: 28_040,
    },
    Counts {
        file: "spot_ethusdt_20240808.gz",
        instrument: "ETHUSDT.BINANCE_SPOT",
        venue: Venue::Spot,
        trades: 6_106,
        deltas: 3_434,
        quotes: 24_077,
    },
    Counts {
        file: "cm_btcusd_perp_20240808.gz",
        instrument: "BTCUSD_PERP.BINANCE_COINM",
        venue: Venue::CoinM,
        trades: 2_286,
        deltas: 26_847,
        quotes: 19_136,
    },
    Counts {
        file: "cm_ethusd_perp_20240808.gz",
        instrument: "ETHUSD_PERP.BINANCE_COINM",
        venue: Venue::CoinM,
        trades: 1_732,
        deltas: 22_909,
        quotes: 15_812,
    },
];

#[test]
fn every_line_of_every_feed_becomes_its_record() {
    let Some(folder) = feeds() else { return };
    for expected in FILES {
        let (items, summary) = import(&folder.join("binance").join(expected.file), ImportOptions::default());
        assert_eq!(summary.rejected_count(), 0, "{summary}");
        assert_eq!(summary.venue, Some(expected.venue));
        let counts = BTreeMap::from([
            (Kind::Instrument, 1),
            (Kind::Trade, expected.trades),
            (Kind::BookDelta, expected.deltas),
            (Kind::Quote, expected.quotes),
            (Kind::BookSnapshot, 1),
        ]);
        assert_eq!(summary.records, counts, "{}", expected.file);
        assert_eq!(summary.received_went_back, None);
        assert_eq!(items.len() as u64, summary.record_count());
        check_items(&items, expected);
        check_times(&items, expected, &summary);
    }
}

fn check_items(items: &[Item], expected: &Counts) {
    let Some(Item::Record { topic: topics::INSTRUMENTS, record: Record::Instrument(described), .. }) =
        items.first()
    else {
        panic!("{}: the first item does not describe the instrument", expected.file);
    };
    for item in &items[1..] {
        let Item::Record { topic, key, timestamp_ms, received_ns, record, .. } = item else {
            panic!("{item:?}");
        };
        assert_eq!((*topic, key.as_str()), (topics::TICKS, expected.instrument));
        assert_eq!(record.instrument(), Some(expected.instrument));
        assert_eq!(record.event_time().unwrap().as_ms(), *timestamp_ms);
        assert!(*received_ns > 1_723_161_253_000_000_000 && *received_ns < 1_723_161_600_000_000_000);
        if let Record::Trade(trade) = record {
            assert!(trade.market);
            assert!(trade.price.is_multiple_of(described.tick_size), "{trade:?}");
            assert!(trade.quantity.is_multiple_of(described.lot_size), "{trade:?}");
        }
    }
    let ids: Vec<i64> = trades(items).map(|trade| trade.trade_id).collect();
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{}: a gap in the trade ids", expected.file);
}

/// The recorder's clock is 1.05 to 1.52 s behind the venue's; only spot has messages without a time.
fn check_times(items: &[Item], expected: &Counts, summary: &Summary) {
    let spot = expected.venue == Venue::Spot;
    let estimated = if spot { expected.quotes + 1 } else { 0 };
    assert_eq!(summary.estimated_event_times, estimated, "{}", expected.file);
    let offset = summary.venue_offset.unwrap();
    assert!((1_260_000..1_280_000).contains(&offset.estimate_us), "{}: {offset:?}", expected.file);
    for item in items {
        let Item::Record { record, received_ns, .. } = item else { continue };
        let ahead_us = record.event_time().unwrap().as_micros() - received_ns / 1_000;
        assert!((1_050_000..1_520_000).contains(&ahead_us), "{}: {ahead_us} us, {record:?}", expected.file);
    }
}

#[test]
fn trades_add_up_to_the_known_volume_and_prices() {
    let Some(folder) = feeds() else { return };
    let of = |file: &str| {
        let (items, _) = import(&folder.join("binance").join(file), ImportOptions::default());
        Totals::of(trades(&items))
    };
    let bitcoin = of("usdm_btcusdt_20240808.gz");
    assert_eq!(bitcoin.count, 21_313);
    assert_eq!(bitcoin.volume.to_string(), "2429.366");
    assert_eq!(bitcoin.vwap(), "61680.9822");
    assert_eq!((bitcoin.high.to_string(), bitcoin.low.to_string()), ("61839.9".into(), "61590.3".into()));
    assert_eq!(bitcoin.buy_volume.to_string(), "1251.576");
    let ether = of("spot_ethusdt_20240808.gz");
    assert_eq!(ether.count, 6_106);
    assert_eq!(ether.volume.to_string(), "2261.3149");
    assert_eq!(ether.vwap(), "2682.7238");
}

fn trades(items: &[Item]) -> impl Iterator<Item = &Trade> {
    items.iter().filter_map(|item| match item {
        Item::Record { record: Record::Trade(trade), .. } => Some(trade),
        _ => None,
    })
}

#[derive(Default)]
struct Totals {
    count: u64,
    volume: Quantity,
    buy_volume: Quantity,
    notional: Amount,
    high: Price,
    low: Price,
}

impl Totals {
    fn of<'a>(trades: impl Iterator<Item = &'a Trade>) -> Totals {
        let mut totals = Totals { low: Price::MAX, ..Totals::default() };
        for trade in trades {
            totals.count += 1;
            totals.volume = totals.volume.checked_add(trade.quantity).unwrap();
            if trade.aggressor == Aggressor::Buyer {
                totals.buy_volume = totals.buy_volume.checked_add(trade.quantity).unwrap();
            }
            let notional = trade.price.checked_mul(trade.quantity).unwrap();
            totals.notional = totals.notional.checked_add(notional).unwrap();
            totals.high = totals.high.max(trade.price);
            totals.low = totals.low.min(trade.price);
        }
        totals
    }

    fn vwap(&self) -> String {
        let places = "0.0001".parse().unwrap();
        let vwap = self.notional.checked_div(self.volume).unwrap();
        vwap.round_to(places, tidewire_schemas::Rounding::HalfEven).unwrap().to_string()
    }
}
