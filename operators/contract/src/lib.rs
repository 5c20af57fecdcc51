//! What an operator is.
//!
//! An operator is a fold: it takes one record after another, in one order that the engine decides, together
//! with the state of the record's key, and says what follows from it. It does no I/O, reads no clock and draws
//! no random number; all it knows of time is in [`Cx`]. So the same inputs give the same bytes, wherever and
//! however often it runs.
//!
//! * [`Operator`] is the fold itself.
//! * [`Configured`] makes one from its settings in a pipeline file; [`OperatorType`] is its one line in the registry.
//! * [`State`] is what it keeps a key: [`Whole`], [`MapState`], [`ListState`] or a [`composite_state!`] of these.
//! * [`Cx`] takes what it emits.

mod composite;
mod cx;
mod key;
mod layout;
mod operator;
mod persist;
mod records;
mod runner;
mod state;

pub use composite::PartSink;
pub use cx::{Cx, Effects, Emission, LateNote, Moment, TimerChange};
pub use key::{Interner, Key, KeyId};
pub use layout::{Entry, Layout, LayoutError, NodeLayout, Plain, StateLayout};
pub use operator::{Configured, Fault, Input, Interface, Operator, OperatorType, Settings, Timer};
pub use persist::{Persist, PersistError, Shape};
pub use runner::{AnyOperator, Keys, NodeSink, Runner, StateSize};
pub use state::{FlushSink, ListState, MapState, State, Whole, entry_hash};
