//! Puts a comparison together: counts, first causes, and the first differences with their fields.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use serde_json::{Value, json};
use smol_str::SmolStr;
use tidewire_schemas::EventTime;

use super::causes::{self, Cause, Evidence, FirstCause};
use super::counts::{Class, Counts};
use super::fields::FieldDiff;
use super::graph::Graph;
use super::inputs::{self, InputRecord, Inputs};
use super::late::Late;
use super::run::{Order, Run};
use super::settings::{self, Change};
use super::walk::{Difference, Lies, MAX_EXPLAINED, Walk, Walked};
use super::{Progress, Request, Side};
use crate::records::hex;
use crate::table::grouped;

/// Most first causes that a report lists.
pub const MAX_CAUSES: usize = 1_000;

/// What two runs came to.
pub struct Report {
    /// What is known of both runs: A, then B.
    pub runs: [RunFacts; 2],
    /// The range of event time that was compared.
    pub from: Option<EventTime>,
    /// Its end, exclusive.
    pub to: Option<EventTime>,
    /// Topics in the order of their names.
    pub topics: Vec<TopicCounts>,
    /// Signals, each counted once.
    pub signals: Counts,
    /// Orders, each counted once, whatever the number of its states.
    pub orders: Counts,
    /// Signals and orders that differ, the first of each.
    pub differing: [Vec<(SmolStr, Class)>; 2],
    /// Settings that differ.
    pub settings: Vec<Change>,
    /// What was taken from outside; not compared when nothing differs.
    pub inputs: Inputs,
    /// First causes, the earliest first.
    pub causes: Vec<FirstCause>,
    /// The first differences of each topic.
    pub shown: Vec<Shown>,
    /// What else one should know.
    pub notes: Vec<String>,
}

/// What is known of a run.
pub struct RunFacts {
    /// How it was named.
    pub name: String,
    /// Where it is.
    pub place: String,
    /// Pipelines.
    pub pipelines: Vec<String>,
    /// In which order it took its inputs.
    pub order: Order,
    /// Epochs.
    pub epochs: u64,
    /// Digests of builds.
    pub builds: Vec<String>,
    /// Digests of schemas.
    pub schemas: Vec<String>,
}

/// Counts of a topic.
pub struct TopicCounts {
    /// The topic.
    pub topic: SmolStr,
    /// By kind of record; the name is empty for what can not be read.
    pub kinds: BTreeMap<SmolStr, Counts>,
    /// Together.
    pub total: Counts,
    /// Differences by the kind of their first cause.
    pub causes: BTreeMap<&'static str, u64>,
}

/// A difference with its fields.
pub struct Shown {
    /// The difference.
    pub difference: Difference,
    /// Fields that differ; all of a record that is in one run only.
    pub fields: Vec<FieldDiff>,
    /// Its first cause, by its place in the list.
    pub cause: usize,
    /// The difference that it follows from.
    pub follows: Option<Brief>,
}

/// A difference in a few words.
#[derive(Clone)]
pub struct Brief {
    /// The topic.
    pub topic: SmolStr,
    /// What became of the record.
    pub class: Class,
    /// Its key.
    pub key: SmolStr,
    /// What identifies it.
    pub id: SmolStr,
    /// Its event time.
    pub event_time: EventTime,
}

impl Brief {
    /// The difference in a few words.
    pub fn of(difference: &Difference) -> Self {
        let (topic, key, id) = (difference.topic.clone(), difference.key.clone(), difference.id.clone());
        Self { topic, class: difference.class, key, id, event_time: difference.event_time }
    }
}

/// Compares two runs.
pub fn compare(a: &Run, b: &Run, request: &Request, progress: Progress<'_>) -> anyhow::Result<Report> {
    check_pipelines(a, b)?;
    let graph = Graph::new(&a.stages(), &b.stages());
    let mut request = request.clone();
    request.from = request.from.or_else(|| a.from.max(b.from));
    request.to = request.to.or_else(|| [a.to, b.to].into_iter().flatten().min());
    let topics = topics(a, b, &graph, &request)?;
    let mut walk = Walk::new(a, b, &request);
    for topic in &topics {
        walk.topic(topic, progress)?;
    }
    let mut walked = walk.finish();
    let all = walked.counts.values().map(Counts::all).sum::<u64>();
    if all == 0 {
        bail!(
            "there is nothing to compare: neither run has such records on {}{}",
            topics.iter().map(SmolStr::as_str).collect::<Vec<_>>().join(", "),
            if request.wants_all() { "" } else { " within the key and the range that were asked for" }
        );
    }
    let evidence = gather(a, b, graph, !walked.differences.is_empty(), progress)?;
    causes::sort(&mut walked.differences, &evidence.graph);
    progress("causes", 0);
    let (traced, first_causes) = causes::trace(&evidence, &walked.differences);

    let mut by_topic: BTreeMap<SmolStr, TopicCounts> = BTreeMap::new();
    for ((topic, kind), counts) in &walked.counts {
        let entry = by_topic.entry(topic.clone()).or_insert_with(|| TopicCounts::new(topic));
        entry.kinds.insert(kind.clone(), *counts);
        entry.total += *counts;
    }
    let mut again = Walk::new(a, b, &request);
    let (mut shown, mut shown_of) = (Vec::new(), BTreeMap::<SmolStr, usize>::new());
    for (difference, traced) in walked.differences.iter().zip(&traced) {
        let cause = &first_causes[traced.cause].cause;
        if let Some(entry) = by_topic.get_mut(&difference.topic) {
            *entry.causes.entry(cause.kind()).or_default() += 1;
        }
        let count = shown_of.entry(difference.topic.clone()).or_default();
        if *count < request.limit {
            *count += 1;
            shown.push(Shown {
                fields: again.fields_of(difference)?,
                difference: difference.clone(),
                cause: traced.cause,
                follows: traced.follows.map(|place| Brief::of(&walked.differences[place])),
            });
        }
    }
    Ok(Report {
        notes: notes(a, b, &walked, &evidence),
        runs: [facts(a), facts(b)],
        from: request.from,
        to: request.to,
        topics: by_topic.into_values().collect(),
        signals: walked.signals.counts(),
        orders: walked.orders.counts(),
        differing: [walked.signals.differing(request.limit), walked.orders.differing(request.limit)],
        settings: evidence.settings,
        inputs: evidence.inputs,
        causes: first_causes,
        shown,
    })
}

fn check_pipelines(a: &Run, b: &Run) -> anyhow::Result<()> {
    let names = |run: &Run| -> BTreeSet<String> {
        run.pipelines.iter().map(|recorded| recorded.note.pipeline.clone()).collect()
    };
    let (left, right) = (names(a), names(b));
    if left.is_disjoint(&right) {
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        bail!(
            "the runs are of different pipelines: A ({}) ran {}, B ({}) ran {}",
            a.place,
            list(&left),
            b.place,
            list(&right)
        );
    }
    Ok(())
}

/// The topics to compare: those that were asked for, else all that the pipelines write.
fn topics(a: &Run, b: &Run, graph: &Graph, request: &Request) -> anyhow::Result<Vec<SmolStr>> {
    let is_there = |topic: &str| -> anyhow::Result<bool> {
        Ok(a.log.topic(topic)?.is_some() || b.log.topic(topic)?.is_some())
    };
    if !request.topics.is_empty() {
        for topic in &request.topics {
            if !is_there(topic)? {
                let written: Vec<&str> = graph.written().map(SmolStr::as_str).collect();
                bail!("neither run has a topic {topic}; the pipelines write {}", written.join(", "));
            }
        }
        return Ok(request.topics.clone());
    }
    let mut found = Vec::new();
    for topic in graph.written() {
        if is_there(topic)? {
            found.push(topic.clone());
        }
    }
    if found.is_empty() {
        bail!("there is nothing to compare: neither run has a topic that its pipeline writes");
    }
    Ok(found)
}

/// Gathers what may have led to differences; of what costs much only what is needed.
fn gather(a: &Run, b: &Run, graph: Graph, any: bool, progress: Progress<'_>) -> anyhow::Result<Evidence> {
    let mut changes = Vec::new();
    for left in &a.pipelines {
        let same = |right: &&crate::recorded::Recorded| right.note.pipeline == left.note.pipeline;
        if let Some(right) = b.pipelines.iter().find(same) {
            changes.extend(settings::changes(&left.loaded.pipeline, &right.loaded.pipeline));
        }
    }
    let digests = |run: &Run| -> Vec<String> {
        let (builds, schemas) = (run.epochs.builds.iter(), run.epochs.schemas.iter());
        builds
            .map(|digest| format!("build {digest}"))
            .chain(schemas.map(|digest| format!("schemas {digest}")))
            .collect()
    };
    let (left, right) = (digests(a), digests(b));
    let known = a.epochs.count > 0 && b.epochs.count > 0;
    let code = (known && left != right).then_some((left, right));
    let mut inputs = Inputs::default();
    let mut late = Late::default();
    if any {
        inputs = inputs::compare(a, b, &graph.external(), progress)?;
        let reordered = !inputs.reordered.is_empty();
        let other_order = a.order != b.order || a.order == Order::Live;
        for (side, run) in [(Side::A, a), (Side::B, b)] {
            if reordered || (other_order && run.order != Order::Event) {
                late.read(side, run, progress)?;
            }
        }
        late.add_reordered(&inputs.reordered);
        late.index();
    }
    Ok(Evidence { graph, settings: changes, inputs, late, code })
}

fn facts(run: &Run) -> RunFacts {
    RunFacts {
        name: run.name.clone(),
        place: run.place.clone(),
        pipelines: run.pipelines.iter().map(|recorded| recorded.note.pipeline.clone()).collect(),
        order: run.order,
        epochs: run.epochs.count,
        builds: run.epochs.builds.iter().cloned().collect(),
        schemas: run.epochs.schemas.iter().cloned().collect(),
    }
}

fn notes(a: &Run, b: &Run, walked: &Walked, evidence: &Evidence) -> Vec<String> {
    let mut notes = Vec::new();
    if walked.beyond > 0 {
        notes.push(format!(
            "the causes of the first {MAX_EXPLAINED} differences were looked for; {} more are counted only",
            walked.beyond
        ));
    }
    if walked.signals.is_cut || walked.orders.is_cut {
        notes.push("there are more signals or orders than are counted one by one".to_owned());
    }
    for (side, run) in [(Side::A, a), (Side::B, b)] {
        if run.epochs.count == 0 {
            notes.push(format!(
                "{}: no epoch records, so what it read and which build it was is not known",
                side.name()
            ));
        }
        for stage in run.stages() {
            let ours = hex(&stage.pipeline_digest);
            let others =
                run.epochs.pipelines.iter().filter(|(name, digest)| *name == stage.name && *digest != ours);
            if others.count() > 0 {
                notes.push(format!(
                    "{}: stage {} also ran with another pipeline file than the last one; settings are compared with \
                     the last one",
                    side.name(),
                    stage.name
                ));
            }
        }
    }
    if evidence.inputs.compared && evidence.late.reordered() > 0 {
        notes.push(format!(
            "{} input records came out of event-time order",
            grouped(evidence.late.reordered() as u64)
        ));
    }
    notes
}

impl TopicCounts {
    fn new(topic: &SmolStr) -> Self {
        let topic = topic.clone();
        Self { topic, kinds: BTreeMap::new(), total: Counts::default(), causes: BTreeMap::new() }
    }
}

impl Report {
    /// All counts together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.topics.iter().for_each(|topic| total += topic.total);
        total
    }

    /// Whether nothing differs.
    pub fn is_same(&self) -> bool {
        self.total().differences() == 0
    }

    /// The whole report as JSON.
    pub fn json(&self) -> Value {
        let [a, b] = &self.runs;
        let [signals, orders] = &self.differing;
        json!({
            "a": a.json(),
            "b": b.json(),
            "same": self.is_same(),
            "from": self.from.map(|time| time.to_string()),
            "to": self.to.map(|time| time.to_string()),
            "counts": self.total().json(),
            "topics": self.topics.iter().map(TopicCounts::json).collect::<Vec<_>>(),
            "signals": things(&self.signals, signals),
            "orders": things(&self.orders, orders),
            "settings": self.settings.iter().map(setting_json).collect::<Vec<_>>(),
            "inputs": self.inputs_json(),
            "causes": self.causes.iter().take(MAX_CAUSES).map(cause_json).collect::<Vec<_>>(),
            "cause_count": self.causes.len(),
            "differences": self.shown.iter().map(|shown| self.difference_json(shown)).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    fn inputs_json(&self) -> Value {
        json!({
            "compared": self.inputs.compared,
            "same": self.inputs.same,
            "only_a": self.inputs.only_a,
            "only_b": self.inputs.only_b,
            "first_only_in_one": self.inputs.only_one.first().map(input_json),
            "other_order": self.inputs.reordered.iter().map(|record| record.at.to_string()).collect::<Vec<_>>(),
        })
    }

    fn difference_json(&self, shown: &Shown) -> Value {
        let difference = &shown.difference;
        let fields =
            shown.fields.iter().map(|field| json!({"field": field.field, "a": field.a, "b": field.b}));
        json!({
            "topic": difference.topic,
            "kind": difference.kind.map(|kind| kind.name()),
            "class": difference.class.name(),
            "key": difference.key,
            "id": difference.id,
            "event_time": difference.event_time.to_string(),
            "a": difference.a.as_ref().map(lies_json),
            "b": difference.b.as_ref().map(lies_json),
            "fields": fields.collect::<Vec<_>>(),
            "cause": self.causes[shown.cause].cause.kind(),
            "first_cause": shown.cause,
            "follows_from": shown.follows.as_ref().map(Brief::json),
        })
    }
}

impl RunFacts {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "place": self.place,
            "pipelines": self.pipelines,
            "order": self.order.name(),
            "epochs": self.epochs,
            "build_digests": self.builds,
            "schema_digests": self.schemas,
        })
    }
}

impl TopicCounts {
    fn json(&self) -> Value {
        let mut counts = self.total.json();
        counts["topic"] = self.topic.as_str().into();
        let kinds = self.kinds.iter().map(|(kind, counts)| (kind.to_string(), counts.json()));
        counts["kinds"] = kinds.collect::<serde_json::Map<_, _>>().into();
        counts["causes"] = json!(self.causes);
        counts
    }
}

impl Brief {
    fn json(&self) -> Value {
        json!({
            "topic": self.topic,
            "class": self.class.name(),
            "key": self.key,
            "id": self.id,
            "event_time": self.event_time.to_string(),
        })
    }
}

fn things(counts: &Counts, differing: &[(SmolStr, Class)]) -> Value {
    let mut value = counts.json();
    let differing = differing.iter().map(|(id, class)| json!({ "id": id, "class": class.name() }));
    value["differing"] = differing.collect::<Vec<_>>().into();
    value
}

fn lies_json(lies: &Lies) -> Value {
    json!({
        "partition": lies.at.partition,
        "offset": lies.offset,
        "timestamp": EventTime::from_ms(lies.timestamp_ms).to_string(),
        "identity": lies.id,
        "cause": lies.cause,
    })
}

fn setting_json(change: &Change) -> Value {
    json!({ "setting": change.name(), "a": change.a, "b": change.b })
}

fn input_json(record: &InputRecord) -> Value {
    json!({
        "side": record.side.name(),
        "topic": record.at.topic,
        "partition": record.at.partition,
        "offset": record.offset,
        "key": record.key,
        "event_time": EventTime::from_ms(record.event_time_ms).to_string(),
    })
}

fn cause_json(first: &FirstCause) -> Value {
    let detail = match &first.cause {
        Cause::Setting(change) => setting_json(change),
        Cause::Code { a, b } => json!({ "a": a, "b": b }),
        Cause::Input(stretch) => {
            let mut value = input_json(&stretch.first);
            value["records"] = stretch.records.into();
            value["altered"] = stretch.altered.into();
            value
        }
        Cause::Late(late) => {
            let mut value = input_json(&late.record);
            value["late_by_ms"] = late.late_by_ms.into();
            value["out_of_order"] = late.is_reordered.into();
            value
        }
        Cause::Unknown => Value::Null,
    };
    json!({
        "cause": first.cause.kind(),
        "detail": detail,
        "text": first.cause.to_string(),
        "direct": first.direct,
        "following": first.following,
    })
}
