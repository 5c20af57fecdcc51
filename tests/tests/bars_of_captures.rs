//! Bars of one second from a whole capture: none is missing, and their volumes add up to the venue's.
//!
//! Runs on the public captures where they lie beside the checkout (or in `TIDEWIRE_SHARED`), else on the sample.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidewire_engine::driver::{StageBuilder, TestDriver};
use tidewire_engine::plan::Role;
use tidewire_ingest::{ImportOptions, Importer, Item};
use tidewire_schemas::{Quantity, Record};

fn captures() -> Vec<(PathBuf, Option<(&'static str, usize)>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shared = std::env::var_os("TIDEWIRE_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let whole = shared.join("data/binance");
    if whole.is_dir() {
        // Volume and number of trades by the venue's own messages.
        vec![
            (whole.join("usdm_btcusdt_20240808.gz"), Some(("2429.366", 21_313))),
            (whole.join("spot_ethusdt_20240808.gz"), Some(("2261.3149", 6_106))),
        ]
    } else {
        println!("the whole captures are not there: the shipped sample is used");
        vec![(root.join("samples/binance/usdm_btcusdt_20240808.gz"), None)]
    }
}

#[test]
fn bars_of_a_second_add_up_and_none_is_missing() {
    for (path, expected) in captures() {
        let bars = tidewire_operators::find("time_bars").unwrap();
        let spec = StageBuilder::new("bars")
            .input("market.ticks.v1", Role::Driving, 1)
            .tuned(|input| input.out_of_orderness_ms = 250)
            .node("bars_1s", *bars, "interval_ms = 1000", &["market.ticks.v1"])
            .output("features.bars.v1", 1, &["bars_1s"], &["instrument"])
            .build();
        let mut driver = TestDriver::new(spec);
        let (mut volume, mut seconds, mut trades) = (Quantity::default(), BTreeSet::new(), 0_usize);
        for item in Importer::open(&path, ImportOptions::default()).unwrap() {
            let Item::Record { key, timestamp_ms, record, .. } = item.unwrap() else {
                panic!("a line was rejected")
            };
            if let Record::Trade(trade) = &record {
                volume = volume.checked_add(trade.quantity).unwrap();
                seconds.insert(trade.event_time.as_ms().div_euclid(1_000));
                trades += 1;
                driver.append("market.ticks.v1", &key, timestamp_ms, record);
            }
        }
        let mut seen = driver.run();
        // The last second closes in silence.
        seen.extend(driver.wait_ms(60_000));
        let mut sum = Quantity::default();
        let mut bars = Vec::new();
        for seen in &seen {
            let bar = seen.record.as_bar().unwrap();
            assert_eq!(bar.revision, 0);
            sum = sum.checked_add(bar.volume).unwrap();
            bars.push(bar.window_start.as_ms().div_euclid(1_000));
        }
        assert_eq!(sum, volume, "{}", path.display());
        assert_eq!(
            bars,
            seconds.iter().copied().collect::<Vec<_>>(),
            "a bar exactly for each second with trades"
        );
        assert!(driver.late().is_empty(), "{:?}", driver.late());
        if let Some((total, count)) = expected {
            assert_eq!((sum.to_string().as_str(), trades), (total, count));
        }
        println!("{}: {trades} trades, {} bars, volume {sum}", path.display(), bars.len());
    }
}
