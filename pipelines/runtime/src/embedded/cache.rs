//! Blocks that were read lately, so that many small reads in a row do not decompress the same block again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::block::Block;
use super::keys::PartitionId;

/// Decoded blocks, the least recently used one dropped when there is no room.
#[derive(Debug)]
pub(super) struct BlockCache {
    capacity_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blocks: BTreeMap<(PartitionId, u64), Entry>,
    by_use: BTreeMap<u64, (PartitionId, u64)>,
    bytes: usize,
    uses: u64,
    /// Counts rewrites: what was read from the store before one must not enter after it.
    rewrites: u64,
}

#[derive(Debug)]
struct Entry {
    block: Arc<Block>,
    last_use: u64,
}

impl BlockCache {
    pub(super) fn new(capacity_bytes: usize) -> Self {
        Self { capacity_bytes, state: Mutex::default() }
    }

    /// The block in which `offset` lies.
    pub(super) fn find(&self, id: PartitionId, offset: u64) -> Option<Arc<Block>> {
        let mut state = self.lock();
        let State { blocks, by_use, uses, .. } = &mut *state;
        let (key, entry) = blocks.range_mut((id, 0)..=(id, offset)).next_back()?;
        if entry.block.end <= offset {
            return None;
        }
        by_use.remove(&entry.last_use);
        *uses += 1;
        entry.last_use = *uses;
        by_use.insert(*uses, *key);
        Some(Arc::clone(&entry.block))
    }

    /// A ticket to be taken before a block is read from the store.
    pub(super) fn ticket(&self) -> u64 {
        self.lock().rewrites
    }

    /// Keeps a block that was read under `ticket`, unless blocks were rewritten since.
    pub(super) fn put(&self, id: PartitionId, block: Arc<Block>, ticket: u64) {
        let bytes = block.memory_bytes();
        let mut state = self.lock();
        if state.rewrites != ticket || bytes > self.capacity_bytes {
            return;
        }
        state.remove((id, block.base));
        while state.bytes + bytes > self.capacity_bytes {
            let Some((_, oldest)) = state.by_use.pop_first() else { break };
            state.remove(oldest);
        }
        state.uses += 1;
        let last_use = state.uses;
        state.bytes += bytes;
        state.by_use.insert(last_use, (id, block.base));
        state.blocks.insert((id, block.base), Entry { block, last_use });
    }

    /// Forgets the blocks of a partition that begin below `end`: they were rewritten or deleted.
    pub(super) fn rewritten(&self, id: PartitionId, end: u64) {
        let mut state = self.lock();
        state.rewrites += 1;
        let keys: Vec<_> = state.blocks.range((id, 0)..(id, end)).map(|(key, _)| *key).collect();
        for key in keys {
            state.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remove(&mut self, key: (PartitionId, u64)) {
        if let Some(entry) = self.blocks.remove(&key) {
            self.bytes -= entry.block.memory_bytes();
            self.by_use.remove(&entry.last_use);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use tidewire_engine::log::NewRecord;

    use super::super::block::BlockBuilder;
    use super::*;

    const ID: PartitionId = PartitionId { topic: 1, partition: 0 };

    fn block(base: u64) -> Arc<Block> {
        let mut builder = BlockBuilder::new(base);
        (base..base + 10).for_each(|offset| builder.push(offset, 0, &NewRecord::default()));
        Arc::new(builder.build().block)
    }

    #[test]
    fn finds_by_any_offset_inside_and_drops_the_least_used() {
        let size = block(0).memory_bytes();
        let cache = BlockCache::new(size * 2);
        cache.put(ID, block(0), 0);
        cache.put(ID, block(10), 0);
        assert_eq!(cache.find(ID, 9).unwrap().base, 0);
        assert_eq!(cache.find(ID, 10).unwrap().base, 10);
        assert!(cache.find(ID, 20).is_none());
        assert!(cache.find(PartitionId { partition: 1, ..ID }, 5).is_none());
        cache.find(ID, 3).unwrap();
        cache.put(ID, block(20), 0);
        assert!(cache.find(ID, 10).is_none(), "10 was used least recently");
        assert!(cache.find(ID, 0).is_some() && cache.find(ID, 25).is_some());
        assert_eq!(cache.lock().bytes, size * 2);
    }

    #[test]
    fn a_rewrite_forgets_and_refuses_what_was_read_before_it() {
        let cache = BlockCache::new(1 << 20);
        let ticket = cache.ticket();
        cache.put(ID, block(0), ticket);
        cache.put(ID, block(10), ticket);
        cache.rewritten(ID, 10);
        assert!(cache.find(ID, 0).is_none());
        assert!(cache.find(ID, 10).is_some());
        cache.put(ID, block(0), ticket);
        assert!(cache.find(ID, 0).is_none(), "read before the rewrite");
    }
}
