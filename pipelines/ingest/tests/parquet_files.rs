//! Parquet files by other writers (`parquet/make.py` makes them) against the same tables as text.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Dice, file_of, import, records, rejected, workspace};
use std::path::PathBuf;
use tidewire_ingest::{Format, ImportError, ImportOptions, Importer, InstrumentTable, Item, Venue};
use tidewire_schemas::Record;

fn folder() -> PathBuf {
    workspace().join("pipelines/ingest/tests/parquet")
}

fn bitcoin() -> ImportOptions {
    ImportOptions { instrument: Some("BTCUSDT.BINANCE_USDM".into()), ..ImportOptions::default() }
}

/// What both files give, without the lines it came from; the first column of text is a header.
fn assert_same(parquet: &str, text: PathBuf, options: &ImportOptions) -> usize {
    let (found, summary) = import(&folder().join(parquet), options.clone());
    let (expected, expected_summary) = import(&text, options.clone());
    assert_eq!(summary.format, expected_summary.format);
    assert_eq!(summary.rejected, expected_summary.rejected, "{parquet}: {summary}");
    assert_eq!(found.len(), expected.len(), "{parquet}: {summary}");
    for (found, expected) in found.iter().zip(&expected) {
        let (
            Item::Record { topic, key, timestamp_ms, received_ns, record, .. },
            Item::Record {
                topic: topic_2,
                key: key_2,
                timestamp_ms: time_2,
                received_ns: received_2,
                record: record_2,
                ..
            },
        ) = (found, expected)
        else {
            assert!(matches!((found, expected), (Item::Rejected { .. }, Item::Rejected { .. })));
            continue;
        };
        assert_eq!((topic, key, timestamp_ms), (topic_2, key_2, time_2), "{parquet}");
        assert_eq!(received_ns, received_2, "{parquet}");
        assert_eq!(record, record_2, "{parquet}");
    }
    found.len()
}

#[test]
fn trades_in_every_way_they_are_written() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("trades_") && !name.contains("brotli") {
            // 300 trades and the description of the instrument.
            assert_eq!(assert_same(&name, folder().join("trades.csv"), &bitcoin()), 301, "{name}");
            count += 1;
        }
    }
    assert_eq!(count, 8);
}

#[test]
fn bars_news_and_captures() {
    assert_eq!(assert_same("bars.parquet", folder().join("bars.csv"), &bitcoin()), 9);
    let news = workspace().join("samples/news/crypto_news_20220704.csv");
    assert_eq!(assert_same("news.parquet", news, &ImportOptions::default()), 80);
    // 300 messages, one that is none, and the instrument.
    let (items, summary) = import(&folder().join("capture.parquet"), ImportOptions::default());
    assert_eq!((items.len(), summary.venue), (302, Some(Venue::UsdM)), "{summary}");
    assert_same("capture.parquet", folder().join("capture.txt"), &ImportOptions::default());
}

#[test]
fn a_span_of_news_is_found_in_parquet_too() {
    let span = Some(("2024-08-08T23:54:00Z".parse().unwrap(), "2024-08-09T00:00:00Z".parse().unwrap()));
    let options = ImportOptions { news_span: span, ..ImportOptions::default() };
    let news = workspace().join("samples/news/crypto_news_20220704.csv");
    assert_same("news.parquet", news, &options);
}

#[test]
fn a_row_that_is_rejected_is_named_and_can_be_read() {
    let (items, _) = import(&folder().join("capture.parquet"), ImportOptions::default());
    assert_eq!(rejected(&items).len(), 1);
    let Some(Item::Rejected { line, raw, .. }) =
        items.iter().find(|item| matches!(item, Item::Rejected { .. }))
    else {
        panic!()
    };
    assert_eq!(*line, 101);
    let raw = String::from_utf8(raw.clone()).unwrap();
    assert!(raw.ends_with(" {\"e\":\"trade\",\n\"s\":"), "{raw}");

    // Without an instrument of that name no row can be taken.
    let options = ImportOptions { instrument: Some("NOBODY.KNOWS".into()), ..ImportOptions::default() };
    let (items, summary) = import(&folder().join("trades_decimal_us_snappy.parquet"), options);
    assert_eq!((records(&items).len(), summary.rejected_count()), (0, 300));
    let Item::Rejected { line, raw, .. } = &items[1] else { panic!() };
    let lines = std::fs::read_to_string(folder().join("trades.csv")).unwrap();
    let [.., price, quantity, side] = lines.lines().nth(2).unwrap().split(',').collect::<Vec<_>>()[..] else {
        panic!()
    };
    let price = price.trim_end_matches('0').trim_end_matches('.');
    assert_eq!(*line, 2);
    let raw = String::from_utf8(raw.clone()).unwrap();
    assert!(raw.ends_with(&format!(",5266583936,{price},{quantity},{side}")), "{raw}");
}

#[test]
fn what_is_not_read_is_said() {
    let (items, summary) = import(&folder().join("trades_nested_delta.parquet"), bitcoin());
    assert_eq!(items.len(), 301);
    // The bytes of `payload` are no text, which is nobody's concern.
    assert_eq!(summary.ignored_columns, ["note", "payload", "levels.list.element"]);
    assert!(
        summary.to_string().contains("columns not read: note, payload, levels.list.element"),
        "{summary}"
    );
}

#[test]
fn a_table_with_the_columns_of_a_capture_is_a_table() {
    for format in [None, Some(Format::Trades)] {
        let options = ImportOptions { format, ..bitcoin() };
        let (items, summary) = import(&folder().join("odd_trades_with_message.parquet"), options);
        assert_eq!((items.len(), summary.format), (21, Format::Trades), "{summary}");
        assert_eq!(summary.ignored_columns, ["message"]);
    }
}

#[test]
fn captures_may_have_text_for_times_and_no_row_vanishes() {
    let (items, summary) = import(&folder().join("odd_capture_with_text_times.parquet"), bitcoin());
    assert_eq!(
        rejected(&items).iter().map(|(row, code, _)| (*row, *code)).collect::<Vec<_>>(),
        [(4, "no-receive-time")]
    );
    // Three messages and the instrument.
    assert_eq!(records(&items).len(), 4, "{summary}");
    let (whole, _) = import(&folder().join("capture.parquet"), bitcoin());
    let received = |items: &[Item]| -> Vec<i64> {
        let all = items.iter().filter_map(|item| match item {
            Item::Record { received_ns, .. } => Some(received_ns.div_euclid(1_000)),
            Item::Rejected { .. } => None,
        });
        all.take(4).collect()
    };
    assert_eq!(received(&items), received(&whole));
}

#[test]
fn instruments_may_be_described_in_parquet() {
    let described = |name: &str| {
        let mut table = InstrumentTable::default();
        table.read(&folder().join(name)).unwrap_or_else(|error| panic!("{error}"));
        let time = "2024-08-08T00:00:00Z".parse().unwrap();
        ["BTC-29NOV24.DERIBIT", "OLD.X"].map(|id| table.describe(id, time).unwrap())
    };
    assert_eq!(described("instruments.parquet"), described("instruments.csv"));
    assert_eq!(described("instruments.csv")[0].valid_to.unwrap().to_string(), "9999-12-31T00:00:00Z");
}

#[test]
fn a_table_without_rows_is_no_error() {
    let (items, summary) = import(&folder().join("odd_no_rows.parquet"), bitcoin());
    assert_eq!((items.len(), summary.format), (0, Format::Trades));
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let open = |name: &str, options| match Importer::open(folder().join(name), options) {
        Ok(_) => panic!("{name} was opened"),
        Err(error) => error.to_string(),
    };
    let error = open("trades_brotli.parquet", bitcoin());
    assert!(error.contains("column `time` is compressed with BROTLI, which is not read"), "{error}");
    let error = open("trades_duckdb.parquet", ImportOptions::default());
    assert!(error.contains("names of its columns: no column `instrument`"), "{error}");
    let options = ImportOptions { format: Some(Format::Bars), ..bitcoin() };
    let error = open("trades_duckdb.parquet", options);
    assert!(error.contains("names of its columns: no column `open`"), "{error}");

    let error = open("odd_nested_alone.parquet", bitcoin());
    assert!(error.contains("none of its columns can be read: a.list.element, b.c"), "{error}");
    let options = ImportOptions { format: Some(Format::BinanceCapture), ..bitcoin() };
    let error = open("trades_duckdb.parquet", options);
    assert!(
        error.contains("a capture has columns `received_time` and `message`; the columns are: time"),
        "{error}"
    );

    let whole = std::fs::read(folder().join("trades_duckdb.parquet")).unwrap();
    for length in [4, 11, whole.len() / 2, whole.len() - 1] {
        let cut = file_of(&whole[..length]);
        match Importer::open(cut.path(), bitcoin()) {
            Err(ImportError::Parquet { problem, .. }) => assert!(!problem.is_empty()),
            other => panic!("{length}: {:?}", other.err()),
        }
    }
}

#[test]
fn a_page_that_is_damaged_ends_the_file_after_the_rows_before_it() {
    // Pages of this file carry checksums, so no flip of a byte of data goes by unseen.
    let mut whole = std::fs::read(folder().join("trades_double_ns_gzip_v2.parquet")).unwrap();
    whole[60] ^= 0x10;
    let file = file_of(&whole);
    let items: Vec<_> = Importer::open(file.path(), bitcoin()).unwrap().collect();
    let Some(Err(error)) = items.last() else { panic!("{:?}", items.last()) };
    assert!(matches!(error, ImportError::Read { .. }), "{error}");
    assert!(error.to_string().contains(", after row 0: cannot be read on: "), "{error}");
    assert_eq!(items.len(), 1);
}

#[test]
fn files_with_changed_bytes_are_errors_or_rows() {
    let mut sums = [0_usize; 3];
    for (seed, name) in (1..).zip([
        "trades_decimal_us_snappy",
        "trades_double_int96_plain",
        "trades_nested_delta",
        "trades_polars",
        "capture",
    ]) {
        let whole = std::fs::read(folder().join(format!("{name}.parquet"))).unwrap();
        let mut dice = Dice(seed * 7_919);
        for round in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..=dice.below(4) {
                // Every other round only what the file says of itself, which is at its end.
                let within = if round % 2 == 0 { bytes.len() } else { bytes.len().min(1_500) };
                let at = bytes.len() - 1 - dice.below(within);
                bytes[at] = dice.below(256) as u8;
            }
            let options = if name == "capture" { ImportOptions::default() } else { bitcoin() };
            match Importer::open(file_of(&bytes).path(), options) {
                Err(_) => sums[0] += 1,
                Ok(importer) => {
                    for item in importer.take(2_000) {
                        match item {
                            Ok(Item::Record { record, .. }) => {
                                let mut body = Vec::new();
                                Record::encode(&record, &mut body);
                                sums[1] += 1;
                            }
                            Ok(Item::Rejected { .. }) => sums[2] += 1,
                            Err(_) => sums[0] += 1,
                        }
                    }
                }
            }
        }
    }
    eprintln!("{} errors, {} records, {} rows rejected", sums[0], sums[1], sums[2]);
    assert!(sums.iter().all(|sum| *sum > 200), "{sums:?}");
}
