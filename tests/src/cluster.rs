//! A real Apache Kafka for tests, started by `scripts/kafka`. What is started here ends with this process, however it ends.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::root;

/// Names the cluster that tests use which need no node of their own: `scripts/test` sets it.
pub const BOOTSTRAP_VARIABLE: &str = "KAFKA_BOOTSTRAP";

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// None: the cluster is of those who started the tests.
    folder: Option<TempDir>,
    variables: BTreeMap<String, String>,
}

impl Cluster {
    /// The cluster that all tests of this process share: that of `KAFKA_BOOTSTRAP`, or one of one node, started at the
    /// first call. Others use it too, so topics and groups need names of their own: see [`unique`](crate::unique).
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var(BOOTSTRAP_VARIABLE) {
            Ok(bootstrap) if !bootstrap.is_empty() => {
                let variables = BTreeMap::from([(BOOTSTRAP_VARIABLE.to_owned(), bootstrap)]);
                Self { folder: None, variables }
            }
            _ => Self::start(&[]),
        })
    }

    /// A cluster of the test's own with this many nodes, one or three, to be broken at will.
    pub fn of_nodes(nodes: u32) -> Self {
        Self::start(&["--nodes", &nodes.to_string()])
    }

    /// A node that asks for certificates and passwords: see [`variable`](Self::variable).
    pub fn secure() -> Self {
        Self::start(&["--secure"])
    }

    /// `HOST:PORT` of each node, by comma.
    pub fn bootstrap(&self) -> &str {
        self.variable(BOOTSTRAP_VARIABLE)
    }

    /// What `scripts/kafka env` says of this cluster: addresses such as `KAFKA_MTLS`, users, certificates.
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).unwrap_or_else(|| panic!("the cluster has no {name}"))
    }

    /// The node dies at once.
    pub fn kill(&self, node: u32) {
        self.ask(&["kill", &node.to_string()]);
    }

    /// The node is shut down in order.
    pub fn stop_node(&self, node: u32) {
        self.ask(&["stop-node", &node.to_string()]);
    }

    /// Starts a node that was killed or stopped, and waits until it serves.
    pub fn start_node(&self, node: u32) {
        self.ask(&["start-node", &node.to_string()]);
    }

    /// The node stands still, as on a machine that swaps or is cut off.
    pub fn pause(&self, node: u32) {
        self.ask(&["pause", &node.to_string()]);
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self, node: u32) {
        self.ask(&["resume", &node.to_string()]);
    }

    fn start(options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("tidewire-kafka-").tempdir().unwrap();
        let owner = std::process::id().to_string();
        script(folder.path(), &[&["start", "--owner", &owner], options].concat());
        let variables = script(folder.path(), &["env"])
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self { folder: Some(folder), variables }
    }

    fn ask(&self, words: &[&str]) {
        let folder = self.folder.as_ref().expect("a cluster that others use is not broken");
        script(folder.path(), words);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            script(folder.path(), &["stop", "--now"]);
        }
    }
}

fn script(folder: &Path, words: &[&str]) -> String {
    let output = Command::new(root().join("scripts/kafka"))
        .args(words)
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .expect("scripts/kafka runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "this test needs Apache Kafka: {}", errors.trim());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
