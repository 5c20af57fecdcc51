//! What the types offer beside their codec, and the list of topics.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

use std::collections::BTreeSet;
use tidewire_schemas::wire::Cursor;
use tidewire_schemas::*;

#[test]
fn numbers_are_found_by_name() {
    let id = Kind::Trade.numeric_field("price").unwrap();
    let trade = Trade { price: "61234.5".parse().unwrap(), trade_id: 7, ..Trade::default() };
    let record = Record::from(trade);
    assert_eq!(record.number(id), Some(61_234.5));
    assert_eq!(record.number(Kind::Trade.numeric_field("trade_id").unwrap()), Some(7.0));
    assert_eq!((id.name(), id.kind()), ("price", Kind::Trade));
    // Text, times, flags and enums are no numbers, nor is what does not exist.
    for name in ["instrument", "event_time", "received_time", "market", "aggressor", "nothing"] {
        assert_eq!(Kind::Trade.numeric_field(name), None, "{name}");
    }
    // Another kind's field of the same name is not confused with it.
    assert_eq!(Record::from(Bar::default()).number(id), None);
    // Null is no number; a value is.
    let limit = Kind::Order.numeric_field("limit_price").unwrap();
    assert_eq!(Record::from(Order::default()).number(limit), None);
    let order = Order { limit_price: Some(Price::ONE), ..Order::default() };
    assert_eq!(Record::from(order).number(limit), Some(1.0));
    let revision = Kind::Bar.numeric_field("revision").unwrap();
    assert_eq!(Record::from(Bar { revision: -2, ..Bar::default() }).number(revision), Some(-2.0));
    let metrics = RiskMetrics { concentration: 0.25, ..RiskMetrics::default() };
    let concentration = Kind::RiskMetrics.numeric_field("concentration").unwrap();
    assert_eq!(Record::from(metrics).number(concentration), Some(0.25));
    assert_eq!(Kind::NewsItem.numbers().count(), 0);
}

#[test]
fn records_are_taken_apart() {
    let at = EventTime::from_ms(5);
    let bar = Bar { instrument: "A.X".into(), event_time: at, ..Bar::default() };
    let record = Record::from(bar.clone());
    assert_eq!((record.kind(), record.event_time(), record.instrument()), (Kind::Bar, Some(at), Some("A.X")));
    assert_eq!(record.as_bar(), Some(&bar));
    assert_eq!(Bar::of(&record), Some(&bar));
    assert_eq!(record.as_trade(), None);
    let wrong = Trade::try_from(record.clone()).unwrap_err();
    assert_eq!(wrong.to_string(), "expected a Trade record, found Bar");
    assert_eq!(Bar::try_from(record), Ok(bar));
    let epoch = Record::from(EpochRecord::default());
    assert_eq!((epoch.event_time(), epoch.instrument()), (None, None));
    assert!(size_of::<Record>() <= 224, "{}", size_of::<Record>());
}

#[test]
fn names_and_symbols() {
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert!(names.is_sorted());
    for &kind in Kind::ALL {
        assert_eq!(Kind::from_name(kind.name()), Some(kind));
        assert_eq!(kind.full_name(), format!("tidewire.{kind}"));
        let schema: serde_json::Value = serde_json::from_str(kind.schema_json()).unwrap();
        let fields: Vec<&str> =
            schema["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
        assert_eq!(kind.fields(), fields);
    }
    assert_eq!("PARTIALLY_FILLED".parse(), Ok(OrderStatus::PartiallyFilled));
    let error = "SIDEWAYS".parse::<Side>().unwrap_err();
    assert_eq!(error, "`SIDEWAYS` is no Side; use one of UNKNOWN, BUY, SELL");
    assert_eq!(serde_json::to_string(&TimeInForce::Ioc).unwrap(), "\"IOC\"");
    assert_eq!(serde_json::from_str::<TimeInForce>("\"GTC\"").unwrap(), TimeInForce::Gtc);
    // What a later build may add must never be traded on.
    assert_eq!((Side::default(), OrderType::default()), (Side::Unknown, OrderType::Unknown));
    assert_eq!(Verdict::default(), Verdict::Fail);
    assert_eq!(
        Verdict::decode(&mut Cursor::new(&[6])).unwrap_err().to_string(),
        "malformed at byte 0: enum index without a symbol"
    );
}

/// Every schema is valid for the reference parser, and self-contained.
#[test]
fn schemas_are_valid() {
    for kind in Kind::ALL {
        apache_avro::Schema::parse_str(kind.schema_json()).unwrap_or_else(|e| panic!("{kind}: {e}"));
    }
}

#[test]
fn errors_name_the_field() {
    let mut body = Vec::new();
    Trade { instrument: "A.X".into(), ..Trade::default() }.encode(&mut body);
    // instrument 4 bytes, two times, an id; then the price: a length that goes beyond the end.
    body[7] = 0x7e;
    let error = Record::decode(Kind::Trade, &body).unwrap_err();
    assert_eq!(error.to_string(), "malformed at byte 7 in Trade.price: a length goes beyond the end");
}

/// Numbers that do not fit, text that is none, and decimals beyond 28 digits.
#[test]
fn primitives_are_checked() {
    let error = |f: &dyn Fn(&mut Cursor<'_>) -> Option<wire::Malformed>, bytes: &[u8]| {
        f(&mut Cursor::new(bytes)).map(|e| e.to_string()).unwrap_or_default()
    };
    let long = |c: &mut Cursor<'_>| c.long().err();
    assert!(error(&long, &[0xff; 9]).contains("end inside a number"));
    assert!(error(&long, &[0xff; 10]).contains("64 bits"));
    assert!(error(&long, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).contains("64 bits"));
    assert_eq!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).long(), Ok(i64::MIN));
    assert_eq!(Cursor::new(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).long(), Ok(i64::MAX));
    let int = |c: &mut Cursor<'_>| c.int().err();
    assert!(error(&int, &[0x80, 0x80, 0x80, 0x80, 0x10]).contains("32 bits"));
    assert!(error(&|c| c.boolean().err(), &[2]).contains("neither 0 nor 1"));
    assert!(error(&|c| c.string().err(), &[2, 0xff]).contains("UTF-8"));
    assert!(error(&|c| c.slice().err(), &[1]).contains("negative"));
    assert!(error(&|c| c.double().err(), &[0; 7]).contains("double"));
    assert!(error(&|c| c.decimal().err(), &[0]).contains("0 or more than 16"));
    assert!(error(&|c| c.decimal().err(), &[34; 18]).contains("0 or more than 16"));
    assert!(
        error(&|c| c.decimal().err(), &[24, 0x20, 0x4f, 0xce, 0x5e, 0x3e, 0x25, 2, 0x61, 0x10, 0, 0, 0])
            .contains("28 digits")
    );
    assert!(
        error(&|c| c.decimal().err(), &[24, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).contains("28 digits")
    );
    // More bytes than needed are fine.
    assert_eq!(Cursor::new(&[8, 0xff, 0xff, 0xff, 0xfe]).decimal(), Ok(-2));
    assert_eq!(Cursor::new(&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]).decimal(), Ok(2));
    // A block with its size: -1 items of 2 bytes, then the end.
    assert_eq!(Cursor::new(&[1, 4, 0x80, 1, 0]).array::<_, wire::Malformed>(Cursor::long), Ok(vec![64]));
    for size in [8, 1] {
        let array = |c: &mut Cursor<'_>| c.array::<_, wire::Malformed>(Cursor::long).err();
        assert!(error(&array, &[1, size, 0x80, 1, 0]).contains("block's size"));
    }
    let twice = [4, 2, b'a', 2, 2, b'a', 4, 0];
    assert!(error(&|c| c.map::<_, wire::Malformed>(Cursor::long).err(), &twice).contains("twice"));
    assert!(error(&|c| c.array::<_, wire::Malformed>(Cursor::long).err(), &[8, 0, 0]).contains("more items"));
    assert!(
        error(&|c| c.optional::<_, wire::Malformed>(Cursor::long).err(), &[4]).contains("no such branch")
    );
}

#[test]
fn every_record_has_its_topic() {
    let names: BTreeSet<&str> = topics::ALL.iter().map(|topic| topic.name).collect();
    assert_eq!(names.len(), topics::ALL.len());
    assert_eq!(topics::find(topics::TICKS).unwrap().kinds.len(), 4);
    assert_eq!(topics::find("market.tick.v1"), None);
    let mut on_topics: Vec<Kind> = topics::ALL.iter().flat_map(|topic| topic.kinds.iter().copied()).collect();
    on_topics.sort();
    let internal = [Kind::CutMarker, Kind::EpochRecord, Kind::FeatureValue];
    let expected: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| !internal.contains(kind)).collect();
    assert_eq!(on_topics, expected);
    for topic in topics::ALL {
        for kind in topic.kinds {
            // Keys are fields, so that a key can be made from a record.
            for part in topic.key {
                assert!(kind.fields().contains(part), "{}: {kind} has no {part}", topic.name);
            }
            let described: serde_json::Value = serde_json::from_str(kind.schema_json()).unwrap();
            let doc = described["doc"].as_str().unwrap();
            assert!(doc.contains(&format!("`{}`", topic.name)), "{kind} does not name {}", topic.name);
        }
    }
    assert_eq!(topics::subject(topics::TICKS, Kind::Trade), "market.ticks.v1-tidewire.Trade");
    assert_eq!(topics::epochs("demo"), "demo.epochs");
    assert_eq!(topics::changelog("demo", "risk"), "demo.risk.changelog");
}

#[test]
fn json_is_readable() {
    let letter = DeadLetter {
        key: Some(vec![0, 255].into()),
        headers: [("h".into(), vec![1].into())].into(),
        event_time: EventTime::from_micros(1),
        ..DeadLetter::default()
    };
    let shown = serde_json::to_value(Record::from(letter)).unwrap();
    assert_eq!(shown["key"], "00ff");
    assert_eq!(shown["value"], serde_json::Value::Null);
    assert_eq!(shown["headers"]["h"], "01");
    assert_eq!(shown["event_time"], "1970-01-01T00:00:00.000001Z");
}

/// The generic reader, for schemas that are none of ours.
#[test]
fn foreign_data_are_shown() {
    let schema = serde_json::json!({"type": "record", "name": "x.Y", "fields": [
        {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 3}},
        {"name": "e", "type": {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 0}},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 2}},
        {"name": "g", "type": "float"},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "u", "type": ["null", "string", "long"]},
        {"name": "n", "type": "double"},
        {"name": "min", "type": {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}},
    ]});
    let reader = JsonReader::new(&schema.to_string()).unwrap();
    assert_eq!(reader.record_name(), Some("x.Y"));
    let mut body = vec![36];
    body.extend([0x80].iter().chain(&[0; 17])); // -2^143
    body.extend([4, 0xff, 0x85]); // -123
    body.extend([0xab, 0xcd]);
    body.extend(1.5f32.to_le_bytes());
    body.extend([0xd0, 0x0f]); // 1000 ms
    body.extend([0x4]); // day 2
    body.extend([2, 2, b'x']);
    body.extend(f64::NAN.to_le_bytes());
    body.extend([2, 0x80]); // -128
    let shown = reader.read(&body).unwrap();
    assert_eq!(
        shown,
        serde_json::json!({"d": "-11150372599265311570767859136324180752990.208", "e": "-123", "f": "abcd", "g": 1.5,
            "t": "1970-01-01T00:00:01Z", "day": "1970-01-03", "u": "x", "n": "NaN", "min": "-1.28"})
    );
    body.push(0);
    assert!(reader.read(&body).is_err());
    let flags = JsonReader::new("{\"type\":\"array\",\"items\":\"boolean\"}").unwrap();
    let many = [&[0x80, 0x89, 0x7a][..], &vec![1; 1_000_000], &[0]].concat();
    assert_eq!(flags.read(&many).unwrap().as_array().unwrap().len(), 1_000_000);
    let too_many = [&many[..many.len() - 1], &many].concat();
    assert!(flags.read(&too_many).unwrap_err().to_string().contains("too many values"));
    let nulls = JsonReader::new("{\"type\":\"array\",\"items\":\"null\"}").unwrap();
    assert!(nulls.read(&[0xfe, 0xff, 0xff, 0xff, 0x0f, 0]).is_err());
}
