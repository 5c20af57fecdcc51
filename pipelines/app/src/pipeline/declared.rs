//! What a pipeline file says, section by section, before anything is looked up.

use smol_str::SmolStr;
use tidewire_engine::log_limits::MAX_PARTITIONS;
use tidewire_engine::plan::{OnError, Role};
use tidewire_schemas::Kind;

use super::deployment::Deployment;
use super::fields::{Fields, Named};
use super::problem::{Place, Problems};
use super::tree::{Table, to_toml};

/// Most milliseconds of a setting: ten years.
const MAX_MS: i64 = 10 * 366 * 86_400_000;
/// Most stages of a pipeline.
pub const MAX_STAGES: usize = 100;
/// Most operators of a stage.
pub const MAX_OPERATORS: usize = 1_000;

/// The whole file.
pub struct Declared {
    /// `[pipeline] name`.
    pub name: Option<Named>,
    /// `[pipeline] partitions`.
    pub partitions: Option<u32>,
    /// `[engine]`.
    pub engine: EngineDeclared,
    /// `[topics."..."]`.
    pub topics: Vec<TopicDeclared>,
    /// `[[stage]]`.
    pub stages: Vec<StageDeclared>,
    /// `[[risk.limit]]`.
    pub limits: Vec<Table>,
    /// `[kafka]` and its like.
    pub deployment: Deployment,
}

/// `[engine]`, or the same keys in a stage.
#[derive(Clone, Debug, Default)]
pub struct EngineDeclared {
    /// Milliseconds of stamps between flushes of state.
    pub flush_interval_ms: Option<i64>,
    /// Most records in an epoch of a task.
    pub max_records: Option<i64>,
    /// Most bytes in an epoch of a task.
    pub max_bytes: Option<i64>,
    /// Bytes read ahead per input partition.
    pub prefetch_bytes: Option<i64>,
    /// Most faults a minute before a task halts.
    pub max_faults_per_minute: Option<i64>,
    /// What is done with a record that an operator can not take.
    pub on_error: Option<OnError>,
    /// How long compacted topics keep every record, in milliseconds.
    pub replay_retention_ms: Option<i64>,
}

/// `[topics."..."]`.
pub struct TopicDeclared {
    /// The topic.
    pub name: Named,
    /// Its partitions.
    pub partitions: Option<u32>,
    /// Delete records older than this.
    pub retention_ms: Option<u64>,
    /// Delete the oldest records of a partition beyond this.
    pub retention_bytes: Option<u64>,
    /// Keep the last record of a key alone.
    pub compacted: Option<bool>,
    /// Records on it, for a topic of the user's own.
    pub kinds: Option<Vec<Kind>>,
}

/// `[[stage]]`.
pub struct StageDeclared {
    /// Its name.
    pub name: Named,
    /// Whether it makes orders.
    pub makes_orders: Option<(bool, Place)>,
    /// Bounds of its own.
    pub engine: EngineDeclared,
    /// Its inputs.
    pub inputs: Vec<InputDeclared>,
    /// Its operators.
    pub operators: Vec<OperatorDeclared>,
    /// Its outputs.
    pub outputs: Vec<OutputDeclared>,
    /// Where it begins.
    pub place: Place,
}

/// `[[stage.input]]`.
pub struct InputDeclared {
    /// The name by which operators refer to it.
    pub id: Named,
    /// The topic.
    pub topic: Named,
    /// How it is read.
    pub role: Option<Role>,
    /// How much later than the newest a record may come.
    pub out_of_orderness_ms: i64,
    /// After how much time without a record the input no longer holds the watermark back.
    pub idle_after_ms: i64,
    /// How far ahead of its received time an event time may be.
    pub max_future_skew_ms: Option<i64>,
}

/// `[[stage.operator]]`.
pub struct OperatorDeclared {
    /// Its id in the stage.
    pub id: Named,
    /// The type: a name of the registry.
    pub kind: Option<Named>,
    /// What feeds it.
    pub from: Vec<Named>,
    /// Everything else it says.
    pub settings: Vec<Setting>,
}

/// A setting of an operator.
pub struct Setting {
    /// The key.
    pub name: SmolStr,
    /// Where the key stands.
    pub name_place: Place,
    /// The value.
    pub value: toml::Value,
    /// Where the value stands.
    pub place: Place,
}

/// `[[stage.output]]`.
pub struct OutputDeclared {
    /// The topic.
    pub topic: Named,
    /// Operators whose records go there.
    pub from: Vec<Named>,
    /// Only records of these kinds.
    pub kinds: Option<Vec<(Kind, Place)>>,
    /// Fields that make the key.
    pub key: Option<Vec<Named>>,
}

impl Declared {
    /// Reads the tree; what can not be read is noted.
    pub fn read(root: &Table, problems: &mut Problems) -> Self {
        let mut fields = Fields::new(root, "the file");
        let (name, partitions) = match fields.table("pipeline", problems) {
            Some(table) => read_pipeline(table, problems),
            None => {
                problems.add(&Place::File(0..0), "the file has no section `[pipeline]`");
                (None, None)
            }
        };
        let engine = fields.table("engine", problems).map(|table| {
            let mut fields = Fields::new(table, "[engine]");
            let engine = EngineDeclared::read(&mut fields, problems);
            fields.finish(problems);
            engine
        });
        let topics = fields.table("topics", problems).map(|table| read_topics(table, problems));
        let stages = fields.tables("stage", problems);
        if stages.is_empty() {
            problems.add(&Place::File(0..0), "the file has no `[[stage]]`");
        }
        if let Some(table) = stages.get(MAX_STAGES) {
            problems.add(&table.place, format!("more than {MAX_STAGES} stages"));
        }
        let stages =
            stages.into_iter().take(MAX_STAGES).filter_map(|table| StageDeclared::read(table, problems));
        let stages = stages.collect();
        let limits = fields.table("risk", problems).map(|table| {
            let mut fields = Fields::new(table, "[risk]");
            let limits = fields.tables("limit", problems).into_iter().cloned().collect();
            fields.finish(problems);
            limits
        });
        let deployment = Deployment::read(&mut fields, problems);
        fields.finish(problems);
        Self {
            deployment,
            name,
            partitions,
            engine: engine.unwrap_or_default(),
            topics: topics.unwrap_or_default(),
            stages,
            limits: limits.unwrap_or_default(),
        }
    }
}

fn read_pipeline(table: &Table, problems: &mut Problems) -> (Option<Named>, Option<u32>) {
    let mut fields = Fields::new(table, "[pipeline]");
    let name = fields.required_text("name", problems).and_then(|name| checked_id("name", name, problems));
    let partitions = partitions(&mut fields, problems);
    fields.finish(problems);
    (name, partitions)
}

fn partitions(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<u32> {
    let number = fields.integer("partitions", 1..=i64::from(MAX_PARTITIONS), problems)?;
    u32::try_from(number).ok()
}

impl EngineDeclared {
    fn read(fields: &mut Fields<'_>, problems: &mut Problems) -> Self {
        let mut engine = Self::read_stage(fields, problems);
        engine.replay_retention_ms = fields.integer("replay_retention_ms", 0..=MAX_MS, problems);
        engine
    }

    /// The keys that a stage may have for itself.
    fn read_stage(fields: &mut Fields<'_>, problems: &mut Problems) -> Self {
        let on_error = fields.text("on_error", problems).and_then(|text| match text.name.as_str() {
            "dead-letter" => Some(OnError::DeadLetter),
            "halt" => Some(OnError::Halt),
            other => {
                problems.add_unknown(&text.place, "value of `on_error`:", other, ["dead-letter", "halt"]);
                None
            }
        });
        Self {
            flush_interval_ms: fields.integer("flush_interval_ms", 0..=MAX_MS, problems),
            max_records: fields.integer("max_records", 1..=1_000_000, problems),
            max_bytes: fields.integer("max_bytes", 1_024..=128 << 20, problems),
            prefetch_bytes: fields.integer("prefetch_bytes", 1_024..=1 << 30, problems),
            max_faults_per_minute: fields.integer("max_faults_per_minute", 0..=1_000_000, problems),
            on_error,
            replay_retention_ms: None,
        }
    }

    /// These keys, or where they are missing, those of `other`.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            flush_interval_ms: self.flush_interval_ms.or(other.flush_interval_ms),
            max_records: self.max_records.or(other.max_records),
            max_bytes: self.max_bytes.or(other.max_bytes),
            prefetch_bytes: self.prefetch_bytes.or(other.prefetch_bytes),
            max_faults_per_minute: self.max_faults_per_minute.or(other.max_faults_per_minute),
            on_error: self.on_error.or(other.on_error),
            replay_retention_ms: self.replay_retention_ms.or(other.replay_retention_ms),
        }
    }
}

fn read_topics(table: &Table, problems: &mut Problems) -> Vec<TopicDeclared> {
    let mut topics = Vec::new();
    for entry in &table.entries {
        let super::tree::Value::Table(inner) = &entry.node.value else {
            let text = format!("write `[topics.\"{}\"]` with keys of its own", entry.name);
            problems.add(&entry.node.place, text);
            continue;
        };
        let section = format!("[topics.\"{}\"]", entry.name);
        let mut fields = Fields::new(inner, &section);
        let size = |number: i64| u64::try_from(number).ok();
        topics.push(TopicDeclared {
            name: Named { name: entry.name.clone(), place: entry.name_place.clone() },
            partitions: partitions(&mut fields, problems),
            retention_ms: fields.integer("retention_ms", 1..=MAX_MS, problems).and_then(size),
            retention_bytes: fields.integer("retention_bytes", 1..=i64::MAX, problems).and_then(size),
            compacted: fields.boolean("compacted", problems).map(|(yes, _)| yes),
            kinds: kinds(&mut fields, problems)
                .map(|kinds| kinds.into_iter().map(|(kind, _)| kind).collect()),
        });
        fields.finish(problems);
    }
    topics
}

fn kinds(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<Vec<(Kind, Place)>> {
    let names = fields.texts("kinds", problems)?;
    let mut kinds = Vec::with_capacity(names.len());
    for name in names {
        match Kind::from_name(&name.name) {
            Some(kind) => kinds.push((kind, name.place)),
            None => {
                let all = Kind::ALL.iter().map(|kind| kind.name());
                problems.add_unknown(&name.place, "kind of record", &name.name, all);
            }
        }
    }
    Some(kinds)
}

impl StageDeclared {
    fn read(table: &Table, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::new(table, "[[stage]]");
        let name = fields.required_text("name", problems).and_then(|name| checked_id("name", name, problems));
        let makes_orders = fields.boolean("makes_orders", problems);
        let engine = EngineDeclared::read_stage(&mut fields, problems);
        let inputs = fields.tables("input", problems).into_iter();
        let inputs = inputs.filter_map(|table| InputDeclared::read(table, problems)).collect();
        let operators = fields.tables("operator", problems);
        if let Some(table) = operators.get(MAX_OPERATORS) {
            problems.add(&table.place, format!("more than {MAX_OPERATORS} operators in a stage"));
        }
        let operators = operators.into_iter().take(MAX_OPERATORS);
        let operators = operators.filter_map(|table| OperatorDeclared::read(table, problems)).collect();
        let outputs = fields.tables("output", problems).into_iter();
        let outputs = outputs.filter_map(|table| OutputDeclared::read(table, problems)).collect();
        let place = fields.place().clone();
        fields.finish(problems);
        Some(Self { name: name?, makes_orders, engine, inputs, operators, outputs, place })
    }
}

impl InputDeclared {
    fn read(table: &Table, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::new(table, "[[stage.input]]");
        let id = fields.required_text("id", problems).and_then(|id| checked_id("id", id, problems));
        let topic = fields.required_text("topic", problems);
        let role = fields.required_text("role", problems).and_then(|role| match role.name.as_str() {
            "driving" => Some(Role::Driving),
            "keyed" => Some(Role::Keyed),
            "broadcast" => Some(Role::Broadcast),
            "control" => Some(Role::Control),
            other => {
                let roles = ["driving", "keyed", "broadcast", "control"];
                problems.add_unknown(&role.place, "role", other, roles);
                None
            }
        });
        let out_of_orderness_ms = fields.integer("out_of_orderness_ms", 0..=MAX_MS, problems).unwrap_or(0);
        let idle_after_ms = fields.integer("idle_after_ms", 1..=MAX_MS, problems).unwrap_or(1_000);
        let max_future_skew_ms = fields.integer("max_future_skew_ms", 0..=MAX_MS, problems);
        fields.finish(problems);
        Some(Self { id: id?, topic: topic?, role, out_of_orderness_ms, idle_after_ms, max_future_skew_ms })
    }
}

impl OperatorDeclared {
    fn read(table: &Table, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::new(table, "[[stage.operator]]");
        let id = fields.required_text("id", problems).and_then(|id| checked_id("id", id, problems));
        let kind = fields.required_text("type", problems);
        let from = fields.texts("from", problems).unwrap_or_default();
        if from.is_empty() {
            problems
                .add(&table.place, "[[stage.operator]] needs `from`: the inputs and operators that feed it");
        }
        let settings = fields.rest().into_iter().map(|entry| Setting {
            name: entry.name.clone(),
            name_place: entry.name_place.clone(),
            value: to_toml(&entry.node),
            place: entry.node.place.clone(),
        });
        Some(Self { settings: settings.collect(), id: id?, kind, from })
    }
}

impl OutputDeclared {
    fn read(table: &Table, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::new(table, "[[stage.output]]");
        let topic = fields.required_text("topic", problems);
        let from = fields.texts("from", problems).unwrap_or_default();
        if from.is_empty() {
            problems.add(&table.place, "[[stage.output]] needs `from`: the operators whose records go there");
        }
        let kinds = kinds(&mut fields, problems);
        let key = fields.texts("key", problems);
        fields.finish(problems);
        Some(Self { topic: topic?, from, kinds, key })
    }
}

/// Names become part of topics, groups and identities, so they are letters, digits, `_` and `-`.
fn checked_id(what: &str, name: Named, problems: &mut Problems) -> Option<Named> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.name.len() <= 60 && name.name.chars().all(legal) {
        return Some(name);
    }
    let text = format!("`{what}` is `{}`; use up to 60 letters, digits, `_` and `-`", name.name);
    problems.add(&name.place, text);
    None
}
