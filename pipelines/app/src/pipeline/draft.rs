//! A stage with its names looked up: which operator is which type, and what feeds it.

use std::collections::BTreeMap;

use tidewire_contract::{Interface, OperatorType};
use tidewire_engine::plan::{Role, Upstream};

use super::declared::{OperatorDeclared, StageDeclared};
use super::fields::Named;
use super::problem::{Place, Problems};
use super::settings;
use super::topic_plan::TopicBook;

/// A stage whose names were looked up.
pub struct StageDraft<'a> {
    /// What the file says of it.
    pub declared: &'a StageDeclared,
    /// Its operators, each after what feeds it.
    pub nodes: Vec<NodeDraft<'a>>,
}

/// An operator whose names were looked up.
pub struct NodeDraft<'a> {
    /// What the file says of it.
    pub declared: &'a OperatorDeclared,
    /// Its type, if there is one of that name.
    pub operator: Option<OperatorType>,
    /// What it takes and gives, if it could be made.
    pub interface: Option<Interface>,
    /// What feeds it, and where that is said.
    pub from: Vec<(Upstream, Place)>,
}

impl<'a> StageDraft<'a> {
    /// Looks all names of a stage up and puts its operators in order.
    pub fn new(
        declared: &'a StageDeclared,
        operators: &[OperatorType],
        topics: &TopicBook,
        problems: &mut Problems,
    ) -> Self {
        check_inputs(declared, topics, problems);
        let names = names(declared, problems);
        let nodes: Vec<NodeDraft<'_>> =
            declared.operators.iter().map(|said| NodeDraft::new(said, operators, &names, problems)).collect();
        if declared.operators.is_empty() {
            problems.add(&declared.place, format!("stage `{}` has no operator", declared.name.name));
        }
        Self { declared, nodes: in_order(nodes, problems) }
    }

    /// The place of the operator of that id.
    pub fn node(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.declared.id.name == id)
    }

    /// Name of what feeds an operator.
    pub fn name_of(&self, upstream: Upstream) -> &str {
        match upstream {
            Upstream::Input(place) => &self.declared.inputs[place].id.name,
            Upstream::Node(place) => &self.nodes[place].declared.id.name,
        }
    }
}

impl<'a> NodeDraft<'a> {
    fn new(
        declared: &'a OperatorDeclared,
        operators: &[OperatorType],
        names: &BTreeMap<&str, Upstream>,
        problems: &mut Problems,
    ) -> Self {
        let operator = declared.kind.as_ref().and_then(|kind| {
            let found = operators.iter().find(|operator| operator.name == kind.name).copied();
            if found.is_none() {
                let all = operators.iter().map(|operator| operator.name);
                problems.add_unknown(&kind.place, "operator", &kind.name, all);
            }
            found
        });
        let interface = operator.and_then(|operator| settings::interface(declared, &operator, problems));
        let mut from: Vec<(Upstream, Place)> = Vec::with_capacity(declared.from.len());
        for name in &declared.from {
            match names.get(name.name.as_str()) {
                Some(upstream) if from.iter().any(|(known, _)| known == upstream) => {
                    problems.add(&name.place, format!("`{}` is in `from` twice", name.name));
                }
                Some(upstream) => from.push((*upstream, name.place.clone())),
                None => unknown_upstream(name, names, problems),
            }
        }
        Self { declared, operator, interface, from }
    }
}

fn unknown_upstream(name: &Named, names: &BTreeMap<&str, Upstream>, problems: &mut Problems) {
    problems.add_unknown(&name.place, "input or operator", &name.name, names.keys().copied());
}

/// All names that `from` may use: inputs and operators share one space.
fn names<'a>(declared: &'a StageDeclared, problems: &mut Problems) -> BTreeMap<&'a str, Upstream> {
    let inputs = declared.inputs.iter().enumerate().map(|(place, input)| (&input.id, Upstream::Input(place)));
    let operators = declared.operators.iter().enumerate();
    let operators = operators.map(|(place, operator)| (&operator.id, Upstream::Node(place)));
    let mut names = BTreeMap::new();
    for (id, upstream) in inputs.chain(operators) {
        if names.insert(id.name.as_str(), upstream).is_some() {
            let stage = &declared.name.name;
            problems
                .add(&id.place, format!("stage `{stage}` has two inputs or operators called `{}`", id.name));
        }
    }
    names
}

fn check_inputs(declared: &StageDeclared, topics: &TopicBook, problems: &mut Problems) {
    let stage = &declared.name.name;
    for (place, input) in declared.inputs.iter().enumerate() {
        if topics.get(&input.topic.name).is_none() {
            problems.add_unknown(&input.topic.place, "topic", &input.topic.name, topics.names());
        }
        if declared.inputs[..place].iter().any(|other| other.topic.name == input.topic.name) {
            let text = format!("stage `{stage}` reads `{}` twice", input.topic.name);
            problems.add_with_help(&input.topic.place, text, "let operators share one input");
        }
    }
    let mut driving = declared.inputs.iter().filter(|input| input.role == Some(Role::Driving));
    let Some(first) = driving.next() else {
        if declared.inputs.iter().all(|input| input.role.is_some()) {
            problems.add_with_help(
                &declared.place,
                format!("stage `{stage}` has no driving input"),
                "give one input `role = \"driving\"`: its partitions become the stage's tasks",
            );
        }
        return;
    };
    for second in driving {
        let text =
            format!("stage `{stage}` has two driving inputs, `{}` and `{}`", first.id.name, second.id.name);
        problems.add_with_help(&second.id.place, text, "make one of them `keyed` or `broadcast`");
    }
    check_co_partitioning(declared, &first.topic, topics, problems);
}

/// Inputs keyed alike must lie in as many partitions as the driving one, by the same key.
fn check_co_partitioning(
    declared: &StageDeclared,
    driving: &Named,
    topics: &TopicBook,
    problems: &mut Problems,
) {
    let Some(wanted) = topics.get(&driving.name) else { return };
    let keyed = declared.inputs.iter().filter(|input| input.role == Some(Role::Keyed));
    for input in keyed {
        let Some(found) = topics.get(&input.topic.name) else { continue };
        if found.partitions != wanted.partitions {
            let text = format!(
                "`{}` has {} partitions and the driving `{}` has {}: a task reads one of each, so they must be alike",
                found.name, found.partitions, wanted.name, wanted.partitions
            );
            let help = format!("set `[topics.\"{}\"] partitions = {}`", found.name, wanted.partitions);
            problems.add_with_help(&input.topic.place, text, help);
        }
        if let (Some(a), Some(b)) = (found.key.first(), wanted.key.first())
            && a != b
        {
            let text = format!(
                "`{}` lies by {a} and the driving `{}` by {b}: a task would not see what belongs together",
                found.name, wanted.name
            );
            problems.add_with_help(&input.topic.place, text, "read it with `role = \"broadcast\"`");
        }
    }
}

/// Sorts operators so that each comes after what feeds it, otherwise in the order of the file.
fn in_order<'a>(mut nodes: Vec<NodeDraft<'a>>, problems: &mut Problems) -> Vec<NodeDraft<'a>> {
    let mut order: Vec<usize> = Vec::with_capacity(nodes.len());
    let mut done = vec![false; nodes.len()];
    let is_ready = |done: &[bool], node: &NodeDraft<'_>| {
        node.from.iter().all(|(from, _)| match from {
            Upstream::Input(_) => true,
            Upstream::Node(place) => done[*place],
        })
    };
    while let Some(next) = (0..nodes.len()).find(|place| !done[*place] && is_ready(&done, &nodes[*place])) {
        done[next] = true;
        order.push(next);
    }
    if order.len() < nodes.len() {
        note_cycle(&nodes, &done, problems);
        let rest: Vec<usize> = (0..nodes.len()).filter(|place| !done[*place]).collect();
        for place in &rest {
            // Without the edges that close the cycle, the other checks still say what they find.
            nodes[*place].from.retain(|(from, _)| !matches!(from, Upstream::Node(other) if !done[*other]));
        }
        order.extend(rest);
    }
    let mut new_place = vec![0; nodes.len()];
    for (new, old) in order.iter().enumerate() {
        new_place[*old] = new;
    }
    let mut taken: Vec<Option<NodeDraft<'a>>> = nodes.into_iter().map(Some).collect();
    let mut sorted: Vec<NodeDraft<'a>> = order.iter().filter_map(|old| taken[*old].take()).collect();
    for node in &mut sorted {
        for (from, _) in &mut node.from {
            if let Upstream::Node(place) = from {
                *place = new_place[*place];
            }
        }
    }
    sorted
}

/// Follows edges backwards among the operators that never became ready: that must run into a cycle.
fn note_cycle(nodes: &[NodeDraft<'_>], done: &[bool], problems: &mut Problems) {
    let Some(mut place) = done.iter().position(|done| !done) else { return };
    let mut path: Vec<usize> = Vec::new();
    while !path.contains(&place) {
        path.push(place);
        let back = nodes[place].from.iter().find_map(|(from, _)| match from {
            Upstream::Node(other) if !done[*other] => Some(*other),
            _ => None,
        });
        match back {
            Some(other) => place = other,
            None => return,
        }
    }
    let start = path.iter().position(|other| *other == place).unwrap_or(0);
    let mut ids: Vec<&str> =
        path[start..].iter().rev().map(|place| nodes[*place].declared.id.name.as_str()).collect();
    if let Some(first) = ids.first().copied() {
        ids.push(first);
    }
    problems.add_with_help(
        &nodes[place].declared.id.place,
        format!("operators feed each other in a circle: {}", ids.join(" -> ")),
        "within a stage records go one way; a way back leads through a topic",
    );
}
