//! The schemas of a bundle: those that its records were written with, and those of the log's own build.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::{Value, json};
use tidewire_engine::log::{Log, NewRecord, StoredRecord, TopicPartition};
use tidewire_engine::reader::PartitionReader;
use tidewire_runtime::registry::SCHEMAS_TOPIC;
use tidewire_schemas::{Kind, SchemaBook, wire};

/// The ids in use.
#[derive(Default)]
pub struct Used {
    ids: BTreeSet<u32>,
}

impl Used {
    /// Notes the schema of a record's value.
    pub fn note(&mut self, value: Option<&[u8]>) {
        if let Some((id, _)) = value.and_then(|value| wire::split_prefix(value).ok()) {
            self.ids.insert(id);
        }
    }

    /// The records of the topic of schemas that name them, and those that this build writes with.
    pub fn records(mut self, book: &SchemaBook) -> Vec<StoredRecord> {
        self.ids.extend(Kind::ALL.iter().filter_map(|kind| book.id_of(*kind)));
        let mut versions: BTreeMap<String, u32> = BTreeMap::new();
        let known = self.ids.iter().filter_map(|id| Some((*id, book.schema_of(*id)?)));
        let records = known.zip(0..).map(|((id, schema), offset)| {
            let subject = full_name(&schema);
            let version = versions.entry(subject.clone()).or_default();
            *version += 1;
            let line = json!({ "subject": subject, "version": version, "id": id, "schema": &*schema });
            let record = NewRecord {
                timestamp_ms: 0,
                key: Some(Bytes::from(format!("{subject}/{version}"))),
                value: Some(Bytes::from(line.to_string())),
                headers: Vec::new(),
            };
            StoredRecord { offset, record }
        });
        records.collect()
    }
}

fn full_name(schema: &str) -> String {
    let parsed: Value = serde_json::from_str(schema).unwrap_or_default();
    let part = |name: &str| parsed.get(name).and_then(Value::as_str);
    match (part("namespace"), part("name")) {
        (Some(space), Some(name)) if !name.contains('.') => format!("{space}.{name}"),
        (_, Some(name)) => name.to_owned(),
        _ => "unnamed".to_owned(),
    }
}

/// The book of a bundle. Schemas of this build that the log did not have get ids of their own, so that epochs can be run
/// again by a build with newer ones.
pub fn book_of(log: &dyn Log) -> anyhow::Result<SchemaBook> {
    let mut book = SchemaBook::new();
    let mut last = 0;
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    if log.topic(SCHEMAS_TOPIC)?.is_some() {
        let mut reader = PartitionReader::from_start(log, TopicPartition::new(SCHEMAS_TOPIC, 0))?;
        while let Some(stored) = reader.next_record()? {
            let value = stored.record.value.as_deref().unwrap_or_default();
            let line: Value = serde_json::from_slice(value)
                .with_context(|| format!("{SCHEMAS_TOPIC}-0, offset {}", stored.offset))?;
            let id = line["id"].as_u64().and_then(|id| u32::try_from(id).ok());
            let (Some(id), Some(schema)) = (id, line["schema"].as_str()) else { continue };
            // One that can not be read is kept with its reason, which reading such a record gives.
            let kind = book.add_writer(id, schema).ok();
            if let Some(kind) = kind.filter(|kind| parsed(kind.schema_json()) == parsed(schema)) {
                book.set_id(kind, id);
            }
            last = last.max(id);
        }
    }
    for kind in Kind::ALL.iter().filter(|kind| book.id_of(**kind).is_none()).collect::<Vec<_>>() {
        last += 1;
        let _ = book.add_writer(last, kind.schema_json());
        book.set_id(*kind, last);
    }
    Ok(book)
}
