//! `[[sink]]`: a store that takes what topics hold.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use smol_str::SmolStr;
use tidewire_runtime::sink::{MAX_BATCH_RECORDS, OnTruncated, SinkSpec};
use tidewire_schemas::topics;
use tidewire_sinks::Sink;
use tidewire_sinks::redis::{RedisOptions, RedisSink, RedisUrl};

use super::super::fields::Fields;
use super::super::problem::Problems;
use super::super::tree::Table;
use super::SecretSource;

/// Most sinks of a file.
const MAX_SINKS: usize = 100;
const SECTION: &str = "[[sink]]";
/// Topics that a Redis sink takes.
const REDIS_TOPICS: [&str; 2] = [topics::FEATURES, topics::POSITIONS];

/// What one table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTable {
    /// The sink's name.
    pub name: SmolStr,
    /// The topics it reads.
    pub topics: Vec<SmolStr>,
    url: UrlSource,
    key_prefix: SmolStr,
    ttl: Option<Duration>,
    /// A higher one reads everything anew.
    pub generation: u32,
    batch_max_records: usize,
    retry_most: Duration,
    on_truncated: OnTruncated,
}

/// Where the store's address is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum UrlSource {
    /// In the file; it holds no password.
    Plain(RedisUrl),
    /// Elsewhere, for it may hold one.
    Secret(SecretSource),
}

impl SinkTable {
    /// Reads all tables.
    pub(super) fn read_all(fields: &mut Fields<'_>, problems: &mut Problems) -> Vec<Self> {
        let tables = fields.tables("sink", problems);
        if let Some(table) = tables.get(MAX_SINKS) {
            problems.add(&table.place, format!("more than {MAX_SINKS} sinks"));
        }
        let mut sinks: Vec<Self> = Vec::new();
        for table in tables.into_iter().take(MAX_SINKS) {
            let Some(sink) = Self::read(table, problems) else { continue };
            if sinks.iter().any(|other| other.name == sink.name) {
                problems.add(&table.place, format!("there are two sinks called `{}`", sink.name));
            }
            sinks.push(sink);
        }
        sinks
    }

    fn read(table: &Table, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::new(table, SECTION);
        let before = problems.len();
        let name = fields.required_text("name", problems);
        if let Some(kind) = fields.required_text("type", problems)
            && kind.name != "redis"
        {
            problems.add_unknown(&kind.place, "type of sink", &kind.name, ["redis"]);
        }
        if let Some(name) = &name {
            let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if name.name.len() > 60 || !name.name.chars().all(legal) {
                let text = format!("`name` is `{}`; use up to 60 letters, digits, `_` and `-`", name.name);
                problems.add(&name.place, text);
            }
        }
        let url = read_url(&mut fields, table, problems);
        let topics = read_topics(&mut fields, problems);
        let prefix = fields.text("key_prefix", problems);
        let ttl_s = fields.integer("ttl_s", 1..=10 * 366 * 86_400, problems);
        let generation = fields.integer("generation", 1..=1_000_000_000, problems);
        let most = i64::try_from(MAX_BATCH_RECORDS).unwrap_or(i64::MAX);
        let batch = fields.integer("batch_max_records", 1..=most, problems);
        let retry_ms = fields.integer("retry_max_ms", 100..=600_000, problems);
        let on_truncated = fields.text("on_truncated", problems).and_then(|text| match text.name.as_str() {
            "stop" => Some(OnTruncated::Stop),
            "skip" => Some(OnTruncated::Skip),
            other => {
                let what = "value of `on_truncated`:";
                problems.add_unknown(&text.place, what, other, ["stop", "skip"]);
                None
            }
        });
        fields.finish(problems);
        if problems.len() > before {
            return None;
        }
        let seconds = |s: i64| u64::try_from(s).ok().map(Duration::from_secs);
        Some(Self {
            name: name?.name,
            topics,
            url: url?,
            key_prefix: prefix.map_or_else(|| "tidewire".into(), |prefix| prefix.name),
            ttl: ttl_s.and_then(seconds),
            generation: generation.and_then(|number| u32::try_from(number).ok()).unwrap_or(1),
            batch_max_records: batch.and_then(|number| usize::try_from(number).ok()).unwrap_or(1_000),
            retry_most: retry_ms
                .and_then(|ms| u64::try_from(ms).ok())
                .map_or(Duration::from_secs(10), Duration::from_millis),
            on_truncated: on_truncated.unwrap_or_default(),
        })
    }

    /// The sink as it runs, its secrets read; and the store's address as it may be shown.
    pub fn spec(&self, pipeline: &str) -> anyhow::Result<(SinkSpec, RedisUrl)> {
        let url = match &self.url {
            UrlSource::Plain(url) => url.clone(),
            UrlSource::Secret(source) => RedisUrl::parse(source.get()?.reveal())
                .map_err(|why| anyhow!("sink {}: the address in {source} {why}", self.name))?,
        };
        let mut options = RedisOptions::new(url.clone());
        options.key_prefix = self.key_prefix.to_string();
        options.ttl = self.ttl;
        options.generation = self.generation;
        let make = move || Box::new(RedisSink::new(options.clone())) as Box<dyn Sink>;
        let topics: Vec<&str> = self.topics.iter().map(SmolStr::as_str).collect();
        let mut spec = SinkSpec::new(pipeline, &self.name, &topics, Arc::new(make));
        spec.generation = self.generation;
        spec.batch_max_records = self.batch_max_records;
        spec.retry_most = self.retry_most;
        spec.on_truncated = self.on_truncated;
        Ok((spec, url))
    }
}

fn read_url(fields: &mut Fields<'_>, table: &Table, problems: &mut Problems) -> Option<UrlSource> {
    let plain = fields.text("url", problems);
    let secret = SecretSource::read(fields, "url_env", "url_file", problems);
    match (plain, secret) {
        (Some(plain), Some(_)) => {
            problems.add(&plain.place, "`url` and `url_env` or `url_file` are both given; one will do");
            None
        }
        (None, Some(secret)) => Some(UrlSource::Secret(secret)),
        (Some(plain), None) => match RedisUrl::parse(&plain.name) {
            Ok(url) if url.has_password() => {
                // The log keeps pipeline files, so that `status` and `verify` need none.
                problems.add_with_help(
                    &plain.place,
                    "`url` holds a password, and pipeline files are kept in the log",
                    "put the address into an environment variable or a file, and name that with `url_env` or `url_file`",
                );
                None
            }
            Ok(url) => Some(UrlSource::Plain(url)),
            Err(why) => {
                problems.add(&plain.place, format!("`url` {why}"));
                None
            }
        },
        (None, None) => {
            problems.add(&table.place, format!("{SECTION} needs `url`, `url_env` or `url_file`"));
            None
        }
    }
}

fn read_topics(fields: &mut Fields<'_>, problems: &mut Problems) -> Vec<SmolStr> {
    let Some(named) = fields.texts("topics", problems) else {
        return REDIS_TOPICS.iter().map(|topic| SmolStr::new_static(topic)).collect();
    };
    let mut topics: Vec<SmolStr> = Vec::new();
    for topic in named {
        if !REDIS_TOPICS.contains(&topic.name.as_str()) {
            problems.add_unknown(&topic.place, "topic for a Redis sink:", &topic.name, REDIS_TOPICS);
        } else if topics.contains(&topic.name) {
            problems.add(&topic.place, format!("topic {} is named twice", topic.name));
        } else {
            topics.push(topic.name);
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use super::super::load_deployment;
    use super::*;

    fn read(text: &str) -> Vec<SinkTable> {
        load_deployment("f.toml", &format!("[[sink]]\n{text}"), Vec::new()).unwrap().sinks
    }

    fn problems(text: &str) -> String {
        load_deployment("f.toml", &format!("[[sink]]\n{text}"), Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_short_table_has_safe_defaults() {
        let sinks = read("name = 'cache'\ntype = 'redis'\nurl = 'redis://localhost:6379/2'");
        let (spec, url) = sinks[0].spec("p").unwrap();
        assert_eq!(url.to_string(), "redis://localhost:6379/2");
        assert_eq!(spec.topics, ["features.values.v1", "positions.v1"]);
        assert_eq!(spec.group("positions.v1"), "p.sink.cache.positions.v1");
        assert_eq!((spec.batch_max_records, spec.on_truncated), (1_000, OnTruncated::Stop));
    }

    #[test]
    fn a_whole_table_is_read() {
        let sinks = read(
            "name = 'a'\ntype = 'redis'\nurl_env = 'X'\ntopics = ['positions.v1']\nkey_prefix = 'tw'\nttl_s = 60\n\
             generation = 3\nbatch_max_records = 7\nretry_max_ms = 500\non_truncated = 'skip'",
        );
        let sink = &sinks[0];
        assert_eq!((sink.ttl, sink.generation), (Some(Duration::from_secs(60)), 3));
        assert_eq!((sink.batch_max_records, sink.retry_most), (7, Duration::from_millis(500)));
        assert_eq!((sink.key_prefix.as_str(), sink.on_truncated), ("tw", OnTruncated::Skip));
        assert_eq!(sink.topics, ["positions.v1"]);
    }

    #[test]
    fn what_is_wrong_is_said_and_no_password_with_it() {
        let whole = |rest: &str| problems(&format!("name = 'a'\ntype = 'redis'\n{rest}"));
        assert!(whole("").contains("needs `url`, `url_env` or `url_file`"));
        assert!(whole("url = 'localhost:6379'").contains("no address of a Redis"));
        assert!(whole("url = 'redis://h'\nurl_env = 'X'").contains("both given"));
        assert!(
            whole("url = 'redis://h'\ntopics = ['position.v1']")
                .contains("the nearest name is `positions.v1`")
        );
        assert!(
            whole("url = 'redis://h'\ntopics = ['positions.v1', 'positions.v1']").contains("named twice")
        );
        assert!(whole("url = 'redis://h'\nttl = 5").contains("unknown key"));
        assert!(
            problems("name = 'a'\ntype = 'reddis'\nurl = 'redis://h'")
                .contains("the nearest name is `redis`")
        );
        assert!(problems("name = 'a b'\ntype = 'redis'\nurl = 'redis://h'").contains("use up to 60 letters"));
        let two = "name = 'a'\ntype = 'redis'\nurl = 'redis://h'\n[[sink]]\nname = 'a'\ntype = 'redis'\nurl = 'redis://h'";
        assert!(problems(two).contains("two sinks called `a`"));
    }

    #[test]
    fn a_password_in_the_file_is_refused() {
        let said = problems(
            "name = 'a'\ntype = 'redis'\nurl_env = 'X'\n[[sink]]\nname = 'b'\ntype = 'redis'\nurl = 'redis://:pw@h'",
        );
        assert!(said.contains("kept in the log") && said.contains("`url_env` or `url_file`"), "{said}");
    }
}
