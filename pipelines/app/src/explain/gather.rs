//! What an operator gathered for a record besides what made it act, by rules that look at records alone.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use smol_str::SmolStr;
use tidewire_engine::trace::{Call, Took};
use tidewire_schemas::{EventTime, FeatureVector, Kind, Record};

use super::grow::{Grower, Within};
use super::session::{Need, Stop};
use super::stretch::Stretch;
use super::tree::{Group, TreeNode};

/// Most inputs of a group that are listed; all are counted.
pub const MAX_LISTED: usize = 1_000;
/// Most calls that are looked back through for the last input of a kind.
const MAX_LOOK_BACK: usize = 20_000;
/// Most cuts that are gone back for a value of a vector.
const MAX_CUTS_FOR_VALUES: usize = 8;

/// Inputs that belong together: by edge, kind, and the feature's name.
type StreamId = (usize, Kind, SmolStr);

impl Grower<'_, '_> {
    /// The groups, and the records of them that are followed further.
    pub fn gather(
        &mut self,
        within: Within,
        call: &Call,
        gave: Option<&Record>,
        level: usize,
    ) -> Result<(Vec<Group>, Vec<TreeNode>), Stop> {
        if let Some(Record::FeatureVector(vector)) = gave {
            return self.values(within, call, vector, level);
        }
        if let Some((start, end)) = gave.and_then(window) {
            return Ok((vec![self.window(within, call, start, end)?], Vec::new()));
        }
        self.since_last_output(within, call, level)
    }

    /// A vector's values: of each name the last one that is equal.
    fn values(
        &mut self,
        within: Within,
        call: &Call,
        vector: &FeatureVector,
        level: usize,
    ) -> Result<(Vec<Group>, Vec<TreeNode>), Stop> {
        let stretch = &self.session.stretches[within.stretch].1;
        let (mut groups, mut nodes) = (Vec::new(), Vec::new());
        let focus = self.focus.take();
        for (name, value) in &vector.values {
            if focus.as_ref().is_some_and(|focus| *focus != name.as_str()) {
                continue;
            }
            let is_it = |earlier: &&Call| match &earlier.took {
                Took::Record { record: Record::FeatureValue(found), .. } => {
                    found.name == *name
                        && found.value.to_bits() == value.to_bits()
                        && found.event_time <= vector.event_time
                }
                _ => false,
            };
            let own = std::iter::once(call).chain(stretch.earlier(call));
            let found = own.take(MAX_LOOK_BACK).find(is_it);
            let mut group = Group {
                name: format!("FeatureValue {name}"),
                rule: "the last value of its name by then".to_owned(),
                ..Group::default()
            };
            match found {
                Some(found) => {
                    group.count = 1;
                    group.inputs.push(self.brief_taken(within, found)?);
                    if found.number != call.number {
                        nodes.extend(self.took(within, found, &format!("latest {name}"), level + 1)?);
                    }
                }
                None if stretch.wanted.back < MAX_CUTS_FOR_VALUES
                    && self.session.can_go_back(within.stretch) =>
                {
                    return Err(Stop::Need(Need::Earlier { stretch: within.stretch }));
                }
                None => group.earlier_in_cut = true,
            }
            groups.push(group);
        }
        Ok((groups, nodes))
    }

    /// A window's inputs: those with event times in it that changed the state.
    fn window(
        &mut self,
        within: Within,
        call: &Call,
        start: EventTime,
        end: EventTime,
    ) -> Result<Group, Stop> {
        let stretch = &self.session.stretches[within.stretch].1;
        let before_start = stretch.began_at_ms.is_none_or(|began| EventTime::from_ms(began) < start);
        if !before_start && self.session.can_go_back(within.stretch) {
            return Err(Stop::Need(Need::Earlier { stretch: within.stretch }));
        }
        let own = std::iter::once(call).chain(stretch.earlier(call));
        let mut taken: Vec<&Call> = own.filter(|earlier| is_within(earlier, start, end)).collect();
        taken.reverse();
        let mut group = Group {
            name: taken.first().map_or_else(|| "records".to_owned(), |call| stream_name(call)),
            rule: format!("event time from {start} until before {end}"),
            earlier_in_cut: !before_start && stretch.began_after > 0,
            ..Group::default()
        };
        for call in taken {
            self.numbers.entry(within.stretch).or_default().insert(call.number);
            if stretch.state(call.number).is_some_and(|state| state.before == state.after) {
                group.without_effect += 1;
                continue;
            }
            group.count += 1;
            if group.inputs.len() < MAX_LISTED {
                group.inputs.push(self.brief_taken(within, call)?);
            }
        }
        Ok(group)
    }

    /// All inputs since the operator gave something out for the key, and of every other kind the last one before.
    fn since_last_output(
        &mut self,
        within: Within,
        call: &Call,
        level: usize,
    ) -> Result<(Vec<Group>, Vec<TreeNode>), Stop> {
        let stretch = &self.session.stretches[within.stretch].1;
        let own = stream(call);
        let mut since: BTreeMap<StreamId, Vec<&Call>> = BTreeMap::new();
        let mut is_complete = false;
        let mut earlier = stretch.earlier(call).take(MAX_LOOK_BACK);
        let mut last_output = None;
        for call in earlier.by_ref() {
            if !call.gave.is_empty() {
                (is_complete, last_output) = (true, Some(call));
                break;
            }
            if let Some(stream) = stream(call) {
                since.entry(stream).or_default().push(call);
            }
        }
        let (mut groups, mut nodes) = (Vec::new(), Vec::new());
        let mut shown: BTreeSet<StreamId> = since.keys().cloned().collect();
        for (stream, mut calls) in since {
            if Some(&stream) != own.as_ref()
                && let Some(latest) = calls.first()
            {
                let role = format!("latest {}", stream_name(latest));
                nodes.extend(self.took(within, latest, &role, level + 1)?);
            }
            calls.reverse();
            groups.push(self.group(within, stretch, &calls, is_complete)?);
        }
        for call in last_output.into_iter().chain(earlier) {
            let Some(stream) = stream(call) else { continue };
            if Some(&stream) == own.as_ref() || !shown.insert(stream) {
                continue;
            }
            let mut group = self.group(within, stretch, &[call], true)?;
            "the last one before its last output".clone_into(&mut group.rule);
            groups.push(group);
            // One that led to something itself has a tree of its own; one that did not was kept for this.
            if call.gave.is_empty() {
                let role = format!("latest {}", stream_name(call));
                nodes.extend(self.took(within, call, &role, level + 1)?);
            }
        }
        Ok((groups, nodes))
    }

    fn group(
        &self,
        within: Within,
        stretch: &Stretch,
        calls: &[&Call],
        is_complete: bool,
    ) -> Result<Group, Stop> {
        // Of a long list the first and the last are what people look at.
        let skipped = calls.len().saturating_sub(MAX_LISTED);
        let listed = calls.iter().take(1).chain(calls.iter().skip(1 + skipped));
        Ok(Group {
            name: calls.first().map(|call| stream_name(call)).unwrap_or_default(),
            rule: "since its last output".to_owned(),
            count: calls.len(),
            without_effect: 0,
            earlier_in_cut: !is_complete && stretch.began_after > 0,
            inputs: listed.map(|call| self.brief_taken(within, call)).collect::<Result<_, _>>()?,
        })
    }
}

fn stream(call: &Call) -> Option<StreamId> {
    let Took::Record { edge, record, .. } = &call.took else { return None };
    let name = match record {
        Record::FeatureValue(value) => value.name.clone(),
        _ => SmolStr::default(),
    };
    Some((*edge, record.kind(), name))
}

fn stream_name(call: &Call) -> String {
    match &call.took {
        Took::Record { record: Record::FeatureValue(value), .. } => format!("FeatureValue {}", value.name),
        Took::Record { record, .. } => record.kind().name().to_owned(),
        Took::Timer(_) => "timer".to_owned(),
    }
}

fn is_within(call: &Call, start: EventTime, end: EventTime) -> bool {
    match &call.took {
        Took::Record { record, .. } => record.event_time().is_some_and(|time| time >= start && time < end),
        Took::Timer(_) => false,
    }
}

/// The window that a record speaks of.
fn window(record: &Record) -> Option<(EventTime, EventTime)> {
    let value = serde_json::to_value(record).ok()?;
    let time = |name: &str| value.get(name).and_then(Value::as_str)?.parse::<EventTime>().ok();
    Some((time("window_start")?, time("window_end")?))
}
