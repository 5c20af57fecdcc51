//! A stage on one task without a log: batches are made beside it, so that only the task's own work is measured.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_engine::driver::StageBuilder;
use tidewire_engine::fault::Skips;
use tidewire_engine::intake::{Batch, Intake, Source};
use tidewire_engine::log::{Fetched, NewRecord, StoredRecord};
use tidewire_engine::plan::{Caps, Role, StageSpec};
use tidewire_engine::task::{Closed, Closing, Stamp, Task};
use tidewire_schemas::{EpochKind, Record, SchemaBook};
use tidewire_tests::root;

use super::market::Made;

/// Where outputs go: one topic, so that anything elsewhere is a fault.
const OUT: &str = "out";

/// Inputs as `market` ranks them.
const INPUTS: [(&str, Role); 3] =
    [("keyed", Role::Driving), ("shared", Role::Broadcast), ("control", Role::Control)];

/// A stage with the first so many inputs.
pub fn stage(inputs: usize) -> StageBuilder {
    INPUTS[..inputs].iter().fold(StageBuilder::new("parts"), |stage, (name, role)| {
        stage.input(name, *role, 1).tuned(|input| input.out_of_orderness_ms = 250)
    })
}

/// A stage of operators of a pipeline file, with their settings there; all that they give goes out. What has none of the
/// others before it takes all inputs.
pub fn chain(inputs: usize, operators: &[toml::Table]) -> StageSpec {
    let ids: Vec<String> = operators.iter().map(|operator| text(operator, "id")).collect();
    let mut stage = stage(inputs);
    for (operator, id) in operators.iter().zip(&ids) {
        let upstream = operator["from"].as_array().expect("a list").iter().filter_map(toml::Value::as_str);
        let mut from: Vec<&str> = upstream.filter(|name| ids.iter().any(|id| id == name)).collect();
        if from.is_empty() {
            from = INPUTS[..inputs].iter().map(|(name, _)| *name).collect();
        }
        let mut settings = operator.clone();
        ["id", "type", "from"].into_iter().for_each(|key| _ = settings.remove(key));
        let kind = text(operator, "type");
        let operator = *tidewire_operators::find(&kind).expect("the pipeline names operators that there are");
        stage = stage.node(id, operator, &settings.to_string(), &from);
    }
    let from: Vec<&str> = ids.iter().map(String::as_str).collect();
    stage.output(OUT, 1, &from, &[]).build()
}

fn text(table: &toml::Table, key: &str) -> String {
    table[key].as_str().expect("a text").to_owned()
}

/// The operators of a pipeline file, stage by stage.
pub fn operators_of(file: &str) -> Vec<toml::Table> {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let pipeline: toml::Table = text.parse().unwrap();
    let stages = pipeline["stage"].as_array().expect("stages").iter();
    let operators = stages.filter_map(|stage| stage.get("operator")?.as_array()).flatten();
    operators.filter_map(toml::Value::as_table).cloned().collect()
}

/// Turns made records into batches, as a task takes them.
pub struct Feed {
    book: SchemaBook,
    made: Box<dyn Iterator<Item = Made>>,
    sources: usize,
    intake: Intake,
    offsets: Vec<u64>,
    now_ms: i64,
}

impl Feed {
    pub fn new(spec: &StageSpec, made: impl Iterator<Item = Made> + 'static) -> Self {
        let sources = Source::of_task(spec, 0);
        Self {
            book: SchemaBook::of_this_build(),
            made: Box::new(made),
            sources: sources.len(),
            offsets: vec![0; sources.len()],
            intake: Intake::new(sources, &[]),
            now_ms: 0,
        }
    }

    /// The next records by source, as a log returns them.
    pub fn fetch(&mut self, records: usize) -> Vec<Fetched> {
        let mut fetched: Vec<Fetched> = (0..self.sources).map(|_| Fetched::default()).collect();
        for made in self.made.by_ref().take(records) {
            let mut value = Vec::new();
            self.book.encode(&made.record, &mut value).unwrap();
            let key = Some(Bytes::copy_from_slice(made.key.as_bytes()));
            let record =
                NewRecord { timestamp_ms: made.time_ms, key, value: Some(value.into()), headers: Vec::new() };
            self.now_ms = self.now_ms.max(made.time_ms);
            let offset = &mut self.offsets[made.input];
            fetched[made.input].records.push(StoredRecord { offset: *offset, record });
            *offset += 1;
        }
        for (fetched, offset) in fetched.iter_mut().zip(&self.offsets) {
            (fetched.next_offset, fetched.at_end) = (*offset, true);
        }
        fetched
    }

    /// The next epoch: its records, and when it runs.
    pub fn batch(&mut self, records: usize) -> (Batch, i64) {
        for (source, fetched) in self.fetch(records).into_iter().enumerate() {
            self.intake.offer(source, fetched);
        }
        let batch = self.intake.take(&all());
        assert_eq!(batch.taken.len(), records, "all that was made is taken");
        (batch, self.now_ms)
    }
}

/// Bounds that nothing reaches.
pub fn all() -> Caps {
    Caps { max_records: usize::MAX, max_bytes: usize::MAX, ..Caps::default() }
}

/// A task that takes epochs.
pub struct Runner {
    task: Task,
    skips: Skips,
}

impl Runner {
    pub fn new(spec: StageSpec) -> Self {
        let task = Task::new(Arc::new(spec), 0, Arc::new(SchemaBook::of_this_build()));
        Self { task: task.expect("the settings hold"), skips: Skips::default() }
    }

    pub fn process(&mut self, (batch, now_ms): (Batch, i64)) {
        self.task.process(batch, Stamp::At(now_ms), &self.skips).expect("no operator fails");
    }

    pub fn close(&mut self, flush: bool) -> Closed {
        let closing = Closing { kind: EpochKind::Records, flush, writer: "parts-1".into(), epochs_from: 0 };
        self.task.close(closing).expect("every kind is registered")
    }

    /// Runs epochs that are not measured, until the operators have what they need; returns how many records came out.
    pub fn warm_up(&mut self, feed: &mut Feed, epochs: usize, records: usize) -> usize {
        let book = SchemaBook::of_this_build();
        let mut outputs = 0;
        for _ in 0..epochs {
            self.process(feed.batch(records));
            let closed = self.close(false);
            outputs += closed.outputs.len();
            for output in &closed.outputs {
                let record: Option<Record> =
                    output.record.value.as_deref().and_then(|value| book.decode(value).ok());
                assert!(output.at.topic == OUT && !record.as_ref().is_some_and(complains), "{record:?}");
            }
        }
        outputs
    }
}

/// Whether an operator says that what was made makes no sense.
fn complains(record: &Record) -> bool {
    let kind = record.as_alert().map(|alert| alert.kind.as_str());
    kind.is_some_and(|kind| ["break", "intent-not-made", "book-gap", "book-crossed"].contains(&kind))
}
