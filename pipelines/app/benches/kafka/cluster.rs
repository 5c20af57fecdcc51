//! The Kafka to measure on.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A cluster that others started, or one of our own.
pub struct Cluster {
    pub bootstrap: String,
    /// Removed, and its node stopped, when this process ends.
    _own: Option<TempDir>,
}

impl Cluster {
    pub fn find_or_start() -> Self {
        if let Ok(bootstrap) = std::env::var("KAFKA_BOOTSTRAP")
            && !bootstrap.is_empty()
        {
            return Self { bootstrap, _own: None };
        }
        Self::start()
    }

    /// One node of our own.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka");
        let mut start = Command::new(script);
        start.args(["start", "--owner", &std::process::id().to_string(), "--dir"]).arg(dir.path());
        if std::env::var("KAFKA_JVM_OPTS").is_err() {
            // The script's own options are for a quick start. Here the broker's own pauses must not be the tail of every
            // latency: Kafka's default collector was seen to stop it for 0.2 s on few processors, and one that runs beside it
            // takes them for as long.
            start.env("KAFKA_JVM_OPTS", "-Xms2g -Xmx2g -Xmn1500m -XX:+UseParallelGC");
        }
        let output = start.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let bootstrap = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Self { bootstrap, _own: Some(dir) }
    }
}
