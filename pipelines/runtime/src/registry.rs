//! Schemas and their ids: registered and looked up in the log itself, or in a registry beside it.
//!
//! Every record begins with the id of the schema that it was written with. [`SchemaRegistry`] is the one trait for
//! giving ids to schemas and schemas to ids. Behind it is either the topic `_schemas` of the log ([`LogRegistry`]) or
//! a registry that speaks Confluent's REST API ([`RestRegistry`]). [`server`] serves the first as the second, so that
//! any Confluent client can read what lies in a log of ours.

mod book;
mod catalog;
mod learning;
mod level;
mod log;
mod options;
mod place;
mod rest;
pub mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidewire_engine::log::LogError;

pub use book::{open_book, open_book_with, read_book, read_book_with};
pub use learning::LearningLog;
pub use level::Level;
pub use log::{LogRegistry, MAX_SCHEMAS, SCHEMAS_TOPIC, registered};
pub use options::{Credentials, RegistryOptions, RestOptions, SecretFrom, Source, Tls};
pub use place::{Placement, standard_placements};
pub use rest::RestRegistry;

/// Gives ids to schemas and schemas to ids. An id never changes its meaning.
pub trait SchemaRegistry: Send + Sync {
    /// Where it is, for messages; holds no secret.
    fn place(&self) -> &str;

    /// Registers a schema under a subject, unless it is there, and returns its id.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`] when the subject's rule forbids the schema.
    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError>;

    /// Registers several, and returns their ids in the same order. What was registered before one failed stays.
    fn register_all(&self, wanted: &[(String, &str)]) -> Result<Vec<u32>, RegistryError> {
        wanted.iter().map(|(subject, schema)| self.register(subject, schema)).collect()
    }

    /// The id of a schema, if it is registered under that subject.
    fn lookup(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError>;

    /// The schema of an id.
    fn schema(&self, id: u32) -> Result<Option<Arc<str>>, RegistryError>;

    /// All subjects, sorted.
    fn subjects(&self) -> Result<Vec<String>, RegistryError>;

    /// The versions of a subject, ascending; none where there is no such subject.
    fn versions(&self, subject: &str) -> Result<Vec<Registered>, RegistryError>;

    /// Why the subject's rule forbids a schema; nothing if it may be registered.
    fn check(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError>;

    /// Ids and schemas under the subjects that are wanted, and any others that cost nothing to tell.
    fn known(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(u32, Arc<str>)>, RegistryError> {
        let mut known = Vec::new();
        for subject in self.subjects()?.iter().filter(|subject| wanted(subject)) {
            for version in self.versions(subject)? {
                known.push((version.id, version.schema.into()));
            }
        }
        Ok(known)
    }
}

/// A schema as it was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The id that stands in front of every record written with it.
    pub id: u32,
    /// The subject: `<topic>-<record name>`, or the record's name alone where it may be on any topic.
    pub subject: String,
    /// Counts the schemas of the subject, from 1.
    pub version: u32,
    /// The schema's text.
    pub schema: String,
}

/// Why schemas could not be had or registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record of the topic is no schema.
    #[error("{SCHEMAS_TOPIC}-0, offset {offset}: {problem}; the log was written to by something else")]
    Malformed {
        /// Its offset.
        offset: u64,
        /// What is wrong.
        problem: String,
    },
    /// The topic belongs to another registry.
    #[error(
        "topic {SCHEMAS_TOPIC} holds the records of another schema registry ({found}): that registry gives the ids \
         here, so set `url` in `[schema_registry]` to its address"
    )]
    Foreign {
        /// What was found, and where.
        found: String,
    },
    /// There are no more ids.
    #[error("{SCHEMAS_TOPIC}-0 holds {MAX_SCHEMAS} records, as many as it can")]
    Full,
    /// Other processes registered schemas each time.
    #[error("{SCHEMAS_TOPIC}-0: other processes registered schemas {rounds} times in between; try again")]
    Contended {
        /// How often it was tried.
        rounds: usize,
    },
    /// The schema is none.
    #[error("the schema for subject {subject} is refused: {why}")]
    Invalid {
        /// The subject.
        subject: String,
        /// What is wrong.
        why: String,
    },
    /// The subject's rule forbids the schema.
    #[error("the schema is incompatible with what is registered under subject {subject}: {why}")]
    Incompatible {
        /// The subject.
        subject: String,
        /// The registry's reasons.
        why: String,
    },
    /// This process may not register, and schemas are missing.
    #[error(
        "{} schemas of this build are not registered in {place}, the first under subject {}: register them \
         with `tidewire schemas register FILE`, or set `auto_register = true` in `[schema_registry]`",
        subjects.len(), subjects.first().map_or("", |subject| subject.as_str())
    )]
    Missing {
        /// Where.
        place: String,
        /// The subjects without this build's schema.
        subjects: Vec<String>,
    },
    /// No address of the registry answers.
    #[error("the schema registry does not answer ({tries} tries): {error}")]
    Unreachable {
        /// How often it was tried.
        tries: usize,
        /// The last address and its error.
        error: String,
    },
    /// The registry does not let this process in.
    #[error(
        "{place} refused access with status {status}: set `username_env` and `password_env` (or `_file`), or \
         `token_env`, in `[schema_registry]`"
    )]
    Denied {
        /// The address.
        place: String,
        /// HTTP status.
        status: u16,
    },
    /// The registry answered something else than was asked for.
    #[error("{request}: {problem}")]
    Answer {
        /// Method and address.
        request: String,
        /// What it said.
        problem: String,
    },
    /// The settings can not be used.
    #[error("[schema_registry] {0}")]
    Settings(String),
}
