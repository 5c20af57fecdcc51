//! Where and how a pipeline runs: tables that change nothing of what it computes.
//!
//! They may stand in the pipeline file, or in a file of their own that `--config` names. One subject a file.

mod http;
mod kafka;
mod run;
mod schema_registry;
mod secret;
mod sink;

pub use http::HttpTable;
pub use kafka::KafkaTable;
pub use run::RunTable;
pub use schema_registry::RegistryTable;
pub use secret::SecretSource;
pub use sink::SinkTable;

use super::fields::Fields;
use super::problem::{PipelineError, Problems};
use super::tree::{self, Table};

/// All such tables of a file.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// `[kafka]`: the log is a Kafka cluster.
    pub kafka: Option<KafkaTable>,
    /// `[http]`: health and metrics are served.
    pub http: Option<HttpTable>,
    /// `[run]`: how a process runs.
    pub run: Option<RunTable>,
    /// `[schema_registry]`: where the ids of schemas come from.
    pub schema_registry: Option<RegistryTable>,
    /// `[[sink]]`: stores that take what topics hold.
    pub sinks: Vec<SinkTable>,
}

impl Deployment {
    /// Reads the tables out of a file's.
    pub(super) fn read(fields: &mut Fields<'_>, problems: &mut Problems) -> Self {
        Self {
            kafka: fields.table("kafka", problems).map(|table| KafkaTable::read(table, problems)),
            http: fields.table("http", problems).map(|table| HttpTable::read(table, problems)),
            run: fields.table("run", problems).map(|table| RunTable::read(table, problems)),
            schema_registry: fields
                .table("schema_registry", problems)
                .map(|table| RegistryTable::read(table, problems)),
            sinks: SinkTable::read_all(fields, problems),
        }
    }
}

/// Reads these tables out of a file of their own, or of a pipeline file, whose other tables are passed over.
/// `variables` are those of the environment, of which some override the file.
pub fn load_deployment(
    file: &str,
    text: &str,
    variables: Vec<(String, String)>,
) -> Result<Deployment, PipelineError> {
    let mut problems = Problems::default();
    let mut root = tree::parse(text, &mut problems);
    super::overrides::apply(&mut root, variables, &mut problems);
    let deployment = read_alone(&root, &mut problems);
    match problems.is_empty() {
        true => Ok(deployment),
        false => Err(problems.into_error(file, text)),
    }
}

fn read_alone(root: &Table, problems: &mut Problems) -> Deployment {
    let mut fields = Fields::new(root, "the file");
    Deployment::read(&mut fields, problems)
}
