//! A state knows its bytes as they lie in the changelog: after any changes, and after a restore.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use tidewire_contract::{FlushSink, ListState, MapState, State, Whole, composite_state, entry_hash};

/// What lies in the changelog.
#[derive(Default)]
struct Changelog(BTreeMap<Vec<u8>, (Vec<u8>, u64)>);

impl FlushSink for Changelog {
    fn put(&mut self, sub: &[u8], value: &[u8], old_hash: u64) -> u64 {
        let hash = entry_hash(&[sub, value]);
        let before = self.0.insert(sub.to_vec(), (value.to_vec(), hash));
        assert_eq!(before.map_or(0, |(_, hash)| hash), old_hash);
        hash
    }

    fn remove(&mut self, sub: &[u8], old_hash: u64) {
        assert_eq!(self.0.remove(sub).unwrap().1, old_hash);
    }
}

impl Changelog {
    /// Bytes of places within the state and of values; `part` bytes of each place are not the state's own.
    fn bytes(&self, part: usize) -> usize {
        self.0.iter().map(|(sub, (value, _))| sub.len() - part + value.len()).sum()
    }
}

composite_state! {
    /// One of each kind.
    struct All {
        whole: Whole<Vec<u8>>,
        map: MapState<u32, Vec<u8>>,
        list: ListState<Vec<u8>>,
    }
}

fn check(state: &mut All, changelog: &mut Changelog) {
    state.flush(changelog);
    assert_eq!(state.bytes(), changelog.bytes(1));
    let mut restored = All::default();
    for (sub, (value, hash)) in &changelog.0 {
        restored.restore(sub, value, *hash).unwrap();
    }
    assert_eq!(restored.bytes(), state.bytes());
    assert_eq!(restored.entries(), state.entries());
}

#[test]
fn bytes_are_those_of_the_changelog() {
    let (mut state, mut changelog) = (All::default(), Changelog::default());
    check(&mut state, &mut changelog);
    assert_eq!(state.bytes(), 0);
    state.whole.extend_from_slice(b"some text");
    for number in 0..5_u32 {
        state.map.insert(number, vec![b'x'; number as usize]);
        state.list.push_back(vec![b'y'; 10]);
    }
    assert_eq!(state.bytes(), 0, "nothing was flushed yet");
    check(&mut state, &mut changelog);
    let full = state.bytes();
    assert!(full > 50);
    // Shorter, longer, gone, come and gone between two flushes.
    state.map.insert(4, Vec::new());
    state.map.get_or_insert_with(1, Vec::new).extend_from_slice(b"longer than before");
    state.map.remove(&2);
    state.map.insert(9, vec![b'z']);
    state.map.remove(&9);
    state.list.pop_front();
    state.list.push_back(b"another".to_vec());
    State::clear(&mut state.whole);
    check(&mut state, &mut changelog);
    assert_ne!(state.bytes(), full);
    State::clear(&mut state);
    check(&mut state, &mut changelog);
    assert_eq!((state.bytes(), changelog.0.len()), (0, 0));
}
