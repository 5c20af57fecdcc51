//! Keyed state: values, maps and lists that know which of their entries changed since the last flush.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};

use crate::persist::{Persist, PersistError, Shape};

/// Takes what changed. `sub` is the entry's place within the state of one key.
pub trait FlushSink {
    /// An entry was written. `old_hash` is what the last call for this entry returned, 0 if none; returns the new one.
    fn put(&mut self, sub: &[u8], value: &[u8], old_hash: u64) -> u64;
    /// An entry is gone.
    fn remove(&mut self, sub: &[u8], old_hash: u64);
}

/// What an operator keeps a key. Default is the state of a key never seen.
pub trait State: Default + 'static {
    /// Appends the layout, as [`Persist::shape`] does.
    fn shape(out: &mut Shape);
    /// Hands over each entry that changed since the last flush, in a fixed order, and forgets that it did.
    fn flush(&mut self, sink: &mut dyn FlushSink);
    /// Takes back an entry, with the hash that [`FlushSink::put`] gave it.
    fn restore(&mut self, sub: &[u8], value: &[u8], hash: u64) -> Result<(), PersistError>;
    /// Shows every entry as a flush would write it, in a fixed order, and leaves all as it is.
    fn list(&self, visit: &mut dyn FnMut(&[u8], &[u8]));
    /// Drops every entry, so that the next flush removes them from the changelog.
    fn clear(&mut self);
    /// Number of entries held.
    fn entries(&self) -> usize;
    /// Bytes of the entries as they lie in the changelog, as of the last flush.
    fn bytes(&self) -> usize;
}

/// What is known of an entry that lies in the changelog.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// What [`FlushSink::put`] returned; 0 if the entry is not there.
    hash: u64,
    bytes: u32,
}

impl Written {
    fn new(hash: u64, sub: &[u8], value: &[u8]) -> Self {
        Self { hash, bytes: u32::try_from(sub.len() + value.len()).unwrap_or(u32::MAX) }
    }
}

/// The hash of an entry; the sum of these is the digest of a state, whatever the order of the writes.
pub fn entry_hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // 0 stands for "not in the changelog".
    u64::from_le_bytes(first).max(1)
}

impl State for () {
    fn shape(out: &mut Shape) {
        out.push_str("()");
    }
    fn flush(&mut self, _: &mut dyn FlushSink) {}
    fn restore(&mut self, _: &[u8], _: &[u8], _: u64) -> Result<(), PersistError> {
        Err(PersistError("an entry for an operator without state"))
    }
    fn list(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
    fn clear(&mut self) {}
    fn entries(&self) -> usize {
        0
    }
    fn bytes(&self) -> usize {
        0
    }
}

/// One value, written whole when it was touched.
#[derive(Debug, Default)]
pub struct Whole<T> {
    value: T,
    dirty: bool,
    cleared: bool,
    written: Written,
}

impl<T> Deref for Whole<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Whole<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.dirty = true;
        &mut self.value
    }
}

impl<T: Persist + Default> State for Whole<T> {
    fn shape(out: &mut Shape) {
        T::shape(out);
    }
    fn flush(&mut self, sink: &mut dyn FlushSink) {
        if std::mem::take(&mut self.dirty) {
            let mut bytes = Vec::new();
            self.value.save(&mut bytes);
            self.written = Written::new(sink.put(&[], &bytes, self.written.hash), &[], &bytes);
        } else if self.cleared && self.written.hash != 0 {
            sink.remove(&[], self.written.hash);
            self.written = Written::default();
        }
        self.cleared = false;
    }
    fn restore(&mut self, sub: &[u8], value: &[u8], hash: u64) -> Result<(), PersistError> {
        if !sub.is_empty() {
            return Err(PersistError("a part of a value that has no parts"));
        }
        self.value = load_all(value)?;
        self.written = Written::new(hash, sub, value);
        Ok(())
    }
    fn list(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        if self.entries() > 0 {
            let mut bytes = Vec::new();
            self.value.save(&mut bytes);
            visit(&[], &bytes);
        }
    }
    fn clear(&mut self) {
        self.value = T::default();
        self.dirty = false;
        self.cleared = true;
    }
    fn entries(&self) -> usize {
        usize::from(self.dirty || (self.written.hash != 0 && !self.cleared))
    }
    fn bytes(&self) -> usize {
        self.written.bytes as usize
    }
}

/// An ordered map whose entries are written one by one.
#[derive(Debug)]
pub struct MapState<K, V> {
    entries: BTreeMap<K, Entry<V>>,
    /// Keys whose entries changed since the last flush, each at most a few times; some may be gone again.
    dirty: Vec<K>,
    /// Written entries that were removed since the last flush.
    removed: BTreeMap<K, Written>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    written: Written,
    dirty: bool,
}

/// Notes a key that came. Keys that come and go again and again are put together when the list is to grow, so that it
/// stays in proportion to the keys.
fn note<K: Ord + Clone>(dirty: &mut Vec<K>, key: &K) {
    if dirty.len() == dirty.capacity() {
        dirty.sort_unstable();
        dirty.dedup();
        dirty.reserve(dirty.len());
    }
    dirty.push(key.clone());
}

impl<K, V> Default for MapState<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), dirty: Vec::new(), removed: BTreeMap::new(), bytes: 0 }
    }
}

impl<K: Ord + Clone, V> MapState<K, V> {
    /// The entry of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }
    /// The entry of `key`, to be changed; it will be written.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(key.clone());
        }
        Some(&mut entry.value)
    }
    /// The entry of `key`, made by `make` if it is not there; it will be written.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        match self.entries.entry(key) {
            Place::Occupied(found) => {
                if !found.get().dirty {
                    self.dirty.push(found.key().clone());
                }
                let entry = found.into_mut();
                entry.dirty = true;
                &mut entry.value
            }
            Place::Vacant(free) => {
                let written = self.removed.remove(free.key()).unwrap_or_default();
                note(&mut self.dirty, free.key());
                &mut free.insert(Entry { value: make(), written, dirty: true }).value
            }
        }
    }
    /// Sets the entry of `key`; returns what was there.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(held) = self.get_mut(&key) {
            return Some(std::mem::replace(held, value));
        }
        self.get_or_insert_with(key, || value);
        None
    }
    /// Removes the entry of `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        if entry.written.hash != 0 {
            self.removed.insert(key.clone(), entry.written);
        }
        Some(entry.value)
    }
    /// All entries in key order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }
    /// The entries of a range of keys, in key order.
    pub fn range<R: std::ops::RangeBounds<K>>(&self, range: R) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.entries.range(range).map(|(key, entry)| (key, &entry.value))
    }
    /// The least entry.
    pub fn first(&self) -> Option<(&K, &V)> {
        self.entries.first_key_value().map(|(key, entry)| (key, &entry.value))
    }
    /// The greatest entry.
    pub fn last(&self) -> Option<(&K, &V)> {
        self.entries.last_key_value().map(|(key, entry)| (key, &entry.value))
    }
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<K: Persist + Ord + Clone, V: Persist> State for MapState<K, V> {
    fn shape(out: &mut Shape) {
        out.push_str("entries<");
        K::shape(out);
        out.push(',');
        V::shape(out);
        out.push('>');
    }
    fn flush(&mut self, sink: &mut dyn FlushSink) {
        let mut changed = std::mem::take(&mut self.dirty);
        changed.extend(self.removed.keys().cloned());
        changed.sort_unstable();
        changed.dedup();
        let (mut sub, mut bytes) = (Vec::new(), Vec::new());
        for key in changed {
            sub.clear();
            key.save(&mut sub);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.dirty = false;
                bytes.clear();
                entry.value.save(&mut bytes);
                self.bytes -= entry.written.bytes as usize;
                entry.written = Written::new(sink.put(&sub, &bytes, entry.written.hash), &sub, &bytes);
                self.bytes += entry.written.bytes as usize;
            } else if let Some(written) = self.removed.remove(&key) {
                self.bytes -= written.bytes as usize;
                sink.remove(&sub, written.hash);
            }
        }
    }
    fn restore(&mut self, sub: &[u8], value: &[u8], hash: u64) -> Result<(), PersistError> {
        let key: K = load_all(sub)?;
        let written = Written::new(hash, sub, value);
        let entry = Entry { value: load_all(value)?, written, dirty: false };
        let before = self.entries.insert(key, entry).map_or(0, |entry| entry.written.bytes as usize);
        self.bytes = self.bytes + written.bytes as usize - before;
        Ok(())
    }
    fn list(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let (mut sub, mut bytes) = (Vec::new(), Vec::new());
        for (key, entry) in &self.entries {
            sub.clear();
            key.save(&mut sub);
            bytes.clear();
            entry.value.save(&mut bytes);
            visit(&sub, &bytes);
        }
    }
    fn clear(&mut self) {
        let written =
            std::mem::take(&mut self.entries).into_iter().filter(|(_, entry)| entry.written.hash != 0);
        self.removed.extend(written.map(|(key, entry)| (key, entry.written)));
    }
    fn entries(&self) -> usize {
        self.entries.len()
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A queue whose entries are written one by one: a long window is not rewritten whole when one entry joins it.
#[derive(Debug)]
pub struct ListState<V> {
    entries: VecDeque<(V, Written)>,
    /// Number of the first entry; numbers are never used twice.
    first: u64,
    /// Entries from here on were not written yet.
    written: u64,
    /// Written entries that were popped since the last flush, oldest first.
    popped: VecDeque<(u64, Written)>,
    bytes: usize,
}

impl<V> Default for ListState<V> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), first: 0, written: 0, popped: VecDeque::new(), bytes: 0 }
    }
}

impl<V> ListState<V> {
    /// Adds an entry at the end.
    pub fn push_back(&mut self, value: V) {
        self.entries.push_back((value, Written::default()));
    }
    /// Takes the oldest entry.
    pub fn pop_front(&mut self) -> Option<V> {
        let (value, written) = self.entries.pop_front()?;
        if written.hash != 0 {
            self.popped.push_back((self.first, written));
        }
        self.first += 1;
        self.written = self.written.max(self.first);
        Some(value)
    }
    /// The entries, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &V> {
        self.entries.iter().map(|(value, _)| value)
    }
    /// The oldest entry.
    pub fn front(&self) -> Option<&V> {
        self.entries.front().map(|(value, _)| value)
    }
    /// The newest entry.
    pub fn back(&self) -> Option<&V> {
        self.entries.back().map(|(value, _)| value)
    }
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<V: Persist> State for ListState<V> {
    fn shape(out: &mut Shape) {
        out.push_str("queue<");
        V::shape(out);
        out.push('>');
    }
    fn flush(&mut self, sink: &mut dyn FlushSink) {
        for (number, written) in self.popped.drain(..) {
            self.bytes -= written.bytes as usize;
            sink.remove(&number.to_be_bytes(), written.hash);
        }
        let mut bytes = Vec::new();
        let skip = usize::try_from(self.written - self.first).unwrap_or(usize::MAX);
        for (place, (value, written)) in self.entries.iter_mut().enumerate().skip(skip) {
            bytes.clear();
            value.save(&mut bytes);
            let sub = (self.first + place as u64).to_be_bytes();
            *written = Written::new(sink.put(&sub, &bytes, 0), &sub, &bytes);
            self.bytes += written.bytes as usize;
        }
        if self.entries.is_empty() {
            // An empty queue leaves nothing behind, so it must number as one that was never used.
            self.first = 0;
        }
        self.written = self.first + self.entries.len() as u64;
    }
    fn restore(&mut self, sub: &[u8], value: &[u8], hash: u64) -> Result<(), PersistError> {
        let number = sub
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| PersistError("a queue entry without number"))?;
        if self.entries.is_empty() {
            self.first = number;
        }
        // Entries come back in key order, which is that of their numbers.
        if number != self.first + self.entries.len() as u64 {
            return Err(PersistError("a queue with an entry missing"));
        }
        let written = Written::new(hash, sub, value);
        self.bytes += written.bytes as usize;
        self.entries.push_back((load_all(value)?, written));
        self.written = number + 1;
        Ok(())
    }
    fn list(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let mut bytes = Vec::new();
        for (number, (value, _)) in (self.first..).zip(&self.entries) {
            bytes.clear();
            value.save(&mut bytes);
            visit(&number.to_be_bytes(), &bytes);
        }
    }
    fn clear(&mut self) {
        while self.pop_front().is_some() {}
    }
    fn entries(&self) -> usize {
        self.entries.len()
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
}

fn load_all<T: Persist>(mut bytes: &[u8]) -> Result<T, PersistError> {
    let value = T::load(&mut bytes)?;
    if bytes.is_empty() { Ok(value) } else { Err(PersistError("bytes left over")) }
}
