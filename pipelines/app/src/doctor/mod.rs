//! What would make a replay impossible, found before it matters.

mod reach;
mod records;
mod selfcheck;
mod topics;

use std::sync::Arc;

use serde_json::{Value, json};
use smol_str::SmolStr;
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_engine::plan::StageSpec;
use tidewire_schemas::SchemaBook;

use crate::notes::PipelineNote;
use crate::pipeline::Pipeline;

pub use reach::Reach;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Something may be lost, or can not be told for certain.
    Warning,
    /// A replay fails, or will.
    Error,
}

impl Severity {
    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: a short constant.
    pub check: &'static str,
    /// The stage, and the task if it is one task's.
    pub stage: Option<(SmolStr, Option<u32>)>,
    /// The topic.
    pub topic: Option<SmolStr>,
    /// The partition of it.
    pub partition: Option<u32>,
    /// The offset there.
    pub offset: Option<u64>,
    /// What was found.
    pub what: String,
    /// What that means for `verify`, `reprocess` and `explain`.
    pub means: String,
    /// What can be done.
    pub advice: String,
}

impl Finding {
    /// Something that is as it should be.
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Severity::Ok, check, what)
    }

    /// Something that may be lost.
    pub fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Severity::Warning, check, what)
    }

    /// Something that makes a replay fail.
    pub fn error(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Severity::Error, check, what)
    }

    fn new(severity: Severity, check: &'static str, what: impl Into<String>) -> Self {
        Self {
            severity,
            check,
            stage: None,
            topic: None,
            partition: None,
            offset: None,
            what: what.into(),
            means: String::new(),
            advice: String::new(),
        }
    }

    /// Says what it means, and what to do.
    pub fn so(mut self, means: impl Into<String>, advice: impl Into<String>) -> Self {
        (self.means, self.advice) = (means.into(), advice.into());
        self
    }

    /// Names the stage.
    pub fn of_stage(mut self, stage: &StageSpec, task: Option<u32>) -> Self {
        self.stage = Some((stage.name.clone(), task));
        self
    }

    /// Names the topic.
    pub fn of_topic(mut self, topic: &str) -> Self {
        self.topic = Some(topic.into());
        self
    }

    /// Names the place.
    pub fn at(mut self, at: &TopicPartition, offset: Option<u64>) -> Self {
        (self.topic, self.partition, self.offset) = (Some(at.topic.clone()), Some(at.partition), offset);
        self
    }

    /// Where it was found, for people.
    pub fn place(&self) -> String {
        let stage = self.stage.as_ref().map(|(stage, task)| match task {
            Some(task) => format!("{stage}/{task}"),
            None => format!("stage {stage}"),
        });
        let topic = self.topic.as_ref().map(|topic| {
            let partition = self.partition.map_or_else(String::new, |partition| format!("-{partition}"));
            let offset = self.offset.map_or_else(String::new, |offset| format!("@{offset}"));
            format!("{topic}{partition}{offset}")
        });
        stage.into_iter().chain(topic).collect::<Vec<_>>().join(", ")
    }

    /// As JSON.
    pub fn value(&self) -> Value {
        json!({
            "severity": self.severity.name(),
            "check": self.check,
            "stage": self.stage.as_ref().map(|(stage, _)| stage),
            "task": self.stage.as_ref().and_then(|(_, task)| *task),
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "what": self.what,
            "means": self.means,
            "advice": self.advice,
        })
    }
}

/// What is examined.
pub struct Patient<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Its schemas.
    pub book: &'a Arc<SchemaBook>,
    /// The pipeline, as it is to be replayed.
    pub pipeline: &'a Pipeline,
    /// How it was started last.
    pub note: Option<&'a PipelineNote>,
    /// Replays of the last so many milliseconds must be possible.
    pub keep_ms: u64,
    /// Now, by the wall clock, in milliseconds since 1970.
    pub now_ms: i64,
}

/// What was found.
pub struct Examined {
    /// The findings, errors first.
    pub findings: Vec<Finding>,
    /// How far back each task can be replayed.
    pub reach: Vec<Reach>,
}

/// Looks at everything that a replay of the pipeline needs.
pub fn examine(patient: &Patient<'_>) -> anyhow::Result<Examined> {
    let mut findings = Vec::new();
    if patient.note.is_none() {
        findings.push(
            Finding::warning("note", "the log has no note of a start of this pipeline")
                .of_topic(crate::notes::PIPELINES)
                .so(
                    "`verify`, `status` and `explain` find its stages only where a file is named",
                    "name the file each time, or start the pipeline once with `tidewire run FILE`",
                ),
        );
    }
    topics::look(patient, &mut findings)?;
    let missing = findings.iter().any(|finding| finding.check == topics::THERE);
    let mut reach = Vec::new();
    if !missing {
        reach = reach::look(patient, &mut findings)?;
        selfcheck::look(patient, &reach, &mut findings)?;
        records::look(patient, &mut findings)?;
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(Examined { findings, reach })
}
