//! What an importer gives, and the queue it waits in.

use crate::instruments::InstrumentTable;
use crate::limits::MAX_REJECTED_BYTES;
use crate::lines::Line;
use crate::reject::RejectReason;
use crate::summary::Summary;
use smol_str::SmolStr;
use std::collections::{BTreeSet, VecDeque};
use tidewire_schemas::{EventTime, Record, topics};

/// One thing that came out of a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A normalized record.
    Record {
        /// Line of the file it came from, from 1.
        line: u64,
        /// Topic it belongs to.
        topic: &'static str,
        /// Key of the record.
        key: SmolStr,
        /// Timestamp of the record: its event time in milliseconds since 1970.
        timestamp_ms: i64,
        /// When it was received, in nanoseconds since 1970: for the header of that name.
        received_ns: i64,
        /// The record.
        record: Record,
    },
    /// A line that is not taken.
    Rejected {
        /// Line of the file, from 1; the first one where a record spans several.
        line: u64,
        /// Why.
        reason: RejectReason,
        /// The line as it was, at most [`MAX_REJECTED_BYTES`] of it.
        raw: Vec<u8>,
        /// Length of the whole line in bytes.
        raw_length: u64,
    },
}

/// Items that wait to be taken, and what is counted on the way.
pub(crate) struct Output {
    pub items: VecDeque<Item>,
    pub summary: Summary,
    pub instruments: InstrumentTable,
    announced: BTreeSet<SmolStr>,
}

impl Output {
    pub fn new(instruments: InstrumentTable, summary: Summary) -> Output {
        Output { items: VecDeque::new(), summary, instruments, announced: BTreeSet::new() }
    }

    /// Adds a record.
    pub fn record(
        &mut self,
        line: u64,
        topic: &'static str,
        key: SmolStr,
        received_ns: i64,
        record: impl Into<Record>,
    ) {
        let record = record.into();
        let time = record.event_time().unwrap_or_default();
        self.summary.count_record(record.kind(), topic, time);
        self.items.push_back(Item::Record {
            line,
            topic,
            key,
            timestamp_ms: time.as_ms(),
            received_ns,
            record,
        });
    }

    /// Adds a rejected line.
    pub fn reject(&mut self, line: &Line, reason: RejectReason) {
        self.summary.count_rejected(line.number, &reason);
        let kept = line.bytes.len().min(MAX_REJECTED_BYTES);
        self.items.push_back(Item::Rejected {
            line: line.number,
            reason,
            raw: line.bytes[..kept].to_vec(),
            raw_length: line.length,
        });
    }

    /// Puts the description of an instrument in front of its first record, one millisecond before it, so that it is
    /// known when the record is taken.
    pub fn announce(
        &mut self,
        line: u64,
        instrument: &SmolStr,
        first: EventTime,
        received_ns: i64,
    ) -> Result<(), RejectReason> {
        if self.announced.contains(instrument) {
            return Ok(());
        }
        let time = first.minus_ms(1);
        let Some(described) = self.instruments.describe(instrument, time) else {
            return Err(RejectReason::UnknownInstrument { instrument: instrument.to_string() });
        };
        if described.valid_from > first {
            self.summary.described_later.insert(instrument.clone(), described.valid_from);
        }
        self.announced.insert(instrument.clone());
        self.summary.instruments.insert(instrument.clone());
        self.record(line, topics::INSTRUMENTS, instrument.clone(), received_ns, described);
        Ok(())
    }
}
