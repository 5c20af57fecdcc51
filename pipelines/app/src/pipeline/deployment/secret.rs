//! Secrets: named by where they are, never written down.

use std::fmt;

use anyhow::{Context as _, bail};
use smol_str::SmolStr;
use tidewire_runtime::kafka::Secret;

use super::super::fields::Fields;
use super::super::problem::Problems;

/// Most bytes of a file with a secret.
const MAX_BYTES: u64 = 64 << 10;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In an environment variable.
    Variable(SmolStr),
    /// In a file; white space around it is left out.
    File(SmolStr),
}

impl SecretSource {
    /// Reads `<name>_env` or `<name>_file`, whose keys are given whole.
    pub(super) fn read(
        fields: &mut Fields<'_>,
        variable: &'static str,
        file: &'static str,
        problems: &mut Problems,
    ) -> Option<Self> {
        match (fields.text(variable, problems), fields.text(file, problems)) {
            (Some(_), Some(second)) => {
                problems.add(&second.place, format!("`{file}` and `{variable}` are both given; one will do"));
                None
            }
            (Some(named), None) => Some(Self::Variable(named.name)),
            (None, Some(named)) => Some(Self::File(named.name)),
            (None, None) => None,
        }
    }

    /// Gets the secret.
    pub fn get(&self) -> anyhow::Result<Secret> {
        let text = match self {
            Self::Variable(name) => match std::env::var(name.as_str()) {
                Ok(text) => text,
                Err(_) => bail!("the secret in environment variable {name} is needed, and it is not set"),
            },
            Self::File(path) => {
                let doing = || format!("the secret in file {path} can not be read");
                let size = std::fs::metadata(path.as_str()).with_context(doing)?.len();
                if size > MAX_BYTES {
                    bail!("file {path} has {size} bytes; a secret has at most {MAX_BYTES}");
                }
                std::fs::read_to_string(path.as_str()).with_context(doing)?.trim().to_owned()
            }
        };
        if text.is_empty() {
            bail!("the secret in {self} is empty");
        }
        Ok(Secret::new(text))
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}
