//! Which schema id means what.

use crate::error::DecodeError;
use crate::generated::{Kind, Record};
use crate::record::Body;
use crate::resolve::Plan;
use crate::shape::{Base, Named, Shape};
use crate::wire::{put_prefix, split_prefix};
use std::sync::{Arc, PoisonError, RwLock};

/// Schema ids of one registry: how to read what was written with each, and which to write with.
///
/// Clones share the plans, so that every worker can have its own, and what is learned later.
#[derive(Clone, Debug, Default)]
pub struct SchemaBook {
    /// Sorted by id.
    readers: Vec<Entry>,
    /// By position of the kind.
    writers: Vec<Option<u32>>,
    /// What was learned since: all clones know it.
    learned: Arc<RwLock<Vec<Entry>>>,
}

/// Most schemas that are learned while running.
const MAX_LEARNED: usize = 10_000;

#[derive(Clone, Debug)]
struct Entry {
    id: u32,
    json: Arc<str>,
    reader: Reader,
}

#[derive(Clone, Debug)]
enum Reader {
    /// The writer's bytes are this build's.
    Compiled(Kind),
    /// They are rewritten first.
    Resolving(Kind, Arc<Plan>),
    /// They cannot be read, and why.
    Refused(Arc<str>),
}

/// A kind of record has no schema id to write with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} has no schema id to write with: register its schema first")]
pub struct NotRegistered {
    /// Which record.
    pub kind: Kind,
}

impl SchemaBook {
    /// A book without any schema.
    pub fn new() -> SchemaBook {
        SchemaBook::default()
    }

    /// Ids 1, 2, ... for the kinds of this build in their order: for a log that has no registry.
    pub fn of_this_build() -> SchemaBook {
        let mut book = SchemaBook::new();
        for (id, &kind) in (1u32..).zip(Kind::ALL) {
            let entry = Entry { id, json: kind.schema_json().into(), reader: Reader::Compiled(kind) };
            book.readers.push(entry);
            book.set_id(kind, id);
        }
        book
    }

    /// Takes up a writer's schema by its id, and returns the record that it is read as.
    ///
    /// A schema that cannot be read is remembered with the reason, which every record written with it then gives.
    /// An id that stands for another schema already is refused: ids of a registry never change their meaning.
    pub fn add_writer(&mut self, id: u32, json: &str) -> Result<Kind, DecodeError> {
        let place = match self.readers.binary_search_by_key(&id, |entry| entry.id) {
            Ok(found) if *self.readers[found].json == *json => return self.readers[found].kind(),
            Ok(_) => {
                let why = "the id stands for another schema already: two registries were mixed";
                return Err(DecodeError::IncompatibleSchema { id, why: why.into() });
            }
            Err(place) => place,
        };
        let reader = reader_for(json).unwrap_or_else(|why| Reader::Refused(why.into()));
        self.readers.insert(place, Entry { id, json: json.into(), reader });
        self.readers[place].kind()
    }

    /// Takes up a writer's schema in this book and in all its clones, while they are in use. An id that is known
    /// already is left as it is.
    pub fn learn(&self, id: u32, json: &str) {
        let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        let known = self.entry(id).is_some() || learned.iter().any(|entry| entry.id == id);
        if !known && learned.len() < MAX_LEARNED {
            let reader = reader_for(json).unwrap_or_else(|why| Reader::Refused(why.into()));
            learned.push(Entry { id, json: json.into(), reader });
        }
    }

    /// The id that a kind is written with.
    #[inline]
    pub fn id_of(&self, kind: Kind) -> Option<u32> {
        self.writers.get(kind as usize).copied().flatten()
    }

    /// Sets the id that a kind is written with: the registry's id of this build's schema.
    pub fn set_id(&mut self, kind: Kind, id: u32) {
        self.writers.resize(Kind::ALL.len(), None);
        self.writers[kind as usize] = Some(id);
    }

    /// Whether the id is in the book, readable or not.
    pub fn knows(&self, id: u32) -> bool {
        self.entry(id).is_some() || self.learned(id).is_some()
    }

    /// Schema text of an id, whether taken up or learned.
    pub fn schema_of(&self, id: u32) -> Option<Arc<str>> {
        match self.entry(id) {
            Some(entry) => Some(Arc::clone(&entry.json)),
            None => self.learned(id).map(|entry| entry.json),
        }
    }

    /// Schema text of an id, as it was taken up.
    pub fn json_of(&self, id: u32) -> Option<&str> {
        self.entry(id).map(|entry| &*entry.json)
    }

    /// Appends prefix and body.
    pub fn encode(&self, record: &Record, out: &mut Vec<u8>) -> Result<(), NotRegistered> {
        self.prefix(record.kind(), out)?;
        record.encode(out);
        Ok(())
    }

    /// Appends prefix and body of a record that is not wrapped.
    pub fn encode_body<B: Body>(&self, body: &B, out: &mut Vec<u8>) -> Result<(), NotRegistered> {
        self.prefix(B::KIND, out)?;
        body.encode(out);
        Ok(())
    }

    /// Reads prefix and body. Any bytes give a record or an error.
    #[inline]
    pub fn decode(&self, bytes: &[u8]) -> Result<Record, DecodeError> {
        let (id, body) = split_prefix(bytes)?;
        match self.entry(id) {
            Some(entry) => entry.decode(body),
            None => self.learned(id).ok_or(DecodeError::UnknownSchema { id })?.decode(body),
        }
    }

    /// Which record a value is, by its prefix alone.
    pub fn kind_of(&self, bytes: &[u8]) -> Result<Kind, DecodeError> {
        let (id, _) = split_prefix(bytes)?;
        match self.entry(id) {
            Some(entry) => entry.kind(),
            None => self.learned(id).ok_or(DecodeError::UnknownSchema { id })?.kind(),
        }
    }

    fn prefix(&self, kind: Kind, out: &mut Vec<u8>) -> Result<(), NotRegistered> {
        put_prefix(out, self.id_of(kind).ok_or(NotRegistered { kind })?);
        Ok(())
    }

    #[inline]
    fn entry(&self, id: u32) -> Option<&Entry> {
        self.readers.binary_search_by_key(&id, |entry| entry.id).ok().map(|place| &self.readers[place])
    }

    #[cold]
    fn learned(&self, id: u32) -> Option<Entry> {
        let learned = self.learned.read().unwrap_or_else(PoisonError::into_inner);
        learned.iter().find(|entry| entry.id == id).cloned()
    }
}

impl Entry {
    #[inline]
    fn decode(&self, body: &[u8]) -> Result<Record, DecodeError> {
        match &self.reader {
            Reader::Compiled(kind) => Record::decode(*kind, body),
            Reader::Resolving(kind, plan) => {
                let mut rewritten = Vec::with_capacity(body.len() + 64);
                plan.rewrite(body, &mut rewritten)?;
                Record::decode(*kind, &rewritten)
            }
            Reader::Refused(why) => Err(DecodeError::IncompatibleSchema { id: self.id, why: why.clone() }),
        }
    }

    fn kind(&self) -> Result<Kind, DecodeError> {
        match &self.reader {
            Reader::Compiled(kind) | Reader::Resolving(kind, _) => Ok(*kind),
            Reader::Refused(why) => Err(DecodeError::IncompatibleSchema { id: self.id, why: why.clone() }),
        }
    }
}

fn reader_for(json: &str) -> Result<Reader, String> {
    let writer = Shape::parse(json)?;
    let Some(named) = writer.record_name() else {
        return Err("it is no record".into());
    };
    let (kind, reader) = find_kind(named)?;
    let plan = Plan::of(writer, &reader).map_err(|e| e.to_string())?;
    Ok(if plan.is_copy() { Reader::Compiled(kind) } else { Reader::Resolving(kind, Arc::new(plan)) })
}

/// The record of this build with that name, or else with that alias.
fn find_kind(writer: &Named) -> Result<(Kind, Shape), String> {
    if let Some(kind) = Kind::from_name(writer.short()) {
        return Ok((kind, Shape::parse(kind.schema_json())?));
    }
    for &kind in Kind::ALL {
        // Only a schema with aliases is worth parsing.
        if kind.schema_json().contains("\"aliases\"") {
            let reader = Shape::parse(kind.schema_json())?;
            if let Base::Record(named, _) = &reader.node(reader.root()).base
                && named.takes(writer)
            {
                return Ok((kind, reader));
            }
        }
    }
    Err(format!("`{}` is no record of this build", writer.name))
}
