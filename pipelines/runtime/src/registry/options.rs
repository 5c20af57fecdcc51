//! Where the registry is, and how to be let in.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidewire_engine::log::Log;

use super::{LogRegistry, RegistryError, RestRegistry, SchemaRegistry};
use crate::kafka::Secret;

/// Which registry, and whether this process may add to it.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Which one.
    pub source: Source,
    /// Whether schemas of this build that are missing are registered. In production they are registered beforehand,
    /// with `tidewire schemas register`, so that a wrong build is stopped before it writes.
    pub auto_register: bool,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { source: Source::Log, auto_register: true }
    }
}

impl RegistryOptions {
    /// The registry; the log's own is that of `log`.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] when an address or a file can not be used. Nothing is asked yet.
    pub fn connect(&self, log: &Arc<dyn Log>) -> Result<Box<dyn SchemaRegistry>, RegistryError> {
        Ok(match &self.source {
            Source::Log => Box::new(LogRegistry::new(Arc::clone(log))),
            Source::Rest(rest) => Box::new(RestRegistry::new(rest)?),
        })
    }
}

/// Which registry.
#[derive(Clone, Debug)]
pub enum Source {
    /// The log's own: topic `_schemas`.
    Log,
    /// One that speaks Confluent's REST API.
    Rest(RestOptions),
}

/// A registry that speaks Confluent's REST API.
#[derive(Clone, Debug)]
pub struct RestOptions {
    /// Its addresses, as in `https://registry:8081`; the next one is asked where one does not answer.
    pub urls: Vec<String>,
    /// Who asks.
    pub credentials: Credentials,
    /// How `https` is checked.
    pub tls: Tls,
    /// The longest time for one request, connecting included.
    pub timeout: Duration,
    /// How often all addresses are asked before it is given up.
    pub rounds: usize,
}

impl RestOptions {
    /// The registry at these addresses, with nobody's credentials, 10 seconds for a request and 3 rounds.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            credentials: Credentials::None,
            tls: Tls::default(),
            timeout: Duration::from_secs(10),
            rounds: 3,
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// Name, or key of an API.
        username: SecretFrom,
        /// Password, or secret of an API.
        password: SecretFrom,
    },
    /// A bearer token.
    Bearer(SecretFrom),
}

/// How `https` is checked. The system's certificates count where nothing is said.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this client's certificate chain.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of its key.
    pub key_file: Option<PathBuf>,
}

/// A word that is never shown, or the file that holds it.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// The word itself, as it came from the environment.
    Value(Secret),
    /// A file that holds it. It is read for each request: such files are replaced while we run.
    File(PathBuf),
}

impl SecretFrom {
    /// The word itself.
    pub fn value(text: impl Into<String>) -> Self {
        Self::Value(Secret::new(text))
    }

    /// The word, for whom it is meant. The error names the file.
    pub(super) fn get(&self) -> Result<String, String> {
        match self {
            SecretFrom::Value(secret) => Ok(secret.reveal().to_owned()),
            SecretFrom::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(text.trim().to_owned()),
                Err(error) => Err(format!("{} can not be read: {error}", path.display())),
            },
        }
    }
}

impl fmt::Debug for SecretFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretFrom::Value(_) => f.write_str("***"),
            SecretFrom::File(path) => write!(f, "*** in {}", path.display()),
        }
    }
}
