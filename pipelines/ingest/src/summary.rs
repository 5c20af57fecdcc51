//! What an import came to: counts, times and whatever the user should know of.

use crate::binance::Venue;
use crate::options::Format;
use crate::reject::RejectReason;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use tidewire_schemas::{EventTime, Kind, ReceivedTime, topics};

/// What came of one file so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Its market, for a capture.
    pub venue: Option<Venue>,
    /// Records by kind.
    pub records: BTreeMap<Kind, u64>,
    /// Rejected lines by [`RejectReason::code`].
    pub rejected: BTreeMap<&'static str, u64>,
    /// Instruments that were seen.
    pub instruments: BTreeSet<SmolStr>,
    /// Least event time of a record, descriptions of instruments not counted.
    pub first_event_time: Option<EventTime>,
    /// Greatest event time of a record.
    pub last_event_time: Option<EventTime>,
    /// Time of receipt of the first record.
    pub first_received: Option<ReceivedTime>,
    /// Greatest time of receipt.
    pub last_received: Option<ReceivedTime>,
    /// Lines received earlier than a line before them, and the first such line.
    pub received_went_back: Option<(u64, u64)>,
    /// The venue's clock against the recorder's, for a capture.
    pub venue_offset: Option<VenueOffsetSummary>,
    /// Records whose event time is estimated, because the venue gives none.
    pub estimated_event_times: u64,
    /// Instruments whose shipped or given description holds only from a later time than their first record.
    pub described_later: BTreeMap<SmolStr, EventTime>,
    /// Bars that came without notional and VWAP: both are 0 in them.
    pub bars_without_notional: u64,
    /// How the times of news were moved.
    pub news_shift: Option<NewsShift>,
    /// Columns of a CSV file that are not read.
    pub ignored_columns: Vec<String>,
}

/// The venue's clock less the recorder's: how far the venue's stamps are ahead of the times of receipt. It is the
/// clocks' difference less the time on the way, so that what it estimates is when the venue sent a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VenueOffsetSummary {
    /// Messages with a time of their own that it was taken from.
    pub observations: u64,
    /// Estimate in force at the end, in microseconds: the median of the last differences, or what was given.
    pub estimate_us: i64,
    /// Least difference in microseconds.
    pub least_us: i64,
    /// Greatest difference in microseconds.
    pub greatest_us: i64,
    /// True when it was given and not estimated.
    pub given: bool,
}

/// How the published times of a news file were moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewsShift {
    /// First and last published time in the file.
    pub original: (EventTime, EventTime),
    /// Times they were mapped to, in a straight line.
    pub mapped: (EventTime, EventTime),
}

impl Summary {
    pub(crate) fn new(path: PathBuf, format: Format) -> Summary {
        Summary {
            path,
            format,
            venue: None,
            records: BTreeMap::new(),
            rejected: BTreeMap::new(),
            instruments: BTreeSet::new(),
            first_event_time: None,
            last_event_time: None,
            first_received: None,
            last_received: None,
            received_went_back: None,
            venue_offset: None,
            estimated_event_times: 0,
            described_later: BTreeMap::new(),
            bars_without_notional: 0,
            news_shift: None,
            ignored_columns: Vec::new(),
        }
    }

    /// Records in all.
    pub fn record_count(&self) -> u64 {
        self.records.values().sum()
    }

    /// Rejected lines in all.
    pub fn rejected_count(&self) -> u64 {
        self.rejected.values().sum()
    }

    pub(crate) fn count_record(&mut self, kind: Kind, topic: &str, time: EventTime) {
        *self.records.entry(kind).or_default() += 1;
        if topic != topics::INSTRUMENTS {
            self.first_event_time = Some(self.first_event_time.map_or(time, |first| first.min(time)));
            self.last_event_time = Some(self.last_event_time.map_or(time, |last| last.max(time)));
        }
    }

    pub(crate) fn count_rejected(&mut self, _line: u64, reason: &RejectReason) {
        *self.rejected.entry(reason.code()).or_default() += 1;
    }

    /// Notes a time of receipt, and whether it went back.
    pub(crate) fn note_received(&mut self, line: u64, received_ns: i64) {
        let received = ReceivedTime::from_nanos(received_ns);
        self.first_received.get_or_insert(received);
        match self.last_received {
            Some(last) if received < last => {
                let (count, first_line) = self.received_went_back.unwrap_or((0, line));
                self.received_went_back = Some((count + 1, first_line));
            }
            _ => self.last_received = Some(received),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.format)?;
        if let Some(venue) = self.venue {
            write!(f, " ({venue})")?;
        }
        writeln!(f, ", {} records, {} lines rejected", self.record_count(), self.rejected_count())?;
        for (kind, count) in &self.records {
            writeln!(f, "  {count:>9} {kind}")?;
        }
        for (code, count) in &self.rejected {
            writeln!(f, "  {count:>9} rejected: {code}")?;
        }
        if let (Some(first), Some(last)) = (self.first_event_time, self.last_event_time) {
            writeln!(f, "  event times {first} to {last}")?;
        }
        if let Some(offset) = self.venue_offset {
            write_offset(f, offset)?;
        }
        self.write_notes(f)
    }
}

impl Summary {
    fn write_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.estimated_event_times > 0 {
            let count = self.estimated_event_times;
            writeln!(f, "  {count} event times are estimated: the venue gives none")?;
        }
        if let Some((count, line)) = self.received_went_back {
            writeln!(f, "  {count} times of receipt go back, first in line {line}")?;
        }
        for (instrument, from) in &self.described_later {
            writeln!(f, "  {instrument} is described from {from} on, but has records before that")?;
        }
        if self.bars_without_notional > 0 {
            let count = self.bars_without_notional;
            writeln!(f, "  {count} bars came without notional and VWAP: both are 0 in them")?;
        }
        if let Some(NewsShift { original, mapped }) = self.news_shift {
            writeln!(
                f,
                "  news was moved in time: published {} to {}, shown as {} to {}",
                original.0, original.1, mapped.0, mapped.1
            )?;
        }
        if !self.ignored_columns.is_empty() {
            writeln!(f, "  columns not read: {}", self.ignored_columns.join(", "))?;
        }
        Ok(())
    }
}

fn write_offset(f: &mut fmt::Formatter<'_>, offset: VenueOffsetSummary) -> fmt::Result {
    let ms = |us: i64| us as f64 / 1_000.0;
    if offset.given {
        return writeln!(
            f,
            "  venue clock ahead of the recorder's by {} ms, as given",
            ms(offset.estimate_us)
        );
    }
    if offset.observations == 0 {
        return writeln!(f, "  no message tells the venue's clock: its offset is taken as 0");
    }
    writeln!(
        f,
        "  venue clock ahead of the recorder's by {} ms (median; {} to {} over {} messages)",
        ms(offset.estimate_us),
        ms(offset.least_us),
        ms(offset.greatest_us),
        offset.observations
    )
}
