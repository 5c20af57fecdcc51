//! Topics: made, looked up and compared.

use std::future::Future;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use smol_str::SmolStr;
use tidewire_engine::log::{LogError, TopicSpec};

use super::client;
use super::context::Quiet;
use super::convert::log_error;
use super::options::KafkaOptions;

/// How long the cluster may take over a request.
const PATIENCE: Duration = Duration::from_secs(20);
/// Replicas of a topic where nothing is said and the cluster is large enough.
const REPLICAS: u32 = 3;
/// How far ahead of the broker's clock a record's time may be: beyond it the broker refuses it.
const MAX_AHEAD_MS: &str = "3600000";
/// Most topics whose settings are asked for at once.
const TOPICS_AT_ONCE: usize = 200;

/// A topic as the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTopic {
    /// Its layout.
    pub spec: TopicSpec,
    /// Whether its timestamps are those of the append.
    pub append_time: bool,
}

/// Makes and looks at topics.
pub struct Admin {
    client: AdminClient<Quiet>,
    replication_factor: Option<u32>,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    /// A client of its own.
    pub fn new(options: &KafkaOptions) -> Result<Self, LogError> {
        let doing = "making an administration client";
        let client =
            client::make(&options.common(), Quiet::of(options), options, doing, AdminClient::<Quiet>::inner)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|error| LogError::Store { at: doing.to_owned(), error: error.to_string() })?;
        Ok(Self { client, replication_factor: options.replication_factor, runtime })
    }

    /// Makes a topic that is not there, and waits until it can be used. False when it was there already.
    pub fn create(&self, spec: &TopicSpec, metadata: &BaseConsumer<Quiet>) -> Result<bool, LogError> {
        let doing = || format!("making topic {}", spec.name);
        let brokers = brokers(metadata)?;
        let replicas = self.replication_factor.unwrap_or(REPLICAS.min(brokers));
        let settings = settings(spec, replicas);
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let mut topic = NewTopic::new(
            &spec.name,
            partitions,
            TopicReplication::Fixed(i32::try_from(replicas).unwrap_or(1)),
        );
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let results = self.wait(self.client.create_topics([&topic], &options));
        for result in results.map_err(|error| log_error(doing(), &error))? {
            match result {
                Ok(_) => {}
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
                Err((_, code @ RDKafkaErrorCode::InvalidReplicationFactor)) => {
                    return Err(LogError::Invalid(format!(
                        "{}: {code}: {replicas} replicas are asked for and the cluster has {brokers} brokers; set \
                         `replication_factor` in [kafka]",
                        doing()
                    )));
                }
                Err((_, code)) => {
                    return Err(LogError::Store { at: doing(), error: code.to_string() });
                }
            }
        }
        wait_for_leaders(spec, metadata)?;
        Ok(true)
    }

    /// One topic, if it is there.
    pub fn topic(&self, name: &str, metadata: &BaseConsumer<Quiet>) -> Result<Option<FoundTopic>, LogError> {
        let doing = || format!("looking up topic {name}");
        let found =
            metadata.fetch_metadata(Some(name), PATIENCE).map_err(|error| log_error(doing(), &error))?;
        let Some(topic) = found.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
        let partitions = match topic.error().map(RDKafkaErrorCode::from) {
            None => topic.partitions().len(),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                return Ok(None);
            }
            Some(RDKafkaErrorCode::LeaderNotAvailable) if topic.partitions().is_empty() => return Ok(None),
            Some(RDKafkaErrorCode::LeaderNotAvailable) => topic.partitions().len(),
            Some(code) => return Err(LogError::Store { at: doing(), error: code.to_string() }),
        };
        let found = self.described(&[(name.into(), partitions)])?;
        Ok(found.into_iter().next())
    }

    /// The settings of a topic by Kafka's names, its replicas among them; none if it is not there.
    pub fn settings(
        &self,
        name: &str,
        metadata: &BaseConsumer<Quiet>,
    ) -> Result<Vec<(String, String)>, LogError> {
        let doing = || format!("reading the settings of topic {name}");
        let found =
            metadata.fetch_metadata(Some(name), PATIENCE).map_err(|error| log_error(doing(), &error))?;
        let replicas = found
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
            .map(|partition| partition.replicas().len())
            .min();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let results = self.wait(self.client.describe_configs(&[ResourceSpecifier::Topic(name)], &options));
        let results = results.map_err(|error| log_error(doing(), &error))?;
        let mut settings: Vec<(String, String)> = results
            .into_iter()
            .flatten()
            .flat_map(|resource| resource.entries)
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect();
        settings.extend(replicas.map(|replicas| ("replication.factor".to_owned(), replicas.to_string())));
        settings.sort_unstable();
        Ok(settings)
    }

    /// All topics but those of Kafka itself, by name.
    pub fn topics(&self, metadata: &BaseConsumer<Quiet>) -> Result<Vec<FoundTopic>, LogError> {
        let doing = "listing topics";
        let found = metadata.fetch_metadata(None, PATIENCE).map_err(|error| log_error(doing, &error))?;
        let mut names: Vec<(SmolStr, usize)> = found
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none() && !topic.name().starts_with("__"))
            .map(|topic| (topic.name().into(), topic.partitions().len()))
            .collect();
        names.sort_unstable();
        let mut topics = Vec::with_capacity(names.len());
        for names in names.chunks(TOPICS_AT_ONCE) {
            topics.extend(self.described(names)?);
        }
        Ok(topics)
    }

    fn described(&self, names: &[(SmolStr, usize)]) -> Result<Vec<FoundTopic>, LogError> {
        let doing = "reading the settings of topics";
        let wanted: Vec<ResourceSpecifier<'_>> =
            names.iter().map(|(name, _)| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let results = self.wait(self.client.describe_configs(&wanted, &options));
        let results = results.map_err(|error| log_error(doing, &error))?;
        let mut found = Vec::with_capacity(names.len());
        for (result, (name, partitions)) in results.into_iter().zip(names) {
            match result {
                Ok(resource) => found.push(read_settings(name, *partitions, &resource)),
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
                Err(code) => {
                    return Err(LogError::Store { at: format!("{doing}: {name}"), error: code.to_string() });
                }
            }
        }
        Ok(found)
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}

/// How the cluster is to keep a topic. Nothing is deleted by event time: a recording of a past year would be gone at
/// once. Timestamps of compacted topics are set by the broker, because their lag counts by them.
fn settings(spec: &TopicSpec, replicas: u32) -> Vec<(&'static str, String)> {
    let bound = |bound: Option<u64>| bound.map_or("-1".to_owned(), |bound| bound.to_string());
    let mut settings = vec![
        ("cleanup.policy", if spec.compacted { "compact" } else { "delete" }.to_owned()),
        ("retention.ms", bound(spec.retention_ms)),
        ("retention.bytes", bound(spec.retention_bytes)),
    ];
    if spec.compacted {
        settings.push(("message.timestamp.type", "LogAppendTime".to_owned()));
        settings.push(("min.compaction.lag.ms", spec.compaction_lag_ms.to_string()));
    } else {
        settings.push(("message.timestamp.type", "CreateTime".to_owned()));
        settings.push(("message.timestamp.after.max.ms", MAX_AHEAD_MS.to_owned()));
    }
    if replicas > 2 {
        settings.push(("min.insync.replicas", "2".to_owned()));
    }
    settings
}

fn read_settings(name: &SmolStr, partitions: usize, resource: &ConfigResource) -> FoundTopic {
    let text = |key: &str| resource.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
    // -1 is no bound, and no number of ours.
    let bound = |key: &str| text(key).parse::<u64>().ok();
    let compacted = text("cleanup.policy").contains("compact");
    FoundTopic {
        spec: TopicSpec {
            name: name.clone(),
            partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
            compacted,
            compaction_lag_ms: if compacted { bound("min.compaction.lag.ms").unwrap_or(0) } else { 0 },
            retention_ms: bound("retention.ms"),
            retention_bytes: bound("retention.bytes"),
        },
        append_time: text("message.timestamp.type") == "LogAppendTime",
    }
}

fn brokers(metadata: &BaseConsumer<Quiet>) -> Result<u32, LogError> {
    // The brokers come with any answer; a name that is no topic keeps it short.
    let found = metadata
        .fetch_metadata(Some("tidewire.none"), PATIENCE)
        .map_err(|error| log_error("asking for the cluster's brokers", &error))?;
    Ok(u32::try_from(found.brokers().len()).unwrap_or(1).max(1))
}

/// A new topic is known to one broker before it is known to all.
fn wait_for_leaders(spec: &TopicSpec, metadata: &BaseConsumer<Quiet>) -> Result<(), LogError> {
    let begun = Instant::now();
    loop {
        if let Ok(found) = metadata.fetch_metadata(Some(&spec.name), PATIENCE)
            && let Some(topic) = found.topics().first()
            && topic.error().is_none()
            && topic.partitions().len() == spec.partitions as usize
            && topic.partitions().iter().all(|partition| partition.leader() >= 0)
        {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let at = format!("making topic {}", spec.name);
            return Err(LogError::Unavailable { at, error: "its partitions have no leaders yet".to_owned() });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
