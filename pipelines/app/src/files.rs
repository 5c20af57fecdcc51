//! Pipeline files: read from disk, or one that ships in the binary.

use std::path::Path;

use anyhow::{Context as _, bail};
use tidewire_operators::OPERATORS;

use crate::build;
use crate::pipeline::{Deployment, MAX_FILE_BYTES, Pipeline, Setting, load, load_deployment};

/// Pipelines that ship: by name, with their text.
pub const SHIPPED: [(&str, &str); 1] = [("market-intel", include_str!("../../market-intel.toml"))];

/// A pipeline and the text it was read from.
pub struct Loaded {
    /// Name of the file.
    pub file: String,
    /// Its text.
    pub text: String,
    /// Environment variables that changed it.
    pub overrides: Vec<(String, String)>,
    /// What it says.
    pub pipeline: Pipeline,
}

/// Loads a pipeline file, with the overrides of this process's environment. The name of a pipeline that ships stands
/// for its file where there is no file of that name.
pub fn load_pipeline(path: &Path) -> anyhow::Result<Loaded> {
    let file = path.display().to_string();
    let shipped = SHIPPED.iter().find(|(name, _)| path == Path::new(name));
    let text = match std::fs::metadata(path) {
        Ok(found) if found.len() > MAX_FILE_BYTES as u64 => {
            bail!("{file} has {} bytes; a pipeline file may have {MAX_FILE_BYTES}", found.len());
        }
        Ok(_) => std::fs::read_to_string(path).with_context(|| format!("{file} can not be read"))?,
        Err(error) => match shipped {
            Some((_, text)) => (*text).to_owned(),
            None => {
                let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
                return Err(error).with_context(|| {
                    format!("pipeline file {file} can not be read; it ships with {}", names.join(", "))
                });
            }
        },
    };
    load_text(file, text, overrides())
}

/// Loads the tables of `--config`, with the overrides of this process's environment.
pub fn load_config(path: &Path) -> anyhow::Result<Deployment> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("{file} can not be read"))?;
    Ok(load_deployment(&file, &text, overrides())?)
}

/// Loads a pipeline from its text.
pub fn load_text(file: String, text: String, overrides: Vec<(String, String)>) -> anyhow::Result<Loaded> {
    let build_digest = build::digest().context("the running executable can not be read for its digest")?;
    let setting = Setting { variables: overrides.clone(), build_digest };
    let pipeline = load(&file, &text, OPERATORS, setting)?;
    Ok(Loaded { file, text, overrides, pipeline })
}

/// Variables of the environment that override pipeline files.
pub fn overrides() -> Vec<(String, String)> {
    let ours = std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
    ours.filter(|(name, _)| name.to_ascii_uppercase().starts_with(crate::pipeline::OVERRIDE_PREFIX)).collect()
}
