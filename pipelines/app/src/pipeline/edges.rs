//! Checks that what flows along an edge is something that its end can take: records, and named feature values.

use std::collections::BTreeSet;

use smol_str::SmolStr;
use tidewire_contract::Interface;
use tidewire_engine::plan::{Role, Upstream};
use tidewire_schemas::Kind;

use super::draft::{NodeDraft, StageDraft};
use super::problem::{Place, Problems, nearest};
use super::topic_plan::TopicBook;

/// Checks all edges of a stage; returns warnings.
pub fn check(
    stage: &StageDraft<'_>,
    topics: &TopicBook,
    written_features: &WrittenFeatures,
    problems: &mut Problems,
) -> Vec<String> {
    let mut warnings = Vec::new();
    for node in &stage.nodes {
        let Some(interface) = &node.interface else { continue };
        for (from, place) in &node.from {
            check_kinds(stage, node, interface, *from, place, topics, problems);
        }
        check_features(stage, node, interface, topics, written_features, problems);
        warnings.extend(missing_broadcast(stage, node, interface, topics));
    }
    warnings
}

/// Names of feature values that stages of this pipeline write to a topic.
#[derive(Default)]
pub struct WrittenFeatures {
    by_topic: Vec<(SmolStr, SmolStr)>,
}

impl WrittenFeatures {
    /// Notes that `name` is among the feature values written to `topic`.
    pub fn add(&mut self, topic: &SmolStr, name: &SmolStr) {
        self.by_topic.push((topic.clone(), name.clone()));
    }

    fn of<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a SmolStr> {
        self.by_topic.iter().filter(move |(on, _)| on == topic).map(|(_, name)| name)
    }
}

/// What an edge carries; `None` where that is not known.
pub fn carried<'a>(stage: &'a StageDraft<'_>, from: Upstream, topics: &'a TopicBook) -> Option<&'a [Kind]> {
    match from {
        Upstream::Input(place) => topics.get(&stage.declared.inputs[place].topic.name)?.kinds.as_deref(),
        Upstream::Node(place) => stage.nodes[place].interface.as_ref().map(|interface| &*interface.emits),
    }
}

/// What an operator takes of an edge: keyed calls and broadcast calls take different records.
pub fn wanted<'a>(stage: &StageDraft<'_>, interface: &'a Interface, from: Upstream) -> &'a [Kind] {
    match from {
        Upstream::Input(place) if is_read_whole(stage, place) => &interface.broadcasts,
        _ => &interface.accepts,
    }
}

fn is_read_whole(stage: &StageDraft<'_>, input: usize) -> bool {
    matches!(stage.declared.inputs[input].role, Some(Role::Broadcast | Role::Control))
}

fn check_kinds(
    stage: &StageDraft<'_>,
    node: &NodeDraft<'_>,
    interface: &Interface,
    from: Upstream,
    place: &Place,
    topics: &TopicBook,
    problems: &mut Problems,
) {
    let Some(carried) = carried(stage, from, topics) else { return };
    if let Upstream::Input(input) = from
        && stage.declared.inputs[input].role.is_none()
    {
        return;
    }
    let takes = wanted(stage, interface, from);
    if carried.iter().any(|kind| takes.contains(kind)) {
        return;
    }
    let (what, name) = match from {
        Upstream::Input(_) => ("input", stage.name_of(from)),
        Upstream::Node(_) => ("operator", stage.name_of(from)),
    };
    let ours = &node.declared.id.name;
    let kind = node.operator.map_or("", |operator| operator.name);
    let text = format!(
        "{what} `{name}` carries {}, but operator `{ours}` ({kind}) takes {}",
        list(carried),
        list(takes)
    );
    let read_whole = matches!(from, Upstream::Input(input) if is_read_whole(stage, input));
    let other = if read_whole { &interface.accepts } else { &interface.broadcasts };
    if carried.iter().any(|kind| other.contains(kind)) && matches!(from, Upstream::Input(_)) {
        let role = if read_whole { "keyed" } else { "broadcast" };
        problems.add_with_help(place, text, format!("it takes them from an input with `role = \"{role}\"`"));
    } else {
        problems.add(place, text);
    }
}

/// Names of feature values that an operator can not do without must come from what feeds it.
fn check_features(
    stage: &StageDraft<'_>,
    node: &NodeDraft<'_>,
    interface: &Interface,
    topics: &TopicBook,
    written: &WrittenFeatures,
    problems: &mut Problems,
) {
    if interface.features_in.is_empty() {
        return;
    }
    let mut offered: BTreeSet<&str> = BTreeSet::new();
    for (from, _) in &node.from {
        match from {
            Upstream::Node(place) => match &stage.nodes[*place].interface {
                Some(upstream) => offered.extend(upstream.features_out.iter().map(SmolStr::as_str)),
                // It could not be made, so what it gives is not known.
                None => return,
            },
            Upstream::Input(place) => {
                let topic = &stage.declared.inputs[*place].topic.name;
                let before = offered.len();
                offered.extend(written.of(topic).map(SmolStr::as_str));
                let features = [Kind::FeatureValue, Kind::FeatureVector];
                let carries = topics.get(topic).and_then(|topic| topic.kinds.as_deref());
                let may = carries.is_none_or(|kinds| kinds.iter().any(|kind| features.contains(kind)));
                if before == offered.len() && may {
                    // Features from outside: nobody here knows their names.
                    return;
                }
            }
        }
    }
    for name in interface.features_in.iter().filter(|name| !offered.contains(name.as_str())) {
        let place = setting_with(node, name).unwrap_or(&node.declared.id.place);
        let text = format!(
            "operator `{}` needs the feature `{name}`, which nothing that feeds it gives",
            node.declared.id.name
        );
        let offered: Vec<&str> = offered.iter().copied().collect();
        match nearest(name, &offered) {
            Some(near) => problems.add_with_help(place, text, format!("the nearest name is `{near}`")),
            None if offered.is_empty() => problems.add(place, text),
            None => problems.add_with_help(place, text, format!("it is offered {}", offered.join(", "))),
        }
    }
}

/// Where an operator's settings name a feature.
fn setting_with<'a>(node: &'a NodeDraft<'_>, name: &str) -> Option<&'a Place> {
    let settings = node.declared.settings.iter();
    let mut found = settings.filter(|setting| names(&setting.value, name));
    found.next().map(|setting| &setting.place)
}

fn names(value: &toml::Value, name: &str) -> bool {
    match value {
        toml::Value::String(text) => text == name,
        toml::Value::Array(items) => items.iter().any(|item| names(item, name)),
        toml::Value::Table(table) => table.iter().any(|(key, value)| key == name || names(value, name)),
        _ => false,
    }
}

/// Records that an operator expects from broadcast inputs and that no edge brings.
fn missing_broadcast(
    stage: &StageDraft<'_>,
    node: &NodeDraft<'_>,
    interface: &Interface,
    topics: &TopicBook,
) -> Vec<String> {
    let brought = |kind: Kind| {
        node.from.iter().any(|(from, _)| {
            let read_whole = matches!(from, Upstream::Input(place) if is_read_whole(stage, *place));
            read_whole && carried(stage, *from, topics).is_none_or(|kinds| kinds.contains(&kind))
        })
    };
    let missing = interface.broadcasts.iter().filter(|kind| !brought(**kind));
    missing
        .map(|kind| {
            let (stage, id) = (&stage.declared.name.name, &node.declared.id.name);
            format!("stage `{stage}`: operator `{id}` also takes {kind} from a broadcast or control input, and has none")
        })
        .collect()
}

/// Kinds as a list in words.
pub fn list(kinds: &[Kind]) -> String {
    if kinds.is_empty() {
        return "nothing".to_owned();
    }
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}
