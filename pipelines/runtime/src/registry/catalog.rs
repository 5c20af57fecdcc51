//! What the records of `_schemas` say, taken in the order of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidewire_schemas::resolve::Comparable;

use super::{Level, Registered};

/// One record, as JSON: a schema under a subject, a rule, or a version that was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// The subject; `None` only for the rule of all subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// The rule from here on; empty takes a subject's own rule away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
}

impl From<&Registered> for Line {
    fn from(entry: &Registered) -> Self {
        Self {
            subject: Some(entry.subject.clone()),
            version: Some(entry.version),
            id: Some(entry.id),
            schema: Some(entry.schema.clone()),
            ..Self::default()
        }
    }
}

/// One version of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub version: u32,
    pub id: u32,
    /// It is listed no more. Its id still stands for its schema.
    pub deleted: bool,
}

/// All that holds.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    by_id: BTreeMap<u32, Arc<str>>,
    by_schema: BTreeMap<String, u32>,
    subjects: BTreeMap<String, Vec<Version>>,
    levels: BTreeMap<String, Level>,
    level: Level,
    lines: usize,
}

impl Catalog {
    /// Takes the next record of the log. The error says what is wrong with it.
    pub fn take(&mut self, line: Line) -> Result<(), String> {
        self.lines += 1;
        match line {
            Line { subject: Some(subject), version: Some(version), deleted: Some(deleted), .. } => {
                let versions = self.subjects.get_mut(&subject);
                let found = versions.and_then(|all| all.iter_mut().find(|known| known.version == version));
                if let Some(known) = found {
                    known.deleted = deleted;
                }
            }
            Line { subject, compatibility: Some(name), schema: None, .. } => {
                let level = Level::parse(&name);
                if level.is_none() && !name.is_empty() {
                    return Err(format!("there is no compatibility level {name}"));
                }
                match subject {
                    Some(subject) => match level {
                        Some(level) => _ = self.levels.insert(subject, level),
                        None => _ = self.levels.remove(&subject),
                    },
                    None => self.level = level.unwrap_or_default(),
                }
            }
            Line {
                subject: Some(subject),
                version: Some(version),
                id: Some(id),
                schema: Some(schema),
                ..
            } => {
                self.take_schema(Registered { id, subject, version, schema });
            }
            _ => return Err("it is neither a schema, a rule nor a deletion".to_owned()),
        }
        Ok(())
    }

    /// Takes a schema, unless a record before it gave its id to another schema, or its schema another id. Of two that
    /// took the same version of a subject the first holds: the second was compared without knowing it, and its writer
    /// tries again.
    fn take_schema(&mut self, entry: Registered) {
        let form = normal_form(&entry.schema);
        let id_is_free = self.by_id.get(&entry.id).is_none_or(|known| normal_form(known) == form);
        let schema_is_free = self.by_schema.get(&form).is_none_or(|id| *id == entry.id);
        if !id_is_free || !schema_is_free {
            return;
        }
        self.by_id.entry(entry.id).or_insert_with(|| entry.schema.into());
        self.by_schema.insert(form, entry.id);
        let versions = self.subjects.entry(entry.subject).or_default();
        let is_next = versions.last().is_none_or(|last| last.version < entry.version);
        if is_next && !versions.iter().any(|known| known.id == entry.id && !known.deleted) {
            versions.push(Version { version: entry.version, id: entry.id, deleted: false });
        }
    }

    /// Records taken so far.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// The schema of an id.
    pub fn schema(&self, id: u32) -> Option<&Arc<str>> {
        self.by_id.get(&id)
    }

    /// All ids with their schemas.
    pub fn schemas(&self) -> impl Iterator<Item = (u32, &Arc<str>)> {
        self.by_id.iter().map(|(id, schema)| (*id, schema))
    }

    /// The id of a schema under any subject.
    pub fn id_of(&self, schema: &str) -> Option<u32> {
        self.by_schema.get(&normal_form(schema)).copied()
    }

    /// The greatest id given out.
    pub fn last_id(&self) -> u32 {
        self.by_id.last_key_value().map_or(0, |(id, _)| *id)
    }

    /// All subjects with their versions, deleted ones too.
    pub fn subjects(&self) -> impl Iterator<Item = (&str, &[Version])> {
        self.subjects.iter().map(|(subject, versions)| (subject.as_str(), versions.as_slice()))
    }

    /// The versions of a subject, deleted ones too.
    pub fn versions(&self, subject: &str) -> &[Version] {
        self.subjects.get(subject).map_or(&[], Vec::as_slice)
    }

    /// A version of a subject with its schema.
    pub fn entry(&self, subject: &str, version: &Version) -> Registered {
        Registered {
            id: version.id,
            subject: subject.to_owned(),
            version: version.version,
            schema: self.by_id.get(&version.id).map_or_else(String::new, |schema| schema.to_string()),
        }
    }

    /// The version that a schema is under a subject.
    pub fn find(&self, subject: &str, schema: &str, with_deleted: bool) -> Option<Registered> {
        let id = self.id_of(schema)?;
        let mut versions = self.versions(subject).iter();
        let found = versions.find(|known| known.id == id && (with_deleted || !known.deleted))?;
        Some(self.entry(subject, found))
    }

    /// The version that comes next under a subject.
    pub fn next_version(&self, subject: &str) -> u32 {
        self.versions(subject).last().map_or(0, |last| last.version).saturating_add(1)
    }

    /// The rule of a subject, and whether it is its own.
    pub fn level(&self, subject: &str) -> (Level, bool) {
        self.levels.get(subject).map_or((self.level, false), |level| (*level, true))
    }

    /// The rule of subjects that have none of their own.
    pub fn common_level(&self) -> Level {
        self.level
    }

    /// Why the rule of a subject forbids a schema; nothing if it may be registered.
    pub fn problems(&self, subject: &str, schema: &Comparable) -> Vec<String> {
        let (level, _) = self.level(subject);
        if level == Level::None {
            return Vec::new();
        }
        let mut found = Vec::new();
        let live = self.versions(subject).iter().rev().filter(|version| !version.deleted);
        for version in live.take(if level.is_transitive() { usize::MAX } else { 1 }) {
            found.extend(self.problems_with(level, version, schema));
        }
        found
    }

    /// The same against one version.
    pub fn problems_with(&self, level: Level, version: &Version, schema: &Comparable) -> Vec<String> {
        let text = self.by_id.get(&version.id).map_or("", |text| text);
        let problems = match Comparable::parse(text) {
            Ok(old) => level.problems(schema, &old),
            Err(why) => vec![format!("it can not be read: {why}")],
        };
        problems
            .into_iter()
            .map(|problem| format!("version {} ({level}): {problem}", version.version))
            .collect()
    }
}

/// The same text for schemas that differ in blanks and in the order of keys alone: clients write them as they like.
pub(super) fn normal_form(schema: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(schema) {
        Ok(value) => value.to_string(),
        Err(_) => schema.to_owned(),
    }
}
