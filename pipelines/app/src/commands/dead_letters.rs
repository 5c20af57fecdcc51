//! `tidewire dead-letters`: records that could not be processed, and their way back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write as _};
use std::str::FromStr;

use anyhow::bail;
use bytes::Bytes;
use clap::Subcommand;
use serde_json::json;
use smol_str::SmolStr;
use tidewire_engine::identity::{CAUSE_HEADER, ID_HEADER};
use tidewire_engine::log::{Log, NewRecord, TopicPartition};
use tidewire_engine::reader::PartitionReader;
use tidewire_runtime::clock::now_ms;
use tidewire_schemas::{DeadLetter, EventTime, SchemaBook, topics};

use crate::cli::{self, Context};
use crate::notes::{self, REPLAYS, ReplayNote};
use crate::open;
use crate::records::{Shower, Shown, hex, text};
use crate::table::{Align, Table};

/// Header of a record that was sent again: where its dead letter lies.
const REPLAYED_HEADER: &str = "tw-replayed";
/// Bytes of a value that are shown.
const MAX_SHOWN_BYTES: usize = 4096;

/// Examples:
///   tidewire dead-letters list
///   tidewire dead-letters show 0@17
///   tidewire dead-letters replay --reason overflow
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Count dead letters by source and reason, and list the last ones.
    List {
        #[command(flatten)]
        filter: Filter,
        /// List this many of the last ones.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Print one JSON object each.
        #[arg(long)]
        json: bool,
    },
    /// Show one with everything known of it.
    Show {
        /// Its place, PARTITION@OFFSET as `list` prints it.
        place: At,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send records again to the topic they came from, as they were. Their event time stays, so windows they missed
    /// may have closed meanwhile. One that was sent again already is left out.
    Replay {
        /// Their places, PARTITION@OFFSET.
        places: Vec<At>,
        /// All that the other options name.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        filter: Filter,
        /// Send those again that were sent again already.
        #[arg(long)]
        again: bool,
        /// Say what would be sent, and send nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which dead letters.
#[derive(Clone, Debug, Default, clap::Args)]
struct Filter {
    /// Only those with this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Only those of this stage; lines that were not imported are of stage `import`.
    #[arg(long)]
    stage: Option<String>,
    /// Only those from this topic or file.
    #[arg(long)]
    source: Option<String>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.reason.is_none() && self.stage.is_none() && self.source.is_none()
    }

    fn takes(&self, letter: &DeadLetter) -> bool {
        let same =
            |wanted: &Option<String>, found: &SmolStr| wanted.as_ref().is_none_or(|wanted| wanted == found);
        same(&self.reason, &letter.reason)
            && same(&self.stage, &letter.stage)
            && same(&self.source, &letter.source_topic)
    }
}

/// Place of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    partition: u32,
    offset: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

impl FromStr for At {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a place is PARTITION@OFFSET, such as 0@17";
        let (partition, offset) = text.split_once('@').ok_or(WRONG)?;
        let partition = partition.parse().map_err(|_| WRONG)?;
        Ok(Self { partition, offset: offset.parse().map_err(|_| WRONG)? })
    }
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    match &args.what {
        What::List { filter, limit, json } => list(filter, *limit, *json, context),
        What::Show { place, json } => show(*place, *json, context),
        What::Replay { places, all, filter, again, dry_run } => {
            let chosen = Chosen { places, all: *all, filter, again: *again, dry_run: *dry_run };
            replay(&chosen, context)
        }
    }
}

/// All dead letters in the log, by place.
fn letters(log: &dyn Log, book: &SchemaBook) -> anyhow::Result<Vec<(At, DeadLetter)>> {
    let Some(topic) = log.topic(topics::DEAD_LETTERS)? else { return Ok(Vec::new()) };
    let mut letters = Vec::new();
    for partition in 0..topic.partitions {
        let mut reader =
            PartitionReader::from_start(log, TopicPartition::new(topics::DEAD_LETTERS, partition))?;
        while let Some(stored) = reader.next_record()? {
            let value = stored.record.value.as_deref().unwrap_or_default();
            let letter = book.decode(value).map_err(|error| error.to_string());
            match letter.and_then(|record| DeadLetter::try_from(record).map_err(|error| error.to_string())) {
                Ok(letter) => letters.push((At { partition, offset: stored.offset }, letter)),
                Err(error) => {
                    tracing::warn!("{}-{partition}, offset {}: {error}", topics::DEAD_LETTERS, stored.offset)
                }
            }
        }
    }
    Ok(letters)
}

fn replayed(log: &dyn Log) -> anyhow::Result<BTreeMap<At, ReplayNote>> {
    let notes: Vec<ReplayNote> = notes::all(log, REPLAYS)?;
    Ok(notes.into_iter().map(|note| (At { partition: note.partition, offset: note.offset }, note)).collect())
}

/// Where it came from: a line of a file, a place in a topic, or a timer.
fn source(letter: &DeadLetter) -> String {
    match (letter.line, letter.source_partition) {
        (Some(line), _) => format!("{}, line {line}", letter.source_topic),
        (None, partition) if partition < 0 => "timer".to_owned(),
        (None, partition) => format!("{}-{partition}@{}", letter.source_topic, letter.source_offset),
    }
}

/// Its time; a line in front of the first record of a file has none.
fn when(letter: &DeadLetter) -> String {
    if letter.event_time == EventTime::EPOCH { "-".to_owned() } else { letter.event_time.to_string() }
}

fn list(filter: &Filter, limit: usize, as_json: bool, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let mut found = letters(&*open.log, &open.book)?;
    found.retain(|(_, letter)| filter.takes(letter));
    let replayed = replayed(&*open.log)?;
    let mut out = io::stdout().lock();
    if as_json {
        for (at, letter) in &found {
            let object = as_value(*at, letter, replayed.get(at), &open.book);
            serde_json::to_writer(&mut out, &object)?;
            writeln!(out)?;
        }
        return Ok(cli::OK);
    }
    if found.is_empty() {
        writeln!(out, "no dead letters")?;
        return Ok(cli::OK);
    }
    let mut counts: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    for (_, letter) in &found {
        *counts.entry((&letter.stage, &letter.source_topic, &letter.reason)).or_default() += 1;
    }
    let mut table = Table::new(&[
        ("count", Align::Right),
        ("stage", Align::Left),
        ("source", Align::Left),
        ("reason", Align::Left),
    ]);
    for ((stage, source, reason), count) in counts {
        table.row([count.to_string(), stage.to_owned(), source.to_owned(), reason.to_owned()]);
    }
    table.write(&mut out, "")?;
    writeln!(out)?;
    let mut last = Table::new(&[
        ("place", Align::Left),
        ("time", Align::Left),
        ("source", Align::Left),
        ("operator", Align::Left),
        ("reason", Align::Left),
        ("error", Align::Left),
    ]);
    for (at, letter) in found.iter().skip(found.len().saturating_sub(limit)) {
        let mark = if replayed.contains_key(at) { " (sent again)" } else { "" };
        last.row([
            at.to_string(),
            when(letter),
            source(letter),
            letter.operator.clone().unwrap_or_default().to_string(),
            letter.reason.to_string(),
            format!("{}{mark}", letter.error),
        ]);
    }
    last.write(&mut out, "")?;
    Ok(cli::OK)
}

fn as_value(
    at: At,
    letter: &DeadLetter,
    replay: Option<&ReplayNote>,
    book: &SchemaBook,
) -> serde_json::Value {
    let value = letter.value.as_deref();
    let record = match Shower::new(book).show(value) {
        Shown::Record(kind, value) => json!({ "kind": kind, "value": value }),
        Shown::Json(value) => json!({ "value": value }),
        Shown::Nothing | Shown::Bytes(..) => serde_json::Value::Null,
    };
    json!({
        "place": at.to_string(),
        "source": letter.source_topic,
        "partition": letter.source_partition,
        "offset": letter.source_offset,
        "line": letter.line,
        "stage": letter.stage,
        "operator": letter.operator,
        "reason": letter.reason,
        "error": letter.error,
        "event_time": letter.event_time.to_string(),
        "source_timestamp": EventTime::from_ms(letter.source_timestamp_ms).to_string(),
        "key": letter.key.as_deref().map(text),
        "headers": letter.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect::<BTreeMap<_, _>>(),
        "value_hex": value.map(|value| hex(&value[..value.len().min(MAX_SHOWN_BYTES)])),
        "value_bytes": value.map(<[u8]>::len),
        "record": record,
        "sent_again": replay.map(|note| json!({ "topic": note.to.0, "partition": note.to.1, "offset": note.to.2 })),
    })
}

fn show(place: At, as_json: bool, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let found = letters(&*open.log, &open.book)?;
    let Some((at, letter)) = found.into_iter().find(|(at, _)| *at == place) else {
        bail!("there is no dead letter at {place}: `tidewire dead-letters list` shows their places");
    };
    let replayed = replayed(&*open.log)?;
    let mut out = io::stdout().lock();
    if as_json {
        serde_json::to_writer_pretty(&mut out, &as_value(at, &letter, replayed.get(&at), &open.book))?;
        writeln!(out)?;
        return Ok(cli::OK);
    }
    writeln!(out, "place      {at} in {}", topics::DEAD_LETTERS)?;
    writeln!(out, "source     {}", source(&letter))?;
    writeln!(out, "stage      {}", letter.stage)?;
    if let Some(operator) = &letter.operator {
        writeln!(out, "operator   {operator}")?;
    }
    writeln!(out, "reason     {}", letter.reason)?;
    writeln!(out, "error      {}", letter.error)?;
    writeln!(out, "time       {}", when(&letter))?;
    if let Some(key) = letter.key.as_deref() {
        writeln!(out, "key        {}", text(key))?;
    }
    for (name, value) in &letter.headers {
        writeln!(out, "header     {name}: {}", text(value))?;
    }
    let value = letter.value.as_deref();
    match Shower::new(&open.book).show(value) {
        Shown::Record(kind, fields) => writeln!(out, "record     {kind} {fields}")?,
        Shown::Json(value) => writeln!(out, "value      {value}")?,
        Shown::Nothing => {}
        Shown::Bytes(bytes, why) => show_bytes(&mut out, &bytes, &why)?,
    }
    if let Some(note) = replayed.get(&at) {
        let (topic, partition, offset) = &note.to;
        writeln!(out, "sent again to {topic}-{partition}@{offset}")?;
    }
    Ok(cli::OK)
}

fn show_bytes(out: &mut dyn io::Write, bytes: &[u8], why: &str) -> io::Result<()> {
    let cut = &bytes[..bytes.len().min(MAX_SHOWN_BYTES)];
    let more = if cut.len() < bytes.len() {
        format!(" (the first {} of {} bytes)", cut.len(), bytes.len())
    } else {
        String::new()
    };
    match std::str::from_utf8(cut) {
        Ok(text) => writeln!(out, "value      {text}{more}"),
        Err(_) => writeln!(out, "value      {} ({why}){more}", hex(cut)),
    }
}

struct Chosen<'a> {
    places: &'a [At],
    all: bool,
    filter: &'a Filter,
    again: bool,
    dry_run: bool,
}

fn replay(chosen: &Chosen<'_>, context: &Context) -> anyhow::Result<u8> {
    if chosen.places.is_empty() && !chosen.all && chosen.filter.is_empty() {
        bail!("say which: places such as 0@17, `--reason`, `--stage` or `--source`, or `--all`");
    }
    open::refuse_prefix(context)?;
    let open = open::to_read(context)?;
    let log = &*open.log;
    let found = letters(log, &open.book)?;
    let places: BTreeSet<At> = chosen.places.iter().copied().collect();
    if let Some(missing) = places.iter().find(|place| !found.iter().any(|(at, _)| at == *place)) {
        bail!("there is no dead letter at {missing}: `tidewire dead-letters list` shows their places");
    }
    let done_before = replayed(log)?;
    let mut out = io::stdout().lock();
    let (mut sent, mut left) = (0_u64, 0_u64);
    for (at, letter) in &found {
        if !(places.is_empty() || places.contains(at)) || !chosen.filter.takes(letter) {
            continue;
        }
        if let Some(why) = not_replayable(letter, done_before.contains_key(at) && !chosen.again) {
            writeln!(out, "{at}  left out: {why}")?;
            left += 1;
            continue;
        }
        let to = TopicPartition::new(letter.source_topic.clone(), u32::try_from(letter.source_partition)?);
        sent += 1;
        if chosen.dry_run {
            writeln!(out, "{at}  would go to {to}")?;
            continue;
        }
        let offset = log.append(&to, vec![record_of(*at, letter)])?;
        let note = ReplayNote {
            partition: at.partition,
            offset: at.offset,
            to: (to.topic.to_string(), to.partition, offset),
            at_ms: now_ms(),
        };
        notes::add(log, REPLAYS, &at.to_string(), &note)?;
        writeln!(out, "{at}  sent to {to}@{offset}")?;
    }
    let word = if chosen.dry_run { "would be sent" } else { "sent" };
    writeln!(out, "{sent} {word}, {left} left out")?;
    Ok(cli::OK)
}

fn not_replayable(letter: &DeadLetter, done_before: bool) -> Option<&'static str> {
    if letter.line.is_some() {
        return Some("a line of a file; correct the file and import it");
    }
    if letter.source_partition < 0 {
        return Some("a timer; it can not be sent");
    }
    if letter.stage.starts_with("sink.") {
        return Some(
            "a sink could not write it; its topic has it still, and every reader would see it twice. Raise the sink's `generation` and it reads again",
        );
    }
    done_before.then_some("sent again before; `--again` sends it once more")
}

/// The record as it was. Its own identity became its cause: it is a new record of the topic, made by hand.
fn record_of(at: At, letter: &DeadLetter) -> NewRecord {
    let ours = letter.headers.get(ID_HEADER).cloned();
    let cause = ours.unwrap_or_else(|| {
        let (topic, partition, offset) =
            (&letter.source_topic, letter.source_partition, letter.source_offset);
        Bytes::from(format!("{topic}/{partition}@{offset}"))
    });
    let kept = letter.headers.iter().filter(|(name, _)| ![ID_HEADER, CAUSE_HEADER].contains(&name.as_str()));
    let mut headers: Vec<(SmolStr, Bytes)> =
        kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    headers.push((CAUSE_HEADER.into(), cause));
    headers.push((REPLAYED_HEADER.into(), Bytes::from(format!("{}/{at}", topics::DEAD_LETTERS))));
    NewRecord {
        timestamp_ms: letter.source_timestamp_ms,
        key: letter.key.clone(),
        value: letter.value.clone(),
        headers,
    }
}
