//! The operator itself, its settings and its line in the registry.

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use tidewire_schemas::{EventTime, Kind, Record};

use crate::cx::Cx;
use crate::key::Key;
use crate::runner::{AnyOperator, Keys, Runner};
use crate::state::State;

/// One record, as an operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The record.
    pub record: &'a Record,
    /// Its key.
    pub key: &'a Key,
    /// Its time: the log's for a record from a topic, the maker's stream time otherwise.
    pub time: EventTime,
    /// Which of the operator's upstream edges it came by, in the order of `from` in the pipeline file.
    pub edge: usize,
    /// What [`Operator::prepare`] said of it.
    pub prepared: Option<&'a [f64]>,
}

/// A timer that fires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// The time it was set for.
    pub at: EventTime,
    /// Whose state it is for.
    pub key: Key,
    /// The operator's own mark.
    pub tag: u32,
}

/// Why an operator can not take a record. The record goes to the dead letters with these words,
/// and the epoch runs again as if it had not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Fault {
    /// A short constant, to count by: `overflow`, `unknown-instrument`.
    pub code: &'static str,
    /// What a person needs to know.
    pub text: String,
}

impl Fault {
    /// A fault with its code and words.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// What an operator takes and gives, so that a pipeline file can be checked before anything runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Records it takes; others that an edge carries pass it by.
    pub accepts: Vec<Kind>,
    /// Records it takes from broadcast and control inputs.
    pub broadcasts: Vec<Kind>,
    /// Records it gives out.
    pub emits: Vec<Kind>,
    /// Names of the feature values it gives out.
    pub features_out: Vec<SmolStr>,
    /// Names of the feature values it can not do without.
    pub features_in: Vec<SmolStr>,
    /// State of a key untouched for this long, in the task's time, is dropped. `None` keeps it.
    pub time_to_live_ms: Option<u64>,
    /// True when [`Operator::prepare`] is to be called.
    pub prepares: bool,
    /// True when outputs follow inputs only after a positive time, so that a cycle through it can be run.
    pub delays: bool,
}

/// A fold over records and time.
pub trait Operator: 'static {
    /// What it keeps for each key.
    type State: State;
    /// What it keeps for the whole task, from broadcast and control records. Keyed calls see it and can not
    /// change it: a result must not depend on which other keys the task holds.
    type Shared: State;

    /// Rises when the meaning of the state changes though its layout does not.
    const STATE_VERSION: u32 = 1;

    /// What it takes and gives.
    fn interface(&self) -> Interface;

    /// Computes something costly for many records at once (a model, an embedding), one row each, or nothing.
    /// A row may depend on its own record alone: how records fall into batches must not show.
    fn prepare(&self, _batch: &[&Record]) -> Vec<Vec<f64>> {
        Vec::new()
    }

    /// Takes a record of a key.
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Self::State,
        shared: &Self::Shared,
    ) -> Result<(), Fault>;

    /// Takes a broadcast or control record, which has the whole task before it.
    fn on_broadcast(
        &self,
        _cx: &mut Cx<'_>,
        _input: &Input<'_>,
        _keys: &mut Keys<'_, Self::State>,
        _shared: &mut Self::Shared,
    ) -> Result<(), Fault> {
        Ok(())
    }

    /// Takes a timer that it set.
    fn on_timer(
        &self,
        _cx: &mut Cx<'_>,
        _timer: &Timer,
        _state: &mut Self::State,
        _shared: &Self::Shared,
    ) -> Result<(), Fault> {
        Ok(())
    }
}

/// An operator's settings as the pipeline file has them.
pub type Settings = toml::Table;

/// Makes an operator from its settings.
pub trait Configured: Operator + Sized {
    /// The name in pipeline files.
    const NAME: &'static str;
    /// One sentence for listings.
    const ABOUT: &'static str;
    /// Its settings; must deny unknown fields, so that a misspelt one is an error.
    type Settings: DeserializeOwned;

    /// Makes one; says in a sentence what is wrong with settings that can not be.
    fn new(settings: Self::Settings) -> Result<Self, String>;
}

/// An operator's line in the registry.
#[derive(Clone, Copy)]
pub struct OperatorType {
    /// The name in pipeline files.
    pub name: &'static str,
    /// One sentence for listings.
    pub about: &'static str,
    /// Makes one, ready to hold state.
    pub build: fn(&Settings) -> Result<Box<dyn AnyOperator>, String>,
}

impl OperatorType {
    /// The line for `O`.
    pub const fn of<O: Configured>() -> Self {
        Self { name: O::NAME, about: O::ABOUT, build: build::<O> }
    }
}

fn build<O: Configured>(settings: &Settings) -> Result<Box<dyn AnyOperator>, String> {
    let settings = O::Settings::deserialize(toml::Value::Table(settings.clone()))
        .map_err(|error| error.message().to_owned())?;
    Ok(Box::new(Runner::new(O::new(settings)?)))
}
