//! The note of a pipeline as a bundle has it: what decides its outputs, and nothing of where and how it ran.

use std::path::Path;

use anyhow::{Context as _, bail};
use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_engine::reader::PartitionReader;

use crate::files::load_text;
use crate::notes::{PIPELINES, PipelineNote};
use crate::pipeline::OVERRIDE_PREFIX;
use crate::recorded::Recorded;

/// Tables that change nothing of what is computed, and may say where secrets are.
const DEPLOYMENT: [&str; 5] = ["kafka", "schema_registry", "http", "run", "sink"];

/// The note without tables of deployment, comments and folders, and with the time of the one in the log.
///
/// # Errors
/// When the text without them would not be the same pipeline.
pub fn stripped(log: &dyn Log, recorded: &Recorded) -> anyhow::Result<StoredRecord> {
    let note = &recorded.note;
    let text = strip_text(&note.text).with_context(|| format!("pipeline file {}", note.file))?;
    let overrides: Vec<(String, String)> =
        note.overrides.iter().filter(|(name, _)| !sets_deployment(name)).cloned().collect();
    let file = Path::new(&note.file).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let loaded = load_text(file.clone(), text.clone(), overrides.clone())
        .with_context(|| format!("pipeline file {file} without its deployment"))?;
    let same = |(a, b): (&std::sync::Arc<_>, &std::sync::Arc<_>)| {
        let (a, b): (&tidewire_engine::plan::StageSpec, &tidewire_engine::plan::StageSpec) = (a, b);
        a.pipeline_digest == b.pipeline_digest
    };
    let stages = &loaded.pipeline.stages;
    if stages.len() != recorded.stages().len() || !recorded.stages().iter().zip(stages).all(same) {
        bail!("pipeline file {file} without its deployment is another pipeline: this can not be bundled");
    }
    let note = PipelineNote { file, text, overrides, ..note.clone() };
    let mut stored = last_note(log, &note.pipeline)?;
    stored.record.value = Some(serde_json::to_vec(&note)?.into());
    stored.record.headers.clear();
    Ok(stored)
}

fn last_note(log: &dyn Log, pipeline: &str) -> anyhow::Result<StoredRecord> {
    let mut reader = PartitionReader::from_start(log, TopicPartition::new(PIPELINES, 0))?;
    let mut last = None;
    while let Some(stored) = reader.next_record()? {
        if stored.record.key.as_deref() == Some(pipeline.as_bytes()) {
            last = Some(stored);
        }
    }
    last.with_context(|| format!("topic {PIPELINES} has no note of pipeline {pipeline}"))
}

/// The text of a pipeline file without tables of deployment and without comments.
fn strip_text(text: &str) -> anyhow::Result<String> {
    let mut table: toml::Table = toml::from_str(text)?;
    table.retain(|name, _| !DEPLOYMENT.contains(&name));
    Ok(toml::to_string(&table)?)
}

fn sets_deployment(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    let section = name.strip_prefix(OVERRIDE_PREFIX).and_then(|path| path.split("__").next());
    section.is_none_or(|section| DEPLOYMENT.iter().any(|table| table.to_ascii_uppercase() == section))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn nothing_of_the_deployment_is_left() {
        let text = "# the password is hunter2\n[pipeline]\nname = \"p\"\n[kafka]\nsasl = \"hunter2\"\n[kafka.more]\na = 1\n\
                    [[sink]]\nname = \"hunter2\"\n[run]\nworkers = 2\n[http]\nlisten = \"x\"\n[schema_registry]\nurl = \"hunter2\"\n\
                    [engine]\nmax_records = 7\n";
        let stripped = strip_text(text).unwrap();
        assert!(!stripped.contains("hunter2"), "{stripped}");
        let left: toml::Table = toml::from_str(&stripped).unwrap();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["engine", "pipeline"]);
    }

    #[test]
    fn variables_of_the_deployment_are_known_by_their_section() {
        for name in ["TIDEWIRE__KAFKA__BOOTSTRAP", "tidewire__sink__0__url", "TIDEWIRE__SCHEMA_REGISTRY__URL"]
        {
            assert!(sets_deployment(name), "{name}");
        }
        for name in ["TIDEWIRE__ENGINE__MAX_RECORDS", "TIDEWIRE__STAGE__KAFKA__NAME"] {
            assert!(!sets_deployment(name), "{name}");
        }
    }
}
