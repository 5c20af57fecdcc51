//! What lies in a Redis: which key a record has, and which fields.

use tidewire_schemas::{FeatureVector, Position, Record, topics};

use crate::SinkRecord;

/// A record as fields of a hash.
pub(super) struct Entry {
    /// The middle part of its keys.
    pub family: &'static str,
    /// Names and values, in turn; none delete the hash.
    pub fields: Vec<String>,
}

/// Families of hashes: the topics they are made from by default, and the middle part of their keys.
pub(super) const FEATURES: &str = "features";
pub(super) const POSITIONS: &str = "positions";

/// The fields of a record, or why there are none: a code and words.
pub(super) fn entry(record: &SinkRecord) -> Result<Entry, (&'static str, String)> {
    match &record.record {
        Some(Record::FeatureVector(vector)) => {
            Ok(Entry { family: FEATURES, fields: features(record, vector) })
        }
        Some(Record::Position(position)) => Ok(Entry { family: POSITIONS, fields: held(record, position) }),
        Some(other) => Err((
            "kind_not_taken",
            format!("a Redis sink takes FeatureVector and Position records, not {}", other.kind()),
        )),
        None => match record.topic.as_str() {
            topics::FEATURES => Ok(Entry { family: FEATURES, fields: Vec::new() }),
            topics::POSITIONS => Ok(Entry { family: POSITIONS, fields: Vec::new() }),
            other => Err((
                "tombstone_of_unknown_kind",
                format!("a record without a value deletes its key, but {other} does not tell of what kind"),
            )),
        },
    }
}

/// Each value by its name; a name that begins with `@` gets another one, so that it is not taken for ours.
fn features(record: &SinkRecord, vector: &FeatureVector) -> Vec<String> {
    let mut fields = place(record, vector.event_time.to_string());
    for (name, value) in &vector.values {
        let mark = if name.starts_with('@') { "@" } else { "" };
        // The shortest text that reads back as the same number.
        fields.extend([format!("{mark}{name}"), value.to_string()]);
    }
    fields
}

fn held(record: &SinkRecord, position: &Position) -> Vec<String> {
    let mut fields = place(record, position.event_time.to_string());
    let exact = [
        ("account", position.account.to_string()),
        ("instrument", position.instrument.to_string()),
        ("quantity", position.quantity.to_string()),
        ("average_price", position.average_price.to_string()),
        ("realised_pnl", position.realised_pnl.to_string()),
        ("unrealised_pnl", position.unrealised_pnl.to_string()),
        ("fees", position.fees.to_string()),
        ("currency", position.currency.to_string()),
    ];
    let mark = position.mark.map(|mark| ("mark", mark.to_string()));
    fields.extend(exact.into_iter().chain(mark).flat_map(|(name, value)| [name.to_owned(), value]));
    fields
}

/// When it was, and where it came from.
fn place(record: &SinkRecord, event_time: String) -> Vec<String> {
    let place = [
        ("@event_time", event_time),
        ("@topic", record.topic.to_string()),
        ("@partition", record.partition.to_string()),
        ("@offset", record.offset.to_string()),
    ];
    place.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use tidewire_schemas::{EventTime, Kind, Trade};

    fn record(topic: &str, record: Option<Record>) -> SinkRecord {
        let (topic, key) = (topic.into(), Some("k".into()));
        SinkRecord { topic, partition: 3, offset: 17, timestamp_ms: 0, key, record }
    }

    fn fields(of: &SinkRecord) -> Vec<(String, String)> {
        let entry = entry(of).map_err(|(_, error)| error).unwrap();
        entry.fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    }

    #[test]
    fn decimals_are_text_and_exact() {
        let position = Position {
            account: "paper-1".into(),
            quantity: "-9999999999999999.000000000001".parse().unwrap(),
            average_price: "0.000000000001".parse().unwrap(),
            event_time: EventTime::from_micros(1_723_161_255_000_001),
            ..Position::default()
        };
        let found = fields(&record("positions.v1", Some(position.into())));
        let value =
            |name: &str| found.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        assert_eq!(value("quantity"), Some("-9999999999999999.000000000001"));
        assert_eq!(value("average_price"), Some("0.000000000001"));
        assert_eq!(value("@event_time"), Some("2024-08-08T23:54:15.000001Z"));
        assert_eq!((value("@partition"), value("@offset")), (Some("3"), Some("17")));
        assert_eq!(value("mark"), None, "there was none");
        // Every field of the schema has its place: a new one must be thought of.
        let named =
            Kind::Position.fields().iter().filter(|field| **field != "event_time" && **field != "mark");
        for field in named {
            assert!(value(field).is_some(), "{field}");
        }
    }

    #[test]
    fn features_read_back_as_the_same_numbers() {
        let numbers = [0.1 + 0.2, f64::MIN_POSITIVE, -1e300, 5e-324, f64::INFINITY];
        let names = ["a", "b", "c", "@event_time", "e"];
        let values = names.iter().map(|name| (*name).into()).zip(numbers).collect();
        let vector = FeatureVector { instrument: "i".into(), values, ..FeatureVector::default() };
        let found = fields(&record("features.values.v1", Some(vector.into())));
        for (name, number) in
            [("a", 0.1 + 0.2), ("b", f64::MIN_POSITIVE), ("c", -1e300), ("e", f64::INFINITY)]
        {
            let (_, text) = found.iter().find(|(found, _)| found == name).unwrap();
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{name}");
        }
        assert!(found.iter().any(|(name, _)| name == "@@event_time"), "a feature's name does not hide ours");
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        let (reason, error) = entry(&record("x", Some(Trade::default().into()))).err().unwrap();
        assert_eq!(reason, "kind_not_taken");
        assert!(error.contains("Trade"), "{error}");
        assert_eq!(entry(&record("x", None)).err().unwrap().0, "tombstone_of_unknown_kind");
        assert!(entry(&record("positions.v1", None)).unwrap().fields.is_empty());
    }
}
