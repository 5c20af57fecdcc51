//! A pipeline drawn in text: what would run, and how records flow.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tidewire_engine::plan::{InputSpec, OutputSpec, StageSpec, Upstream};

use super::describe::role;
use super::problem::plural;
use super::{Pipeline, edges};

/// Draws a pipeline: each stage as a tree from its inputs through its operators to its topics, then all topics.
pub fn draw(pipeline: &Pipeline) -> String {
    let mut out = String::new();
    let operators: usize = pipeline.stages.iter().map(|stage| stage.nodes.len()).sum();
    let (stages, topics) = (pipeline.stages.len(), pipeline.topics.len());
    let _ = writeln!(
        out,
        "pipeline {}: {stages} {}, {operators} {}, {topics} {}",
        pipeline.name,
        plural(stages, "stage", "stages"),
        plural(operators, "operator", "operators"),
        plural(topics, "topic", "topics"),
    );
    for stage in &pipeline.stages {
        out.push('\n');
        draw_stage(&mut out, stage);
    }
    out.push('\n');
    draw_topics(&mut out, pipeline);
    for warning in &pipeline.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

fn draw_stage(out: &mut String, stage: &StageSpec) {
    let tasks = stage.tasks();
    let _ = writeln!(
        out,
        "stage {}: {tasks} {}, consumer group {}{}",
        stage.name,
        plural(tasks as usize, "task", "tasks"),
        stage.group(),
        if stage.makes_orders { ", makes orders" } else { "" },
    );
    let mut drawn = BTreeSet::new();
    for (place, input) in stage.inputs.iter().enumerate() {
        let last = place + 1 == stage.inputs.len();
        let (branch, rail) = branches(last);
        let _ = writeln!(out, "{branch}{}  <- {}", input.id, input_words(input));
        draw_children(out, stage, Upstream::Input(place), rail, &mut drawn);
    }
}

fn input_words(input: &InputSpec) -> String {
    let mut words = format!("{} ({}), {}", input.topic, input.partitions, role(input.role));
    if !input.external {
        words.push_str(", from a stage");
    }
    if input.external && input.out_of_orderness_ms > 0 {
        let _ = write!(words, ", waits {} ms for late records", input.out_of_orderness_ms);
    }
    words
}

fn draw_children(
    out: &mut String,
    stage: &StageSpec,
    of: Upstream,
    indent: &str,
    drawn: &mut BTreeSet<usize>,
) {
    let nodes = stage.nodes.iter().enumerate();
    let children: Vec<usize> =
        nodes.filter(|(_, node)| node.from.contains(&of)).map(|(place, _)| place).collect();
    for (at, place) in children.iter().enumerate() {
        let (branch, rail) = branches(at + 1 == children.len());
        let node = &stage.nodes[*place];
        if !drawn.insert(*place) {
            let _ = writeln!(out, "{indent}{branch}{} (above)", node.id);
            continue;
        }
        let name = if node.id == node.operator.name {
            node.id.to_string()
        } else {
            format!("{}: {}", node.id, node.operator.name)
        };
        let topics: Vec<String> =
            stage.outputs.iter().filter_map(|output| output_words(output, *place)).collect();
        let arrow = if topics.is_empty() { String::new() } else { format!("  -> {}", topics.join(", ")) };
        let _ = writeln!(out, "{indent}{branch}{name}{arrow}");
        draw_children(out, stage, Upstream::Node(*place), &format!("{indent}{rail}"), drawn);
    }
}

fn output_words(output: &OutputSpec, node: usize) -> Option<String> {
    output.from.contains(&node).then(|| output.topic.to_string())
}

fn branches(last: bool) -> (&'static str, &'static str) {
    if last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}

fn draw_topics(out: &mut String, pipeline: &Pipeline) {
    let width = pipeline.topics.iter().map(|topic| topic.name.len()).max().unwrap_or(0);
    let _ = writeln!(out, "topics");
    for topic in &pipeline.topics {
        let names = |stages: Vec<&StageSpec>| -> String {
            if stages.is_empty() {
                return "outside".to_owned();
            }
            stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        let stages = || pipeline.stages.iter().map(|stage| &**stage);
        let writers: Vec<_> = stages()
            .filter(|stage| {
                tidewire_schemas::topics::DEAD_LETTERS == topic.name
                    || tidewire_schemas::topics::LATE == topic.name
                    || stage.outputs.iter().any(|output| output.topic == topic.name)
            })
            .collect();
        let readers: Vec<_> =
            stages().filter(|stage| stage.inputs.iter().any(|input| input.topic == topic.name)).collect();
        let _ = writeln!(
            out,
            "  {:width$}  {:>3} {:10}  {:9}  {} -> {}  {}",
            topic.name,
            topic.partitions,
            plural(topic.partitions as usize, "partition", "partitions"),
            if topic.compacted { "compacted" } else { "" },
            names(writers),
            names(readers),
            topic.kinds.as_deref().map(edges::list).unwrap_or_default(),
        );
    }
}
