//! Ticks for as many partitions and as long a run as wished, made of the recordings that ship.
//!
//! A real recording has four instruments and ninety-five seconds, unless `CAPTURES` names a folder of others. Here each partition gets instruments of its own,
//! each a copy of a recorded one under another symbol, and the recording is told again and again, each time later.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use tidewire_engine::identity::RECEIVED_HEADER;
use tidewire_engine::log::{NewRecord, StoredRecord};
use tidewire_engine::partition::partition_of;
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::kafka::TIME_HEADER;
use tidewire_runtime::registry::open_book;
use tidewire_schemas::{EventTime, ReceivedTime, Record, SchemaBook, topics};

use crate::outputs::{partitions, read};
use crate::{clients, root};

/// From one telling of the recording to the next: longer than it, so that the next one begins in silence.
const TELLING_MS: i64 = 100_000;
/// What is wished.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Partitions of the ticks.
    pub partitions: u32,
    /// Instruments in each of them.
    pub instruments: u32,
    /// How often the recording is told.
    pub tellings: u32,
}

/// Records to be written before a run.
pub struct Backlog {
    book: SchemaBook,
    tellings: u32,
    copies: Vec<Copy>,
    reference: Vec<(String, NewRecord)>,
    recorded: Vec<(i64, Record, NewRecord)>,
}

impl Backlog {
    /// Imports what ships with `tidewire`, the binary, and makes what is wished of it. Values are written with `book`.
    pub fn make(tidewire: &Path, book: &SchemaBook, wish: Wish) -> Self {
        let folder = tempfile::tempdir().unwrap();
        import(tidewire, folder.path());
        let log = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).unwrap();
        let recorded = open_book(&*log).unwrap();
        let all = |topic: &str| -> Vec<(i64, Record, NewRecord)> {
            let stored = partitions(&*log, topic).into_iter().flat_map(|at| read(&*log, &at));
            let decoded = |StoredRecord { record, .. }| {
                let value = recorded.decode(record.value.as_deref().unwrap()).unwrap();
                (record.timestamp_ms, value, record)
            };
            stored.map(decoded).collect()
        };
        let mut ticks = all(topics::TICKS);
        ticks.sort_by_key(|(timestamp_ms, ..)| *timestamp_ms);
        let instruments = all(topics::INSTRUMENTS);
        let copies = copies(&instruments, wish);

        let mut reference = Vec::new();
        for topic in [topics::NEWS, topics::SENTIMENT] {
            for (_, value, record) in all(topic) {
                reference.push((topic.to_owned(), written(book, &value, record)));
            }
        }
        for copy in &copies {
            let of_copy = instruments.iter().filter(|(_, value, _)| instrument_of(value) == copy.of);
            for (_, value, record) in of_copy {
                let (value, record) = told(value.clone(), record.clone(), &copy.name, 0);
                reference.push((topics::INSTRUMENTS.to_owned(), written(book, &value, record)));
            }
        }
        Self { book: book.clone(), tellings: wish.tellings, copies, reference, recorded: ticks }
    }

    /// News, scores and instruments, by topic.
    pub fn reference(&self) -> impl Iterator<Item = (&str, &NewRecord)> {
        self.reference.iter().map(|(topic, record)| (topic.as_str(), record))
    }

    /// The ticks, in the order of their times.
    pub fn ticks(&self) -> impl Iterator<Item = NewRecord> {
        let tellings = (0..self.tellings).map(|telling| i64::from(telling) * TELLING_MS);
        tellings.flat_map(move |later_ms| {
            self.recorded.iter().flat_map(move |tick| self.of_copies(tick, later_ms))
        })
    }

    fn of_copies(
        &self,
        (_, value, record): &(i64, Record, NewRecord),
        later_ms: i64,
    ) -> impl Iterator<Item = NewRecord> {
        self.copies.iter().filter(|copy| copy.of == instrument_of(value)).map(move |copy| {
            let (value, record) = told(value.clone(), record.clone(), &copy.name, later_ms);
            written(&self.book, &value, record)
        })
    }

    /// Writes everything with a client that is not ours, without transactions, into topics that are there.
    pub fn write(&self, bootstrap: &str) {
        let reference = self.reference().map(|(topic, record)| for_client(topic, record));
        let ticks = self.ticks().map(|record| for_client(topics::TICKS, &record));
        clients::write(bootstrap, reference.chain(ticks));
    }
}

/// An instrument of the recording under another name.
struct Copy {
    of: String,
    name: String,
}

/// Names are counted on until each partition has as many instruments as wished.
fn copies(instruments: &[(i64, Record, NewRecord)], wish: Wish) -> Vec<Copy> {
    let mut recorded: Vec<&str> = instruments.iter().map(|(_, value, _)| instrument_of(value)).collect();
    recorded.sort_unstable();
    recorded.dedup();
    let mut copies = Vec::new();
    let mut next = recorded.iter().cycle();
    for partition in 0..wish.partitions {
        for _ in 0..wish.instruments {
            let of = *next.next().unwrap();
            let (symbol, venue) = of.rsplit_once('.').unwrap();
            let names = (1..).map(|number| format!("{symbol}N{number}.{venue}"));
            let fits = |name: &String| {
                partition_of(name.as_bytes(), wish.partitions) == partition
                    && !copies.iter().any(|copy: &Copy| copy.name == *name)
            };
            let name = { names }.find(fits).unwrap();
            copies.push(Copy { of: of.to_owned(), name });
        }
    }
    copies
}

fn instrument_of(value: &Record) -> &str {
    match value {
        Record::Trade(trade) => &trade.instrument,
        Record::Quote(quote) => &quote.instrument,
        Record::BookSnapshot(snapshot) => &snapshot.instrument,
        Record::BookDelta(delta) => &delta.instrument,
        Record::Instrument(instrument) => &instrument.instrument,
        other => panic!("no instrument in {other:?}"),
    }
}

/// The record as one of another instrument and of a later time.
fn told(mut value: Record, mut record: NewRecord, instrument: &str, later_ms: i64) -> (Record, NewRecord) {
    let later = |event: &mut EventTime, received: &mut ReceivedTime| {
        *event = event.plus_ms(later_ms);
        *received = ReceivedTime::from_nanos(received.as_nanos() + later_ms * 1_000_000);
    };
    let name = match &mut value {
        Record::Trade(trade) => {
            later(&mut trade.event_time, &mut trade.received_time);
            &mut trade.instrument
        }
        Record::Quote(quote) => {
            later(&mut quote.event_time, &mut quote.received_time);
            &mut quote.instrument
        }
        Record::BookSnapshot(snapshot) => {
            later(&mut snapshot.event_time, &mut snapshot.received_time);
            &mut snapshot.instrument
        }
        Record::BookDelta(delta) => {
            later(&mut delta.event_time, &mut delta.received_time);
            &mut delta.instrument
        }
        Record::Instrument(described) => {
            described.symbol = instrument.rsplit_once('.').unwrap().0.into();
            &mut described.instrument
        }
        other => panic!("no instrument in {other:?}"),
    };
    *name = instrument.into();
    record.key = Some(Bytes::copy_from_slice(instrument.as_bytes()));
    record.timestamp_ms += later_ms;
    for (name, header) in &mut record.headers {
        if name == RECEIVED_HEADER {
            let received_ns: i64 = std::str::from_utf8(header).unwrap().parse().unwrap();
            *header = Bytes::from((received_ns + later_ms * 1_000_000).to_string());
        }
    }
    (value, record)
}

fn written(book: &SchemaBook, value: &Record, mut record: NewRecord) -> NewRecord {
    let mut bytes = Vec::new();
    book.encode(value, &mut bytes).unwrap();
    record.value = Some(Bytes::from(bytes));
    record
}

fn for_client(topic: &str, record: &NewRecord) -> clients::NewRecord {
    let mut headers: Vec<_> =
        record.headers.iter().map(|(name, value)| (name.to_string(), value.to_vec())).collect();
    // On compacted topics brokers set the time: the record's own goes into a header.
    if topic == topics::INSTRUMENTS {
        headers.push((TIME_HEADER.to_owned(), record.timestamp_ms.to_string().into_bytes()));
    }
    clients::NewRecord {
        topic: topic.to_owned(),
        partition: None,
        timestamp_ms: Some(record.timestamp_ms),
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: record.value.as_ref().map(|value| value.to_vec()),
        headers,
    }
}

/// The captures that ship, or those in the folder that `CAPTURES` names.
pub fn captures() -> Vec<PathBuf> {
    let folder = std::env::var_os("CAPTURES").map_or_else(|| root().join("samples/binance"), PathBuf::from);
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "gz")).collect();
    files.sort();
    assert!(!files.is_empty(), "no captures in {}", folder.display());
    files
}

/// Imports captures and the news that ship into the log of a folder.
pub fn import(tidewire: &Path, folder: &Path) {
    let mut command = Command::new(tidewire);
    command.args(["--durability", "buffered", "--data"]).arg(folder);
    import_by(&mut command);
}

/// As [`import`], with a command that knows its log.
pub fn import_by(command: &mut Command) {
    let output = command
        .args(["--log-level", "error", "import"])
        .args(captures())
        .arg(root().join("samples/news/crypto_news_20220704.csv"))
        // The news is of another day: moved into the span of the ticks, as the demo does.
        .args(["--news-from", "2024-08-08T23:54:15Z", "--news-to", "2024-08-08T23:55:51Z"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
