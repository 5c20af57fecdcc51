//! What an explanation is made of: records, who made them, and what they follow from.

use serde::Serialize;
use serde_json::Value;

/// Why a record is there.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// What was asked for.
    pub asked: String,
    /// In plain words, as far as the records tell.
    pub why: String,
    /// What is to be known of all of it: what is missing, where this build differs.
    pub notes: Vec<String>,
    /// Whether this build gives the same bytes again.
    pub proof: Proof,
    /// The record, and all that led to it.
    pub root: TreeNode,
    /// What came of it later.
    pub after: Vec<Brief>,
    /// How much there is.
    pub size: Size,
}

/// Whether the record, run again, is the one in the log.
#[derive(Debug, Default, Serialize)]
pub struct Proof {
    /// `same`, `differs`, or `unknown` for what this pipeline did not make or can not run again.
    pub verdict: &'static str,
    /// In words.
    pub text: String,
    /// The record as it lies in the log, where it differs.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub recorded: Value,
    /// As it came out now, where it differs.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub run_again: Value,
    /// Records of the tree whose bytes were compared, and were the same.
    pub records_same: usize,
}

/// How much an explanation shows.
#[derive(Debug, Default, Serialize)]
pub struct Size {
    /// Records in the tree.
    pub records: usize,
    /// Those from outside the pipeline.
    pub external: usize,
    /// Epochs run again.
    pub epochs: usize,
    /// Whether there would be more, but for the bounds.
    pub cut_short: bool,
}

/// A record in the tree.
#[derive(Debug, Default, Serialize)]
pub struct TreeNode {
    /// Its number in this tree.
    pub number: usize,
    /// True where the record is shown under that number elsewhere.
    pub shown_elsewhere: bool,
    /// Why it stands here: `cause`, `set the timer`, `latest`, `known`, ...
    pub role: String,
    /// What it is.
    pub kind: String,
    /// `topic/partition@offset`; none for what passed between operators only.
    pub place: Option<String>,
    /// `stage/task/sequence`, for what this pipeline wrote.
    pub identity: Option<String>,
    /// The header with its cause.
    pub cause: Option<String>,
    /// Its key.
    pub key: String,
    /// Its event time.
    pub event_time: Option<String>,
    /// Its fields.
    pub value: Value,
    /// Whether it came from outside the pipeline.
    pub external: bool,
    /// Who made it and of what.
    pub made: Option<Box<Made>>,
    /// What can not be shown, and why.
    pub notes: Vec<String>,
    /// What it follows from.
    pub children: Vec<TreeNode>,
}

/// The call of an operator that made a record.
#[derive(Debug, Default, Serialize)]
pub struct Made {
    /// The pipeline.
    pub pipeline: String,
    /// The stage.
    pub stage: String,
    /// The task.
    pub task: u32,
    /// The epoch.
    pub epoch: i64,
    /// The operator's id.
    pub operator: String,
    /// What it is.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Its settings in the pipeline file.
    pub settings: Value,
    /// The key that it worked for.
    pub key: String,
    /// Processing time of the epoch.
    pub stamp: String,
    /// The watermark as the operator saw it.
    pub watermark: Option<String>,
    /// Greatest event time by then.
    pub stream_time: String,
    /// What made it act, in words.
    pub trigger: String,
    /// The pass of its epoch and the place of its call, for those who go on with `step`.
    pub position: u32,
    /// Its state for the key before.
    pub state_before: Value,
    /// What the call changed of it.
    pub state_changes: Vec<Change>,
    /// Timers that it set or took back.
    pub timers: Vec<String>,
    /// What it gathered for this since it gave something out last.
    pub gathered: Vec<Group>,
    /// What it gave out with it.
    pub given_with_it: Vec<Brief>,
    /// Whether the bytes that this build gives are those in the log; none for what is on no topic.
    pub same_bytes: Option<bool>,
    /// Digest of the build that made it, in hexadecimal.
    pub build: String,
    /// Whether this is that build.
    pub same_build: bool,
    /// Whether the stage stands in the pipeline file as it did then.
    pub same_file: bool,
    /// The epoch of the cut from which it was run again; 0 is the very beginning.
    pub from_cut: i64,
}

/// A value that a call changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where in the state.
    pub path: String,
    /// As it was; null if it was not there.
    pub before: Value,
    /// As it is; null if it is gone.
    pub after: Value,
}

/// Inputs of one kind that an operator gathered.
#[derive(Debug, Default, Serialize)]
pub struct Group {
    /// What they are: the kind, and the feature's name if they have one.
    pub name: String,
    /// By what rule they are here.
    pub rule: String,
    /// How many there are.
    pub count: usize,
    /// Further ones that the operator took but that changed nothing.
    pub without_effect: usize,
    /// Whether earlier ones are not among them, because they lie in the state of the cut.
    pub earlier_in_cut: bool,
    /// The inputs, oldest first, up to a bound.
    pub inputs: Vec<Brief>,
}

/// A record in short.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Brief {
    /// What it is.
    pub kind: String,
    /// Where it lies, if it is on a topic.
    pub place: Option<String>,
    /// Its key.
    pub key: String,
    /// Its event time.
    pub event_time: Option<String>,
    /// Its fields.
    pub value: Value,
}
