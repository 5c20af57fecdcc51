//! Follows each difference back to the first cause, as far as one is known.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::Side;
use super::graph::{Feeding, Graph};
use super::inputs::{InputRecord, Inputs, Stretch};
use super::late::{Late, LateInput};
use super::settings::Change;
use super::walk::Difference;

/// Why records differ.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// A setting of the pipeline is another one.
    Setting(Change),
    /// The build or its schemas are others.
    Code {
        /// Digests of A.
        a: Vec<String>,
        /// Digests of B.
        b: Vec<String>,
    },
    /// Input records that only one run took, or that were altered.
    Input(Stretch),
    /// An input record that came late, or in another order.
    Late(LateInput),
    /// Not known.
    Unknown,
}

impl Cause {
    /// The kind of cause, for filters.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Setting(_) => "changed setting",
            Self::Code { .. } => "changed code",
            Self::Input(_) => "changed input",
            Self::Late(_) => "late arrival",
            Self::Unknown => "unknown",
        }
    }
}

/// A first cause and what it led to.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstCause {
    /// What it is.
    pub cause: Cause,
    /// Differences that it led to by itself.
    pub direct: u64,
    /// Differences that follow from these.
    pub following: u64,
    /// The first difference, by its place in the list.
    pub first: usize,
}

/// What a difference was traced back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traced {
    /// The first cause, by its place in the list.
    pub cause: usize,
    /// The difference it follows from, by its place in the list; none if the first cause led to it by itself.
    pub follows: Option<usize>,
}

/// All that may have led to differences.
#[derive(Debug, Default)]
pub struct Evidence {
    /// What feeds what.
    pub graph: Graph,
    /// Settings that differ.
    pub settings: Vec<Change>,
    /// What was taken from outside.
    pub inputs: Inputs,
    /// What came late, if the runs were made in other orders.
    pub late: Late,
    /// The digests of builds and schemas, if they differ.
    pub code: Option<(Vec<String>, Vec<String>)>,
}

/// Traces differences back. They must be in the order of [`sort`].
pub fn trace(evidence: &Evidence, differences: &[Difference]) -> (Vec<Traced>, Vec<FirstCause>) {
    let mut tracer = Tracer {
        evidence,
        differences,
        inputs: InputIndex::new(&evidence.inputs),
        by_id: BTreeMap::new(),
        last: BTreeMap::new(),
        traced: Vec::with_capacity(differences.len()),
        causes: Vec::new(),
        known: BTreeMap::new(),
    };
    for place in 0..differences.len() {
        tracer.next(place);
    }
    (tracer.traced, tracer.causes)
}

/// Puts differences into the order in which one can lead to the next: by time, then along the flow of data.
pub fn sort(differences: &mut [Difference], graph: &Graph) {
    let rank = |topic: &str| graph.of(topic).map_or((usize::MAX, usize::MAX), |feeding| feeding.rank);
    differences.sort_by_cached_key(|difference| {
        let lies = difference.a.as_ref().or(difference.b.as_ref());
        let place = lies.map(|lies| (lies.at.clone(), lies.offset));
        (difference.first_ms(), rank(&difference.topic), place)
    });
}

/// A cause by what it is: which list, and which place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Known {
    Setting(usize),
    Input(usize),
    Late(usize),
    Code,
    Unknown,
}

enum Step {
    From(usize),
    By(Known),
}

struct Tracer<'a> {
    evidence: &'a Evidence,
    differences: &'a [Difference],
    inputs: InputIndex<'a>,
    /// Differences by the identity of their record, by run.
    by_id: BTreeMap<(Side, &'a str), usize>,
    /// The last difference of a topic about a subject; an empty one stands for all.
    last: BTreeMap<(&'a str, &'a str), usize>,
    traced: Vec<Traced>,
    causes: Vec<FirstCause>,
    known: BTreeMap<Known, usize>,
}

impl<'a> Tracer<'a> {
    fn next(&mut self, place: usize) {
        let difference = &self.differences[place];
        let traced = match self.step(difference) {
            Step::From(before) => {
                let cause = self.traced[before].cause;
                self.causes[cause].following += 1;
                Traced { cause, follows: Some(before) }
            }
            Step::By(known) => {
                let cause = self.cause(known, place);
                self.causes[cause].direct += 1;
                Traced { cause, follows: None }
            }
        };
        self.traced.push(traced);
        for (side, lies) in difference.sides() {
            if let Some(id) = &lies.id {
                self.by_id.insert((side, id), place);
            }
        }
        self.last.insert((&difference.topic, ""), place);
        for subject in &difference.subjects {
            self.last.insert((&difference.topic, subject), place);
        }
    }

    fn step(&self, difference: &Difference) -> Step {
        if let Some(found) = self.by_header(difference) {
            return found;
        }
        let Some(feeding) = self.evidence.graph.of_operator(&difference.topic, difference.operator.as_ref())
        else {
            return self.without_graph(difference);
        };
        let near = self.evidence.settings.iter().enumerate();
        let near =
            near.filter_map(|(place, change)| Some((change.distance(feeding, &difference.topic)?, place)));
        if let Some((_, place)) = near.min() {
            return Step::By(Known::Setting(place));
        }
        if let Some(before) = self.upstream(difference, feeding) {
            return Step::From(before);
        }
        if let Some(place) = self.evidence.settings.iter().position(|change| change.reaches(feeding)) {
            return Step::By(Known::Setting(place));
        }
        if let Some(place) = self.inputs.before(difference, feeding) {
            return Step::By(Known::Input(place));
        }
        if let Some(place) = self.late(difference, feeding) {
            return Step::By(Known::Late(place));
        }
        // State: what was another record before may be another one still.
        let of_key =
            difference.subjects.iter().filter_map(|subject| self.last.get(&(&*difference.topic, &**subject)));
        if let Some(before) = of_key.max() {
            return Step::From(*before);
        }
        self.otherwise()
    }

    fn otherwise(&self) -> Step {
        Step::By(if self.evidence.code.is_some() { Known::Code } else { Known::Unknown })
    }

    /// What the record says itself: its cause, or the input record that it is about.
    fn by_header(&self, difference: &Difference) -> Option<Step> {
        for (side, lies) in difference.sides() {
            let causes = [lies.cause.as_ref(), difference.source.as_ref()];
            for cause in causes.into_iter().flatten() {
                if let Some(before) = self.by_id.get(&(side, cause.as_str())) {
                    return Some(Step::From(*before));
                }
                if let Some(place) = self.inputs.by_place.get(&(side, cause.clone())) {
                    return Some(Step::By(Known::Input(*place)));
                }
            }
            if let Some(source) = &difference.source
                && let Some(place) = self.evidence.late.at(side, source)
            {
                return Some(Step::By(Known::Late(place)));
            }
        }
        None
    }

    /// The difference further up that bears on this one: of the last ones, that with which it shares most.
    fn upstream(&self, difference: &Difference, feeding: &'a Feeding) -> Option<usize> {
        let mut best: Option<(usize, usize)> = None;
        for (topic, any) in &feeding.upstream {
            for subject in &difference.subjects {
                let Some(place) = self.last.get(&(topic.as_str(), subject.as_str())) else { continue };
                let about = &self.differences[*place].subjects;
                let shared = difference.subjects.iter().filter(|subject| about.contains(subject)).count();
                best = best.max(Some((shared, *place)));
            }
            if *any {
                // Read whole by every task: it may bear on any key.
                best = best.max(self.last.get(&(topic.as_str(), "")).map(|place| (0, *place)));
            }
        }
        best.map(|(_, place)| place)
    }

    /// The late input record that bears on a difference.
    fn late(&self, difference: &Difference, feeding: &Feeding) -> Option<usize> {
        let late = &self.evidence.late;
        if late.is_empty() {
            return None;
        }
        let by_cause = difference
            .sides()
            .filter_map(|(side, lies)| late.at(side, lies.cause.as_ref()?))
            .find(|place| late.get(*place).is_some_and(|late| late.is_reordered));
        if by_cause.is_some() {
            return by_cause;
        }
        if let Some(window) = difference.window
            && let Some(place) = late.within(&difference.subjects, window)
        {
            return Some(place);
        }
        let until_ms = difference.last_ms();
        let read_whole = feeding.external.iter().filter(|(_, any)| **any).map(|(topic, _)| topic);
        let found = late.before(&difference.subjects, read_whole, until_ms);
        // Where nothing but the order differs, the order is the cause; which record is then the nearest guess in time,
        // since the time of a task is moved by all of its records.
        let only_order = self.evidence.settings.is_empty()
            && self.evidence.code.is_none()
            && self.evidence.inputs.compared
            && self.evidence.inputs.only_one.is_empty();
        found.or_else(|| if only_order { late.before(&[], feeding.external.keys(), until_ms) } else { None })
    }

    /// A topic that no stage writes: an input.
    fn without_graph(&self, difference: &Difference) -> Step {
        for (side, lies) in difference.sides() {
            let place = SmolStr::from(format!("{}/{}@{}", lies.at.topic, lies.at.partition, lies.offset));
            if let Some(place) = self.inputs.by_place.get(&(side, place)) {
                return Step::By(Known::Input(*place));
            }
        }
        self.otherwise()
    }

    fn cause(&mut self, known: Known, first: usize) -> usize {
        if let Some(place) = self.known.get(&known) {
            return *place;
        }
        let cause = match known {
            Known::Setting(place) => Cause::Setting(self.evidence.settings[place].clone()),
            Known::Input(place) => Cause::Input(self.evidence.inputs.stretches[place].clone()),
            Known::Late(place) => self.evidence.late.get(place).cloned().map_or(Cause::Unknown, Cause::Late),
            Known::Code => {
                let (a, b) = self.evidence.code.clone().unwrap_or_default();
                Cause::Code { a, b }
            }
            Known::Unknown => Cause::Unknown,
        };
        self.causes.push(FirstCause { cause, direct: 0, following: 0, first });
        self.known.insert(known, self.causes.len() - 1);
        self.causes.len() - 1
    }
}

/// Input records of one run only, by place and by what they are about.
struct InputIndex<'a> {
    records: &'a [InputRecord],
    /// Stretches by the place of each of their records.
    by_place: BTreeMap<(Side, SmolStr), usize>,
    /// Records by what they are about, in the order of event time.
    by_subject: BTreeMap<&'a str, Vec<usize>>,
    /// Records by topic, likewise.
    by_topic: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> InputIndex<'a> {
    fn new(inputs: &'a Inputs) -> Self {
        let records = &inputs.only_one;
        let (mut by_subject, mut by_topic) = (BTreeMap::<&str, Vec<usize>>::new(), BTreeMap::new());
        for (place, record) in records.iter().enumerate() {
            for subject in record.subjects.iter().map(SmolStr::as_str) {
                by_subject.entry(subject).or_default().push(place);
            }
            by_topic.entry(record.at.topic.as_str()).or_insert_with(Vec::new).push(place);
        }
        let by_place = records.iter().map(|record| ((record.side, record.place()), record.stretch)).collect();
        Self { records, by_place, by_subject, by_topic }
    }

    /// The stretch with the last record up to a difference that bears on it.
    fn before(&self, difference: &Difference, feeding: &Feeding) -> Option<usize> {
        let until_ms = difference.last_ms();
        let about = difference.subjects.iter().filter_map(|subject| self.by_subject.get(subject.as_str()));
        let related = about.filter_map(|list| {
            let end = list.partition_point(|place| self.records[*place].event_time_ms <= until_ms);
            let feeds = |place: &&usize| feeding.external.contains_key(&self.records[**place].at.topic);
            list[..end].iter().rev().find(feeds)
        });
        let read_whole = || {
            let topics = feeding.external.iter().filter(|(_, any)| **any);
            let lists = topics.filter_map(|(topic, _)| self.by_topic.get(topic.as_str()));
            let last = |list: &'_ Vec<usize>| {
                let end = list.partition_point(|place| self.records[*place].event_time_ms <= until_ms);
                list[..end].last().copied()
            };
            lists.filter_map(last).max()
        };
        related.max().copied().or_else(read_whole).map(|place| self.records[place].stretch)
    }
}
