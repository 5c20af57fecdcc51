//! Faulty lines: each is rejected with its number and the reason, and costs nothing but itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{file_of, import, import_text, records, rejected, sample_lines};
use tidewire_ingest::{ImportError, ImportOptions, Importer, Item, Venue};

const TRADE: &str = "1723161255088176367 {\"stream\":\"btcusdt@trade\",\"data\":{\"e\":\"trade\",\
    \"E\":1723161256322,\"T\":1723161256322,\"s\":\"BTCUSDT\",\"t\":5266583935,\"p\":\"61800.30\",\"q\":\"0.006\",\
    \"X\":\"MARKET\",\"m\":false}}";
const DELTA: &str = "1723161255030314667 {\"stream\":\"btcusdt@depth@0ms\",\"data\":{\"e\":\"depthUpdate\",\
    \"E\":1723161256299,\"T\":1723161256298,\"s\":\"BTCUSDT\",\"U\":5123107832006,\"u\":5123107837557,\
    \"pu\":5123107831937,\"b\":[[\"58710.20\",\"0.014\"]],\"a\":[[\"61900.10\",\"0.000\"]]}}";
const QUOTE: &str = "1723161255088169167 {\"stream\":\"btcusdt@bookTicker\",\"data\":{\"e\":\"bookTicker\",\
    \"u\":5123107839020,\"s\":\"BTCUSDT\",\"b\":\"61800.20\",\"B\":\"2.507\",\"a\":\"61800.30\",\"A\":\"2.510\",\
    \"T\":1723161256313,\"E\":1723161256313}}";
const SNAPSHOT: &str = "1723161255319702566 {\"lastUpdateId\":5123107852948,\"E\":1723161256501,\
    \"T\":1723161256493,\"bids\":[[\"61800.20\",\"2.909\"]],\"asks\":[[\"61800.30\",\"0.5\"]]}";

/// A good line with one thing changed, the code of its rejection, and a part of the reason.
fn faults() -> Vec<(String, &'static str, &'static str)> {
    let mut all = Vec::new();
    let mut add = |line: &str, from: &str, to: &str, code: &'static str, part: &'static str| {
        assert!(line.contains(from), "{from}");
        all.push((line.replacen(from, to, 1), code, part));
    };
    // The line itself.
    add(TRADE, TRADE, "garbage", "no-receive-time", "does not begin with a number");
    add(TRADE, "1723161255088176367 ", "", "no-receive-time", "does not begin with a number");
    add(TRADE, "1723161255088176367 ", "1723161255088176367", "no-receive-time", "no blank follows");
    add(TRADE, "1723161255088176367", "99999999999999999999999", "no-receive-time", "too great");
    add(TRADE, "1723161255088176367", "0", "no-receive-time", "not between 1970 and 2262");
    add(TRADE, "{\"stream\"", "{stream", "malformed", "column 22: key must be a string");
    add(TRADE, "\"X\":\"MARKET\",\"m\":false}}", "", "malformed", "EOF while parsing");
    add(TRADE, "false}}", "false}} x", "malformed", "trailing characters");
    add(
        TRADE,
        "\"T\":1723161256322",
        "\"T\":\"now\"",
        "malformed",
        "invalid type: string \"now\", expected i64",
    );
    add(TRADE, "\"T\":1723161256322", "\"T\":1.5", "malformed", "expected i64");
    add(TRADE, "\"t\":5266583935", "\"t\":99999999999999999999", "malformed", "expected i64");
    // Messages that are not imported.
    add(TRADE, "\"e\":\"trade\"", "\"e\":\"aggTrade\"", "other-event", "`aggTrade` is not imported");
    add(TRADE, "\"e\":\"trade\"", "\"e\":\"kline\",\"b\":{}", "other-event", "`kline` is not imported");
    add(TRADE, "\"e\":\"trade\",", "", "other-event", "a message without event type");
    add(SNAPSHOT, "{\"last", "{\"stream\":\"btcusdt@depth5\",\"last", "other-event", "`btcusdt@depth5`");
    // Missing fields.
    add(TRADE, "\"t\":5266583935,", "", "missing-field", "trade without field `t`");
    add(TRADE, "\"T\":1723161256322,", "", "missing-field", "trade without field `T`");
    add(TRADE, "\"p\":\"61800.30\",", "", "missing-field", "trade without field `p`");
    add(TRADE, "\"s\":\"BTCUSDT\",", "", "missing-field", "trade without field `s`");
    add(TRADE, ",\"m\":false", "", "missing-field", "trade without field `m`");
    add(QUOTE, "\"T\":1723161256313,", "", "missing-field", "bookTicker without field `T`");
    add(QUOTE, "\"u\":5123107839020,", "", "missing-field", "bookTicker without field `u`");
    add(DELTA, ",\"a\":[[\"61900.10\",\"0.000\"]]", "", "missing-field", "depthUpdate without field `a`");
    add(
        SNAPSHOT,
        ",\"asks\":[[\"61800.30\",\"0.5\"]]",
        "",
        "missing-field",
        "depth snapshot without field `asks`",
    );
    // Values that cannot be.
    add(TRADE, "61800.30", "-61800.30", "bad-value", "trade: `p` is `-61800.30`: must not be negative");
    add(TRADE, "0.006", "-0.006", "bad-value", "trade: `q` is `-0.006`: must not be negative");
    add(TRADE, "61800.30", "6e4", "bad-value", "trade: `p` is `6e4`: not a decimal number");
    add(TRADE, "61800.30", "1.0000000000001", "bad-value", "more than 12 places");
    add(TRADE, "\"T\":1723161256322", "\"T\":-1", "bad-value", "trade: `T` is `-1`");
    add(TRADE, "5266583935", "-5266583935", "bad-value", "an id is not negative");
    add(QUOTE, "61800.20", "0.00", "bad-value", "bookTicker: `b` is `0.00`: must be positive");
    add(QUOTE, "\"A\":\"2.510\"", "\"A\":\"-1\"", "bad-value", "bookTicker: `A` is `-1`");
    add(QUOTE, "\"b\":\"61800.20\"", "\"b\":[]", "missing-field", "bookTicker without field `b`");
    add(DELTA, "[[\"58710.20\",\"0.014\"]]", "\"58710.20\"", "bad-value", "must be a list of levels");
    add(DELTA, "58710.20", "-58710.20", "malformed", "price `-58710.20` of a level is not positive");
    add(DELTA, "\"0.014\"", "\"-0.014\"", "malformed", "quantity `-0.014` of a level is negative");
    add(
        DELTA,
        "[\"58710.20\",\"0.014\"]",
        "[\"58710.20\"]",
        "malformed",
        "a level is [\"price\", \"quantity\"]",
    );
    add(DELTA, "\"U\":5123107832006", "\"U\":5123107837558", "contradiction", "is after its last");
    add(SNAPSHOT, "2.909", "0.000", "contradiction", "nothing at the level 61800.2");
    // Other instruments and markets.
    add(TRADE, "\"s\":\"BTCUSDT\"", "\"s\":\"ETHUSDT\"", "other-symbol", "stream is `btcusdt@trade`");
    add(
        TRADE,
        "\"X\":\"MARKET\"",
        "\"M\":true",
        "other-venue",
        "shape of BINANCE_SPOT, but the file is of BINANCE_USDM",
    );
    add(DELTA, "\"pu\":5123107831937,", "", "other-venue", "shape of BINANCE_SPOT");
    add(
        DELTA,
        "\"s\":\"BTCUSDT\"",
        "\"s\":\"BTCUSDT\",\"ps\":\"BTCUSD\"",
        "other-venue",
        "shape of BINANCE_COINM",
    );
    add(QUOTE, "\"e\":\"bookTicker\",", "", "other-venue", "shape of BINANCE_SPOT");
    all
}

#[test]
fn every_fault_is_rejected_with_line_and_reason_and_costs_only_its_line() {
    let good = sample_lines("usdm_btcusdt", 300);
    let (expected, _) = import_text(good.join("\n"), ImportOptions::default());
    assert!(rejected(&expected).is_empty());
    let faults = faults();
    let (mut text, mut at) = (String::new(), Vec::new());
    let mut number = 0;
    for (index, line) in good.iter().enumerate() {
        // One in front of each good line, the very first one too.
        if let Some((fault, ..)) = faults.get(index) {
            text.push_str(&format!("{fault}\n"));
            number += 1;
            at.push(number);
        }
        text.push_str(&format!("{line}\n"));
        number += 1;
    }
    let (items, summary) = import_text(&text, ImportOptions::default());
    let found = rejected(&items);
    assert_eq!(found.len(), faults.len());
    for (((line, code, reason), expected_line), (fault, expected_code, part)) in
        found.iter().zip(at).zip(&faults)
    {
        assert_eq!(*line, expected_line, "{fault}");
        assert_eq!(code, expected_code, "{fault}: {reason}");
        assert!(reason.contains(part), "{fault}: {reason}");
    }
    assert_eq!(summary.rejected_count(), faults.len() as u64);
    assert_eq!(records(&items), records(&expected));
    for (item, (fault, ..)) in items.iter().filter(|item| matches!(item, Item::Rejected { .. })).zip(&faults)
    {
        let Item::Rejected { raw, raw_length, .. } = item else { unreachable!() };
        assert_eq!((raw.as_slice(), *raw_length), (fault.as_bytes(), fault.len() as u64));
    }
}

#[test]
fn bytes_that_are_no_text_are_rejected_as_they_are() {
    let mut bytes = TRADE.as_bytes().to_vec();
    bytes.extend_from_slice(b"\n\xff\xfe\x00\n1723161255088176367 {\"s\":\"\xff\"}\n");
    bytes.extend_from_slice(QUOTE.as_bytes());
    let (items, _) = import_text(&bytes, ImportOptions::default());
    let found = rejected(&items);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((found[0].0, found[0].1), (2, "no-receive-time"));
    assert_eq!((found[1].0, found[1].1), (3, "malformed"));
    assert_eq!(records(&items).len(), 3);
}

#[test]
fn an_endless_line_is_rejected_and_only_its_beginning_kept() {
    let long = "9".repeat(5 << 20);
    let text = format!("{QUOTE}\n{long}\n{TRADE}\n");
    let (items, _) = import_text(&text, ImportOptions::default());
    let found = rejected(&items);
    assert_eq!((found.len(), found[0].0, found[0].1), (1, 2, "line-too-long"));
    let Some(Item::Rejected { raw, raw_length, .. }) =
        items.iter().find(|i| matches!(i, Item::Rejected { .. }))
    else {
        panic!("not rejected");
    };
    assert_eq!((raw.len(), *raw_length), (tidewire_ingest::limits::MAX_REJECTED_BYTES, 5 << 20));
    assert_eq!(records(&items).len(), 3);
}

#[test]
fn trades_that_are_no_market_trades_are_kept_and_marked() {
    let text = [
        QUOTE.to_owned(),
        TRADE.to_owned(),
        TRADE.replace("MARKET", "INSURANCE_FUND"),
        TRADE.replace("MARKET", "ADL"),
        TRADE.replace("MARKET", "NA").replace("61800.30", "0").replace("0.006", "0"),
        TRADE.replace("0.006", "0.000"),
    ];
    let (items, _) = import_text(text.join("\n"), ImportOptions::default());
    let market: Vec<bool> = records(&items).iter().filter_map(|r| r.as_trade()).map(|t| t.market).collect();
    assert_eq!(market, [true, false, false, false, false]);
}

#[test]
fn a_snapshot_without_symbol_in_a_file_of_several_is_rejected_unless_named() {
    let ether = TRADE.replace("btcusdt", "ethusdt").replace("BTCUSDT", "ETHUSDT");
    let text = [QUOTE, TRADE, &ether, SNAPSHOT].join("\n");
    let (items, _) = import_text(&text, ImportOptions::default());
    let found = rejected(&items);
    assert_eq!((found.len(), found[0].0, found[0].1), (1, 4, "snapshot-without-symbol"));
    let named = ImportOptions { instrument: Some("ETHUSDT.BINANCE_USDM".into()), ..ImportOptions::default() };
    let (items, _) = import_text(&text, named);
    assert!(rejected(&items).is_empty());
    assert_eq!(records(&items).last().unwrap().instrument(), Some("ETHUSDT.BINANCE_USDM"));
}

#[test]
fn times_of_receipt_may_be_in_microseconds_and_may_go_back() {
    let text = [QUOTE, &TRADE.replace("1723161255088176367", "1723161255088176"), DELTA].join("\n");
    let (items, summary) = import_text(text, ImportOptions::default());
    let received: Vec<i64> = items
        .iter()
        .filter_map(|item| match item {
            Item::Record { received_ns, topic: "market.ticks.v1", .. } => Some(*received_ns),
            _ => None,
        })
        .collect();
    assert_eq!(received, [1_723_161_255_088_169_167, 1_723_161_255_088_176_000, 1_723_161_255_030_314_667]);
    assert_eq!(summary.received_went_back, Some((1, 3)));
}

#[test]
fn a_file_that_is_nothing_known_is_refused_with_what_to_do() {
    let open = |text: &str, options| Importer::open(file_of(text).path(), options).map(|_| ()).unwrap_err();
    let none = ImportOptions::default;
    assert!(matches!(open("", none()), ImportError::Empty { .. }));
    assert!(matches!(open("\n \n", none()), ImportError::Empty { .. }));
    assert!(matches!(open("hello\n", none()), ImportError::UnknownFormat { .. }));
    assert!(matches!(open("a,b,c\n", none()), ImportError::UnknownFormat { .. }));
    assert!(matches!(open(TRADE, none()), ImportError::VenueUnknown { .. }));
    let named = ImportOptions { instrument: Some("BTCUSDT".into()), ..none() };
    assert!(open(TRADE, named).to_string().contains("not `<symbol>.<venue>`"));
    let both =
        ImportOptions { instrument: Some("BTCUSDT.BINANCE_SPOT".into()), venue: Some(Venue::UsdM), ..none() };
    assert!(open(TRADE, both).to_string().contains("the instrument is of BINANCE_SPOT"));
    let missing = Importer::open("/nowhere/at/all.gz", none()).map(|_| ()).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/at/all.gz: cannot be opened"), "{missing}");
    let folder = Importer::open(std::env::temp_dir(), none()).map(|_| ()).unwrap_err();
    assert!(matches!(folder, ImportError::Open { .. }), "{folder}");
}

#[test]
fn the_venue_may_be_named_where_the_messages_do_not_tell() {
    let options = ImportOptions { venue: Some(Venue::UsdM), ..ImportOptions::default() };
    let (items, summary) = import_text(TRADE, options);
    assert_eq!(records(&items).len(), 2);
    assert_eq!(summary.venue, Some(Venue::UsdM));
}

#[test]
fn an_unknown_instrument_is_imported_once_it_is_described() {
    let table = file_of(
        "instrument,asset_class,base,quote,settle,contract_multiplier,inverse,tick_size,lot_size\n\
         DOGEUSDT.BINANCE_USDM,PERPETUAL,DOGE,USDT,USDT,1,false,0.00001,1\n",
    );
    let text = TRADE.replace("btcusdt", "dogeusdt").replace("BTCUSDT", "DOGEUSDT");
    let (items, summary) = import_text([QUOTE, &text, TRADE].join("\n"), ImportOptions::default());
    let found = rejected(&items);
    assert_eq!((found.len(), found[0].0, found[0].1), (1, 2, "unknown-instrument"));
    assert_eq!(summary.venue_offset.unwrap().observations, 2, "a rejected line tells nothing");
    let reason = "instrument `DOGEUSDT.BINANCE_USDM` is not known: describe it in a file of instruments";
    assert!(found[0].2.starts_with(reason), "{}", found[0].2);
    let options = ImportOptions {
        venue: Some(Venue::UsdM),
        instruments: Some(table.path().to_owned()),
        ..ImportOptions::default()
    };
    let (items, _) = import_text(text, options);
    assert_eq!(rejected(&items), []);
    let described = records(&items)[0].as_instrument().unwrap().clone();
    assert_eq!(described.base, "DOGE");
    assert_eq!(described.event_time.as_ms(), 1_723_161_256_321);
}

#[test]
fn a_cut_gzip_file_gives_what_it_has_and_then_the_error() {
    let path = common::sample("usdm_btcusdt");
    let bytes = std::fs::read(&path).unwrap();
    let (whole, _) = import(&path, ImportOptions::default());
    for length in [bytes.len() / 50, bytes.len() / 2] {
        let file = file_of(&bytes[..length]);
        let importer = Importer::open(file.path(), ImportOptions::default()).unwrap();
        let mut items: Vec<_> = importer.collect();
        let error = items.pop().unwrap().unwrap_err();
        assert!(matches!(error, ImportError::Read { .. }), "{error}");
        let items: Vec<_> = items.into_iter().map(Result::unwrap).collect();
        assert!(items.len() > 100, "{}", items.len());
        assert_eq!(items[..], whole[..items.len()]);
    }
}
