//! A registry that speaks Confluent's REST API: Confluent's own, Apicurio, Karapace, Redpanda's, or ours.

mod http;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};
use tidewire_schemas::resolve::Comparable;

use super::{Level, Registered, RegistryError, RestOptions, SchemaRegistry};
use http::{Client, Reply};

/// Most schemas that are remembered.
const MAX_CACHED: usize = 10_000;
/// Most subjects, and most versions of one, that are read.
const MAX_LISTED: usize = 100_000;

const NO_SUBJECT: i64 = 40_401;
const NO_SCHEMA: i64 = 40_403;

/// A client of such a registry. Answers that can not change are remembered.
pub struct RestRegistry {
    client: Client,
    /// Schemas by id: an id never changes its meaning.
    schemas: Mutex<BTreeMap<u32, Arc<str>>>,
}

#[derive(Deserialize)]
struct VersionAnswer {
    subject: String,
    id: u32,
    version: u32,
    schema: String,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
}

#[derive(Deserialize)]
struct CheckAnswer {
    is_compatible: bool,
    #[serde(default)]
    messages: Option<Vec<String>>,
}

impl RestRegistry {
    /// A client with these options; nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] when an address or a file can not be used.
    pub fn new(options: &RestOptions) -> Result<Self, RegistryError> {
        Ok(Self { client: Client::new(options)?, schemas: Mutex::default() })
    }
}

impl SchemaRegistry for RestRegistry {
    fn place(&self) -> &str {
        self.client.place()
    }

    fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        // Looking first needs no right to write, and leaves a registry alone that has everything.
        if let Some(id) = self.lookup(subject, schema)? {
            return Ok(id);
        }
        let path = format!("/subjects/{}/versions", encoded(subject));
        let reply = self.client.post(&path, &json!({ "schema": schema }))?;
        match reply.status {
            409 => {
                let (subject, why) = (subject.to_owned(), reply.message());
                Err(RegistryError::Incompatible { subject, why })
            }
            422 => Err(RegistryError::Invalid { subject: subject.to_owned(), why: reply.message() }),
            _ => Ok(reply.read::<IdAnswer>()?.id),
        }
    }

    fn lookup(&self, subject: &str, schema: &str) -> Result<Option<u32>, RegistryError> {
        let path = format!("/subjects/{}", encoded(subject));
        let reply = self.client.post(&path, &json!({ "schema": schema }))?;
        if reply.is_missing(&[NO_SUBJECT, NO_SCHEMA]) {
            return Ok(None);
        }
        Ok(Some(reply.read::<IdAnswer>()?.id))
    }

    fn schema(&self, id: u32) -> Result<Option<Arc<str>>, RegistryError> {
        let known = self.schemas.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let reply = self.client.get(&format!("/schemas/ids/{id}"))?;
        if reply.is_missing(&[NO_SCHEMA]) {
            return Ok(None);
        }
        let answer: SchemaAnswer = reply.read()?;
        if !is_avro(answer.schema_type.as_deref()) {
            let problem = format!("schema {id} is no Avro schema, but {:?}", answer.schema_type);
            return Err(reply.wrong(problem));
        }
        let schema: Arc<str> = answer.schema.into();
        self.remember(id, &schema);
        Ok(Some(schema))
    }

    fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        let mut subjects: Vec<String> = self.client.get("/subjects")?.read()?;
        subjects.sort();
        subjects.truncate(MAX_LISTED);
        Ok(subjects)
    }

    fn versions(&self, subject: &str) -> Result<Vec<Registered>, RegistryError> {
        let reply = self.client.get(&format!("/subjects/{}/versions", encoded(subject)))?;
        if reply.is_missing(&[NO_SUBJECT]) {
            return Ok(Vec::new());
        }
        let mut numbers: Vec<u32> = reply.read()?;
        numbers.sort_unstable();
        let mut versions = Vec::new();
        for number in numbers.into_iter().take(MAX_LISTED) {
            let reply = self.client.get(&format!("/subjects/{}/versions/{number}", encoded(subject)))?;
            let found: VersionAnswer = reply.read()?;
            if is_avro(found.schema_type.as_deref()) {
                self.remember(found.id, &found.schema.as_str().into());
                let (id, version) = (found.id, found.version);
                versions.push(Registered { id, subject: found.subject, version, schema: found.schema });
            }
        }
        Ok(versions)
    }

    fn check(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError> {
        let body = json!({ "schema": schema });
        let path = format!("/compatibility/subjects/{}/versions", encoded(subject));
        let mut reply = self.client.post(&format!("{path}?verbose=true"), &body)?;
        if reply.status == 404 && !reply.is_missing(&[NO_SUBJECT]) {
            // Older registries compare with one version alone.
            reply = self.client.post(&format!("{path}/latest?verbose=true"), &body)?;
        }
        if reply.status == 404 {
            // Nothing is registered under the subject.
            return Ok(Vec::new());
        }
        if reply.status == 422 {
            return Err(RegistryError::Invalid { subject: subject.to_owned(), why: reply.message() });
        }
        let answer: CheckAnswer = reply.read()?;
        if answer.is_compatible {
            return Ok(Vec::new());
        }
        match answer.messages {
            Some(messages) if !messages.is_empty() => Ok(messages),
            _ => self.own_reasons(subject, schema),
        }
    }
}

impl RestRegistry {
    /// What this build finds wrong, where the registry says no more than that something is: its rule is not known, so
    /// the schema is compared both ways.
    fn own_reasons(&self, subject: &str, schema: &str) -> Result<Vec<String>, RegistryError> {
        let mut reasons = vec!["the registry refuses it and gives no reason".to_owned()];
        let Ok(new) = Comparable::parse(schema) else { return Ok(reasons) };
        for version in self.versions(subject)? {
            if let Ok(old) = Comparable::parse(&version.schema) {
                let problems = Level::FullTransitive.problems(&new, &old);
                reasons.extend(
                    problems
                        .iter()
                        .map(|problem| format!("compared here, version {}: {problem}", version.version)),
                );
            }
        }
        Ok(reasons)
    }

    fn remember(&self, id: u32, schema: &Arc<str>) {
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if schemas.len() < MAX_CACHED {
            schemas.insert(id, Arc::clone(schema));
        }
    }
}

/// Registries leave the type out for Avro.
fn is_avro(schema_type: Option<&str>) -> bool {
    schema_type.is_none_or(|name| name.eq_ignore_ascii_case("AVRO"))
}

/// A part of a path: all but unreserved characters (RFC 3986) percent-encoded.
fn encoded(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl Reply {
    /// Whether the registry says that it has no such thing.
    fn is_missing(&self, codes: &[i64]) -> bool {
        self.status == 404
            && self.value.get("error_code").and_then(Value::as_i64).is_some_and(|code| codes.contains(&code))
    }
}
