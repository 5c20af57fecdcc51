//! `tidewire tail`: the records of a topic.

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::bail;
use tidewire_engine::log::{Log, StoredRecord, TopicPartition};
use tidewire_engine::reader::PartitionReader;
use tidewire_schemas::EventTime;

use crate::cli::{self, Context};
use crate::commands::topics;
use crate::interrupt;
use crate::open;
use crate::records::Shower;

/// How long one wait for new records takes at most.
const WAIT: Duration = Duration::from_millis(500);

/// Several partitions are shown in the order of their records' timestamps. With `--json` each line is one object with
/// topic, partition, offset, timestamp, key, headers, kind and value.
///
/// Examples:
///   tidewire tail signals.v1
///   tidewire tail orders.v1 --follow --key paper-1
///   tidewire tail market.ticks.v1 --from 2024-08-08T23:57:00Z --limit 10 --json
///   tidewire tail alerts.v1 --last 5
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The topic.
    topic: String,
    /// Where to begin: earliest, latest, an offset (with --partition), or a time such as 2024-08-08T23:57:00Z.
    #[arg(long, default_value = "earliest", value_name = "WHERE")]
    from: From,
    /// Show the last N records of each partition instead.
    #[arg(long, value_name = "N", conflicts_with = "from")]
    last: Option<u64>,
    /// Only records of this key.
    #[arg(long)]
    key: Option<String>,
    /// Only this partition.
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Stop after this many records.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on as records come, until Ctrl-C.
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a record.
    #[arg(long)]
    json: bool,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The first record kept.
    Earliest,
    /// Behind the last record.
    Latest,
    /// An offset.
    Offset(u64),
    /// The first record at or after this time.
    Time(EventTime),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().map(Self::Offset).map_err(|error| error.to_string())
            }
            _ => text.parse().map(Self::Time).map_err(|error| {
                format!("use earliest, latest, an offset, or a time such as 2024-08-08T23:57:00Z ({error})")
            }),
        }
    }
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let log = &*open.log;
    let spec = topics::find(log, &args.topic)?;
    let partitions: Vec<u32> = match args.partition {
        Some(partition) if partition >= spec.partitions => {
            bail!("topic {} has {} partitions, so no partition {partition}", spec.name, spec.partitions);
        }
        Some(partition) => vec![partition],
        None => (0..spec.partitions).collect(),
    };
    if matches!(args.from, From::Offset(_)) && args.last.is_none() && partitions.len() > 1 {
        bail!("an offset belongs to one partition: name it with `--partition`");
    }
    let mut readers = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let at = TopicPartition::new(spec.name.clone(), partition);
        let bounds = log.bounds(&at)?;
        let from = match (args.last, args.from) {
            (Some(last), _) => bounds.stable_end.saturating_sub(last).max(bounds.start),
            (None, From::Earliest | From::Time(_)) => bounds.start,
            (None, From::Latest) => bounds.stable_end,
            (None, From::Offset(offset)) => offset.max(bounds.start),
        };
        readers.push(PartitionReader::new(log, at, from, bounds.stable_end));
    }
    let stop = if args.follow { Some(interrupt::stop_flag()?) } else { None };
    let mut printer = Printer { args, shower: Shower::new(&open.book), shown: 0, out: io::stdout().lock() };
    loop {
        if printer.drain(&mut readers)? {
            break;
        }
        printer.out.flush()?;
        let Some(stop) = &stop else { break };
        if !wait_for_more(log, &mut readers, stop)? {
            break;
        }
    }
    printer.out.flush()?;
    Ok(cli::OK)
}

/// Waits until a partition has more; false when told to stop.
fn wait_for_more(
    log: &dyn Log,
    readers: &mut [PartitionReader<'_>],
    stop: &AtomicBool,
) -> anyhow::Result<bool> {
    loop {
        if stop.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let mut more = false;
        for reader in readers.iter_mut() {
            more |= reader.extend()?;
        }
        if more {
            return Ok(true);
        }
        log.wait(WAIT);
    }
}

struct Printer<'a, W: Write> {
    args: &'a Args,
    shower: Shower<'a>,
    shown: u64,
    out: W,
}

impl<W: Write> Printer<'_, W> {
    /// Prints what is there, in the order of timestamps; true when the limit is reached.
    fn drain(&mut self, readers: &mut [PartitionReader<'_>]) -> anyhow::Result<bool> {
        if self.args.limit == Some(self.shown) {
            return Ok(true);
        }
        loop {
            let mut least: Option<(i64, usize)> = None;
            for (place, reader) in readers.iter_mut().enumerate() {
                if let Some(stored) = reader.peek_record()? {
                    let head = (stored.record.timestamp_ms, place);
                    least = Some(least.map_or(head, |least| least.min(head)));
                }
            }
            let Some((_, place)) = least else { return Ok(false) };
            let at = readers[place].at().clone();
            let Some(stored) = readers[place].next_record()? else { return Ok(false) };
            if !self.wants(&stored) {
                continue;
            }
            if self.args.json {
                serde_json::to_writer(&mut self.out, &self.shower.object(&at, &stored))?;
                writeln!(self.out)?;
            } else {
                writeln!(self.out, "{}", self.shower.line(&at, &stored))?;
            }
            self.shown += 1;
            if self.args.limit == Some(self.shown) {
                return Ok(true);
            }
        }
    }

    fn wants(&self, stored: &StoredRecord) -> bool {
        let key = self.args.key.as_deref();
        if key.is_some_and(|key| stored.record.key.as_deref() != Some(key.as_bytes())) {
            return false;
        }
        match self.args.from {
            From::Time(time) if self.args.last.is_none() => stored.record.timestamp_ms >= time.as_ms(),
            _ => true,
        }
    }
}
