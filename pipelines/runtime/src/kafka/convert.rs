//! Records as Kafka has them, and errors in our words.

use bytes::Bytes;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;
use smol_str::SmolStr;
use tidewire_engine::log::{LogError, NewRecord, StoredRecord, TopicPartition};

use super::foreign::RawRecord;

/// Header with the record's own time, where the topic's timestamps are those of the append.
///
/// Compaction counts its lag by timestamps. On compacted topics these are therefore set by the broker: records of a
/// past year would else be compacted at once, and could not be read again.
pub const TIME_HEADER: &str = "time-ms";

/// A record of ours from one of Kafka's.
pub fn stored(raw: RawRecord) -> StoredRecord {
    let RawRecord { offset, mut timestamp_ms, is_append_time, key, value, mut headers } = raw;
    if is_append_time
        && let Some(place) = headers.iter().position(|(name, _)| name == TIME_HEADER)
        && let Some(own) = std::str::from_utf8(&headers[place].1).ok().and_then(|text| text.parse().ok())
    {
        timestamp_ms = own;
        headers.remove(place);
    }
    StoredRecord { offset, record: NewRecord { timestamp_ms, key, value, headers } }
}

/// One of Kafka's records from one of ours. `append_time` says that the topic's timestamps are the broker's.
pub fn to_send<'a, D: IntoOpaque>(
    at: &'a TopicPartition,
    record: &'a NewRecord,
    append_time: bool,
    opaque: D,
) -> BaseRecord<'a, [u8], [u8], D> {
    let mut sent = BaseRecord::with_opaque_to(at.topic.as_str(), opaque)
        .partition(i32::try_from(at.partition).unwrap_or(i32::MAX))
        .timestamp(record.timestamp_ms);
    if let Some(key) = &record.key {
        sent = sent.key(&**key);
    }
    if let Some(value) = &record.value {
        sent = sent.payload(&**value);
    }
    if !record.headers.is_empty() || append_time {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 1);
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: Some(&**value) });
        }
        if append_time {
            let own = Bytes::from(record.timestamp_ms.to_string());
            headers = headers.insert(Header { key: TIME_HEADER, value: Some(&*own) });
        }
        sent = sent.headers(headers);
    }
    sent
}

/// An error of the library. What may pass by itself is [`LogError::Unavailable`].
pub fn log_error(doing: impl Into<String>, error: &KafkaError) -> LogError {
    use rdkafka::types::RDKafkaErrorCode as Code;
    let (at, words) = (doing.into(), words(error));
    // Options that the library does not take will not be taken later either.
    if matches!(error, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)) {
        return LogError::Store { at, error: words };
    }
    match error.rdkafka_error_code() {
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::UnsupportedSASLMechanism
            | Code::InvalidConfig
            | Code::PolicyViolation
            | Code::InvalidReplicationFactor
            | Code::UnsupportedFeature,
        ) => LogError::Store { at, error: words },
        _ => LogError::Unavailable { at, error: words },
    }
}

/// The library's words, without the name of its Rust type.
pub fn words(error: &KafkaError) -> String {
    match (error, error.rdkafka_error_code()) {
        (KafkaError::Transaction(error), _) => error.string(),
        (KafkaError::ClientConfig(_, words, name, _), _) => format!("{name}: {words}"),
        (_, Some(code)) => code.to_string(),
        (other, None) => other.to_string(),
    }
}

/// A partition for the library.
pub fn number(at: &TopicPartition) -> i32 {
    i32::try_from(at.partition).unwrap_or(i32::MAX)
}

/// A topic and partition from the library's.
pub fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(SmolStr::new(topic), u32::try_from(partition).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(is_append_time: bool) -> RawRecord {
        let headers = vec![
            (SmolStr::new("a"), Bytes::from_static(b"1")),
            (SmolStr::new(TIME_HEADER), Bytes::from_static(b"1700000000123")),
        ];
        RawRecord { offset: 3, timestamp_ms: 9, is_append_time, key: None, value: None, headers }
    }

    #[test]
    fn a_records_own_time_is_taken_from_its_header() {
        let record = stored(raw(true)).record;
        assert_eq!((record.timestamp_ms, record.headers.len()), (1_700_000_000_123, 1));
    }

    #[test]
    fn a_topic_with_times_of_its_own_keeps_the_header() {
        let record = stored(raw(false)).record;
        assert_eq!((record.timestamp_ms, record.headers.len()), (9, 2));
    }
}
