//! What tests over several crates share: a real Apache Kafka, and clients of it that are not ours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "for tests, which fail by panicking"
)]

pub mod backlog;
pub mod clients;
pub mod cluster;
pub mod epochs;
pub mod outputs;
pub mod process;
pub mod random;
pub mod shipped;
pub mod site;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder of the whole project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A name that nobody used before in this cluster, so that tests can share one: for pipelines, and so for groups, and
/// for topics.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_micros();
    format!("{name}-{now_us}-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
