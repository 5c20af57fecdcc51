//! Where and how a pipeline runs: tables that change nothing of what it computes.
//!
//! They may stand in the pipeline file, or in a file of their own that `--config` names. One subject a file.

mod kafka;
mod secret;
mod sink;

pub use kafka::KafkaTable;
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
    /// `[[sink]]`: stores that take what topics hold.
    pub sinks: Vec<SinkTable>,
}

impl Deployment {
    /// Reads the tables out of a file's.
    pub(super) fn read(fields: &mut Fields<'_>, problems: &mut Problems) -> Self {
        Self {
            kafka: fields.table("kafka", problems).map(|table| KafkaTable::read(table, problems)),
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
