//! Books built from snapshots and deltas against the venue's own best bid and offer, on real feeds.
//!
//! What can be compared: `bookTicker` carries the update id `u` of the change that made it, and comes for every
//! change of the best price or quantity. A book that has applied a delta stands exactly at that delta's last update
//! id. So after each delta the ticker in force is the one with the greatest `u` that is not greater than the book's
//! update id, provided that a ticker with a greater one is there too, so that none in between can be missing; its
//! prices and quantities must be the book's. Where the two ids are equal, both messages speak of the very same
//! update; these are counted apart. Tickers between two deltas speak of states that the deltas do not show.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use tidewire_ingest::{ImportOptions, Importer, Item};
use tidewire_operators::order_book::{Book, Bounds, Outcome, Phase, Touch};
use tidewire_schemas::{Quote, Record};

/// A file, how many deltas bring its book to a state that can be compared, and how many of them have a ticker of
/// the very same update. Both were counted by an independent program over the same files.
struct Expected {
    file: &'static str,
    in_force: usize,
    same_update: usize,
}

const WHOLE: &[Expected] = &[
    Expected { file: "usdm_btcusdt_20240808.gz", in_force: 6_543, same_update: 628 },
    Expected { file: "usdm_ethusdt_20240808.gz", in_force: 6_577, same_update: 551 },
    Expected { file: "spot_btcusdt_20240808.gz", in_force: 3_448, same_update: 564 },
    Expected { file: "spot_ethusdt_20240808.gz", in_force: 3_432, same_update: 577 },
    Expected { file: "cm_btcusd_perp_20240808.gz", in_force: 26_805, same_update: 1_123 },
    Expected { file: "cm_ethusd_perp_20240808.gz", in_force: 22_877, same_update: 1_345 },
];

const SAMPLE: &[Expected] = &[
    Expected { file: "usdm_btcusdt_20240808.gz", in_force: 1_806, same_update: 162 },
    Expected { file: "usdm_ethusdt_20240808.gz", in_force: 1_815, same_update: 140 },
    Expected { file: "spot_btcusdt_20240808.gz", in_force: 954, same_update: 179 },
    Expected { file: "cm_btcusd_perp_20240808.gz", in_force: 7_190, same_update: 301 },
];

#[test]
fn books_of_the_whole_feeds_agree_with_the_venue() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let shared =
        std::env::var_os("TIDEWIRE_SHARED").map_or_else(|| workspace.join("../shared"), PathBuf::from);
    let folder = shared.join("data/binance");
    if !folder.is_dir() {
        eprintln!(
            "the whole feeds are not at {}: set TIDEWIRE_SHARED; testing with samples/ only",
            folder.display()
        );
        return;
    }
    compare_all(&folder, WHOLE);
}

#[test]
fn books_of_the_sample_agree_with_the_venue() {
    compare_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/binance"), SAMPLE);
}

fn compare_all(folder: &Path, files: &[Expected]) {
    for expected in files {
        let found = compare(&read(&folder.join(expected.file)));
        eprintln!("{}: {found:?}", expected.file);
        assert_eq!(found.differences, 0, "{}: {found:?}", expected.file);
        assert_eq!(
            (found.in_force, found.same_update),
            (expected.in_force, expected.same_update),
            "{}",
            expected.file
        );
    }
}

#[derive(Debug, Default)]
struct Found {
    in_force: usize,
    same_update: usize,
    differences: usize,
    first_difference: Option<String>,
}

fn compare(records: &[Record]) -> Found {
    // A ticker may be received after the delta of the same update, so all are looked up by id.
    let quotes: Vec<&Quote> = records.iter().filter_map(|record| record.as_quote()).collect();
    assert!(quotes.windows(2).all(|pair| pair[0].update_id < pair[1].update_id), "tickers are in order");
    let (mut book, mut found) = (Book::default(), Found::default());
    for record in records {
        let outcome = match record {
            Record::BookSnapshot(snapshot) => book.apply_snapshot(snapshot, Bounds::default()),
            Record::BookDelta(delta) => book.apply_delta(delta, Bounds::default()),
            _ => continue,
        };
        assert!(
            !matches!(outcome, Outcome::Gap { .. } | Outcome::Crossed { .. }),
            "{outcome:?} at {record:?}"
        );
        // A snapshot may be ahead of or behind the deltas: only a book with deltas in it is compared.
        let applied = matches!(outcome, Outcome::Applied) && matches!(record, Record::BookDelta(_));
        if !applied || book.phase() != Phase::Live {
            continue;
        }
        let at = quotes.partition_point(|quote| quote.update_id <= book.last_update_id());
        let (Some(quote), Some(_later)) = (at.checked_sub(1).map(|at| quotes[at]), quotes.get(at)) else {
            continue;
        };
        found.in_force += 1;
        found.same_update += usize::from(quote.update_id == book.last_update_id());
        let venue = Touch {
            bid_price: quote.bid_price,
            bid_quantity: quote.bid_quantity,
            ask_price: quote.ask_price,
            ask_quantity: quote.ask_quantity,
        };
        if book.touch() != Some(venue) {
            found.differences += 1;
            let text = format!("at {}: venue {venue:?}, book {:?}", book.last_update_id(), book.touch());
            found.first_difference.get_or_insert(text);
        }
    }
    found
}

fn read(path: &Path) -> Vec<Record> {
    let importer = Importer::open(path, ImportOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    importer
        .map(|item| match item.unwrap_or_else(|e| panic!("{e}")) {
            Item::Record { record, .. } => record,
            Item::Rejected { line, reason, .. } => panic!("{}, line {line}: {reason}", path.display()),
        })
        .collect()
}
