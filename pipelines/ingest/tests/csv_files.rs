//! News, trades and bars from CSV.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{file_of, import, import_text, records, rejected, workspace};
use tidewire_ingest::{Format, ImportOptions, Importer, Item, Merge};
use tidewire_schemas::{EventTime, Kind, NewsItem, Record, SentimentScore, topics};

fn news_items(items: &[Item]) -> (Vec<&NewsItem>, Vec<&SentimentScore>) {
    let records = records(items);
    (
        records.iter().filter_map(|record| record.as_news_item()).collect(),
        records.iter().filter_map(|record| record.as_sentiment_score()).collect(),
    )
}

fn time(text: &str) -> EventTime {
    text.parse().unwrap()
}

fn news_file() -> std::path::PathBuf {
    workspace().join("samples/news/crypto_news_20220704.csv")
}

#[test]
fn the_sample_news_with_its_sentiment() {
    let (items, summary) = import(&news_file(), ImportOptions::default());
    assert_eq!(summary.rejected_count(), 0, "{summary}");
    assert_eq!(summary.format, Format::News);
    let (news, scores) = news_items(&items);
    assert_eq!((news.len(), scores.len()), (40, 40));
    let about = |asset: &str| news.iter().filter(|item| item.subject == asset).count();
    assert_eq!((about("BTC"), about("ETH"), about("*")), (18, 3, 19));
    let mut ids: Vec<_> = news.iter().map(|item| item.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 40);
    for (item, score) in news.iter().zip(&scores) {
        assert_eq!(score.news_id.as_ref(), Some(&item.id));
        assert_eq!((&score.asset, &score.source), (&item.subject, &item.source));
        assert_eq!((score.model.as_str(), score.event_time), ("dataset", item.event_time));
        assert_eq!(item.assets.len(), usize::from(item.subject != "*"));
        assert_eq!(item.event_time, item.published_time);
    }
    assert_eq!(scores[0].score.to_string(), "0.2");
    assert_eq!(scores[0].subjectivity, Some(0.6));
    for item in &items {
        let Item::Record { topic, key, timestamp_ms, received_ns, record, .. } = item else {
            panic!("{item:?}")
        };
        let (asset, expected_topic) = match record {
            Record::NewsItem(news) => (&news.subject, topics::NEWS),
            Record::SentimentScore(score) => (&score.asset, topics::SENTIMENT),
            other => panic!("{other:?}"),
        };
        assert_eq!((key, *topic), (asset, expected_topic));
        assert_eq!(received_ns / 1_000_000, *timestamp_ms);
    }
    assert_eq!(summary.news_shift, None);
    assert_eq!(summary.ignored_columns, ["sentiment_class"]);
}

#[test]
fn news_is_moved_in_a_straight_line_and_the_summary_says_so() {
    let span = (time("2024-08-08T23:54:20Z"), time("2024-08-08T23:55:40Z"));
    let options = ImportOptions { news_span: Some(span), news_delay_ms: 250, ..ImportOptions::default() };
    let (items, summary) = import(&news_file(), options);
    let (news, _) = news_items(&items);
    assert_eq!(news[0].published_time, span.0);
    assert_eq!(news[39].published_time, span.1);
    let (plain, _) = import(&news_file(), ImportOptions::default());
    let (plain, _) = news_items(&plain);
    let original = (plain[0].published_time, plain[39].published_time);
    for (moved, plain) in news.iter().zip(plain) {
        assert_eq!(moved.id, plain.id);
        let part = |t: EventTime, (from, to): (EventTime, EventTime)| {
            t.micros_since(from) as f64 / to.micros_since(from) as f64
        };
        let difference = part(moved.published_time, span) - part(plain.published_time, original);
        assert!(difference.abs() < 1e-6, "{difference}");
        assert_eq!(moved.event_time, moved.published_time.plus_ms(250));
        assert_eq!(moved.received_time.as_event_time(), moved.event_time);
    }
    let shift = summary.news_shift.unwrap();
    assert_eq!((shift.original, shift.mapped), (original, span));
    assert!(summary.to_string().contains("news was moved in time"), "{summary}");
}

#[test]
fn faults_in_news_name_line_and_column() {
    let text = "published_at,source,subject,title,text,sentiment_polarity\n\
        2022-07-04T06:10:00Z,A,bitcoin,One,\"two\nlines\",0.5\n\
        yesterday,A,bitcoin,Two,,0.5\n\
        2022-07-04T06:10:00Z,A,bitcoin,,,0.5\n\
        2022-07-04T06:10:00Z,A,bitcoin,Three,,1.5\n\
        2022-07-04T06:10:00Z,A,bitcoin,Four,,NaN\n\
        2022-07-04T06:10:00Z,A,SOL,Five,,\n\
        2022-07-04T06:10:00Z,A,weather,Six,,-1\n\
        2022-07-04T06:10:00Z,A\n";
    let (items, _) = import_text(text, ImportOptions::default());
    let found = rejected(&items);
    let lines: Vec<_> = found.iter().map(|(line, code, _)| (*line, *code)).collect();
    assert_eq!(
        lines,
        [(4, "bad-value"), (5, "bad-value"), (6, "bad-value"), (7, "bad-value"), (10, "field-count")]
    );
    assert!(found[0].2.starts_with("column 1 (published_at): `yesterday`"), "{}", found[0].2);
    assert!(found[1].2.starts_with("column 4 (title)"), "{}", found[1].2);
    assert!(
        found[2].2.starts_with("column 6 (sentiment_polarity): `1.5`: must be from -1 to 1"),
        "{}",
        found[2].2
    );
    let (news, scores) = news_items(&items);
    assert_eq!(news.iter().map(|n| n.subject.as_str()).collect::<Vec<_>>(), ["BTC", "SOL", "*"]);
    assert_eq!(news[0].text, "two\nlines");
    assert_eq!(scores.len(), 2);
}

#[test]
fn trades_of_users() {
    let text = "# from my broker\n\
        Time, Price ,quantity,SIDE,trade_id,note\n\
        2024-08-08T23:54:15.5Z,61800.3,0.006,buy,7,x\n\
        1723161256000,61800.2,0.1,sell,8,\n\
        1723161257000000,61800.2,0.1,,,\n\
        1723161258,61800.2,-1,,,\n\
        1723161259,61800.2,1,both,,\n\
        1723161260,0,1,,,\n\
        1723161261,1,1\n";
    let options =
        ImportOptions { instrument: Some("BTCUSDT.BINANCE_SPOT".into()), ..ImportOptions::default() };
    let (items, summary) = import_text(text, options);
    let trades: Vec<_> =
        records(&items).into_iter().filter_map(|record| record.as_trade()).cloned().collect();
    assert_eq!(trades.len(), 3);
    assert_eq!(trades[0].event_time, time("2024-08-08T23:54:15.5Z"));
    assert_eq!((trades[0].trade_id, trades[2].trade_id), (7, 5));
    let sides: Vec<_> = trades.iter().map(|trade| trade.aggressor.name()).collect();
    assert_eq!(sides, ["BUYER", "SELLER", "UNKNOWN"]);
    assert_eq!(trades[1].event_time, time("2024-08-08T23:54:16Z"));
    assert_eq!(trades[2].received_time.as_nanos(), 1_723_161_257_000_000_000);
    assert_eq!(summary.ignored_columns, ["note"]);
    assert_eq!(summary.records[&Kind::Instrument], 1);
    let found = rejected(&items);
    let lines: Vec<_> = found.iter().map(|(line, code, _)| (*line, *code)).collect();
    assert_eq!(lines, [(6, "bad-value"), (7, "bad-value"), (8, "bad-value"), (9, "field-count")]);
    assert!(found[0].2.starts_with("column 3 (quantity): `-1`"), "{}", found[0].2);
}

#[test]
fn trades_need_an_instrument_that_is_described() {
    let text = "time,price,quantity\n2024-08-08,1,1\n";
    let error = Importer::open(file_of(text).path(), ImportOptions::default()).map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("line 1: no column `instrument`: name the instrument of the file"));
    let text =
        "instrument,time,price,quantity\nSOL.NOWHERE,2024-08-08,1,1\nBTCUSDT.BINANCE_SPOT,2024-08-08,1,1\n";
    let (items, _) = import_text(text, ImportOptions::default());
    assert_eq!(rejected(&items).iter().map(|r| (r.0, r.1)).collect::<Vec<_>>(), [(2, "unknown-instrument")]);
    assert_eq!(records(&items).len(), 2);
}

#[test]
fn bars_of_users() {
    let text = "window_start,open,high,low,close,volume,notional,trade_count\n\
        2024-08-08T00:00:00Z,10,12,9,11,4,42,3\n\
        2024-08-08T00:01:00Z,10,12,9,11,4,,\n\
        2024-08-08T00:02:00Z,10,9,9,11,4,42,3\n\
        2024-08-08T00:03:00Z,10,12,10.5,11,4,42,3\n\
        2024-08-08T00:04:00Z,10,12,9,11,-4,42,3\n";
    let options = ImportOptions {
        instrument: Some("BTCUSDT.BINANCE_SPOT".into()),
        bar_interval_ms: Some(60_000),
        ..ImportOptions::default()
    };
    let (items, summary) = import_text(text, options);
    let bars: Vec<_> = records(&items).into_iter().filter_map(|record| record.as_bar()).cloned().collect();
    assert_eq!(bars.len(), 2);
    assert_eq!((bars[0].event_time, bars[0].interval_ms), (time("2024-08-08T00:01:00Z"), 60_000));
    assert_eq!((bars[0].vwap.to_string(), bars[0].trade_count), ("10.5".into(), 3));
    assert!(bars[1].vwap.is_zero() && bars[1].notional.is_zero());
    assert_eq!(summary.bars_without_notional, 1);
    let found = rejected(&items);
    assert_eq!(found.iter().map(|r| r.0).collect::<Vec<_>>(), [4, 5, 6]);
    assert!(found[0].2.contains("column 3 (high): `9`: is not the highest"), "{}", found[0].2);
    assert!(found[1].2.contains("column 4 (low)"), "{}", found[1].2);
    assert!(found[2].2.contains("column 6 (volume): `-4`"), "{}", found[2].2);
    let Some(Item::Record { topic, .. }) = items.get(1) else { panic!() };
    assert_eq!(*topic, topics::BARS);
}

#[test]
fn bars_that_do_not_say_their_length_are_refused() {
    let text = "instrument,time,open,high,low,close,volume\n";
    let error = Importer::open(file_of(text).path(), ImportOptions::default()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("name the length of the bars"), "{error}");
    let text = "instrument,time,window_end,interval_ms,open,high,low,close,volume\n\
        BTCUSDT.BINANCE_SPOT,2024-08-08T00:00:00Z,2024-08-08T00:01:00Z,30000,1,1,1,1,1\n\
        BTCUSDT.BINANCE_SPOT,2024-08-08T00:00:00Z,2024-08-07T00:01:00Z,,1,1,1,1,1\n";
    let (items, _) = import_text(text, ImportOptions::default());
    assert_eq!(
        rejected(&items).iter().map(|r| (r.0, r.1)).collect::<Vec<_>>(),
        [(2, "bad-value"), (3, "bad-value")]
    );
}

#[test]
fn a_merge_is_in_the_order_of_time_and_keeps_the_order_of_each_file() {
    let names = ["usdm_btcusdt", "usdm_ethusdt", "spot_btcusdt", "cm_btcusd_perp"];
    let mut paths: Vec<_> = names.map(common::sample).to_vec();
    let span = (time("2024-08-08T23:54:20Z"), time("2024-08-08T23:55:40Z"));
    let options = ImportOptions { news_span: Some(span), ..ImportOptions::default() };
    paths.push(news_file());
    let importers: Vec<_> = paths.iter().map(|path| Importer::open(path, options.clone()).unwrap()).collect();
    let mut merge = Merge::new(importers);
    let mut by_file = vec![Vec::new(); paths.len()];
    let (mut least_behind, mut last, mut switches, mut last_file) = (0, i64::MIN, 0, usize::MAX);
    for merged in merge.by_ref() {
        let merged = merged.unwrap();
        switches += usize::from(merged.file != last_file);
        last_file = merged.file;
        if let Item::Record { timestamp_ms, .. } = &merged.item {
            last = last.max(*timestamp_ms);
            least_behind = least_behind.min(timestamp_ms - last);
        }
        by_file[merged.file].push(merged.item);
    }
    for (path, items) in paths.iter().zip(&by_file) {
        let (alone, summary) = import(path, options.clone());
        assert_eq!(*items, alone, "{}", path.display());
        assert!(merge.summaries().any(|merged| *merged == summary));
    }
    // A record is out of order only as far as it is in its own file: the snapshots, by some 0.2 s.
    assert!(least_behind > -400, "{least_behind}");
    assert!(switches > 10_000, "{switches}");
    assert_eq!(merge.bytes_read(), merge.bytes_total());
}
