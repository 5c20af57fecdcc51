//! What happened last, for whoever has to find out why a seed fails.

use std::collections::VecDeque;
use std::fmt;

use smol_str::SmolStr;

/// Events kept.
const KEPT: usize = 60;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name: short and always the same.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
}

impl Broken {
    /// A broken invariant, with what was found.
    pub fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

/// A seed that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What does not hold.
    pub broken: Broken,
    /// The last events, oldest first.
    pub events: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails: {}", self.seed, self.broken.invariant)?;
        writeln!(f, "  {}", self.broken.detail)?;
        writeln!(f, "the last events:")?;
        for event in &self.events {
            writeln!(f, "  {event}")?;
        }
        write!(
            f,
            "run it alone: SIM_SEED={} cargo test -p tidewire-engine --features sim --test sim",
            self.seed
        )
    }
}

/// The events of a run.
#[derive(Debug, Default)]
pub struct Trace {
    last: VecDeque<String>,
    digest: blake3::Hasher,
    events: u64,
}

impl Trace {
    /// Takes an event.
    pub fn note(&mut self, event: String) {
        self.digest.update(event.as_bytes());
        self.digest.update(b"\n");
        self.events += 1;
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(format!("{:>5}  {event}", self.events));
    }

    /// A digest of all events: two runs of a seed have the same.
    pub fn digest(&self) -> SmolStr {
        SmolStr::new(&*self.digest.finalize().to_hex())
    }

    /// The last events, oldest first.
    pub fn last(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}
