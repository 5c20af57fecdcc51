//! Any bytes: the first says which record, the rest is its body. What is read must be written the same, once read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire_schemas::{JsonReader, Kind, Record, SchemaBook};

fuzz_target!(|input: &[u8]| {
    _ = SchemaBook::of_this_build().decode(input);
    let Some((first, body)) = input.split_first() else { return };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    let shown = JsonReader::new(kind.schema_json()).expect("our schema").read(body);
    if let Ok(record) = Record::decode(kind, body) {
        assert!(shown.is_ok(), "{kind}: typed and generic reader disagree");
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let again = Record::decode(kind, &bytes).expect("what we write we read");
        let mut twice = Vec::new();
        again.encode(&mut twice);
        assert_eq!(bytes, twice, "{kind}");
    }
});
