//! A store in memory that keeps every promise, or breaks one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tidewire_schemas::{Record, topics};
use tidewire_sinks::{Refused, Sink, SinkError, SinkRecord, Written};

use super::{Contents, Store, expected};

/// Which promise is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// Whatever comes last wins.
    NoGuard,
    /// Fields of the record before stay.
    Merges,
    /// A deleted key is forgotten, and an old record brings it back.
    ForgetsDeleted,
    /// Offsets of different partitions are compared.
    TakesAnyPartition,
    /// One bad record fails its batch.
    FailsWhole,
    /// Records are said to be written that there was no room for.
    SaysDoneWhenFull,
}

#[derive(Default)]
struct State {
    values: Contents,
    /// Generation, topic, partition, offset by key.
    guards: BTreeMap<String, (u32, String, u32, u64)>,
    is_down: bool,
    is_full: bool,
    spoilt: BTreeSet<String>,
}

#[derive(Clone)]
pub struct Reference {
    state: Arc<Mutex<State>>,
    broken: Option<Break>,
}

impl Reference {
    pub fn new() -> Self {
        Self { state: Arc::default(), broken: None }
    }

    pub fn broken(broken: Break) -> Self {
        Self { broken: Some(broken), ..Self::new() }
    }

    fn client(&self, generation: u32, password: &str) -> ReferenceSink {
        ReferenceSink { store: self.clone(), generation, password: password.to_owned(), is_open: false }
    }
}

const PASSWORD: &str = "open-sesame";

impl Store for Reference {
    fn sink_of_generation(&self, generation: u32) -> Box<dyn Sink> {
        Box::new(self.client(generation, PASSWORD))
    }

    fn maker(&self) -> Arc<dyn Fn() -> Box<dyn Sink> + Send + Sync> {
        let store = self.clone();
        Arc::new(move || store.sink())
    }

    fn sink_with_wrong_credentials(&self) -> (Box<dyn Sink>, String) {
        (Box::new(self.client(1, "hunter2")), "hunter2".to_owned())
    }

    fn contents(&self) -> Contents {
        self.state.lock().unwrap().values.clone()
    }

    fn stop(&self) {
        self.state.lock().unwrap().is_down = true;
    }

    fn start(&self) {
        self.state.lock().unwrap().is_down = false;
    }

    fn fill(&self) {
        self.state.lock().unwrap().is_full = true;
    }

    fn make_room(&self) {
        self.state.lock().unwrap().is_full = false;
    }

    fn spoil(&self, key: &str) {
        self.state.lock().unwrap().spoilt.insert(format!("features:{key}"));
    }
}

struct ReferenceSink {
    store: Reference,
    generation: u32,
    password: String,
    is_open: bool,
}

impl ReferenceSink {
    fn one(&self, state: &mut State, record: &SinkRecord) -> Result<bool, Failed> {
        let broken = |promise| self.store.broken == Some(promise);
        let key = record.key.as_ref().filter(|key| !key.is_empty());
        let key = key.ok_or(Failed::Record("no_key", "it has no key".to_owned()))?;
        let family = match (&record.record, record.topic.as_str()) {
            (Some(Record::FeatureVector(_)), _) | (None, topics::FEATURES) => "features",
            (Some(Record::Position(_)), _) | (None, topics::POSITIONS) => "positions",
            _ => return Err(Failed::Record("kind_not_taken", "it is of another kind".to_owned())),
        };
        let key = name(family, key);
        if state.spoilt.contains(&key) {
            return Err(Failed::Record("store_refused", "its key is spoilt".to_owned()));
        }
        if state.is_full {
            return match broken(Break::SaysDoneWhenFull) {
                true => Ok(true),
                false => Err(Failed::Later("the store is full".to_owned())),
            };
        }
        let topic = record.topic.to_string();
        if let Some((generation, of, partition, offset)) = state.guards.get(&key)
            && *generation >= self.generation
            && !broken(Break::NoGuard)
        {
            let comparable = *generation == self.generation && (of, *partition) == (&topic, record.partition);
            if !comparable && !broken(Break::TakesAnyPartition) {
                let words = format!("key {key} is of {of}-{partition}, generation {generation}");
                return Err(Failed::Never(format!("{words}; set `generation = {}`", generation + 1)));
            }
            if record.offset <= *offset {
                return Ok(false);
            }
        }
        state.guards.insert(key.clone(), (self.generation, topic, record.partition, record.offset));
        match &record.record {
            Some(_) => {
                let fields = expected(record);
                let before = state.values.entry(key).or_default();
                if !broken(Break::Merges) {
                    before.clear();
                }
                before.extend(fields);
            }
            None => {
                state.values.remove(&key);
                if broken(Break::ForgetsDeleted) {
                    state.guards.remove(&key);
                }
            }
        }
        Ok(true)
    }

    fn check(&self, state: &State) -> Result<(), SinkError> {
        let doing = || "reaching the reference store".to_owned();
        if state.is_down {
            return Err(SinkError::Retriable { doing: doing(), error: "it is down".to_owned() });
        }
        if self.password != PASSWORD {
            return Err(SinkError::Fatal { doing: doing(), error: "check the password".to_owned() });
        }
        Ok(())
    }
}

enum Failed {
    Record(&'static str, String),
    Later(String),
    Never(String),
}

fn name(family: &str, key: &Bytes) -> String {
    format!("{family}:{}", String::from_utf8_lossy(key))
}

impl Sink for ReferenceSink {
    fn open(&mut self) -> Result<(), SinkError> {
        self.check(&self.store.state.lock().unwrap())?;
        self.is_open = true;
        Ok(())
    }

    fn write(&mut self, batch: &[SinkRecord]) -> Result<Written, SinkError> {
        let state = &mut *self.store.state.lock().unwrap();
        self.check(state)?;
        assert!(self.is_open, "written to before it was opened");
        let mut written = Written::default();
        for (index, record) in batch.iter().enumerate() {
            let doing = || format!("writing {}", record.place());
            match self.one(state, record) {
                Ok(true) => written.applied += 1,
                Ok(false) => written.stale += 1,
                Err(Failed::Record(_, error)) if self.store.broken == Some(Break::FailsWhole) => {
                    return Err(SinkError::Fatal { doing: doing(), error });
                }
                Err(Failed::Record(reason, error)) => {
                    written.refused.push(Refused { index, reason: reason.into(), error });
                }
                Err(Failed::Later(error)) => return Err(SinkError::Retriable { doing: doing(), error }),
                Err(Failed::Never(error)) => return Err(SinkError::Fatal { doing: doing(), error }),
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn health(&mut self) -> Result<(), SinkError> {
        self.check(&self.store.state.lock().unwrap())
    }

    fn close(&mut self) -> Result<(), SinkError> {
        self.is_open = false;
        Ok(())
    }
}
