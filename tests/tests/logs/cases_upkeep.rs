//! Compaction and retention.

use tidewire_engine::log::{LogError, NewRecord, TopicSpec};

use super::logs::*;

const LAG_MS: u64 = 100;

fn compacted(s: &dyn Subject) {
    s.log().create_topic(&TopicSpec::new("t", 2).compacted(LAG_MS)).unwrap();
}

fn left(s: &dyn Subject) -> Vec<String> {
    texts(&read(&*s.log(), &at("t", 0)))
}

pub fn compaction_keeps_the_last_of_each_key(s: &mut dyn Subject) {
    compacted(s);
    let append = |records| s.log().append(&at("t", 0), records).unwrap();
    append(vec![record("a", "1"), record("b", "1"), record("a", "2")]);
    append(vec![record("c", "1"), record("b", "2"), record("d", "1")]);
    append(vec![record("a", "3")]);
    s.log().append(&at("t", 1), vec![record("a", "other partition")]).unwrap();
    s.step();
    s.set_now_ms(LAG_MS);
    assert_eq!(s.compact("t"), 3);
    s.step();
    assert_eq!(left(s), ["c=1", "b=2", "d=1", "a=3"]);
    let offsets: Vec<u64> = read(&*s.log(), &at("t", 0)).iter().map(|stored| stored.offset).collect();
    assert_eq!(offsets, [3, 4, 5, 6]);
    // A read that begins where nothing is left goes on to what is.
    for from in 0..=3 {
        let fetched = s.log().fetch(&at("t", 0), from, 1).unwrap();
        assert_eq!((fetched.records[0].offset, fetched.next_offset), (3, 4));
    }
    assert_eq!(texts(&read(&*s.log(), &at("t", 1))), ["a=other partition"]);
    assert_eq!(s.compact("t"), 0);
}

pub fn compaction_leaves_what_is_younger_than_the_lag(s: &mut dyn Subject) {
    compacted(s);
    for (now_ms, value) in [(0, "1"), (10, "2"), (20, "3"), (30, "4")] {
        s.set_now_ms(now_ms);
        s.log().append(&at("t", 0), vec![record("a", value), record(value, "x")]).unwrap();
        s.step();
    }
    s.set_now_ms(LAG_MS - 1);
    assert_eq!(s.compact("t"), 0);
    // At 109 the first is old, but the second, which supersedes it, is not: a state between the two can be restored.
    s.set_now_ms(LAG_MS + 9);
    assert_eq!(s.compact("t"), 0);
    s.step();
    s.set_now_ms(LAG_MS + 10);
    assert_eq!(s.compact("t"), 1);
    assert_eq!(left(s), ["1=x", "a=2", "2=x", "a=3", "3=x", "a=4", "4=x"]);
    s.step();
    s.set_now_ms(LAG_MS + 30);
    assert_eq!(s.compact("t"), 2);
    s.step();
    assert_eq!(left(s), ["1=x", "2=x", "3=x", "a=4", "4=x"]);
}

pub fn tombstones_go_one_pass_later(s: &mut dyn Subject) {
    compacted(s);
    s.log()
        .append(&at("t", 0), vec![record("a", "1"), record("b", "1"), tombstone("a"), tombstone("c")])
        .unwrap();
    s.set_now_ms(LAG_MS);
    assert_eq!(s.compact("t"), 1);
    s.step();
    assert_eq!(left(s), ["b=1", "a=-", "c=-"]);
    assert_eq!(s.compact("t"), 2);
    s.step();
    assert_eq!(left(s), ["b=1"]);
    // A key may come back.
    s.log().append(&at("t", 0), vec![record("a", "2"), tombstone("b")]).unwrap();
    s.set_now_ms(LAG_MS * 2);
    assert_eq!(s.compact("t"), 1);
    assert_eq!(left(s), ["a=2", "b=-"]);
}

pub fn compaction_leaves_the_end_where_it_was(s: &mut dyn Subject) {
    compacted(s);
    s.log().append(&at("t", 0), vec![record("a", "1"), tombstone("a")]).unwrap();
    s.set_now_ms(LAG_MS);
    s.compact("t");
    s.step();
    s.compact("t");
    s.step();
    assert!(left(s).is_empty());
    let bounds = s.log().bounds(&at("t", 0)).unwrap();
    assert_eq!((bounds.stable_end, bounds.high_watermark), (2, 2));
    assert!(bounds.start <= 2);
    let fetched = s.log().fetch(&at("t", 0), bounds.start, 10).unwrap();
    assert_eq!((fetched.next_offset, fetched.at_end), (2, true));
    assert_eq!(s.log().append(&at("t", 0), vec![record("a", "2")]).unwrap(), 2);
    s.step();
    assert_eq!(left(s), ["a=2"]);
}

pub fn a_compacted_topic_needs_keys(s: &mut dyn Subject) {
    compacted(s);
    let keyless = NewRecord { key: None, ..record("", "v") };
    let error = s.log().append(&at("t", 0), vec![record("a", "1"), keyless]).unwrap_err();
    assert!(matches!(error, LogError::Invalid(_)));
    assert!(error.to_string().contains("record 1 for t-0 has no key"), "{error}");
    assert_eq!(s.log().bounds(&at("t", 0)).unwrap().high_watermark, 0);
}

pub fn a_topic_may_be_compacted_again_and_again(s: &mut dyn Subject) {
    compacted(s);
    for round in 0..12_u64 {
        s.set_now_ms(round * LAG_MS);
        let records = (0..40).map(|n| record(&format!("{}", n % 8), &format!("{round}.{n}"))).collect();
        s.log().append(&at("t", 0), records).unwrap();
        s.step();
        s.compact("t");
        s.step();
        let stored = left(s);
        // The last of each key of all rounds before, and all of this one.
        let older = if round == 0 { 0 } else { 8 };
        assert_eq!(stored.len(), older + 40, "round {round}");
        for (n, text) in stored[..older].iter().enumerate() {
            assert_eq!(*text, format!("{n}={}.{}", round - 1, 32 + n));
        }
        assert_eq!(s.log().bounds(&at("t", 0)).unwrap().high_watermark, (round + 1) * 40);
    }
}

pub fn retention_by_age_deletes_from_the_front(s: &mut dyn Subject) {
    s.log().create_topic(&TopicSpec { retention_ms: Some(50), ..TopicSpec::new("t", 1) }).unwrap();
    for now_ms in [0, 20, 40] {
        s.set_now_ms(now_ms);
        s.log().append(&at("t", 0), numbered(now_ms, 10)).unwrap();
        s.step();
    }
    s.set_now_ms(49);
    s.apply_retention();
    assert_eq!(s.log().bounds(&at("t", 0)).unwrap().start, 0);
    s.set_now_ms(70);
    s.apply_retention();
    s.step();
    assert_eq!(s.log().bounds(&at("t", 0)).unwrap().start, 20);
    assert_eq!(left(s)[0], "k40=v40");
    let error = s.log().fetch(&at("t", 0), 19, 100).unwrap_err();
    assert_eq!(error, LogError::Truncated { at: at("t", 0), asked: 19, start: 20 });
    assert_eq!(error.to_string(), "t-0 begins at offset 20: offset 19 was deleted by retention");
}

pub fn retention_by_bytes_keeps_the_newest(s: &mut dyn Subject) {
    s.log().create_topic(&TopicSpec { retention_bytes: Some(10_000), ..TopicSpec::new("t", 1) }).unwrap();
    for round in 0..40_u64 {
        // Bytes that do not compress, so that a log which compresses counts about the same.
        let noisy = |n: u64| NewRecord { value: Some(noise(round * 2 + n, 800)), ..record("k", "") };
        s.log().append(&at("t", 0), vec![noisy(0), noisy(1)]).unwrap();
        s.step();
        s.apply_retention();
        let bounds = s.log().bounds(&at("t", 0)).unwrap();
        assert_eq!(bounds.high_watermark, (round + 1) * 2);
        let kept = read(&*s.log(), &at("t", 0));
        assert_eq!(kept.len() as u64, bounds.high_watermark - bounds.start);
        let bytes: usize = kept.iter().map(|stored| stored.record.size()).sum();
        let all = (round as usize + 1) * 2 * bytes / kept.len();
        assert!(bytes >= 10_000.min(all) && bytes < 25_000, "round {round}: {bytes} bytes of {all}");
    }
    assert!(s.log().bounds(&at("t", 0)).unwrap().start >= 40);
}

pub fn retention_may_delete_everything(s: &mut dyn Subject) {
    s.log().create_topic(&TopicSpec { retention_ms: Some(50), ..TopicSpec::new("t", 1) }).unwrap();
    s.log().append(&at("t", 0), numbered(0, 5)).unwrap();
    s.set_now_ms(1000);
    s.apply_retention();
    s.step();
    let bounds = s.log().bounds(&at("t", 0)).unwrap();
    assert_eq!((bounds.start, bounds.stable_end, bounds.high_watermark), (5, 5, 5));
    assert!(s.log().fetch(&at("t", 0), 5, 10).unwrap().at_end);
    assert_eq!(s.log().append(&at("t", 0), numbered(5, 1)).unwrap(), 5);
    s.step();
    assert_eq!(left(s), ["k5=v5"]);
}
