//! What happened last, for whoever has to find out why a seed fails.

use std::collections::VecDeque;
use std::fmt;

use smol_str::SmolStr;

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
            "run it alone, with more events: SIM_SEED={} SIM_EVENTS=5000 \
             cargo test -p tidewire-engine --features sim --test sim clean",
            self.seed
        )
    }
}

/// The events of a run.
#[derive(Debug)]
pub struct Trace {
    kept: usize,
    last: VecDeque<String>,
    digest: blake3::Hasher,
    events: u64,
}

impl Trace {
    /// No event yet; the last `kept` will be remembered.
    pub fn new(kept: usize) -> Self {
        Self { kept: kept.max(1), last: VecDeque::new(), digest: blake3::Hasher::new(), events: 0 }
    }

    /// Takes an event.
    pub fn note(&mut self, event: String) {
        self.digest.update(event.as_bytes());
        self.digest.update(b"\n");
        self.events += 1;
        if self.last.len() == self.kept {
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
