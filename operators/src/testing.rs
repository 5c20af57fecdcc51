//! Runs one operator for its tests: record by record, with event time, timers and restarts.

use std::collections::{BTreeMap, BTreeSet};

use tidewire_contract::{
    AnyOperator, Configured, Cx, Effects, Fault, Input, Interner, Key, LateNote, Moment, NodeSink, Runner,
    Timer, TimerChange, entry_hash,
};
use tidewire_schemas::{EventTime, Record};

type Place = (Option<Key>, Vec<u8>);

/// The changelog of an operator.
#[derive(Default)]
struct Changelog {
    entries: BTreeMap<Place, (Vec<u8>, u64)>,
    /// Bytes of keys and values written by the last flush.
    written: usize,
}

impl NodeSink for Changelog {
    fn put(&mut self, key: Option<&Key>, sub: &[u8], value: &[u8], old_hash: u64) -> u64 {
        let place = (key.cloned(), sub.to_vec());
        assert_eq!(
            self.entries.get(&place).map_or(0, |entry| entry.1),
            old_hash,
            "a hash that is not the entry's"
        );
        let hash = entry_hash(&[key.map_or(b"", |key| key.as_bytes()), sub, value]);
        self.written += sub.len() + value.len();
        self.entries.insert(place, (value.to_vec(), hash));
        hash
    }
    fn remove(&mut self, key: Option<&Key>, sub: &[u8], old_hash: u64) {
        let gone = self.entries.remove(&(key.cloned(), sub.to_vec()));
        assert_eq!(gone.map(|entry| entry.1), Some(old_hash), "removed what is not there");
    }
}

/// One operator with its state, timers and time.
pub(crate) struct Harness {
    make: Box<dyn Fn() -> Box<dyn AnyOperator>>,
    operator: Box<dyn AnyOperator>,
    names: Interner,
    timers: BTreeSet<Timer>,
    changelog: Changelog,
    moment: Moment,
    out_of_orderness_ms: i64,
    restart_always: bool,
    /// Windows missed so far.
    pub late: Vec<LateNote>,
}

impl Harness {
    /// An operator with settings as a pipeline file has them.
    pub fn new<O: Configured>(settings: &str) -> Self {
        let table: tidewire_contract::Settings = toml::from_str(settings).unwrap();
        let make = move || {
            let settings = serde::Deserialize::deserialize(toml::Value::Table(table.clone())).unwrap();
            Box::new(Runner::new(O::new(settings).unwrap())) as Box<dyn AnyOperator>
        };
        Self {
            operator: make(),
            make: Box::new(make),
            names: Interner::default(),
            timers: BTreeSet::new(),
            changelog: Changelog::default(),
            moment: Moment::default(),
            out_of_orderness_ms: 0,
            restart_always: false,
            late: Vec::new(),
        }
    }

    /// How far the watermark stays behind the newest record.
    pub fn out_of_orderness_ms(mut self, ms: i64) -> Self {
        self.out_of_orderness_ms = ms;
        self
    }

    /// Flushes, forgets and restores after every record: outputs must not change by it.
    pub fn restarting(mut self) -> Self {
        self.restart_always = true;
        self
    }

    /// Takes a record of `key`; returns what it and the timers it made due gave out.
    pub fn send(&mut self, key: &str, record: impl Into<Record>) -> Vec<Record> {
        self.try_send(key, record, false).unwrap()
    }

    /// Takes a broadcast or control record.
    pub fn broadcast(&mut self, key: &str, record: impl Into<Record>) -> Vec<Record> {
        self.try_send(key, record, true).unwrap()
    }

    /// As [`Harness::send`], for records that may be refused.
    pub fn try_send(
        &mut self,
        key: &str,
        record: impl Into<Record>,
        broadcast: bool,
    ) -> Result<Vec<Record>, Fault> {
        let record = record.into();
        let time = record.event_time().unwrap();
        self.moment.stream_time = self.moment.stream_time.max(time);
        self.moment.stamp = self.moment.stamp.max(self.moment.stream_time);
        let key = Key::new(key);
        let interface = self.operator.interface();
        let wanted = if broadcast { &interface.broadcasts } else { &interface.accepts };
        let mut out = Vec::new();
        if wanted.contains(&record.kind()) {
            let input = Input { record: &record, key: &key, time, edge: 0, prepared: None };
            let mut effects = Effects::default();
            if broadcast {
                let mut cx = Cx::new(self.moment, "node", None, &mut effects);
                self.operator.broadcast(&mut cx, &mut self.names, &input)?;
            } else {
                let id = self.names.intern(&key);
                self.operator.record(
                    &mut Cx::new(self.moment, "node", Some(&key), &mut effects),
                    id,
                    &input,
                )?;
            }
            self.collect(effects, &mut out);
        }
        let watermark = self.moment.stream_time.minus_ms(self.out_of_orderness_ms);
        self.fire(watermark, &mut out);
        if self.restart_always {
            self.restart();
        }
        Ok(out)
    }

    /// Time goes on without records.
    pub fn advance_to(&mut self, watermark: EventTime) -> Vec<Record> {
        self.moment.stream_time = self.moment.stream_time.max(watermark);
        self.moment.stamp = self.moment.stamp.max(watermark);
        let mut out = Vec::new();
        self.fire(watermark, &mut out);
        out
    }

    /// Sets the stamp apart from stream time, as in catching up.
    pub fn set_stamp(&mut self, stamp: EventTime) {
        self.moment.stamp = stamp;
    }

    /// Flushes, and returns how many bytes that wrote.
    pub fn flush(&mut self) -> usize {
        self.changelog.written = 0;
        self.operator.flush(&self.names, &mut self.changelog);
        self.changelog.written
    }

    /// Flushes, forgets everything and restores it.
    pub fn restart(&mut self) {
        self.flush();
        self.operator = (self.make)();
        self.names = Interner::default();
        for ((key, sub), (value, hash)) in &self.changelog.entries {
            let key = key.as_ref().map(|key| self.names.intern(key));
            self.operator.restore(key, sub, value, *hash).unwrap();
        }
    }

    /// Timers that are set.
    pub fn timers(&self) -> usize {
        self.timers.len()
    }

    /// Entries of state held.
    pub fn entries(&self) -> usize {
        self.operator.size().entries
    }

    fn fire(&mut self, watermark: EventTime, out: &mut Vec<Record>) {
        while let Some(timer) = self.timers.first().filter(|timer| timer.at <= watermark).cloned() {
            self.timers.remove(&timer);
            let mut moment = self.moment;
            moment.watermark = Some(moment.watermark.unwrap_or(timer.at).max(timer.at));
            let id = self.names.intern(&timer.key);
            let mut effects = Effects::default();
            let mut cx = Cx::new(moment, "node", Some(&timer.key), &mut effects);
            self.operator.timer(&mut cx, id, &timer).unwrap();
            self.collect(effects, out);
        }
        if self.moment.watermark.is_none_or(|old| old < watermark) {
            self.moment.watermark = Some(watermark);
        }
    }

    fn collect(&mut self, effects: Effects, out: &mut Vec<Record>) {
        self.late.extend(effects.late);
        for change in effects.timers {
            match change {
                TimerChange::Set { key, at, tag } => _ = self.timers.insert(Timer { at, key, tag }),
                TimerChange::Cancel { key, at, tag } => _ = self.timers.remove(&Timer { at, key, tag }),
            }
        }
        out.extend(effects.emitted.into_iter().map(|emission| emission.record));
    }
}

/// A time so many milliseconds after 1970.
pub(crate) fn ms(ms: i64) -> EventTime {
    EventTime::from_ms(ms)
}

/// The records of one kind.
pub(crate) fn only<B: tidewire_schemas::Body>(records: &[Record]) -> Vec<B> {
    records.iter().filter_map(B::of).cloned().collect()
}

/// Makes a decimal from its text.
pub(crate) fn dec<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}
