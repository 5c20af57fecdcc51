//! What an engine gave out: by topic and key, in order, so that engines can be compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rdkafka::message::{BorrowedMessage, Message as _};
use tidewire_schemas::{EventTime, Record, SchemaBook};

/// Bars and signals of windows that the ticks closed.
#[derive(Default)]
pub struct Outputs {
    /// What each instrument got, by length of the window or strategy.
    lines: BTreeMap<(String, String), Vec<String>>,
    bars: u64,
    signals: u64,
    bytes: usize,
}

impl Outputs {
    /// Takes a record, unless it is of windows after `until`: such that silence closes.
    pub fn take(&mut self, book: &SchemaBook, message: &BorrowedMessage<'_>, until: EventTime) {
        let value = message.payload().unwrap();
        let record = book.decode(value).unwrap();
        let (at, line) = match &record {
            Record::Bar(bar) if bar.window_end <= until => {
                self.bars += 1;
                ((bar.instrument.to_string(), format!("bars {}", bar.interval_ms)), format!("{bar:?}"))
            }
            Record::Signal(signal) if signal.event_time <= until => {
                self.signals += 1;
                ((signal.instrument.to_string(), signal.strategy.to_string()), format!("{signal:?}"))
            }
            _ => return,
        };
        self.bytes += message.key_len() + value.len();
        self.lines.entry(at).or_default().push(line);
    }

    pub fn bars(&self) -> u64 {
        self.bars
    }
    pub fn signals(&self) -> u64 {
        self.signals
    }
    pub fn records(&self) -> u64 {
        self.bars + self.signals
    }
    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Digest of all, key by key in order: the same for engines that agree.
    pub fn digest(&self) -> String {
        let mut text = String::new();
        for ((instrument, what), lines) in &self.lines {
            for line in lines {
                writeln!(text, "{instrument} {what} {line}").unwrap();
            }
        }
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }

    /// Fails with the first difference.
    pub fn check_equal(&self, other: &Outputs) {
        for (at, lines) in &other.lines {
            let none = Vec::new();
            let found = self.lines.get(at).unwrap_or(&none);
            for (place, (ours, theirs)) in lines.iter().zip(found).enumerate() {
                assert_eq!(ours, theirs, "{at:?}, record {place}");
            }
            assert_eq!(lines.len(), found.len(), "{at:?}");
        }
        assert_eq!((self.bars, self.signals), (other.bars, other.signals));
    }
}
