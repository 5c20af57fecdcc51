//! What a sink promises together with the loop that drives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidewire_engine::log::TopicPartition;
use tidewire_runtime::sink::{OnTruncated, SinkNews, SinksError};
use tidewire_schemas::{FeatureVector, Kind, Record, topics};

use super::sinks::driven::{Bed, Driven, PARTITIONS, spec, until};
use super::sinks::*;

/// Features of some instruments and positions of some accounts, `from..to`.
fn append(bed: &Bed, from: u32, to: u32) {
    for n in from..to {
        bed.append(feature(&format!("i{}", n % 11), 0, f64::from(n)));
        bed.append(position(&format!("a{}/i{}", n % 5, n % 3), 0, &format!("{n}.000000000001")));
        if n % 17 == 0 {
            bed.append(tombstone(topics::FEATURES, &format!("i{}", n % 11), 0));
        }
    }
}

pub fn what_the_topic_holds_comes_to_the_store(s: &dyn Store) {
    let (bed, spec) = (Bed::new(), spec(s));
    append(&bed, 0, 200);
    let driven = Driven::start(&bed, &spec, "m");
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(s.contents(), bed.fold());
    append(&bed, 200, 230);
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(s.contents(), bed.fold());
    let stats = driven.stats(topics::FEATURES);
    assert_eq!((stats.applied, stats.stale, stats.dead_letters), (244, 0, 0));
    assert!(stats.batches >= 244 / 16, "{stats:?}");
    driven.stop().unwrap();
    // A second life goes on where the first one stood.
    append(&bed, 230, 240);
    let driven = Driven::start(&bed, &spec, "m");
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(s.contents(), bed.fold());
    assert_eq!(driven.stats(topics::POSITIONS).applied, 10);
    driven.stop().unwrap();
}

pub fn a_restart_of_the_store_in_mid_stream_is_gone_over(s: &dyn Store) {
    let (bed, spec) = (Bed::new(), spec(s));
    append(&bed, 0, 300);
    let driven = Driven::start(&bed, &spec, "m");
    for round in 1..4_u64 {
        until("some of it is committed", || bed.committed(&spec, topics::FEATURES) > round * 40);
        s.stop();
        let before = driven.stats(topics::POSITIONS).retries;
        append(&bed, 0, 20);
        until("it is tried again", || driven.stats(topics::POSITIONS).retries > before + 2);
        s.start();
    }
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(s.contents(), bed.fold());
    assert!(driven.told(|news| matches!(news, SinkNews::Retrying { .. })) > 0);
    until("it says so", || driven.told(|news| matches!(news, SinkNews::Recovered { .. })) > 0);
    assert_eq!(driven.stats(topics::FEATURES).waiting, 0);
    assert_eq!(bed.dead_letters().len(), 0);
    driven.stop().unwrap();
}

pub fn a_store_that_is_down_stops_this_sink_alone(s: &dyn Store) {
    let bed = Bed::new();
    let mut spec = spec(s);
    spec.prefetch_bytes = 2_000;
    let other = reference::Reference::new();
    let mut healthy = driven::spec(&other);
    healthy.name = "other".into();
    let driven = Driven::start(&bed, &spec, "m");
    let beside = Driven::start(&bed, &healthy, "n");
    append(&bed, 0, 20);
    until("both are there", || bed.all_committed(&spec) && bed.all_committed(&healthy));
    s.stop();
    append(&bed, 20, 2_000);
    until("the other one takes everything", || bed.all_committed(&healthy));
    until("it is tried again", || driven.stats(topics::FEATURES).retries > 3);
    let stood = bed.committed(&spec, topics::FEATURES);
    assert!(stood < bed.ends(topics::FEATURES));
    // What it holds in memory is a batch and what was read ahead, however much there is.
    let stats = driven.stats(topics::FEATURES);
    let held = stats.read - stats.applied;
    assert!(held <= u64::from(16 + PARTITIONS * 40), "{held} records are held");
    assert_eq!(stats.waiting, 1);
    s.start();
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(s.contents(), bed.fold());
    assert_eq!(other.contents(), bed.fold());
    driven.stop().unwrap();
    beside.stop().unwrap();
}

pub fn what_can_not_be_read_or_written_is_a_dead_letter_once(s: &dyn Store) {
    let (bed, spec) = (Bed::new(), spec(s));
    s.spoil("spoilt");
    append(&bed, 0, 30);
    let place = TopicPartition::new(topics::FEATURES, 1);
    let mut foreign = Vec::new();
    bed.book.encode(&Record::from(tidewire_schemas::Trade::default()), &mut foreign).unwrap();
    let bad = [
        ("garbage", b"not ours".to_vec(), "undecodable"),
        ("empty", Vec::new(), "undecodable"),
        ("no such schema", vec![0, 0xff, 0xff, 0xff, 0xff, 1], "undecodable"),
        ("trade", foreign, "kind_not_taken"),
        ("huge", vec![7; 1_045_000], "undecodable"),
    ];
    let mut wanted = Vec::new();
    for (key, value, reason) in bad {
        wanted.push((bed.append_raw(&place, key, Some(value)), reason));
        append(&bed, 30, 40);
    }
    let mut value = Vec::new();
    let vector = FeatureVector { instrument: "spoilt".into(), ..FeatureVector::default() };
    bed.book.encode(&Record::from(vector), &mut value).unwrap();
    wanted.push((bed.append_raw(&place, "spoilt", Some(value)), "store_refused"));
    append(&bed, 40, 60);
    let driven = Driven::start(&bed, &spec, "m");
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(s.contents(), bed.fold());
    let letters = bed.dead_letters();
    let found: Vec<(u64, &str)> = letters
        .iter()
        .map(|letter| (u64::try_from(letter.source_offset).unwrap(), letter.reason.as_str()))
        .collect();
    assert_eq!(found, wanted);
    for letter in &letters {
        assert_eq!((letter.source_topic.as_str(), letter.source_partition), (topics::FEATURES, 1));
        assert_eq!(letter.stage, "sink.cache");
        assert!(!letter.error.is_empty());
        let kept = letter.value.is_some();
        assert_eq!(kept, !letter.error.contains("read it where it lies"), "{}", letter.error);
        assert_eq!(letter.headers.len(), usize::from(kept));
    }
    assert_eq!(letters.iter().filter(|letter| letter.value.is_none()).count(), 1, "the huge one");
    assert_eq!(driven.stats(topics::FEATURES).dead_letters, 6);
    driven.stop().unwrap();
    let driven = Driven::start(&bed, &spec, "m");
    append(&bed, 60, 70);
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(bed.dead_letters().len(), 6);
    driven.stop().unwrap();
}

pub fn two_members_share_and_one_takes_over(s: &dyn Store) {
    let (bed, spec) = (Bed::new(), spec(s));
    let one = Driven::start(&bed, &spec, "m1");
    append(&bed, 0, 50);
    until("the first takes all", || bed.all_committed(&spec));
    let two = Driven::start(&bed, &spec, "m2");
    until("the second takes part", || {
        append(&bed, 50, 60);
        two.stats(topics::FEATURES).applied > 0 && two.stats(topics::POSITIONS).applied > 0
    });
    // The first one dies: its partitions go to the other.
    let group = spec.group(topics::FEATURES);
    assert!(bed.log.expire(&group, &format!("m1-sink-cache-{}", topics::FEATURES)));
    append(&bed, 60, 100);
    until("everything is committed", || bed.all_committed(&spec));
    one.stop().unwrap();
    append(&bed, 100, 130);
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(s.contents(), bed.fold());
    two.stop().unwrap();
}

/// A process stands still with a batch in its hands, others go on, and it wakes.
pub fn a_zombie_changes_nothing(s: &dyn Store) {
    let (bed, spec) = (Bed::new(), spec(s));
    append(&bed, 0, 40);
    let mut zombie = s.sink();
    zombie.open().unwrap();
    let in_hand: Vec<_> = bed.appended.lock().unwrap().clone();
    let driven = Driven::start(&bed, &spec, "m");
    append(&bed, 40, 90);
    bed.append(tombstone(topics::FEATURES, "i3", 0));
    until("everything is committed", || bed.all_committed(&spec));
    let wanted = bed.fold();
    assert_eq!(s.contents(), wanted);
    for piece in in_hand.chunks(16) {
        assert_eq!(zombie.write(piece).unwrap().applied, 0);
    }
    assert_eq!(s.contents(), wanted);
    driven.stop().unwrap();
}

pub fn a_fatal_error_stops_and_commits_nothing(s: &dyn Store) {
    let (bed, mut spec) = (Bed::new(), spec(s));
    append(&bed, 0, 40);
    // The topic was there with another partition count: its keys were written from other partitions.
    let mut before = s.sink();
    before.open().unwrap();
    for n in 0..11 {
        let key = format!("i{n}");
        let moved = at(topics::FEATURES, 7, 500, &key, feature(&key, 0, 1.0).record);
        before.write(&[moved]).unwrap();
    }
    spec.topics = vec![topics::FEATURES.into()];
    let error = Driven::start(&bed, &spec, "m").ended().unwrap_err();
    let SinksError::Stopped { why, .. } = &error else { panic!("{error}") };
    assert!(why.contains("features.values.v1-7") && why.contains("generation = 2"), "{why}");
    assert_eq!(bed.committed(&spec, topics::FEATURES), 0);
    // As it says: the next generation reads everything, and wins.
    let second = s.sink_of_generation(2);
    let maker = std::sync::Mutex::new(Some(second));
    spec.make = Arc::new(move || maker.lock().unwrap().take().expect("one topic, one client"));
    spec.generation = 2;
    let driven = Driven::start(&bed, &spec, "m");
    until("everything is committed", || bed.all_committed(&spec));
    let mut wanted = bed.fold();
    wanted.retain(|name, _| name.starts_with("features:"));
    assert_eq!(s.contents(), wanted);
    driven.stop().unwrap();
}

/// A record with a schema that was registered after the sink had read the schemas.
pub fn a_newer_writer_is_understood(s: &dyn Store) {
    let (bed, spec) = (Bed::new(), spec(s));
    append(&bed, 0, 10);
    let newer_is_known = Arc::new(AtomicBool::new(false));
    let (flag, log) = (Arc::clone(&newer_is_known), bed.log.clone());
    // 900 is the id that the newer writer registers; its schema is the same, so that the store can be compared.
    let schemas = Arc::new(move || {
        let mut book = tidewire_runtime::registry::read_book(&log).map_err(|error| error.to_string())?;
        if flag.load(Ordering::SeqCst) {
            book.add_writer(900, Kind::FeatureVector.schema_json()).map_err(|error| error.to_string())?;
        }
        Ok(book)
    });
    let driven = Driven::start_with(bed.log(), schemas, &spec, "m");
    until("everything is committed", || bed.all_committed(&spec));
    newer_is_known.store(true, Ordering::SeqCst);
    let mut newer = tidewire_schemas::SchemaBook::new();
    newer.add_writer(900, Kind::FeatureVector.schema_json()).unwrap();
    newer.set_id(Kind::FeatureVector, 900);
    let mut value = Vec::new();
    newer.encode(feature("newer", 0, 5.0).record.as_ref().unwrap(), &mut value).unwrap();
    bed.append_raw(&TopicPartition::new(topics::FEATURES, 0), "newer", Some(value));
    until("everything is committed", || bed.all_committed(&spec));
    assert!(s.contents().contains_key("features:newer"));
    assert!(bed.dead_letters().is_empty());
    driven.stop().unwrap();
}

pub fn an_outage_of_the_log_is_waited_for(s: &dyn Store) {
    let (bed, spec) = (Bed::new(), spec(s));
    append(&bed, 0, 100);
    let driven = Driven::start(&bed, &spec, "m");
    for _ in 0..3 {
        let before = driven.stats(topics::FEATURES).retries;
        bed.log.faults().set_outage(true);
        until("it is tried again", || driven.stats(topics::FEATURES).retries > before + 1);
        bed.log.faults().set_outage(false);
        append(&bed, 0, 20);
    }
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(s.contents(), bed.fold());
    assert!(bed.dead_letters().is_empty());
    driven.stop().unwrap();
}

pub fn deleted_records_are_told_of(s: &dyn Store) {
    let (bed, mut spec) = (Bed::new(), spec(s));
    spec.topics = vec![topics::FEATURES.into()];
    for n in 0..20 {
        bed.append(feature("a", 0, f64::from(n)));
    }
    let driven = Driven::start(&bed, &spec, "m");
    until("everything is committed", || bed.all_committed(&spec));
    driven.stop().unwrap();
    for n in 20..60 {
        bed.append(feature("a", 0, f64::from(n)));
    }
    let (partition, end) = {
        let appended = bed.appended.lock().unwrap();
        let last = appended.last().unwrap();
        (last.partition, last.offset)
    };
    bed.log.truncate_before(&TopicPartition::new(topics::FEATURES, partition), end - 5).unwrap();
    let error = Driven::start(&bed, &spec, "m").ended().unwrap_err().to_string();
    assert!(error.contains("on_truncated = \"skip\"") && error.contains("deleted by retention"), "{error}");
    spec.on_truncated = OnTruncated::Skip;
    let driven = Driven::start(&bed, &spec, "m");
    until("everything is committed", || bed.all_committed(&spec));
    assert_eq!(driven.told(|news| matches!(news, SinkNews::Skipped { .. })), 1);
    assert!(driven.stats(topics::FEATURES).skipped > 0);
    assert_eq!(s.contents(), bed.fold());
    driven.stop().unwrap();
}
