//! From a registry to the book that records are read and written with.

use std::collections::BTreeSet;

use tidewire_engine::log::Log;
use tidewire_schemas::{Kind, SchemaBook};

use super::{
    LogRegistry, Placement, RegistryError, RegistryOptions, RestRegistry, SchemaRegistry, Source,
    standard_placements,
};

/// Reads all schemas of the log, registers those of this build that are missing, and returns the book to read and
/// write with.
pub fn open_book(log: &dyn Log) -> Result<SchemaBook, RegistryError> {
    open_book_with(log, &RegistryOptions::default(), &[])
}

/// The same with the registry that `options` name. Besides the standard topics' subjects there will be those of
/// `placements`: what a pipeline has on topics of its own.
pub fn open_book_with(
    log: &dyn Log,
    options: &RegistryOptions,
    placements: &[Placement],
) -> Result<SchemaBook, RegistryError> {
    with(log, options, |registry| {
        let wanted = Wanted::new(placements);
        let ids =
            if options.auto_register { registry.register_missing(&wanted) } else { registry.found(&wanted) };
        wanted.book(registry, &ids?)
    })
}

/// Reads all schemas and registers nothing: for those who only look. The book is empty where nothing was ever
/// registered.
pub fn read_book(log: &dyn Log) -> Result<SchemaBook, RegistryError> {
    read_book_with(log, &RegistryOptions::default())
}

/// The same with the registry that `options` name.
pub fn read_book_with(log: &dyn Log, options: &RegistryOptions) -> Result<SchemaBook, RegistryError> {
    with(log, options, |registry| {
        let wanted = Wanted::new(&[]);
        let known = registry.known(&|subject| wanted.wants(subject))?;
        // What this build would write with is found among what is known, without asking for each subject.
        let mut book = SchemaBook::new();
        for (id, schema) in &known {
            // One that can not be read is kept in the book with its reason, which reading such a record gives.
            let _ = book.add_writer(*id, schema);
        }
        for &kind in Kind::ALL {
            let own = super::catalog::normal_form(kind.schema_json());
            if let Some((id, _)) = known.iter().find(|(_, text)| super::catalog::normal_form(text) == own) {
                book.set_id(kind, *id);
            }
        }
        Ok(book)
    })
}

fn with<T>(
    log: &dyn Log,
    options: &RegistryOptions,
    then: impl FnOnce(&dyn SchemaRegistry) -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    match &options.source {
        Source::Log => then(&LogRegistry::new(log)),
        Source::Rest(rest) => then(&RestRegistry::new(rest)?),
    }
}

/// Subjects that are to hold this build's schemas.
struct Wanted {
    placements: Vec<Placement>,
    subjects: Vec<(String, &'static str)>,
    names: BTreeSet<String>,
    prefixes: BTreeSet<String>,
}

impl Wanted {
    fn new(more: &[Placement]) -> Self {
        let mut placements = standard_placements();
        for placement in more {
            if !placements.contains(placement) {
                placements.push(placement.clone());
            }
        }
        let subjects = placements.iter().map(|one| (one.subject(), one.kind.schema_json())).collect();
        let prefixes =
            placements.iter().filter_map(|one| one.topic.as_ref()).map(|topic| format!("{topic}-"));
        Self {
            subjects,
            prefixes: prefixes.collect(),
            names: Kind::ALL.iter().map(|kind| kind.full_name()).collect(),
            placements,
        }
    }

    /// Whether what was written under a subject may lie on a topic that is read here: under other strategies of naming
    /// too, as `<topic>-value`.
    fn wants(&self, subject: &str) -> bool {
        self.names.contains(subject) || self.prefixes.iter().any(|prefix| subject.starts_with(prefix))
    }

    fn book(&self, registry: &dyn SchemaRegistry, ids: &[u32]) -> Result<SchemaBook, RegistryError> {
        let mut book = SchemaBook::new();
        for (placement, id) in self.placements.iter().zip(ids) {
            // Registries may give a schema one id for each subject: any of them will do to write with.
            let _ = book.add_writer(*id, placement.kind.schema_json());
            if book.id_of(placement.kind).is_none() {
                book.set_id(placement.kind, *id);
            }
        }
        for (id, schema) in registry.known(&|subject| self.wants(subject))? {
            if !book.knows(id) {
                // One that can not be read is kept with its reason, which reading such a record gives.
                let _ = book.add_writer(id, &schema);
            }
        }
        Ok(book)
    }
}

impl dyn SchemaRegistry + '_ {
    /// Ids of all wanted subjects; what is missing is registered.
    fn register_missing(&self, wanted: &Wanted) -> Result<Vec<u32>, RegistryError> {
        self.register_all(&wanted.subjects)
    }

    /// Ids of all wanted subjects, or an error that names those that are missing.
    fn found(&self, wanted: &Wanted) -> Result<Vec<u32>, RegistryError> {
        let mut ids = Vec::with_capacity(wanted.subjects.len());
        let mut missing = Vec::new();
        for (subject, schema) in &wanted.subjects {
            match self.lookup(subject, schema)? {
                Some(id) => ids.push(id),
                None => missing.push(subject.clone()),
            }
        }
        if missing.is_empty() {
            return Ok(ids);
        }
        Err(RegistryError::Missing { place: self.place().to_owned(), subjects: missing })
    }
}
