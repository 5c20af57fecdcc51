//! An operator together with the state of all its keys, its types erased.

use tidewire_schemas::Record;

use crate::cx::Cx;
use crate::key::{Interner, Key, KeyId};
use crate::operator::{Fault, Input, Interface, Operator, Timer};
use crate::persist::PersistError;
use crate::state::{FlushSink, State};

/// What the engine holds for each node of a stage.
pub trait AnyOperator {
    /// What it takes and gives.
    fn interface(&self) -> Interface;
    /// Version and layout of its state, of a key and of the task.
    fn state_layout(&self) -> (u32, String);
    /// See [`Operator::prepare`].
    fn prepare(&self, batch: &[&Record]) -> Vec<Vec<f64>>;
    /// Takes a record of a key.
    fn record(&mut self, cx: &mut Cx<'_>, key: KeyId, input: &Input<'_>) -> Result<(), Fault>;
    /// Takes a broadcast or control record.
    fn broadcast(&mut self, cx: &mut Cx<'_>, names: &mut Interner, input: &Input<'_>) -> Result<(), Fault>;
    /// Takes a timer.
    fn timer(&mut self, cx: &mut Cx<'_>, key: KeyId, timer: &Timer) -> Result<(), Fault>;
    /// Hands over what changed: the task's part first (no key), then by key in key order.
    fn flush(&mut self, names: &Interner, sink: &mut dyn NodeSink);
    /// Takes back an entry of a key, or of the task.
    fn restore(
        &mut self,
        key: Option<KeyId>,
        sub: &[u8],
        value: &[u8],
        hash: u64,
    ) -> Result<(), PersistError>;
    /// Shows the entries of a key, or of the task, as a flush would write them; nothing changes by it.
    fn list(&self, key: Option<KeyId>, visit: &mut dyn FnMut(&[u8], &[u8]));
    /// Drops the state of a key.
    fn drop_key(&mut self, key: KeyId);
    /// How much state is held.
    fn size(&self) -> StateSize;
}

/// How much state an operator holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSize {
    /// Keys held.
    pub keys: usize,
    /// Entries held in them and for the task.
    pub entries: usize,
    /// Bytes of the entries as they lie in the changelog, as of the last flush.
    pub bytes: usize,
}

/// Takes what changed in a node: as [`FlushSink`], with the key whose state it is, or none for the task's own.
pub trait NodeSink {
    /// See [`FlushSink::put`].
    fn put(&mut self, key: Option<&Key>, sub: &[u8], value: &[u8], old_hash: u64) -> u64;
    /// See [`FlushSink::remove`].
    fn remove(&mut self, key: Option<&Key>, sub: &[u8], old_hash: u64);
}

struct KeySink<'a> {
    key: Option<&'a Key>,
    inner: &'a mut dyn NodeSink,
}

impl FlushSink for KeySink<'_> {
    fn put(&mut self, sub: &[u8], value: &[u8], old_hash: u64) -> u64 {
        self.inner.put(self.key, sub, value, old_hash)
    }
    fn remove(&mut self, sub: &[u8], old_hash: u64) {
        self.inner.remove(self.key, sub, old_hash);
    }
}

struct Slot<S> {
    state: S,
    touched: bool,
}

/// The state of one operator's keys.
struct Slots<S> {
    by_key: Vec<Option<Box<Slot<S>>>>,
    touched: Vec<KeyId>,
}

impl<S: State> Slots<S> {
    fn get(&self, key: KeyId) -> Option<&S> {
        self.by_key.get(key as usize)?.as_ref().map(|slot| &slot.state)
    }

    fn touch(&mut self, key: KeyId) -> &mut S {
        let index = key as usize;
        if index >= self.by_key.len() {
            self.by_key.resize_with(index + 1, || None);
        }
        let slot =
            self.by_key[index].get_or_insert_with(|| Box::new(Slot { state: S::default(), touched: false }));
        if !slot.touched {
            slot.touched = true;
            self.touched.push(key);
        }
        &mut slot.state
    }
}

/// The states of all keys of a task, for a broadcast record that concerns many.
pub struct Keys<'a, S> {
    slots: &'a mut Slots<S>,
    names: &'a mut Interner,
}

impl<S: State> Keys<'_, S> {
    /// The state of `key`, if it has one. An empty state is none: whether it still lies there must not show,
    /// for that depends on when state was flushed.
    pub fn get(&self, key: &str) -> Option<&S> {
        self.slots.get(self.names.get(key)?).filter(|state| state.entries() > 0)
    }

    /// The state of `key`, to be changed. A key never seen gets a new state.
    pub fn get_mut(&mut self, key: &str) -> &mut S {
        let id = self.names.intern(key);
        self.slots.touch(id)
    }

    /// Keys that have a state, in key order.
    pub fn keys(&self) -> Vec<Key> {
        let held = self
            .names
            .in_order()
            .filter(|(_, id)| self.slots.get(*id).is_some_and(|state| state.entries() > 0));
        held.map(|(key, _)| key.clone()).collect()
    }
}

/// An operator and its state.
pub struct Runner<O: Operator> {
    operator: O,
    slots: Slots<O::State>,
    shared: O::Shared,
}

impl<O: Operator> Runner<O> {
    /// An operator without any state yet.
    pub fn new(operator: O) -> Self {
        Self {
            operator,
            slots: Slots { by_key: Vec::new(), touched: Vec::new() },
            shared: O::Shared::default(),
        }
    }
}

impl<O: Operator> AnyOperator for Runner<O> {
    fn interface(&self) -> Interface {
        self.operator.interface()
    }

    fn state_layout(&self) -> (u32, String) {
        let mut shape = String::new();
        O::State::shape(&mut shape);
        shape.push('/');
        O::Shared::shape(&mut shape);
        (O::STATE_VERSION, shape)
    }

    fn prepare(&self, batch: &[&Record]) -> Vec<Vec<f64>> {
        self.operator.prepare(batch)
    }

    fn record(&mut self, cx: &mut Cx<'_>, key: KeyId, input: &Input<'_>) -> Result<(), Fault> {
        self.operator.on_record(cx, input, self.slots.touch(key), &self.shared)
    }

    fn broadcast(&mut self, cx: &mut Cx<'_>, names: &mut Interner, input: &Input<'_>) -> Result<(), Fault> {
        let mut keys = Keys { slots: &mut self.slots, names };
        self.operator.on_broadcast(cx, input, &mut keys, &mut self.shared)
    }

    fn timer(&mut self, cx: &mut Cx<'_>, key: KeyId, timer: &Timer) -> Result<(), Fault> {
        self.operator.on_timer(cx, timer, self.slots.touch(key), &self.shared)
    }

    fn flush(&mut self, names: &Interner, sink: &mut dyn NodeSink) {
        self.shared.flush(&mut KeySink { key: None, inner: sink });
        let mut touched = std::mem::take(&mut self.slots.touched);
        touched.sort_by(|a, b| names.name(*a).cmp(names.name(*b)));
        for key in touched {
            if let Some(Some(slot)) = self.slots.by_key.get_mut(key as usize) {
                slot.touched = false;
                slot.state.flush(&mut KeySink { key: Some(names.name(key)), inner: sink });
                if slot.state.entries() == 0 {
                    self.slots.by_key[key as usize] = None;
                }
            }
        }
    }

    fn restore(
        &mut self,
        key: Option<KeyId>,
        sub: &[u8],
        value: &[u8],
        hash: u64,
    ) -> Result<(), PersistError> {
        match key {
            None => self.shared.restore(sub, value, hash),
            Some(key) => {
                let index = key as usize;
                if index >= self.slots.by_key.len() {
                    self.slots.by_key.resize_with(index + 1, || None);
                }
                let slot = self.slots.by_key[index]
                    .get_or_insert_with(|| Box::new(Slot { state: O::State::default(), touched: false }));
                slot.state.restore(sub, value, hash)
            }
        }
    }

    fn list(&self, key: Option<KeyId>, visit: &mut dyn FnMut(&[u8], &[u8])) {
        match key {
            None => self.shared.list(visit),
            Some(key) => {
                if let Some(state) = self.slots.get(key) {
                    state.list(visit);
                }
            }
        }
    }

    fn drop_key(&mut self, key: KeyId) {
        if self.slots.get(key).is_some() {
            self.slots.touch(key).clear();
        }
    }

    fn size(&self) -> StateSize {
        let shared = StateSize { keys: 0, entries: self.shared.entries(), bytes: self.shared.bytes() };
        self.slots.by_key.iter().flatten().fold(shared, |sum, slot| StateSize {
            keys: sum.keys + 1,
            entries: sum.entries + slot.state.entries(),
            bytes: sum.bytes + slot.state.bytes(),
        })
    }
}
