//! Clients of Kafka that are not ours, in Python on librdkafka: what they read is what others will.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::root;

/// A record as the client sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The place in the partition.
    pub offset: u64,
    /// The record's time, or when the broker took it.
    pub timestamp_ms: i64,
    /// Whether the time is the broker's.
    pub is_append_time: bool,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; none for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in their order.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Seen {
    /// The first header of this name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(header, _)| header == name)?;
        Some(String::from_utf8_lossy(&found.1).into_owned())
    }
}

/// What a reader is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only what was committed.
    Committed,
    /// As above, and no transaction may be open: it would hide what lies behind it.
    Settled,
    /// What was aborted too.
    Uncommitted,
}

/// Reads topics from their beginnings to their ends. Records of a partition come in its order.
pub fn read(bootstrap: &str, topics: &[&str], isolation: Isolation) -> Vec<Seen> {
    try_read(bootstrap, topics, isolation).unwrap_or_else(|error| panic!("{error}"))
}

/// As [`read`], with the client's words where it fails.
pub fn try_read(bootstrap: &str, topics: &[&str], isolation: Isolation) -> Result<Vec<Seen>, String> {
    let mut command = client("read_topics.py", bootstrap);
    match isolation {
        Isolation::Committed => {}
        Isolation::Settled => _ = command.arg("--settled"),
        Isolation::Uncommitted => _ = command.arg("--uncommitted"),
    }
    let mut child = command.args(topics).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = listen(&mut child);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = lines.map(|line| seen(&line.unwrap())).collect();
    let told = told.join().unwrap();
    if child.wait().unwrap().success() { Ok(seen) } else { Err(told) }
}

/// A record to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// The topic, which is there already.
    pub topic: String,
    /// The partition; without one the key decides, as with Java's clients.
    pub partition: Option<u32>,
    /// The record's time; without one, now.
    pub timestamp_ms: Option<i64>,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers in their order.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What a writer of transactions does next.
#[derive(Debug, Clone)]
pub enum Step {
    /// Writes a record, and begins a transaction if none is open.
    Write(NewRecord),
    /// Commits what was written.
    Commit,
    /// Aborts what was written.
    Abort,
}

/// Makes topics with so many partitions, whose records are kept whatever their times.
pub fn create_topics(bootstrap: &str, topics: &[(&str, u32)]) {
    let mut command = client("write_topics.py", bootstrap);
    for (topic, partitions) in topics {
        command.arg("--create").arg(format!("{topic}:{partitions}"));
    }
    feed(command, std::iter::empty());
}

/// Writes records without transactions. They are there when this returns.
pub fn write(bootstrap: &str, records: impl IntoIterator<Item = NewRecord>) {
    feed(client("write_topics.py", bootstrap), records.into_iter().map(Step::Write));
}

/// Writes in transactions. One that is still open at the end stays open, as if the writer had died.
pub fn transact(bootstrap: &str, transactional_id: &str, steps: impl IntoIterator<Item = Step>) {
    let mut command = client("write_topics.py", bootstrap);
    command.args(["--transactions", transactional_id]);
    feed(command, steps.into_iter());
}

fn client(script: &str, bootstrap: &str) -> Command {
    let folder = root().join("tests/clients");
    let mut command = Command::new(folder.join("python"));
    command.arg(folder.join(script)).args(["--bootstrap", bootstrap]).stdin(Stdio::null());
    command
}

fn feed(mut command: Command, steps: impl Iterator<Item = Step>) {
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let told = listen(&mut child);
    let mut lines = BufWriter::new(child.stdin.take().unwrap());
    for step in steps {
        let line = match step {
            Step::Write(record) => shown(&record),
            Step::Commit => json!({"end": "commit"}),
            Step::Abort => json!({"end": "abort"}),
        };
        // A writer that failed takes no more; its own words say why.
        if writeln!(lines, "{line}").is_err() {
            break;
        }
    }
    drop(lines);
    let told = told.join().unwrap();
    assert!(child.wait().unwrap().success(), "{told}");
}

/// Reads what a client tells of its errors. One that tells much would else wait for somebody who does, and be waited for.
fn listen(child: &mut Child) -> JoinHandle<String> {
    let mut errors = child.stderr.take().unwrap();
    std::thread::spawn(move || {
        let mut told = Vec::new();
        errors.read_to_end(&mut told).unwrap();
        String::from_utf8_lossy(&told).into_owned()
    })
}

fn shown(record: &NewRecord) -> Value {
    let text = |data: &Option<Vec<u8>>| data.as_ref().map(|data| BASE64_STANDARD.encode(data));
    let headers = record.headers.iter().map(|(name, value)| json!([name, BASE64_STANDARD.encode(value)]));
    json!({
        "topic": record.topic,
        "partition": record.partition,
        "timestamp": record.timestamp_ms,
        "key": text(&record.key),
        "value": text(&record.value),
        "headers": headers.collect::<Vec<_>>(),
    })
}

/// A line of `read_topics.py`.
#[derive(Deserialize)]
struct Line {
    topic: String,
    partition: u32,
    offset: u64,
    timestamp: i64,
    timestamp_type: String,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

fn seen(line: &str) -> Seen {
    let line: Line = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let data = |text: String| BASE64_STANDARD.decode(text).unwrap();
    let headers = line.headers.into_iter().map(|(name, value)| (name, value.map(data).unwrap_or_default()));
    Seen {
        topic: line.topic,
        partition: line.partition,
        offset: line.offset,
        timestamp_ms: line.timestamp,
        is_append_time: line.timestamp_type == "append",
        key: line.key.map(data),
        value: line.value.map(data),
        headers: headers.collect(),
    }
}
