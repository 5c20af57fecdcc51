//! A node's calls for a tracer, and its state for those who look.

use tidewire_contract::{Entry, Key, KeyId, Moment, Timer, TimerChange};

use super::{EpochCx, Node};
use crate::frame::Item;
use crate::trace::{Call, Gave, Noting, StateChange, Took};

/// Where a call stands.
pub(super) struct At<'a> {
    pub moment: Moment,
    pub place: (u32, i64),
    pub key: &'a Key,
    pub late: usize,
}

/// A call under way: what the tracer said of it, whose state it is, and that state if it is wanted.
pub(super) struct Begun {
    noting: Noting,
    key: Option<KeyId>,
    before: Option<Vec<Entry>>,
}

impl Node {
    /// The entries of the state of a key, or of the task, as a flush would write them.
    pub fn entries(&self, key: Option<KeyId>) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.operator.list(key, &mut |sub, value| entries.push((sub.to_vec(), value.to_vec())));
        entries
    }

    /// The timers that a key waits for.
    pub fn timers_of(&self, key: &Key) -> Vec<Timer> {
        self.timers.of(key)
    }

    pub(super) fn begin_noting(&self, epoch: &EpochCx<'_>, key: &Key, id: Option<KeyId>) -> Option<Begun> {
        let noting = epoch.tracer?.borrow_mut().begin(epoch.place, key, id.is_none())?;
        Some(Begun { noting, key: id, before: noting.state.then(|| self.entries(id)) })
    }

    pub(super) fn end_noting(
        &self,
        epoch: &EpochCx<'_>,
        begun: Begun,
        at: At<'_>,
        took: Took,
        timers: Vec<TimerChange>,
        given: &[Item],
    ) {
        let Some(tracer) = epoch.tracer else { return };
        let state = begun.before.map(|before| StateChange { before, after: self.entries(begun.key) });
        let names = epoch.names.borrow();
        let gave = given.iter().map(|item| Gave {
            ordinal: item.ordinal,
            key: names.name(item.key).clone(),
            record: item.record.clone(),
        });
        let call = Call {
            number: 0,
            epoch: 0,
            pass: 0,
            node: epoch.place,
            key: at.key.clone(),
            broadcast: begun.key.is_none(),
            position: at.place.0,
            tick: at.place.1,
            moment: at.moment,
            took,
            origin: None,
            gave: gave.collect(),
            late: at.late,
            timers,
            state,
        };
        tracer.borrow_mut().note(begun.noting, call);
    }
}
