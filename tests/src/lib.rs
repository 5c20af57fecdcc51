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
pub mod results;
pub mod shipped;
pub mod site;
pub mod ticks;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidewire_engine::partition::partition_of;

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

/// An instrument that lies in this partition of so many.
pub fn instrument_in(partition: u32, partitions: u32) -> String {
    let names = (0..).map(|number| format!("S{number}.TEST"));
    { names }.find(|name| partition_of(name.as_bytes(), partitions) == partition).expect("there is one")
}

/// Asks again until the answer is there, for `patience` at most.
pub fn eventually<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < patience, "{what}: it never came");
        std::thread::sleep(Duration::from_millis(50));
    }
}
