//! What processes say to each other about a log that one of them has open.
//!
//! A frame is its length (u32, little-endian) and a postcard value. A connection begins with a greeting each way; then
//! every request has one response, in order.

use std::io::{self, Read, Write};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use tidewire_engine::log::{
    Bounds, CommittedOffset, LogError, NewRecord, StoredRecord, TopicPartition, TopicSpec,
};

use super::codec::{Before, Mark, RecordReader, put_record};

/// Both sides must speak the same version.
pub(super) const PROTOCOL_VERSION: u32 = 2;
/// Most bytes of one frame, so of one append through another process.
pub const MAX_FRAME_BYTES: usize = 64 * 1024 * 1024;
/// First words of either side.
const GREETING: &str = "tidewire-log";

/// The first frame of each side. Its layout never changes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    greeting: String,
    pub(super) version: u32,
}

impl Hello {
    pub(super) fn new() -> Self {
        Self { greeting: GREETING.to_owned(), version: PROTOCOL_VERSION }
    }

    /// Refuses other programs and other versions.
    pub(super) fn check(&self) -> Result<(), String> {
        match (self.greeting == GREETING, self.version == PROTOCOL_VERSION) {
            (false, _) => Err("what listens there is not a Tidewire log".to_owned()),
            (true, false) => Err(format!(
                "the process that has the log open speaks protocol {}, this one {PROTOCOL_VERSION}: use the same build",
                self.version
            )),
            (true, true) => Ok(()),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    CreateTopic(TopicSpec),
    Topics,
    Topic(SmolStr),
    Fetch {
        at: TopicPartition,
        from: u64,
        max_bytes: u64,
    },
    Bounds(TopicPartition),
    Committed {
        group: SmolStr,
        at: TopicPartition,
    },
    Append {
        at: TopicPartition,
        records: Bytes,
    },
    Wait {
        seen: u64,
        timeout_ms: u64,
    },
    /// From here on the connection is that member: it leaves the group when the connection ends.
    Join {
        group: SmolStr,
        member: SmolStr,
        driving: SmolStr,
    },
    Poll,
    Commit {
        generation: u32,
        appends: Vec<(TopicPartition, Bytes)>,
        offsets: Vec<(TopicPartition, CommittedOffset)>,
    },
    Release(Vec<u32>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Response {
    Created,
    Topics(Vec<TopicSpec>),
    Topic(Option<TopicSpec>),
    Fetched {
        records: Bytes,
        next_offset: u64,
        at_end: bool,
    },
    Bounds(Bounds),
    Committed(Option<CommittedOffset>),
    Appended(u64),
    Changes(u64),
    Joined,
    Assigned {
        generation: u32,
        tasks: Vec<u32>,
        revoking: Vec<u32>,
    },
    /// The commit's outcome; an error of the log itself is `Failed`.
    Ended(Outcome),
    Released,
    Failed(LogError),
}

/// What a commit came to.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Done,
    Fenced(String),
    Aborted(String),
    Unknown(String),
}

/// Writes one frame.
pub(super) fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    let mut frame = postcard::to_extend(message, vec![0; 4]).map_err(io::Error::other)?;
    let len = frame.len() - 4;
    if len > MAX_FRAME_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a message of {len} bytes is more than the {MAX_FRAME_BYTES} allowed between processes"),
        ));
    }
    let len = u32::try_from(len).map_err(io::Error::other)?;
    frame[..4].copy_from_slice(&len.to_le_bytes());
    stream.write_all(&frame)
}

/// Reads one frame.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame claims {len} bytes")));
    }
    let mut frame = Vec::new();
    stream.take(len as u64).read_to_end(&mut frame)?;
    if frame.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&frame).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}

/// Records as they go through a frame; offsets are relative to `base`.
pub(super) fn pack<'a>(base: u64, records: impl Iterator<Item = (u64, &'a NewRecord)>) -> Bytes {
    let mut out = Vec::new();
    let mut before = Before::base(base);
    for (offset, record) in records {
        put_record(&mut out, &mut before, offset, 0, record);
    }
    Bytes::from(out)
}

/// The records of a frame; `None` if they do not decode.
pub(super) fn unpack(base: u64, packed: &Bytes) -> Option<Vec<StoredRecord>> {
    let mut reader = RecordReader::new(packed, Mark { position: 0, before: Before::base(base) });
    let mut records = Vec::new();
    while !reader.is_done() {
        records.push(reader.next()?.stored);
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn frames_survive_and_damaged_ones_are_errors() {
        let record = NewRecord { key: Some(Bytes::from_static(b"k")), ..NewRecord::default() };
        let at = TopicPartition::new("t", 1);
        let mut frame = Vec::new();
        send(&mut frame, &Request::Append { at, records: pack(0, [(0, &record)].into_iter()) }).unwrap();
        let Request::Append { records, .. } = receive(&mut &*frame).unwrap() else {
            panic!("another request")
        };
        assert_eq!(unpack(0, &records).unwrap(), [StoredRecord { offset: 0, record }]);
        for end in 0..frame.len() {
            receive::<Request>(&mut &frame[..end]).unwrap_err();
        }
        receive::<Request>(&mut &[0xff; 64][..]).unwrap_err();
        assert!(unpack(0, &Bytes::from_static(&[1, 2, 3])).is_none());
    }

    #[test]
    fn other_programs_and_versions_are_refused() {
        Hello::new().check().unwrap();
        assert!(Hello { version: 1, ..Hello::new() }.check().unwrap_err().contains("same build"));
        assert!(
            Hello { greeting: "ssh".to_owned(), ..Hello::new() }
                .check()
                .unwrap_err()
                .contains("not a Tidewire")
        );
    }
}
