//! One file a probe; what they share is here.

mod account_exposure;
mod any_field;
mod batch_model;
mod best_of_venues;
mod cross_section;
mod embeddings;
mod pair_correlation;
mod sessions;

use serde::Deserialize;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator};
use tidewire_engine::driver::{Seen, StageBuilder, TestDriver};
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_schemas::{EventTime, FeatureValue, Kind, Record, Trade};

pub fn dec<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub fn ms(ms: i64) -> EventTime {
    EventTime::from_ms(ms)
}

pub fn value(instrument: &str, name: &str, at: i64, value: f64) -> FeatureValue {
    FeatureValue { instrument: instrument.into(), event_time: ms(at), name: name.into(), value }
}

pub fn trade(instrument: &str, at: i64, price: &str, quantity: &str) -> Trade {
    Trade {
        instrument: instrument.into(),
        event_time: ms(at),
        price: dec(price),
        quantity: dec(quantity),
        market: true,
        ..Trade::default()
    }
}

/// Values seen: instrument, name, time, value.
pub fn values(seen: &[Seen]) -> Vec<(String, String, i64, f64)> {
    let row =
        |v: &FeatureValue| (v.instrument.to_string(), v.name.to_string(), v.event_time.as_ms(), v.value);
    seen.iter().filter_map(|seen| seen.record.as_feature_value().map(row)).collect()
}

/// Gives what it takes out under another key: the way from instruments to what a later stage is keyed by.
pub struct Rekey {
    by: By,
}

/// The new key.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The same for all.
    Fixed(String),
    /// The part of the key before a mark: a symbol before the venue, an account before the instrument.
    Before(char),
}

/// Settings of [`Rekey`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RekeySettings {
    by: By,
}

impl Configured for Rekey {
    const NAME: &'static str = "rekey";
    const ABOUT: &'static str = "Gives records out under another key";
    type Settings = RekeySettings;

    fn new(settings: RekeySettings) -> Result<Self, String> {
        Ok(Self { by: settings.by })
    }
}

impl Operator for Rekey {
    type State = ();
    type Shared = ();

    fn interface(&self) -> Interface {
        let kinds = vec![Kind::FeatureValue, Kind::Quote, Kind::Position];
        Interface { accepts: kinds.clone(), emits: kinds, ..Interface::default() }
    }

    fn on_record(&self, cx: &mut Cx<'_>, input: &Input<'_>, (): &mut (), (): &()) -> Result<(), Fault> {
        let key = match &self.by {
            By::Fixed(key) => key.as_str(),
            By::Before(mark) => input.key.split(*mark).next().unwrap_or_default(),
        };
        cx.emit_for(&key.into(), input.record.clone());
        Ok(())
    }
}

/// A stage that only gives records out under another key, so that the next one is keyed by it.
pub fn rekeyed(from: &str, to: &str, by: &str, in_partitions: u32, out_partitions: u32) -> StageSpec {
    StageBuilder::new("rekey")
        .input(from, Role::Driving, in_partitions)
        .node("rekey", tidewire_contract::OperatorType::of::<Rekey>(), by, &[from])
        .output(to, out_partitions, &["rekey"], &[])
        .build()
}

/// Runs a stage over records (topic, key, time, record), then a second one over what came out of the first.
pub fn through(
    first: StageSpec,
    records: Vec<(&str, String, i64, Record)>,
    second: StageSpec,
) -> (TestDriver, Vec<Seen>) {
    let mut upstream = TestDriver::new(first);
    for (topic, key, at, record) in records {
        upstream.append(topic, &key, at, record);
    }
    let handed_on = upstream.run();
    assert!(upstream.dead_letters().is_empty());
    let mut driver = TestDriver::new(second);
    // Tasks of the first stage write at the same times in any order; the log of one partition has one.
    let mut handed_on = handed_on;
    handed_on.sort_by_key(|seen| seen.time_ms);
    for seen in handed_on {
        driver.append(&seen.topic, &seen.key, seen.time_ms, seen.record);
    }
    let mut seen = driver.run();
    seen.extend(driver.wait_ms(10_000));
    assert!(driver.dead_letters().is_empty(), "{:?}", driver.dead_letters());
    (driver, seen)
}
