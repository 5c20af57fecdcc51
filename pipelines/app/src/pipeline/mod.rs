//! Pipeline files: TOML in, checked stages out.
//!
//! A file is checked whole before anything runs, and all that is wrong with it is told at once, each problem with its
//! line and column and the nearest name where one is misspelt. `docs/configuration.md` describes the format.

mod cycles;
mod declared;
pub mod deployment;
pub mod describe;
mod draft;
pub mod draw;
mod edges;
mod fields;
mod limits;
mod outputs;
mod overrides;
mod problem;
mod settings;
mod topic_plan;
mod tree;

use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_contract::OperatorType;
use tidewire_engine::plan::{Caps, InputSpec, MergeOrder, NodeSpec, OutputSpec, Role, StageSpec};
use tidewire_schemas::{Kind, RiskLimits, topics};

pub use deployment::{Deployment, SinkTable, load_deployment};
pub use limits::key as limits_key;
pub use overrides::PREFIX as OVERRIDE_PREFIX;
pub use problem::{PipelineError, Place, Problem, nearest, plural};
pub use topic_plan::{DEFAULT_PARTITIONS, TopicPlan, default_partitions};

use declared::{Declared, EngineDeclared, StageDeclared};
use draft::StageDraft;
use edges::WrittenFeatures;
use problem::Problems;
use topic_plan::TopicBook;

/// How long compacted topics keep every record where nothing else is said: a week.
pub const REPLAY_RETENTION_MS: u64 = 7 * 86_400_000;
/// How often state is flushed where nothing else is said.
const FLUSH_INTERVAL_MS: i64 = 10_000;
/// Records that make a stage one that makes orders.
const ORDERS: [Kind; 3] = [Kind::NewOrder, Kind::CancelOrder, Kind::ReplaceOrder];
/// Longest pipeline file in bytes.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// What a pipeline file is checked against.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Environment variables; those that begin with `TIDEWIRE__` override the file.
    pub variables: Vec<(String, String)>,
    /// Digest of the build that runs.
    pub build_digest: [u8; 16],
}

/// A pipeline that was checked.
#[derive(Clone)]
pub struct Pipeline {
    /// Its name.
    pub name: SmolStr,
    /// Its stages, in the order of the file.
    pub stages: Vec<Arc<StageSpec>>,
    /// The topics that they read and write, by name; journals and changelogs are not among them.
    pub topics: Vec<TopicPlan>,
    /// Limits to be put into their topic, unless they are there.
    pub limits: Vec<RiskLimits>,
    /// How long compacted topics keep every record, in milliseconds.
    pub replay_retention_ms: u64,
    /// Where and how it runs.
    pub deployment: Deployment,
    /// What may be meant, but looks odd.
    pub warnings: Vec<String>,
}

/// Reads and checks the text of a pipeline file. `file` is its name for messages, `operators` those it may use.
pub fn load(
    file: &str,
    text: &str,
    operators: &[OperatorType],
    setting: Setting,
) -> Result<Pipeline, PipelineError> {
    let mut problems = Problems::default();
    let mut root = tree::parse(text, &mut problems);
    if !problems.is_empty() {
        // What is no TOML is mended first: anything else said of it could mislead.
        return Err(problems.into_error(file, text));
    }
    overrides::apply(&mut root, setting.variables, &mut problems);
    let declared = Declared::read(&root, &mut problems);
    resolve(&declared, operators, setting.build_digest, &mut problems)
        .ok_or_else(|| problems.into_error(file, text))
}

fn resolve(
    declared: &Declared,
    operators: &[OperatorType],
    build_digest: [u8; 16],
    problems: &mut Problems,
) -> Option<Pipeline> {
    let mut topics = TopicBook::new(declared, problems);
    check_stage_names(&declared.stages, problems);
    let drafts: Vec<StageDraft<'_>> =
        declared.stages.iter().map(|stage| StageDraft::new(stage, operators, &topics, problems)).collect();
    let outputs: Vec<Vec<OutputSpec>> =
        drafts.iter().map(|draft| outputs::resolve(draft, &topics, problems)).collect();
    note_written_kinds(&outputs, &mut topics);
    let features = written_features(&drafts, &outputs);
    let mut warnings = Vec::new();
    for (draft, outputs) in drafts.iter().zip(&outputs) {
        warnings.extend(edges::check(draft, &topics, &features, problems));
        warnings.extend(unused(draft, outputs));
    }
    cycles::check(&drafts, &outputs, &topics, problems);
    let limits = limits::read(&declared.limits, problems);
    check_limits_are_read(declared, problems);
    let makes_orders: Vec<bool> = drafts
        .iter()
        .zip(&outputs)
        .map(|(draft, outputs)| makes_orders(draft.declared, outputs, problems))
        .collect();
    if !problems.is_empty() {
        return None;
    }
    let written: Vec<SmolStr> = outputs.iter().flatten().map(|output| output.topic.clone()).collect();
    let name = declared.name.as_ref().map(|name| name.name.clone()).unwrap_or_default();
    let mut stages = Vec::with_capacity(drafts.len());
    for ((draft, outputs), makes_orders) in drafts.iter().zip(outputs).zip(makes_orders) {
        let engine = draft.declared.engine.or(&declared.engine);
        let mut spec = spec(&name, draft, outputs, &topics, &written, &engine);
        spec.makes_orders = makes_orders;
        spec.build_digest = build_digest;
        spec.pipeline_digest = describe::digest(&spec);
        stages.push(Arc::new(spec));
    }
    let retention = declared.engine.replay_retention_ms.and_then(|ms| u64::try_from(ms).ok());
    Some(Pipeline {
        name,
        topics: used_topics(&stages, &topics),
        stages,
        limits,
        deployment: declared.deployment.clone(),
        replay_retention_ms: retention.unwrap_or(REPLAY_RETENTION_MS),
        warnings,
    })
}

fn check_stage_names(stages: &[StageDeclared], problems: &mut Problems) {
    for (place, stage) in stages.iter().enumerate() {
        if stages[..place].iter().any(|other| other.name.name == stage.name.name) {
            problems.add(&stage.name.place, format!("there are two stages called `{}`", stage.name.name));
        }
    }
}

/// Limits that no stage reads would hold for nothing, and nobody would notice.
fn check_limits_are_read(declared: &Declared, problems: &mut Problems) {
    let mut inputs = declared.stages.iter().flat_map(|stage| &stage.inputs);
    if let Some(first) = declared.limits.first()
        && !inputs.any(|input| input.topic.name == topics::RISK_LIMITS)
    {
        problems.add_with_help(
            &first.place,
            "no stage reads risk limits, so they would hold for nothing",
            format!(
                "give the stage that checks orders an input of `{}` with `role = \"control\"`",
                topics::RISK_LIMITS
            ),
        );
    }
}

/// A topic of the user's own carries what stages write to it, where the file does not say what it carries.
fn note_written_kinds(outputs: &[Vec<OutputSpec>], topics: &mut TopicBook) {
    let mut found: Vec<(SmolStr, Vec<Kind>)> = Vec::new();
    for output in outputs.iter().flatten() {
        match found.iter_mut().find(|(topic, _)| *topic == output.topic) {
            Some((_, kinds)) => kinds.extend(&output.kinds),
            None => found.push((output.topic.clone(), output.kinds.clone())),
        }
    }
    for (topic, kinds) in found {
        if let Some(plan) = topics.get_mut(&topic)
            && plan.kinds.is_none()
        {
            plan.kinds = Some(kinds);
        }
    }
}

fn written_features(drafts: &[StageDraft<'_>], outputs: &[Vec<OutputSpec>]) -> WrittenFeatures {
    let mut features = WrittenFeatures::default();
    for (draft, outputs) in drafts.iter().zip(outputs) {
        for output in outputs {
            let interfaces = output.from.iter().filter_map(|place| draft.nodes[*place].interface.as_ref());
            for name in interfaces.flat_map(|interface| &interface.features_out) {
                features.add(&output.topic, name);
            }
        }
    }
    features
}

/// Inputs that nothing reads, and operators whose records go nowhere.
fn unused(draft: &StageDraft<'_>, outputs: &[OutputSpec]) -> Vec<String> {
    use tidewire_engine::plan::Upstream;
    let stage = &draft.declared.name.name;
    let feeds = |upstream: Upstream| {
        draft.nodes.iter().any(|node| node.from.iter().any(|(from, _)| *from == upstream))
    };
    let inputs = draft.declared.inputs.iter().enumerate();
    let inputs = inputs.filter(|(place, _)| !feeds(Upstream::Input(*place)));
    let inputs =
        inputs.map(|(_, input)| format!("stage `{stage}`: no operator reads input `{}`", input.id.name));
    let nodes = draft.nodes.iter().enumerate().filter(|(place, _)| {
        !feeds(Upstream::Node(*place)) && !outputs.iter().any(|output| output.from.contains(place))
    });
    let nodes = nodes.map(|(_, node)| {
        format!("stage `{stage}`: what operator `{}` gives out goes nowhere", node.declared.id.name)
    });
    inputs.chain(nodes).collect()
}

fn makes_orders(declared: &StageDeclared, outputs: &[OutputSpec], problems: &mut Problems) -> bool {
    let found = outputs.iter().flat_map(|output| &output.kinds).find(|kind| ORDERS.contains(kind));
    match (&declared.makes_orders, found) {
        (Some((false, place)), Some(kind)) => {
            let text = format!("stage `{}` writes {kind} records, so it makes orders", declared.name.name);
            problems.add_with_help(place, text, "leave `makes_orders` out");
            true
        }
        (Some((said, _)), _) => *said,
        (None, found) => found.is_some(),
    }
}

fn spec(
    pipeline: &SmolStr,
    draft: &StageDraft<'_>,
    outputs: Vec<OutputSpec>,
    topics: &TopicBook,
    written: &[SmolStr],
    engine: &EngineDeclared,
) -> StageSpec {
    let inputs = draft.declared.inputs.iter().map(|input| InputSpec {
        id: input.id.name.clone(),
        topic: input.topic.name.clone(),
        role: input.role.unwrap_or(Role::Keyed),
        partitions: topics.partitions(&input.topic.name),
        external: !written.contains(&input.topic.name),
        out_of_orderness_ms: input.out_of_orderness_ms,
        idle_after_ms: input.idle_after_ms,
        max_future_skew_ms: input.max_future_skew_ms,
    });
    let nodes = draft.nodes.iter().filter_map(|node| {
        Some(NodeSpec {
            id: node.declared.id.name.clone(),
            operator: node.operator?,
            settings: settings::table(&node.declared.settings),
            from: node.from.iter().map(|(from, _)| *from).collect(),
        })
    });
    StageSpec {
        pipeline: pipeline.clone(),
        name: draft.declared.name.name.clone(),
        inputs: inputs.collect(),
        nodes: nodes.collect(),
        outputs,
        side_partitions: topics.partitions(topics::DEAD_LETTERS),
        caps: caps(engine),
        order: MergeOrder::default(),
        flush_interval_ms: engine.flush_interval_ms.unwrap_or(FLUSH_INTERVAL_MS),
        on_error: engine.on_error.unwrap_or_default(),
        makes_orders: false,
        build_digest: [0; 16],
        pipeline_digest: [0; 16],
    }
}

fn caps(engine: &EngineDeclared) -> Caps {
    let standard = Caps::default();
    let or = |said: Option<i64>, standard: usize| {
        said.and_then(|said| usize::try_from(said).ok()).unwrap_or(standard)
    };
    Caps {
        max_records: or(engine.max_records, standard.max_records),
        max_bytes: or(engine.max_bytes, standard.max_bytes),
        prefetch_bytes: or(engine.prefetch_bytes, standard.prefetch_bytes),
        max_faults_per_minute: or(engine.max_faults_per_minute, standard.max_faults_per_minute),
        ..standard
    }
}

fn used_topics(stages: &[Arc<StageSpec>], topics: &TopicBook) -> Vec<TopicPlan> {
    let mut names: Vec<&str> = vec![topics::LATE, topics::DEAD_LETTERS];
    for stage in stages {
        names.extend(stage.inputs.iter().map(|input| input.topic.as_str()));
        names.extend(stage.outputs.iter().map(|output| output.topic.as_str()));
    }
    names.sort_unstable();
    names.dedup();
    names.into_iter().filter_map(|name| topics.get(name)).cloned().collect()
}
