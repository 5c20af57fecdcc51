//! How to reach a Kafka cluster, and what every client of ours is told.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;

/// Least session time-out that a broker takes by default, in milliseconds.
pub const LEAST_SESSION_TIMEOUT_MS: u64 = 6_000;

/// Properties of librdkafka that exactly-once rests on, or that have a key of their own: not to be set by name.
const OURS: [&str; 26] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "group.protocol",
    "group.instance.id",
    "client.id",
    "transactional.id",
    "transaction.timeout.ms",
    "enable.idempotence",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "isolation.level",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "security.protocol",
    "acks",
    "allow.auto.create.topics",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "ssl.key.password",
    "sasl.oauthbearer.client.secret",
    "partitioner",
];

/// Parts of the names of properties whose values are secrets: a file that may be kept in the log must not hold them.
const SECRET_MARKS: [&str; 4] = ["password", "secret", "key.pem", "assertion.private"];

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whom it is meant.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How the cluster is talked to and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; `None` follows from the rest.
    pub protocol: Option<String>,
    /// PEM file of the authorities that the broker's certificate is checked against; the system's if `None`.
    pub ca_file: Option<String>,
    /// PEM file of our certificate, for mutual TLS.
    pub certificate_file: Option<String>,
    /// PEM file of our key.
    pub key_file: Option<String>,
    /// What the key is locked with.
    pub key_password: Option<Secret>,
    /// Whether the broker's name must be that of its certificate. True unless a test says otherwise.
    pub skip_host_check: bool,
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`.
    pub mechanism: Option<String>,
    /// The user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// A file that holds the token for OAUTHBEARER; read again when the token runs out.
    pub token_file: Option<String>,
    /// Unsecured tokens made by the client, for OAUTHBEARER on test clusters: `principal=...`.
    pub unsecured_token: Option<String>,
}

impl Security {
    /// The protocol that was named, or that follows from what was set.
    pub fn protocol(&self) -> String {
        if let Some(protocol) = &self.protocol {
            return protocol.to_ascii_lowercase();
        }
        let tls = self.ca_file.is_some() || self.certificate_file.is_some();
        match (tls, self.mechanism.is_some()) {
            (false, false) => "plaintext",
            (true, false) => "ssl",
            (false, true) => "sasl_plaintext",
            (true, true) => "sasl_ssl",
        }
        .to_owned()
    }
}

/// How to reach a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaOptions {
    /// Brokers to ask first, `host:port`, parted by commas.
    pub bootstrap: String,
    /// The name that the broker's logs and quotas know us by.
    pub client_id: String,
    /// TLS and who we are.
    pub security: Security,
    /// After how long without a sign of life a member's tasks go to others, in milliseconds.
    pub session_timeout_ms: u64,
    /// After how long the broker aborts a transaction that was left open, in milliseconds.
    pub transaction_timeout_ms: u64,
    /// Replicas of topics that are made; `None` takes three, or as many as there are brokers.
    pub replication_factor: Option<u32>,
    /// Compression of what is produced: `none`, `lz4`, `zstd`, `snappy` or `gzip`.
    pub compression: String,
    /// Further properties of librdkafka, as its documentation names them.
    pub properties: BTreeMap<String, String>,
}

impl KafkaOptions {
    /// Everything as it is by default.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            client_id: "tidewire".to_owned(),
            security: Security::default(),
            session_timeout_ms: 10_000,
            transaction_timeout_ms: 10_000,
            replication_factor: None,
            compression: "lz4".to_owned(),
            properties: BTreeMap::new(),
        }
    }

    /// Whether a property of librdkafka may be set by name; if not, why.
    pub fn check_property(name: &str) -> Result<(), String> {
        if OURS.contains(&name) {
            return Err(format!("`{name}` is set by Tidewire itself or has a key of its own"));
        }
        if SECRET_MARKS.iter().any(|mark| name.contains(mark)) {
            let ways = "use `password_file`, `key_file` and their like";
            return Err(format!("`{name}` would write a secret into the file; {ways}"));
        }
        Ok(())
    }

    /// What all clients have in common.
    pub(super) fn common(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("client.id", &self.client_id);
        config.set("allow.auto.create.topics", "false");
        // It begins again from `bootstrap.servers` when all brokers are down, and not because time went by: see foreign.rs.
        config.set("metadata.recovery.rebootstrap.trigger.ms", i32::MAX.to_string());
        config.set("socket.nagle.disable", "true");
        config.set("reconnect.backoff.ms", "50");
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("retry.backoff.ms", "10");
        config.set("retry.backoff.max.ms", "500");
        self.secure(&mut config);
        config
    }

    fn secure(&self, config: &mut ClientConfig) {
        let security = &self.security;
        config.set("security.protocol", security.protocol());
        let files = [
            ("ssl.ca.location", &security.ca_file),
            ("ssl.certificate.location", &security.certificate_file),
            ("ssl.key.location", &security.key_file),
            ("sasl.mechanisms", &security.mechanism),
            ("sasl.username", &security.username),
            ("sasl.oauthbearer.config", &security.unsecured_token),
        ];
        for (name, value) in files {
            if let Some(value) = value {
                config.set(name, value);
            }
        }
        let secrets = [("ssl.key.password", &security.key_password), ("sasl.password", &security.password)];
        for (name, value) in secrets {
            if let Some(value) = value {
                config.set(name, value.reveal());
            }
        }
        if security.skip_host_check {
            config.set("ssl.endpoint.identification.algorithm", "none");
        }
    }

    /// A client that reads partitions it was told, from offsets it was told. `isolation` is `read_committed` or
    /// `read_uncommitted`.
    pub(super) fn reader(&self, group: &str, isolation: &str) -> ClientConfig {
        let mut config = self.common();
        // The library wants a name though nothing joins under it.
        config.set("group.id", group);
        config.set("isolation.level", isolation);
        config.set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "error");
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("fetch.wait.max.ms", "50");
        config.set("fetch.error.backoff.ms", "50");
        config.set("fetch.queue.backoff.ms", "5");
        // By partition, as each has a queue of its own.
        config.set("queued.max.messages.kbytes", "2048");
        config
    }

    /// The client that places tasks: it joins the group and reads nothing.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.common();
        config.set("group.id", group);
        config.set("partition.assignment.strategy", "cooperative-sticky");
        config.set("session.timeout.ms", self.session_timeout_ms.to_string());
        config.set("heartbeat.interval.ms", (self.session_timeout_ms / 5).clamp(500, 3_000).to_string());
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("isolation.level", "read_committed");
        config.set("auto.offset.reset", "latest");
        config
    }

    /// A producer without transactions, for what is appended outside any group.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.common();
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        config.set("linger.ms", "2");
        config.set("compression.type", &self.compression);
        config.set("message.timeout.ms", "30000");
        config.set("queue.buffering.max.messages", "1000000");
        config.set("message.max.bytes", MESSAGE_MAX_BYTES);
        config
    }

    /// A producer whose name fences every earlier one of it.
    pub(super) fn transactional(&self, writer: &str) -> ClientConfig {
        let mut config = self.producer();
        config.set("transactional.id", writer);
        config.set("transaction.timeout.ms", self.transaction_timeout_ms.to_string());
        config.set("message.timeout.ms", self.transaction_timeout_ms.to_string());
        config.set("linger.ms", "0");
        // Between two transactions the coordinator may ask for patience: a long one would be the latency of every epoch.
        config.set("retry.backoff.ms", "1");
        config.set("retry.backoff.max.ms", "200");
        config
    }
}

/// A record of the largest size that is allowed, with what the protocol puts around it.
const MESSAGE_MAX_BYTES: &str = "2097152";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_follows_from_what_is_set() {
        let mut security = Security::default();
        assert_eq!(security.protocol(), "plaintext");
        security.ca_file = Some("ca.pem".to_owned());
        assert_eq!(security.protocol(), "ssl");
        security.mechanism = Some("PLAIN".to_owned());
        assert_eq!(security.protocol(), "sasl_ssl");
        security.ca_file = None;
        assert_eq!(security.protocol(), "sasl_plaintext");
        security.protocol = Some("SASL_SSL".to_owned());
        assert_eq!(security.protocol(), "sasl_ssl");
    }

    #[test]
    fn secrets_do_not_show() {
        let mut options = KafkaOptions::new("localhost:9092");
        options.security.password = Some(Secret::new("swordfish"));
        assert!(!format!("{options:?}").contains("swordfish"));
    }

    #[test]
    fn what_exactly_once_rests_on_can_not_be_set() {
        assert!(KafkaOptions::check_property("isolation.level").is_err());
        assert!(KafkaOptions::check_property("linger.ms").is_ok());
        for secret in ["ssl.keystore.password", "ssl.key.pem", "sasl.oauthbearer.assertion.private.key.pem"] {
            assert!(
                KafkaOptions::check_property(secret).is_err_and(|why| why.contains("would write a secret"))
            );
        }
    }
}
