//! What a store promises by itself.

use bytes::Bytes;
use tidewire_schemas::{Trade, topics};
use tidewire_sinks::{Sink, SinkError, SinkRecord, Written};

use super::sinks::*;

fn opened(s: &dyn Store) -> Box<dyn Sink> {
    let mut sink = s.sink();
    sink.open().unwrap();
    sink
}

fn write(sink: &mut dyn Sink, batch: &[SinkRecord]) -> Written {
    let written = sink.write(batch).unwrap();
    sink.flush().unwrap();
    written
}

fn counts(written: &Written) -> (u64, u64, usize) {
    (written.applied, written.stale, written.refused.len())
}

pub fn it_opens_and_closes(s: &dyn Store) {
    let mut sink = opened(s);
    sink.open().unwrap();
    sink.health().unwrap();
    write(&mut *sink, &[feature("a", 0, 1.0)]);
    sink.close().unwrap();
    sink.close().unwrap();
    sink.open().unwrap();
    sink.health().unwrap();
    write(&mut *sink, &[feature("a", 1, 2.0)]);
    assert_eq!(s.contents(), fold(&[feature("a", 1, 2.0)]));
}

pub fn a_batch_is_written_exactly(s: &dyn Store) {
    let numbers = [0.1 + 0.2, f64::MIN_POSITIVE, -1.797e308, 5e-324, -0.0, f64::INFINITY, f64::NAN];
    let names = ["a", "b", "c", "d", "e", "f", "with space: é"];
    let values: Vec<(&str, f64)> = names.into_iter().zip(numbers).collect();
    let batch = [
        features("BTCUSDT.BINANCE_USDM", 7, &values),
        position("paper-1/BTCUSDT.BINANCE_USDM", 8, "-9999999999999999.000000000001"),
        position("paper-2/BTCUSDT.BINANCE_USDM", 9, "0.000000000001"),
        position("paper-2/ETHUSDT.BINANCE_USDM", 10, "0"),
        features("odd key\n:\"é", 11, &[]),
    ];
    assert_eq!(counts(&write(&mut *opened(s), &batch)), (5, 0, 0));
    assert_eq!(s.contents(), fold(&batch));
}

pub fn an_empty_batch_changes_nothing(s: &dyn Store) {
    assert_eq!(write(&mut *opened(s), &[]), Written::default());
    assert!(s.contents().is_empty());
}

pub fn a_batch_of_any_size_is_written(s: &dyn Store) {
    let many: Vec<(String, f64)> = (0..5_000_u32).map(|n| (format!("f{n}"), f64::from(n))).collect();
    let many: Vec<(&str, f64)> = many.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let mut batch: Vec<SinkRecord> =
        (0..3_000_u32).map(|n| feature(&format!("k{}", n % 700), u64::from(n), f64::from(n))).collect();
    batch.push(features("wide", 3_000, &many));
    assert_eq!(counts(&write(&mut *opened(s), &batch)), (3_001, 0, 0));
    assert_eq!(s.contents(), fold(&batch));
}

pub fn a_record_replaces_all_fields_of_the_one_before(s: &dyn Store) {
    let mut sink = opened(s);
    write(&mut *sink, &[features("a", 0, &[("x", 1.0), ("y", 2.0)])]);
    write(&mut *sink, &[features("a", 1, &[("y", 3.0)])]);
    assert_eq!(s.contents(), fold(&[features("a", 1, &[("y", 3.0)])]));
}

pub fn within_a_batch_the_last_of_a_key_wins(s: &dyn Store) {
    let batch = [feature("a", 0, 1.0), feature("b", 1, 1.0), feature("a", 2, 2.0), feature("a", 3, 3.0)];
    write(&mut *opened(s), &batch);
    assert_eq!(s.contents(), fold(&batch));
}

pub fn a_redelivery_changes_nothing(s: &dyn Store) {
    let batch = [feature("a", 5, 1.0), position("p/i", 6, "2"), feature("a", 7, 3.0)];
    let mut sink = opened(s);
    write(&mut *sink, &batch);
    let after = s.contents();
    assert_eq!(counts(&write(&mut *sink, &batch)), (0, 3, 0));
    // Another process, from somewhere in the middle.
    assert_eq!(counts(&write(&mut *opened(s), &batch[1..])), (0, 2, 0));
    assert_eq!(s.contents(), after);
}

pub fn an_older_record_never_wins(s: &dyn Store) {
    let newest = feature("a", 1_000_000_000_000, 9.0);
    write(&mut *opened(s), std::slice::from_ref(&newest));
    let mut late = opened(s);
    // More digits are not more, and fewer are not less.
    for offset in [0, 9, 99, 999_999_999_999, 1_000_000_000_000] {
        assert_eq!(counts(&write(&mut *late, &[feature("a", offset, 1.0)])), (0, 1, 0), "offset {offset}");
    }
    assert_eq!(s.contents(), fold(&[newest]));
    let above_2_to_53 = [9_007_199_254_740_993, 9_007_199_254_740_992, u64::MAX - 1, u64::MAX];
    for (offset, applied) in above_2_to_53.into_iter().zip([1, 0, 1, 1]) {
        assert_eq!(write(&mut *late, &[feature("a", offset, 1.0)]).applied, applied, "offset {offset}");
    }
}

pub fn any_order_of_batches_ends_the_same(s: &dyn Store) {
    let records: Vec<SinkRecord> = (0..6_u32)
        .map(|n| match n % 3 {
            2 => tombstone(topics::FEATURES, "k0", u64::from(n)),
            _ => feature(&format!("k{}", n % 2), u64::from(n), f64::from(n)),
        })
        .collect();
    let mut orders = Vec::new();
    permute(&mut (0..records.len()).collect(), 0, &mut orders);
    assert_eq!(orders.len(), 720);
    let mut sink = opened(s);
    for (round, order) in orders.into_iter().enumerate().step_by(9) {
        // Each order has keys of its own.
        let named = |record: &SinkRecord| {
            let mut record = record.clone();
            let key = format!("{round}-{}", String::from_utf8_lossy(record.key.as_deref().unwrap()));
            record.key = Some(Bytes::from(key));
            record
        };
        let records: Vec<SinkRecord> = records.iter().map(named).collect();
        for place in order {
            sink.write(&records[place..=place]).unwrap();
        }
        let found = s.contents();
        let wanted = fold(&records);
        let found: Contents =
            found.into_iter().filter(|(name, _)| name.starts_with(&format!("features:{round}-"))).collect();
        assert_eq!(found, wanted);
    }
}

fn permute(order: &mut Vec<usize>, from: usize, all: &mut Vec<Vec<usize>>) {
    if from == order.len() {
        all.push(order.clone());
    }
    for place in from..order.len() {
        order.swap(from, place);
        permute(order, from + 1, all);
        order.swap(from, place);
    }
}

pub fn writers_at_once_end_with_the_newest(s: &dyn Store) {
    let records: Vec<SinkRecord> =
        (0..600_u32).map(|n| feature(&format!("k{}", n % 5), u64::from(n), f64::from(n))).collect();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let records = &records;
            scope.spawn(move || {
                let mut sink = opened(s);
                // Each of them brings everything, in pieces of another size and from another place.
                for piece in records.chunks(7 + writer * 3).cycle().skip(writer * 5).take(120) {
                    sink.write(piece).unwrap();
                }
            });
        }
    });
    assert_eq!(s.contents(), fold(&records));
}

pub fn a_tombstone_deletes_and_is_remembered(s: &dyn Store) {
    let mut sink = opened(s);
    write(&mut *sink, &[feature("a", 1, 1.0), position("p/i", 2, "1")]);
    write(&mut *sink, &[tombstone(topics::FEATURES, "a", 3), tombstone(topics::POSITIONS, "p/i", 4)]);
    assert!(s.contents().is_empty());
    let again = [feature("a", 1, 1.0), position("p/i", 2, "1")];
    assert_eq!(counts(&write(&mut *opened(s), &again)), (0, 2, 0));
    assert!(s.contents().is_empty(), "an old record came back");
    write(&mut *sink, &[feature("a", 5, 5.0)]);
    assert_eq!(s.contents(), fold(&[feature("a", 5, 5.0)]));
    assert_eq!(counts(&write(&mut *sink, &[tombstone(topics::FEATURES, "never there", 6)])), (1, 0, 0));
}

pub fn a_bad_record_is_refused_alone(s: &dyn Store) {
    s.spoil("spoilt");
    let batch = [
        feature("a", 0, 1.0),
        SinkRecord { key: None, ..feature("x", 1, 1.0) },
        feature("spoilt", 2, 1.0),
        at(topics::FEATURES, 0, 3, "trade", Some(Trade::default().into())),
        SinkRecord { key: Some(Bytes::new()), ..feature("x", 4, 1.0) },
        feature("b", 5, 1.0),
    ];
    for (applied, stale) in [(2, 0), (0, 2)] {
        let written = write(&mut *opened(s), &batch);
        assert_eq!((written.applied, written.stale), (applied, stale));
        let refused: Vec<(usize, &str)> =
            written.refused.iter().map(|refused| (refused.index, refused.reason.as_str())).collect();
        assert_eq!(refused, [(1, "no_key"), (2, "store_refused"), (3, "kind_not_taken"), (4, "no_key")]);
        assert!(written.refused.iter().all(|refused| !refused.error.is_empty()));
    }
    assert_eq!(s.contents(), fold([&batch[0], &batch[5]]));
}

pub fn a_key_of_another_partition_is_not_compared(s: &dyn Store) {
    let mut sink = opened(s);
    let before = feature("a", 100, 1.0);
    write(&mut *sink, std::slice::from_ref(&before));
    for offset in [5, 100, 500] {
        let moved = SinkRecord { partition: 3, ..feature("a", offset, 2.0) };
        let error = sink.write(&[moved]).unwrap_err();
        assert!(matches!(error, SinkError::Fatal { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("features.values.v1-3") && said.contains("generation = 2"), "{said}");
        assert_eq!(s.contents(), fold(std::slice::from_ref(&before)));
    }
    // Other keys are not concerned.
    sink.open().unwrap();
    write(&mut *sink, &[SinkRecord { partition: 3, ..feature("b", 5, 2.0) }]);
}

pub fn a_higher_generation_wins_and_a_lower_one_is_told(s: &dyn Store) {
    let mut first = opened(s);
    write(&mut *first, &[feature("a", 100, 1.0)]);
    let mut second = s.sink_of_generation(2);
    second.open().unwrap();
    let moved = SinkRecord { partition: 3, ..feature("a", 5, 2.0) };
    assert_eq!(counts(&write(&mut *second, &[moved.clone(), moved.clone()])), (1, 1, 0));
    let error = first.write(&[feature("a", 200, 3.0)]).unwrap_err();
    assert!(matches!(error, SinkError::Fatal { .. }) && error.to_string().contains("generation"), "{error}");
    assert_eq!(s.contents(), fold(&[moved]));
}

pub fn a_store_that_is_down_is_tried_again(s: &dyn Store) {
    let mut sink = opened(s);
    let batch = [feature("a", 0, 1.0), feature("b", 1, 1.0)];
    write(&mut *sink, &batch);
    s.stop();
    for _ in 0..3 {
        assert!(sink.write(&[feature("a", 2, 2.0)]).unwrap_err().is_retriable());
        assert!(sink.health().unwrap_err().is_retriable());
    }
    let error = s.sink().open().unwrap_err();
    assert!(error.is_retriable(), "{error}");
    s.start();
    // The same client goes on, though the store forgot all that was not data.
    sink.open().unwrap();
    let after = [feature("a", 0, 0.0), feature("a", 2, 2.0)];
    assert_eq!(counts(&write(&mut *sink, &after)), (1, 1, 0));
    assert_eq!(s.contents(), fold(batch.iter().chain(&after[1..])));
    // And it is restarted between two batches, unseen.
    s.stop();
    s.start();
    let again = [feature("a", 3, 3.0)];
    let written = sink.open().and_then(|()| sink.write(&again)).or_else(|error| {
        assert!(error.is_retriable(), "{error}");
        sink.open().and_then(|()| sink.write(&again))
    });
    assert_eq!(written.unwrap().applied, 1);
}

pub fn a_full_store_loses_nothing(s: &dyn Store) {
    let mut sink = opened(s);
    let before = [features("a", 0, &[("x", 1.0), ("y", 2.0)]), position("p/i", 1, "1")];
    write(&mut *sink, &before);
    s.fill();
    let batch = [feature("a", 2, 3.0), position("p/i", 3, "2"), feature("new", 4, 1.0)];
    for _ in 0..2 {
        sink.open().unwrap();
        let error = sink.write(&batch).unwrap_err();
        assert!(error.is_retriable(), "{error}");
        assert_eq!(s.contents(), fold(&before), "what was there is there whole");
    }
    s.make_room();
    sink.open().unwrap();
    assert_eq!(counts(&write(&mut *sink, &batch)), (3, 0, 0));
    assert_eq!(s.contents(), fold(before.iter().chain(&batch)));
}

pub fn wrong_credentials_are_fatal_and_show_no_secret(s: &dyn Store) {
    let (mut sink, secret) = s.sink_with_wrong_credentials();
    let error = sink.open().unwrap_err();
    assert!(matches!(error, SinkError::Fatal { .. }), "{error}");
    let said = format!("{error} {error:?}");
    assert!(said.contains("password") && !said.contains(&secret), "{said}");
    assert!(s.contents().is_empty());
}
