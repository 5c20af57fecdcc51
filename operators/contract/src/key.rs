//! Keys, and the small numbers that stand for them inside a task.

use std::collections::BTreeMap;

use smol_str::SmolStr;

/// A record's key: an instrument, an account, an asset, or whatever a stage is keyed by.
pub type Key = SmolStr;

/// The number of a key within one task. It depends on arrival, so nothing that leaves a task may show it.
pub type KeyId = u32;

/// Numbers the keys of a task, so that state is found by index.
#[derive(Debug, Default)]
pub struct Interner {
    #[expect(clippy::disallowed_types, reason = "looked up by key, never walked")]
    ids: std::collections::HashMap<Key, KeyId, rustc_hash::FxBuildHasher>,
    names: Vec<Key>,
    sorted: BTreeMap<Key, KeyId>,
}

impl Interner {
    /// The number of `key`, new or known.
    pub fn intern(&mut self, key: &str) -> KeyId {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = KeyId::try_from(self.names.len()).unwrap_or(KeyId::MAX);
        let key = Key::new(key);
        self.names.push(key.clone());
        self.sorted.insert(key.clone(), id);
        self.ids.insert(key, id);
        id
    }

    /// The number of `key`, if it was seen.
    pub fn get(&self, key: &str) -> Option<KeyId> {
        self.ids.get(key).copied()
    }

    /// The key behind a number.
    pub fn name(&self, id: KeyId) -> &Key {
        &self.names[id as usize]
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no key was seen.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All keys in their own order, never in that of arrival.
    pub fn in_order(&self) -> impl Iterator<Item = (&Key, KeyId)> {
        self.sorted.iter().map(|(key, id)| (key, *id))
    }
}
