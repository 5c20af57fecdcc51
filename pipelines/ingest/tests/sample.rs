//! The sample that ships: small, whole lines of the public feeds, and enough to build books from.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{feeds, import, sample, workspace};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use tidewire_ingest::ImportOptions;
use tidewire_schemas::Kind;

/// Captures of the sample and their lines, as `samples/README.md` says.
const CAPTURES: [(&str, u64); 4] = [
    ("usdm_btcusdt", 22_735),
    ("usdm_ethusdt", 20_234),
    ("spot_btcusdt", 10_668),
    ("cm_btcusd_perp", 12_718),
];

#[test]
fn it_is_imported_whole_and_has_a_snapshot_of_each_instrument() {
    let mut bytes = 0;
    for (name, lines) in CAPTURES {
        let path = sample(name);
        bytes += path.metadata().unwrap().len();
        let (_, summary) = import(&path, ImportOptions::default());
        assert_eq!(summary.rejected_count(), 0, "{summary}");
        assert_eq!(summary.record_count(), lines + 1, "{summary}");
        let kinds: Vec<Kind> = summary.records.keys().copied().collect();
        let expected =
            BTreeSet::from([Kind::BookDelta, Kind::BookSnapshot, Kind::Instrument, Kind::Quote, Kind::Trade]);
        assert_eq!(kinds, expected.into_iter().collect::<Vec<_>>());
        let (first, last) = (summary.first_event_time.unwrap(), summary.last_event_time.unwrap());
        assert!((90..100).contains(&(last.micros_since(first) / 1_000_000)));
    }
    assert!(bytes < 3_000_000, "{bytes} bytes");
}

#[test]
fn its_lines_are_those_of_the_whole_feeds() {
    let Some(folder) = feeds() else { return };
    for (name, count) in CAPTURES {
        let whole = lines_of(&folder.join("binance").join(format!("{name}_20240808.gz")));
        let mut compared = 0;
        for (number, (ours, theirs)) in lines_of(&sample(name)).zip(whole).enumerate() {
            assert_eq!(ours, theirs, "{name}, line {}", number + 1);
            compared += 1;
        }
        assert_eq!(compared, count);
    }
    let news = "news/crypto_news_20220704.csv";
    assert_eq!(
        std::fs::read(workspace().join("samples").join(news)).unwrap(),
        std::fs::read(folder.join(news)).unwrap()
    );
}

fn lines_of(path: &Path) -> impl Iterator<Item = Vec<u8>> + use<> {
    let file = std::fs::File::open(path).unwrap();
    BufReader::new(flate2::read::MultiGzDecoder::new(file)).split(b'\n').map(Result::unwrap)
}
