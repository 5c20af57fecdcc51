//! Any schema text as a writer's, up to the first 0; any bytes as what it wrote.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire_schemas::resolve::Plan;
use tidewire_schemas::{JsonReader, Kind, SchemaBook};

fuzz_target!(|input: &[u8]| {
    let split = input.iter().position(|b| *b == 0).unwrap_or(input.len());
    let Ok(schema) = std::str::from_utf8(&input[..split]) else { return };
    let body = input.get(split + 1..).unwrap_or_default();
    if let Ok(reader) = JsonReader::new(schema) {
        _ = reader.read(body);
    }
    let mut book = SchemaBook::new();
    if book.add_writer(0, schema).is_ok() {
        let value = [&[0, 0, 0, 0, 0], body].concat();
        _ = book.decode(&value);
    }
    for kind in [Kind::Trade, Kind::BookSnapshot, Kind::Alert] {
        if let Ok(plan) = Plan::new(schema, kind.schema_json()) {
            _ = plan.rewrite(body, &mut Vec::new());
        }
    }
});
