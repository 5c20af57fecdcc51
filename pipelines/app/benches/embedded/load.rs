//! What the runs read.

use std::path::Path;
use std::process::Command;

use tidewire_engine::log::{Log, NewRecord, TopicPartition, TopicSpec};
use tidewire_runtime::embedded::EmbeddedLog;
use tidewire_runtime::registry::open_book;
use tidewire_tests::root;
use tidewire_tests::ticks::{Market, record};

/// Records appended at once.
const CHUNK: usize = 4096;

/// Writes `count` made trades, and those that close their windows.
pub fn trades(log: &EmbeddedLog, topic: &str, market: Market, count: u64) {
    log.create_topic(&TopicSpec::new(topic, market.partitions)).unwrap();
    let book = open_book(log).unwrap();
    let mut waiting: Vec<Vec<NewRecord>> = vec![Vec::new(); market.partitions as usize];
    let all = market.trades().take(usize::try_from(count).unwrap()).chain(market.last(count));
    for (partition, trade) in all {
        let records = &mut waiting[partition as usize];
        records.push(record(&book, trade));
        if records.len() == CHUNK {
            log.append(&TopicPartition::new(topic, partition), std::mem::take(records)).unwrap();
        }
    }
    for (partition, records) in (0..).zip(waiting) {
        if !records.is_empty() {
            log.append(&TopicPartition::new(topic, partition), records).unwrap();
        }
    }
}

/// Imports the captures that ship.
pub fn captures(data: &Path) {
    let names = ["usdm_btcusdt", "usdm_ethusdt", "spot_btcusdt", "cm_btcusd_perp"];
    let files = names.map(|name| root().join(format!("samples/binance/{name}_20240808.gz")));
    let mut import = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    let imported = import.arg("--data").arg(data).arg("import").args(&files).output().unwrap();
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
}
