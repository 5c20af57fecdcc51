//! Lines changed at random: whatever comes in, nothing panics, and every line is a record or rejected.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Dice, file_of, sample_lines, workspace};
use tidewire_ingest::{Format, ImportOptions, Importer, Item, Venue};

/// Pieces that parsers are fond of.
const PIECES: &[&str] = &[
    "\"",
    "\"\"",
    "\\u0000",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "-",
    "1e999",
    "0.0000000000001",
    "NaN",
    "\u{1F4A5}",
    "99999999999999999999999999999",
    "-9223372036854775808",
    "9223372036854775807",
    "9999999999999999.999999999999",
    "\"data\":{\"data\":",
    "[[[[[[[[",
    "true",
    "\\",
    "\t",
    "#",
    ";",
    "inf",
];

fn mutate(line: &str, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = line.as_bytes().to_vec();
    for _ in 0..dice.below(4) {
        let at = dice.below(bytes.len() + 1);
        match dice.below(6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            2 => {
                let end = (at + dice.below(30)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let end = (at + dice.below(30)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let piece = PIECES[dice.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes.retain(|&byte| byte != b'\n');
    bytes
}

/// Imports the mutated lines after `keep` lines that stay; gives the numbers of records and of rejected lines.
fn import_mutated(lines: &[String], keep: usize, options: ImportOptions, seed: u64) -> (usize, usize) {
    let mut dice = Dice(seed);
    let mut text = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        text.extend(if index < keep { line.as_bytes().to_vec() } else { mutate(line, &mut dice) });
        text.push(b'\n');
    }
    let file = file_of(&text);
    let importer = Importer::open(file.path(), options).unwrap_or_else(|e| panic!("{e}"));
    let (mut taken, mut rejected, mut last) = (0, 0, 0);
    for item in importer {
        let line = match item.unwrap() {
            Item::Record { line, record, .. } => {
                let mut body = Vec::new();
                record.encode(&mut body);
                taken += 1;
                line
            }
            Item::Rejected { line, reason, .. } => {
                assert!(!reason.to_string().is_empty());
                rejected += 1;
                line
            }
        };
        assert!(line >= last, "line {line} after {last}");
        last = line;
    }
    (taken, rejected)
}

#[test]
fn captures() {
    for (name, venue) in
        [("usdm_btcusdt", Venue::UsdM), ("spot_btcusdt", Venue::Spot), ("cm_btcusd_perp", Venue::CoinM)]
    {
        // Long lines (the snapshot) once, short ones often.
        let lines = sample_lines(name, 400);
        let short: Vec<String> = lines.iter().filter(|line| line.len() < 2_000).cloned().collect();
        let mut sums = (0, 0);
        for seed in 1..=60 {
            let format = Some(Format::BinanceCapture);
            let options = ImportOptions { format, venue: Some(venue), ..ImportOptions::default() };
            let (taken, rejected) =
                import_mutated(if seed == 1 { &lines } else { &short }, 0, options, seed * 7_919);
            assert!(taken + rejected + 60 >= short.len(), "{taken} and {rejected} of {}", short.len());
            sums = (sums.0 + taken, sums.1 + rejected);
        }
        eprintln!("{name}: {} records, {} lines rejected", sums.0, sums.1);
        assert!(sums.0 > 1_000 && sums.1 > 10_000, "{sums:?}");
    }
}

#[test]
fn csv_files() {
    let news = std::fs::read_to_string(workspace().join("samples/news/crypto_news_20220704.csv")).unwrap();
    let news: Vec<String> = news.lines().map(str::to_owned).collect();
    let mut trades = vec!["time,price,quantity,side,trade_id,received_time,market".to_owned()];
    let mut bars = vec!["time,interval_ms,open,high,low,close,volume,buy_volume,notional,vwap".to_owned()];
    for i in 0..60 {
        trades
            .push(format!("{},100.{i},0.5,buy,{i},2024-08-08T00:00:{i:02}Z,true", 1_723_161_255_000i64 + i));
        bars.push(format!("2024-08-08T00:{i:02}:00Z,60000,10,1{i},9,10.5,{i},0,{},", i * 10));
    }
    for (lines, format) in [(news, Format::News), (trades, Format::Trades), (bars, Format::Bars)] {
        let mut sums = (0, 0);
        for seed in 1..=100 {
            let options = ImportOptions {
                format: Some(format),
                instrument: Some("BTCUSDT.BINANCE_SPOT".into()),
                news_span: (seed % 2 == 0)
                    .then(|| ("2024-08-08".parse().unwrap(), "2024-08-09".parse().unwrap())),
                ..ImportOptions::default()
            };
            let (taken, rejected) = import_mutated(&lines, 1, options, seed * 104_729);
            sums = (sums.0 + taken, sums.1 + rejected);
        }
        eprintln!("{format}: {} records, {} lines rejected", sums.0, sums.1);
        assert!(sums.0 > 100 && sums.1 > 500, "{sums:?}");
    }
}

#[test]
fn headers() {
    let mut dice = Dice(99);
    for _ in 0..3_000 {
        let header =
            mutate("instrument,time,open,high,low,close,volume,price,quantity,published_at,title", &mut dice);
        let mut text = header;
        text.extend_from_slice(b"\nBTCUSDT.BINANCE_SPOT,2024-08-08,1,2,1,1,1,1,1,2024-08-08,x\n");
        if let Ok(importer) = Importer::open(file_of(&text).path(), ImportOptions::default()) {
            assert!(importer.count() < 10);
        }
    }
}
