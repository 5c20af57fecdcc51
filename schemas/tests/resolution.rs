//! Records of other versions of a schema: what they are read as, and what is refused with which reason.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

mod common;

use common::sample::{Fill, hex, sample};
use common::{varint, with_length};
use serde_json::{Value, json};
use tidewire_schemas::resolve::{Plan, check_backward};
use tidewire_schemas::wire::put_prefix;
use tidewire_schemas::{DecodeError, EventTime, JsonReader, Kind, Price, SchemaBook, Severity};

fn trade_schema() -> Value {
    serde_json::from_str(Kind::Trade.schema_json()).unwrap()
}

fn fields(schema: &mut Value) -> &mut Vec<Value> {
    schema["fields"].as_array_mut().unwrap()
}

fn field<'a>(schema: &'a mut Value, name: &str) -> &'a mut Value {
    fields(schema).iter_mut().find(|f| f["name"] == name).unwrap()
}

fn value(id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_prefix(&mut bytes, id);
    bytes.extend_from_slice(body);
    bytes
}

/// Docs, defaults and aliases of the writer change nothing: such a schema is read without a plan.
#[test]
fn the_same_schema_is_read_as_it_is() {
    for &kind in Kind::ALL {
        let plan = Plan::new(kind.schema_json(), kind.schema_json()).unwrap();
        assert!(plan.is_copy(), "{kind}");
        let body = sample(kind.schema_json(), Fill::Full);
        let mut out = Vec::new();
        plan.rewrite(&body, &mut out).unwrap();
        assert_eq!(hex(&out), hex(&body), "{kind}");
    }
    let mut schema = trade_schema();
    schema["doc"] = "other words".into();
    field(&mut schema, "trade_id")["default"] = 5.into();
    assert!(Plan::new(&schema.to_string(), Kind::Trade.schema_json()).unwrap().is_copy());
}

/// A writer without two of the fields, with one more, and with the others in another order.
#[test]
fn an_older_writer_is_read() {
    let mut schema: Value = serde_json::from_str(Kind::ControlCommand.schema_json()).unwrap();
    let all = fields(&mut schema);
    all.retain(|f| f["name"] != "expiry" && f["name"] != "target");
    all.insert(1, json!({"name": "note", "type": ["null", {"type": "map", "values": "long"}]}));
    all.reverse();
    let mut book = SchemaBook::of_this_build();
    assert_eq!(book.add_writer(900, &schema.to_string()), Ok(Kind::ControlCommand));
    // event_time, why, who, command, note, scope
    let body = [
        varint(1_000),
        with_length(b"too wild"),
        with_length(b"maria"),
        varint(1),
        [varint(1), varint(1), with_length(b"k"), varint(9), varint(0)].concat(),
        with_length(b"*"),
    ]
    .concat();
    let record = book.decode(&value(900, &body)).unwrap();
    let command = record.as_control_command().unwrap();
    assert_eq!(command.scope, "*");
    assert_eq!(command.command.name(), "HALT");
    assert_eq!((command.who.as_str(), command.why.as_str()), ("maria", "too wild"));
    assert_eq!(command.event_time, EventTime::from_micros(1_000));
    assert_eq!((&command.target, command.expiry), (&None, None));
}

/// A symbol that a later build added is read as the reader's default, not as its neighbour.
#[test]
fn a_newer_symbol_is_the_default() {
    let mut schema: Value = serde_json::from_str(Kind::Alert.schema_json()).unwrap();
    let severity = &mut field(&mut schema, "severity")["type"];
    severity["symbols"] = json!(["TRIFLE", "INFO", "WARNING", "CRITICAL", "DISASTER"]);
    severity["default"] = "INFO".into();
    let mut book = SchemaBook::new();
    book.add_writer(7, &schema.to_string()).unwrap();
    for (written, read) in
        [(0, Severity::Warning), (1, Severity::Info), (3, Severity::Critical), (4, Severity::Warning)]
    {
        let body = [vec![0, 0, 0], varint(written), vec![0, 0, 0, 0, 0]].concat();
        let record = book.decode(&value(7, &body)).unwrap();
        assert_eq!(record.as_alert().unwrap().severity, read);
    }
}

/// Null in a field that is not nullable here is an error of that record, with field and place; a value is read.
#[test]
fn null_where_none_may_be_is_an_error() {
    let mut schema: Value = serde_json::from_str(Kind::CashBalance.schema_json()).unwrap();
    field(&mut schema, "currency")["type"] = json!(["string", "null"]);
    let text = schema.to_string();
    let mut book = SchemaBook::new();
    book.add_writer(7, &text).unwrap();
    let body = |currency: &[u8]| value(7, &[&[0], currency, &[2, 0, 2, 0, 0, 0]].concat());
    let record = book.decode(&body(&[0, 6, b'U', b'S', b'D'])).unwrap();
    assert_eq!(record.as_cash_balance().unwrap().currency, "USD");
    let error = book.decode(&body(&[2])).unwrap_err();
    let DecodeError::Malformed { at: 1, field, .. } = &error else { panic!("{error:?}") };
    assert_eq!(field, "CashBalance.currency");
    // The check of a registry refuses such a change beforehand.
    let gap = check_backward(&text, Kind::CashBalance.schema_json()).unwrap_err();
    assert_eq!(gap.path, "CashBalance.currency");
}

/// Every pair of the table: what is rewritten shows what was written, in fields that both have.
#[test]
fn evolutions_keep_values() {
    for (name, writer, reader) in common::evolutions::all() {
        let plan = Plan::new(&writer, &reader).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (before, after) = (JsonReader::new(&writer).unwrap(), JsonReader::new(&reader).unwrap());
        for seed in 0..20 {
            let body = common::draw(&common::datum(&writer), seed);
            let mut out = Vec::new();
            plan.rewrite(&body, &mut out).unwrap();
            let (before, after) = (before.read(&body).unwrap(), after.read(&out).unwrap());
            for (key, value) in before.as_object().unwrap() {
                // Enums and unlike number types are compared with fastavro, in `fastavro.rs`.
                if let Some(Value::String(kept)) = after.get(key)
                    && !["bytes", "symbols"].iter().any(|word| name.contains(word))
                {
                    assert_eq!(value, kept, "{name}: {key}");
                }
            }
        }
    }
    for (name, writer, reader) in common::evolutions::unknown_to_fastavro() {
        let mut out = Vec::new();
        Plan::new(&writer, &reader).unwrap().rewrite(&[2], &mut out).unwrap();
        assert_eq!(JsonReader::new(&reader).unwrap().read(&out).unwrap()["d"], "0.000000000255", "{name}");
    }
}

/// A value goes to the reader's branch of its own type, even where another could take it.
#[test]
fn the_branch_of_the_same_type_comes_first() {
    let plan = Plan::new("\"int\"", "[\"null\", \"double\", \"int\"]").unwrap();
    let mut out = Vec::new();
    plan.rewrite(&[6], &mut out).unwrap();
    assert_eq!(out, [4, 6]);
}

/// A default may be of any branch, and leaves nothing behind of the branches that it does not fit.
#[test]
fn a_default_is_of_the_branch_it_fits() {
    let reader = json!({"type": "record", "name": "R", "fields": [
        {"name": "a", "type": ["null", {"type": "array", "items": "int"}, "string"], "default": "x"}]});
    let writer = json!({"type": "record", "name": "R", "fields": []});
    let mut out = Vec::new();
    Plan::new(&writer.to_string(), &reader.to_string()).unwrap().rewrite(&[], &mut out).unwrap();
    assert_eq!(out, [4, 2, b'x']);
}

/// Only bytes that need no change are read without a plan.
#[test]
fn copies_are_copies() {
    let copies: Vec<&str> = common::evolutions::all()
        .into_iter()
        .filter(|(_, writer, reader)| Plan::new(writer, reader).unwrap().is_copy())
        .map(|(name, ..)| name)
        .collect();
    assert_eq!(
        copies,
        [
            "the same",
            "string to bytes",
            "a field renamed",
            "the record renamed",
            "decimals of another precision",
            "symbols added"
        ]
    );
}

/// What cannot be read, where and why.
#[test]
fn incompatible_schemas_say_why() {
    let price = |schema: &mut Value, key: &str, v: Value| field(schema, "price")["type"][key] = v;
    let ty = |schema: &mut Value, name: &str, v: Value| field(schema, name)["type"] = v;
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&str, Change<'_>, &str, &str); 11] = [
        ("scale", &|s| price(s, "scale", 8.into()), "Trade.price", "scale: 8"),
        ("no decimal", &|s| ty(s, "price", "bytes".into()), "Trade.price", "logical type"),
        ("text for money", &|s| ty(s, "price", "string".into()), "Trade.price", "logical type"),
        ("float for money", &|s| ty(s, "price", "double".into()), "Trade.price", "logical type"),
        (
            "milliseconds for microseconds",
            &|s| ty(s, "event_time", json!({"type": "long", "logicalType": "timestamp-millis"})),
            "Trade.event_time",
            "TimestampMillis",
        ),
        (
            "a long without a unit",
            &|s| ty(s, "event_time", "long".into()),
            "Trade.event_time",
            "logical type",
        ),
        (
            "a wider number",
            &|s| ty(s, "trade_id", "double".into()),
            "Trade.trade_id",
            "double cannot be read as long",
        ),
        (
            "null only",
            &|s| ty(s, "trade_id", json!(["null"])),
            "Trade.trade_id",
            "null cannot be read as long",
        ),
        (
            "a field missing",
            &|s| fields(s).retain(|f| f["name"] != "quantity"),
            "Trade.quantity",
            "the writer has no such field",
        ),
        (
            "another enum",
            &|s| field(s, "aggressor")["type"]["name"] = "Taker".into(),
            "Trade.aggressor",
            "`tidewire.Taker` is neither the reader's `tidewire.Aggressor`",
        ),
        (
            "a list",
            &|s| ty(s, "instrument", json!({"type": "array", "items": "string"})),
            "Trade.instrument",
            "array cannot be read as string",
        ),
    ];
    for (name, change, path, why) in cases {
        let mut schema = trade_schema();
        change(&mut schema);
        let error = Plan::new(&schema.to_string(), Kind::Trade.schema_json()).unwrap_err();
        assert_eq!(error.path, path, "{name}");
        assert!(error.why.contains(why), "{name}: {error}");

        let mut book = SchemaBook::new();
        let refused = book.add_writer(5, &schema.to_string()).unwrap_err();
        assert_eq!(book.decode(&value(5, &[0])), Err(refused.clone()), "{name}");
        assert!(refused.to_string().contains(path) && refused.to_string().contains(why), "{name}: {refused}");
    }
}

/// Schemas that are no record of ours, or no schema at all.
#[test]
fn foreign_schemas_are_refused() {
    let cases = [
        (
            json!({"type": "record", "name": "x.Foo", "fields": []}).to_string(),
            "`x.Foo` is no record of this build",
        ),
        (json!("string").to_string(), "it is no record"),
        ("{".to_owned(), "not a valid Avro schema"),
        (
            json!({"type": "record", "name": "Trade", "fields": [{"name": "a", "type": "Nope"}]}).to_string(),
            "Nope",
        ),
        (" ".repeat(tidewire_schemas::MAX_SCHEMA_BYTES + 1), "more than"),
    ];
    for (json, why) in cases {
        let error = SchemaBook::new().add_writer(1, &json).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_book_knows_its_ids() {
    let mut book = SchemaBook::new();
    assert_eq!(book.decode(&value(3, &[])), Err(DecodeError::UnknownSchema { id: 3 }));
    assert_eq!(book.add_writer(3, Kind::Trade.schema_json()), Ok(Kind::Trade));
    assert_eq!(book.add_writer(3, Kind::Trade.schema_json()), Ok(Kind::Trade));
    let mixed = book.add_writer(3, Kind::Quote.schema_json()).unwrap_err().to_string();
    assert!(mixed.contains("two registries were mixed"), "{mixed}");
    assert!(book.knows(3) && !book.knows(2));
    assert_eq!(book.json_of(3), Some(Kind::Trade.schema_json()));

    let trade = tidewire_schemas::Trade { price: Price::ONE, ..Default::default() };
    let error = book.encode_body(&trade, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind, Kind::Trade);
    book.set_id(Kind::Trade, 3);
    let mut bytes = Vec::new();
    book.encode_body(&trade, &mut bytes).unwrap();
    assert_eq!(book.decode(&bytes).unwrap().as_trade(), Some(&trade));
    assert_eq!(book.id_of(Kind::Quote), None);

    assert_eq!(book.decode(&[]), Err(DecodeError::TooShort { length: 0 }));
    assert_eq!(book.decode(&[0, 0, 0, 0]), Err(DecodeError::TooShort { length: 4 }));
    assert_eq!(book.decode(b"{\"a\":1}"), Err(DecodeError::WrongMagicByte { found: b'{' }));
    bytes.push(0);
    assert!(matches!(book.decode(&bytes), Err(DecodeError::TrailingBytes { length: 1, .. })));
}

/// A schema may refer to itself: what nobody reads of it is skipped, what is too deep is refused.
#[test]
fn recursive_writers_are_bounded() {
    let mut schema = trade_schema();
    let node =
        json!({"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]});
    fields(&mut schema).push(json!({"name": "chain", "type": node}));
    let mut book = SchemaBook::new();
    book.add_writer(1, &schema.to_string()).unwrap();
    let trade = sample(Kind::Trade.schema_json(), Fill::Full);
    let chain = |length: usize| value(1, &[&trade[..], &vec![2; length], &[0]].concat());
    assert!(book.decode(&chain(10)).is_ok());
    let error = book.decode(&chain(100_000)).unwrap_err().to_string();
    assert!(error.contains("too deeply"), "{error}");
    // A record that holds itself has no end at all.
    let mut schema = trade_schema();
    let endless = json!({"type": "record", "name": "E", "fields": [{"name": "e", "type": "E"}]});
    fields(&mut schema).push(json!({"name": "e", "type": endless}));
    book.add_writer(2, &schema.to_string()).unwrap();
    assert!(book.decode(&value(2, &trade)).is_err());
}

/// Items that take no bytes cannot be counted up without end.
#[test]
fn empty_items_are_bounded() {
    let mut schema = trade_schema();
    fields(&mut schema).push(json!({"name": "nulls", "type": {"type": "array", "items": "null"}}));
    let mut book = SchemaBook::new();
    book.add_writer(1, &schema.to_string()).unwrap();
    let trade = sample(Kind::Trade.schema_json(), Fill::Full);
    let nulls = |count: i64| value(1, &[&trade[..], &varint(count), &[0]].concat());
    assert!(book.decode(&nulls(1_000)).is_ok());
    assert!(book.decode(&nulls(i64::MAX)).is_err());
    let many = [&trade[..], &varint(65_000), &varint(65_000), &[0]].concat();
    assert!(book.decode(&value(1, &many)).is_err());
}

/// A default of this build cannot blow a few bytes up without end.
#[test]
fn rewritten_records_are_bounded() {
    let list = |fields: Value| {
        let inner = json!({"type": "record", "name": "Inner", "fields": fields});
        json!({"type": "record", "name": "R", "fields": [
            {"name": "list", "type": {"type": "array", "items": inner}}]})
    };
    let text = "x".repeat(100_000);
    let reader = list(json!([{"name": "text", "type": "string", "default": text}])).to_string();
    let plan = Plan::new(&list(json!([])).to_string(), &reader).unwrap();
    let rewrite = |count: i64| plan.rewrite(&[varint(count), vec![0]].concat(), &mut Vec::new());
    assert_eq!(rewrite(100), Ok(()));
    let error = rewrite(60_000).unwrap_err().to_string();
    assert!(error.contains("too large"), "{error}");
}

/// Lists in several blocks, with and without their size, are read as one.
#[test]
fn blocks_are_joined() {
    let level = [vec![2, 1], vec![2, 5]].concat(); // price 1 unit, quantity 5 units
    let head = [vec![0], vec![0], vec![0], vec![0]].concat();
    let sized = [varint(-2), varint(8), level.clone(), level.clone()].concat();
    let bids = [varint(1), level.clone(), sized, vec![0]].concat();
    let body = [head, bids, vec![0]].concat();
    let book = SchemaBook::of_this_build();
    let id = book.id_of(Kind::BookSnapshot).unwrap();
    let record = book.decode(&value(id, &body)).unwrap();
    assert_eq!(record.as_book_snapshot().unwrap().bids.len(), 3);
    let plan = Plan::new(Kind::BookSnapshot.schema_json(), Kind::BookSnapshot.schema_json()).unwrap();
    let mut out = Vec::new();
    plan.rewrite(&body, &mut out).unwrap();
    assert_eq!(book.decode(&value(id, &out)).unwrap(), record);
}
