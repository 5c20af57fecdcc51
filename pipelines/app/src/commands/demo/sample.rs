//! The recordings that ship inside the binary; `samples/README.md` says where they are from.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

macro_rules! shipped {
    ($($file:literal),*) => {
        [$(($file, include_bytes!(concat!("../../../../../samples/", $file)).as_slice())),*]
    };
}

const TICKS: [(&str, &[u8]); 4] = shipped!(
    "binance/usdm_btcusdt_20240808.gz",
    "binance/usdm_ethusdt_20240808.gz",
    "binance/spot_btcusdt_20240808.gz",
    "binance/cm_btcusd_perp_20240808.gz"
);
const NEWS: [(&str, &[u8]); 1] = shipped!("news/crypto_news_20220704.csv");

/// The recordings as files.
pub struct Unpacked {
    /// Captures of ticks.
    pub ticks: Vec<PathBuf>,
    /// News of another day.
    pub news: PathBuf,
}

/// Writes the recordings into a folder, as the importer reads files.
pub fn unpack(folder: &Path) -> anyhow::Result<Unpacked> {
    let write = |(name, bytes): &(&str, &[u8])| -> anyhow::Result<PathBuf> {
        let path = folder.join(name.rsplit('/').next().unwrap_or(name));
        std::fs::write(&path, bytes).with_context(|| format!("writing the sample to {}", path.display()))?;
        Ok(path)
    };
    let ticks = TICKS.iter().map(write).collect::<anyhow::Result<_>>()?;
    Ok(Unpacked { ticks, news: write(&NEWS[0])? })
}
