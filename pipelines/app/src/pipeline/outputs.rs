//! The outputs of a stage: which records of which operators go to which topic, and under which key.

use smol_str::SmolStr;
use tidewire_engine::plan::OutputSpec;
use tidewire_schemas::Kind;

use super::declared::OutputDeclared;
use super::draft::StageDraft;
use super::edges::list;
use super::fields::Named;
use super::problem::{Place, Problems};
use super::topic_plan::{TopicBook, TopicPlan};

/// Looks the outputs of a stage up.
pub fn resolve(stage: &StageDraft<'_>, topics: &TopicBook, problems: &mut Problems) -> Vec<OutputSpec> {
    let declared = &stage.declared.outputs;
    let mut specs = Vec::with_capacity(declared.len());
    for (place, output) in declared.iter().enumerate() {
        if declared[..place].iter().any(|other| other.topic.name == output.topic.name) {
            let text =
                format!("stage `{}` has two outputs to `{}`", stage.declared.name.name, output.topic.name);
            problems.add_with_help(
                &output.topic.place,
                text,
                "name all operators in the `from` of one output",
            );
            continue;
        }
        let Some(topic) = topics.get(&output.topic.name) else {
            problems.add_unknown(&output.topic.place, "topic", &output.topic.name, topics.names());
            continue;
        };
        specs.push(one(stage, output, topic, problems));
    }
    specs
}

fn one(
    stage: &StageDraft<'_>,
    output: &OutputDeclared,
    topic: &TopicPlan,
    problems: &mut Problems,
) -> OutputSpec {
    let from = nodes(stage, output, problems);
    let emitted = emitted(stage, &from);
    let before = problems.len();
    let kinds = kinds(output, topic, &emitted, problems);
    // Where the kinds are wrong, what the operators give can not be judged by them.
    let judged = if before == problems.len() { &from[..] } else { &[] };
    for (node, place) in judged {
        let Some(interface) = &stage.nodes[*node].interface else { continue };
        if !interface.emits.iter().any(|kind| kinds.contains(kind)) {
            let id = &stage.nodes[*node].declared.id.name;
            let (gives, takes) = (list(&interface.emits), takes(output, topic, &kinds));
            let text =
                format!("operator `{id}` gives {gives}, none of which goes to `{}` ({takes})", topic.name);
            problems.add(place, text);
        }
    }
    let key_fields = key_fields(output, topic, &kinds, problems);
    OutputSpec {
        topic: topic.name.clone(),
        from: from.into_iter().map(|(node, _)| node).collect(),
        kinds,
        key_fields,
        partitions: topic.partitions,
    }
}

fn takes(output: &OutputDeclared, topic: &TopicPlan, kinds: &[Kind]) -> String {
    match (&output.kinds, &topic.kinds) {
        (Some(wanted), _) => list(&wanted.iter().map(|(kind, _)| *kind).collect::<Vec<_>>()),
        (None, Some(kinds)) => list(kinds),
        (None, None) => list(kinds),
    }
}

fn nodes(stage: &StageDraft<'_>, output: &OutputDeclared, problems: &mut Problems) -> Vec<(usize, Place)> {
    let mut from: Vec<(usize, Place)> = Vec::with_capacity(output.from.len());
    for Named { name, place } in &output.from {
        match stage.node(name) {
            Some(node) if from.iter().any(|(known, _)| *known == node) => {
                problems.add(place, format!("`{name}` is in `from` twice"));
            }
            Some(node) => from.push((node, place.clone())),
            None => {
                let ids = stage.nodes.iter().map(|node| node.declared.id.name.as_str());
                problems.add_unknown(place, "operator", name, ids);
            }
        }
    }
    from.sort_by_key(|(node, _)| *node);
    from
}

fn emitted(stage: &StageDraft<'_>, from: &[(usize, Place)]) -> Vec<Kind> {
    let mut emitted: Vec<Kind> = Vec::new();
    for interface in from.iter().filter_map(|(node, _)| stage.nodes[*node].interface.as_ref()) {
        for kind in &interface.emits {
            if !emitted.contains(kind) {
                emitted.push(*kind);
            }
        }
    }
    emitted
}

/// The records that go there: those named, or all that the operators give and the topic takes.
fn kinds(output: &OutputDeclared, topic: &TopicPlan, emitted: &[Kind], problems: &mut Problems) -> Vec<Kind> {
    let Some(wanted) = &output.kinds else {
        let fits = |kind: &Kind| topic.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind));
        return emitted.iter().copied().filter(fits).collect();
    };
    for (kind, place) in wanted {
        if let Some(kinds) = &topic.kinds
            && !kinds.contains(kind)
        {
            problems.add(place, format!("`{}` takes {}, not {kind}", topic.name, list(kinds)));
        } else if !emitted.is_empty() && !emitted.contains(kind) {
            problems.add(place, format!("no operator in `from` gives {kind}; they give {}", list(emitted)));
        }
    }
    wanted.iter().map(|(kind, _)| *kind).collect()
}

/// Fields that make the key: those named, or those that the topic always has. Every record must have them.
fn key_fields(
    output: &OutputDeclared,
    topic: &TopicPlan,
    kinds: &[Kind],
    problems: &mut Problems,
) -> Vec<SmolStr> {
    let Some(named) = &output.key else {
        return topic.key.iter().map(|field| SmolStr::new_static(field)).collect();
    };
    if !topic.key.is_empty() && named.iter().map(|field| field.name.as_str()).ne(topic.key.iter().copied()) {
        let place = named.first().map_or(&output.topic.place, |field| &field.place);
        problems.add_with_help(
            place,
            format!("the key of `{}` is always {}", topic.name, topic.key.join("/")),
            "leave `key` out, or write to a topic of your own",
        );
    }
    for field in named {
        for kind in kinds.iter().filter(|kind| !kind.fields().contains(&field.name.as_str())) {
            let what = format!("field of {kind}:");
            problems.add_unknown(&field.place, &what, &field.name, kind.fields().iter().copied());
        }
    }
    named.iter().map(|field| field.name.clone()).collect()
}
