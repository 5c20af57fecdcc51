//! Keys of the store, and the small values: topics, positions of groups, what is known of a partition.
//!
//! ```text
//! 't' topic-name                               -> topic id and layout
//! 's' topic-id u32 partition u32               -> partition state
//! 'p' topic-id u32 partition u32 group-name    -> position of a group
//! 'b' topic-id u32 partition u32 base u64      -> block
//! ```
//!
//! Numbers are big-endian, so that keys sort as offsets do. Small values are a format byte and postcard.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidewire_engine::log::TopicSpec;

/// Format byte of small values.
const VERSION: u8 = 1;

pub(super) const TOPICS: u8 = b't';
pub(super) const STATES: u8 = b's';
pub(super) const POSITIONS: u8 = b'p';
const BLOCKS: u8 = b'b';
/// One empty row, written to make the store write something.
pub(super) const RECLAIM: u8 = b'r';

/// A partition by its topic's number in this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartitionId {
    pub(super) topic: u32,
    pub(super) partition: u32,
}

/// A topic as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct TopicRow {
    /// Its number in this store, never used again.
    pub(super) id: u32,
    /// Its layout.
    pub(super) spec: TopicSpec,
}

/// What maintenance has done to a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct PartitionRow {
    /// First offset kept.
    pub(super) start: u64,
    /// The partition goes on at this offset or after it, even when no block is left.
    pub(super) next: u64,
    /// Compaction has been below this offset.
    pub(super) compacted_to: u64,
    /// Below this offset small blocks were merged.
    pub(super) merged_to: u64,
}

pub(super) fn topic(name: &str) -> Vec<u8> {
    [&[TOPICS], name.as_bytes()].concat()
}

pub(super) fn state(id: PartitionId) -> [u8; 9] {
    partition_key(STATES, id)
}

pub(super) fn position(id: PartitionId, group: &str) -> Vec<u8> {
    [&partition_key(POSITIONS, id), group.as_bytes()].concat()
}

/// Partition and group of a position's key.
pub(super) fn read_position(key: &[u8]) -> Option<(PartitionId, &str)> {
    let (id, group) = key.strip_prefix(&[POSITIONS])?.split_first_chunk::<8>()?;
    Some((read_id(*id), std::str::from_utf8(group).ok()?))
}

pub(super) fn block(id: PartitionId, base: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..9].copy_from_slice(&partition_key(BLOCKS, id));
    key[9..].copy_from_slice(&base.to_be_bytes());
    key
}

/// Base offset of a block's key.
pub(super) fn read_block(key: &[u8]) -> Option<u64> {
    let base = key.strip_prefix(&[BLOCKS])?.get(8..)?;
    Some(u64::from_be_bytes(base.try_into().ok()?))
}

pub(super) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, String> {
    postcard::to_extend(row, vec![VERSION]).map_err(|e| format!("can not encode: {e}"))
}

pub(super) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    match value.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|e| format!("damaged: {e}")),
        Some((version, _)) => {
            Err(format!("has format {version}, this build knows format {VERSION}: use a newer build"))
        }
        None => Err("damaged: empty".to_owned()),
    }
}

fn partition_key(kind: u8, id: PartitionId) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..5].copy_from_slice(&id.topic.to_be_bytes());
    key[5..].copy_from_slice(&id.partition.to_be_bytes());
    key
}

fn read_id(bytes: [u8; 8]) -> PartitionId {
    let [a, b, c, d, e, f, g, h] = bytes;
    PartitionId { topic: u32::from_be_bytes([a, b, c, d]), partition: u32::from_be_bytes([e, f, g, h]) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use tidewire_engine::log::CommittedOffset;

    use super::*;

    const ID: PartitionId = PartitionId { topic: 0x0102, partition: 3 };

    #[test]
    fn keys_sort_as_partitions_and_offsets_do() {
        let keys = [(ID, 0), (ID, 255), (ID, 256), (ID, u64::MAX), (PartitionId { partition: 4, ..ID }, 0)];
        let keys = keys.map(|(id, base)| block(id, base));
        assert!(keys.is_sorted());
        assert_eq!(read_block(&keys[2]), Some(256));
        assert_eq!(read_block(&keys[2][..12]), None);
        assert_eq!(read_position(&position(ID, "g")), Some((ID, "g")));
        assert_eq!(read_position(b"p123"), None);
    }

    /// What older builds wrote stays readable: a change here needs a new format byte.
    #[test]
    fn stored_rows_have_these_bytes() {
        let spec = TopicSpec { retention_bytes: Some(300), ..TopicSpec::new("t", 2).compacted(5) };
        let topic = encode(&TopicRow { id: 7, spec: spec.clone() }).unwrap();
        assert_eq!(topic, [1, 7, 1, b't', 2, 1, 5, 0, 1, 172, 2]);
        assert_eq!(decode::<TopicRow>(&topic).unwrap().spec, spec);
        let state = encode(&PartitionRow { start: 1, next: 2, compacted_to: 3, merged_to: 4 }).unwrap();
        assert_eq!(state, [1, 1, 2, 3, 4]);
        let position = encode(&CommittedOffset { offset: 9, metadata: "m".to_owned() }).unwrap();
        assert_eq!(position, [1, 9, 1, b'm']);
    }

    #[test]
    fn damaged_rows_are_errors() {
        assert!(decode::<PartitionRow>(&[]).unwrap_err().contains("empty"));
        assert!(decode::<PartitionRow>(&[2, 1, 2, 3, 4]).unwrap_err().contains("newer build"));
        assert!(decode::<PartitionRow>(&[1, 1, 2]).unwrap_err().contains("damaged"));
    }
}
