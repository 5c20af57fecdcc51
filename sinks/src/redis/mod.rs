//! Features and positions in Redis hashes, for whoever wants the last state by key.
//!
//! `<prefix>:features:<instrument>` and `<prefix>:positions:<account>/<instrument>` are hashes with one field a value;
//! `<prefix>:guard:<the rest>` holds the place of the record that each was written from. Comparing and writing is one
//! script, so an older record never wins, whoever brings it. `docs/sinks.md` describes the keys for readers.

mod answers;
mod entry;
mod url;

use std::time::Duration;

use ::redis::{Client, Cmd, Connection, Pipeline, RedisError, RedisResult, Value, cmd};
use tidewire_schemas::Kind;

use crate::{Refused, Sink, SinkError, SinkRecord, Written};
use answers::{Verdict, advice, verdict};
use entry::entry;

pub use url::RedisUrl;

/// Records that a Redis sink takes.
pub const KINDS: [Kind; 2] = [Kind::FeatureVector, Kind::Position];
/// Most commands sent before their answers are read.
const MAX_PIPELINE_COMMANDS: usize = 512;
/// Most bytes of fields sent before the answers are read, but for a single record that has more.
const MAX_PIPELINE_BYTES: usize = 1 << 20;
/// How much longer a guard lives than what it guards: nobody sleeps longer and then brings old records.
const GUARD_OUTLIVES: Duration = Duration::from_secs(7 * 86_400);
const SCRIPT: &str = include_str!("guarded.lua");

/// How a Redis is written to.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Where it is.
    pub url: RedisUrl,
    /// Begins every key.
    pub key_prefix: String,
    /// How long a hash lives after it was last written; for ever if absent.
    pub ttl: Option<Duration>,
    /// Records of a higher generation win over all of a lower one.
    pub generation: u32,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for an answer.
    pub answer_timeout: Duration,
}

impl RedisOptions {
    /// The standard way to write to the Redis at `url`.
    pub fn new(url: RedisUrl) -> Self {
        Self {
            url,
            key_prefix: "tidewire".to_owned(),
            ttl: None,
            generation: 1,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
        }
    }
}

/// A Redis that takes features and positions.
pub struct RedisSink {
    options: RedisOptions,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    /// The script's digest, by which it is called.
    script: String,
}

impl RedisSink {
    /// A sink that is not open yet.
    pub fn new(options: RedisOptions) -> Self {
        Self { options, open: None }
    }

    fn connect(&self) -> RedisResult<Open> {
        let client = Client::open(self.options.url.secret())?;
        let mut connection = client.get_connection_with_timeout(self.options.connect_timeout)?;
        connection.set_read_timeout(Some(self.options.answer_timeout))?;
        connection.set_write_timeout(Some(self.options.answer_timeout))?;
        let script = load(&mut connection)?;
        Ok(Open { connection, script })
    }

    /// The connection; a new one where the last one failed.
    fn opened(&mut self) -> Result<&mut Open, SinkError> {
        if self.open.is_none() {
            let open = self.connect();
            self.open = Some(open.map_err(|error| self.failed("connecting", &error))?);
        }
        self.open.as_mut().ok_or_else(|| SinkError::Retriable {
            doing: "connecting".to_owned(),
            error: "there is no connection".to_owned(),
        })
    }

    /// An error as the contract has it. The connection is not used again: what it still holds belongs to nobody.
    fn failed(&mut self, doing: &str, error: &RedisError) -> SinkError {
        self.open = None;
        let doing = format!("{doing} (Redis at {})", self.options.url);
        let words = self.options.url.redact(&error.to_string());
        match verdict(error) {
            Verdict::Retry | Verdict::NoScript => SinkError::Retriable { doing, error: words },
            Verdict::Refuse | Verdict::Stop => {
                SinkError::Fatal { doing, error: format!("{words}{}", advice(error)) }
            }
        }
    }

    /// The command that writes a record, or why it can not be written.
    fn command(&self, script: &str, record: &SinkRecord) -> Result<(Cmd, usize), (&'static str, String)> {
        let Some(key) = record.key.as_deref().filter(|key| !key.is_empty()) else {
            return Err(("no_key", "the record has no key, and a store keeps records by key".to_owned()));
        };
        let entry = entry(record)?;
        let prefix = &self.options.key_prefix;
        let value_key = [format!("{prefix}:{}:", entry.family).as_bytes(), key].concat();
        let guard_key = [format!("{prefix}:guard:{}:", entry.family).as_bytes(), key].concat();
        let (ttl_ms, guard_ttl_ms) = match self.options.ttl {
            Some(ttl) => (ttl.as_millis().max(1), (ttl + GUARD_OUTLIVES).as_millis()),
            None => (0, 0),
        };
        let mut command = cmd("EVALSHA");
        command.arg(script).arg(2).arg(&value_key).arg(&guard_key);
        command.arg(self.options.generation).arg(record.topic.as_str()).arg(record.partition);
        // Numbers of scripts are floats: offsets are compared as texts of one length.
        command.arg(format!("{:020}", record.offset)).arg(ttl_ms.to_string()).arg(guard_ttl_ms.to_string());
        let bytes = value_key.len() * 2 + entry.fields.iter().map(String::len).sum::<usize>();
        command.arg(&entry.fields);
        Ok((command, bytes))
    }

    /// Sends commands and takes their answers; `records` are the places in the batch that they belong to.
    fn send(
        &mut self,
        pipeline: &Pipeline,
        records: &[usize],
        batch: &[SinkRecord],
        written: &mut Written,
    ) -> Result<Sent, SinkError> {
        let connection = &mut self.opened()?.connection;
        let answers: RedisResult<Vec<RedisResult<Value>>> = pipeline.query(connection);
        let doing = || {
            let places = records.first().zip(records.last()).map(|(a, b)| (&batch[*a], &batch[*b]));
            places.map_or_else(String::new, |(a, b)| format!("writing {} to {}", a.place(), b.place()))
        };
        let answers = answers.map_err(|error| self.failed(&doing(), &error))?;
        if answers.len() != records.len() {
            let error =
                RedisError::from((::redis::ErrorKind::Parse, "another number of answers than of commands"));
            return Err(self.failed(&doing(), &error));
        }
        let mut sum = Written::default();
        for (answer, &index) in answers.into_iter().zip(records) {
            match answer {
                Ok(Value::Int(1)) => sum.applied += 1,
                Ok(Value::Int(0)) => sum.stale += 1,
                Ok(guard) => return Err(self.not_comparable(&batch[index], &guard)),
                Err(error) => match verdict(&error) {
                    Verdict::NoScript => return Ok(Sent::NoScript),
                    Verdict::Refuse => sum.refused.push(Refused {
                        index,
                        reason: "store_refused".into(),
                        error: self.options.url.redact(&error.to_string()),
                    }),
                    Verdict::Retry | Verdict::Stop => {
                        return Err(self.failed(&format!("writing {}", batch[index].place()), &error));
                    }
                },
            }
        }
        written.applied += sum.applied;
        written.stale += sum.stale;
        written.refused.extend(sum.refused);
        Ok(Sent::Done)
    }

    fn not_comparable(&self, record: &SinkRecord, guard: &Value) -> SinkError {
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        let doing = format!("writing {} (Redis at {})", record.place(), self.options.url);
        let guard: Vec<String> = ::redis::from_redis_value(guard.clone()).unwrap_or_default();
        let [generation, topic, partition, offset] = guard.as_slice() else {
            return SinkError::Fatal {
                doing,
                error: "the store gave an answer that is none of ours".to_owned(),
            };
        };
        let before: u32 = generation.parse().unwrap_or_default();
        let now = self.options.generation;
        let error = if before > now {
            format!(
                "key {key} was written by generation {before} of a sink, and this is generation {now}: set \
                 `generation = {before}`, or stop this process if another one took its place"
            )
        } else {
            format!(
                "key {key} was written from {topic}-{partition}, offset {}: places in different partitions can not \
                 be compared, so what is newer is not known. If the topic's partitions were changed, or the topic \
                 was made anew, set `generation = {}` for this sink: it reads its topics from the start and writes \
                 every key anew",
                offset.trim_start_matches('0'),
                now.saturating_add(1)
            )
        };
        SinkError::Fatal { doing, error }
    }
}

enum Sent {
    Done,
    /// The store has lost the script.
    NoScript,
}

fn load(connection: &mut Connection) -> RedisResult<String> {
    cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query(connection)
}

impl Sink for RedisSink {
    fn open(&mut self) -> Result<(), SinkError> {
        self.opened().map(|_| ())
    }

    fn write(&mut self, batch: &[SinkRecord]) -> Result<Written, SinkError> {
        let mut written = Written::default();
        let mut next = 0;
        let mut reloaded = false;
        while next < batch.len() {
            let script = self.opened()?.script.clone();
            let (mut pipeline, mut records, mut bytes) = (Pipeline::new(), Vec::new(), 0);
            let (mut refused, mut end) = (Vec::new(), next);
            for (index, record) in batch.iter().enumerate().skip(next) {
                if records.len() >= MAX_PIPELINE_COMMANDS || bytes >= MAX_PIPELINE_BYTES {
                    break;
                }
                end = index + 1;
                match self.command(&script, record) {
                    Ok((command, size)) => {
                        pipeline.add_command(command);
                        records.push(index);
                        bytes += size;
                    }
                    Err((reason, error)) => refused.push(Refused { index, reason: reason.into(), error }),
                }
            }
            pipeline.ignore_errors();
            let sent = match records.is_empty() {
                true => Sent::Done,
                false => self.send(&pipeline, &records, batch, &mut written)?,
            };
            match sent {
                Sent::Done => {
                    written.refused.extend(refused);
                    next = end;
                    reloaded = false;
                }
                Sent::NoScript if reloaded => {
                    return Err(SinkError::Retriable {
                        doing: format!("writing (Redis at {})", self.options.url),
                        error: "the store loses its scripts as soon as they are loaded".to_owned(),
                    });
                }
                Sent::NoScript => {
                    let loaded = load(&mut self.opened()?.connection);
                    let script = loaded.map_err(|error| self.failed("loading the script", &error))?;
                    self.opened()?.script = script;
                    reloaded = true;
                }
            }
        }
        written.refused.sort_by_key(|refused| refused.index);
        Ok(written)
    }

    /// A Redis answers when it has written: how safe that is, its own configuration says.
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn health(&mut self) -> Result<(), SinkError> {
        let pong: RedisResult<String> = cmd("PING").query(&mut self.opened()?.connection);
        pong.map(|_| ()).map_err(|error| self.failed("asking for an answer", &error))
    }

    fn close(&mut self) -> Result<(), SinkError> {
        self.open = None;
        Ok(())
    }
}
