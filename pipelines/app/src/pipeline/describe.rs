//! A resolved stage as JSON: for scripts, and for the digest by which a changed pipeline file is noticed.

use serde_json::{Value, json};
use tidewire_engine::plan::{OnError, Role, StageSpec, Upstream};

/// A stage as JSON, with everything that decides what it gives out and how it runs.
pub fn stage(spec: &StageSpec) -> Value {
    let mut described = meaning(spec);
    if let Value::Object(map) = &mut described {
        map.insert("group".into(), spec.group().into());
        map.insert("tasks".into(), spec.tasks().into());
        map.insert("flush_interval_ms".into(), spec.flush_interval_ms.into());
        map.insert("max_records".into(), spec.caps.max_records.into());
        map.insert("max_bytes".into(), spec.caps.max_bytes.into());
        map.insert("prefetch_bytes".into(), spec.caps.prefetch_bytes.into());
        map.insert("max_faults_per_minute".into(), spec.caps.max_faults_per_minute.into());
        map.insert("on_error".into(), on_error(spec.on_error).into());
        map.insert("makes_orders".into(), spec.makes_orders.into());
    }
    described
}

/// Digest of what decides a stage's outputs. Comments, the order of sections and bounds do not change it.
pub fn digest(spec: &StageSpec) -> [u8; 16] {
    // The keys of a JSON object are in order, so the text depends on the meaning alone.
    short_digest(meaning(spec).to_string().as_bytes())
}

/// The first half of a BLAKE3 digest.
pub fn short_digest(bytes: &[u8]) -> [u8; 16] {
    let digest = blake3::hash(bytes);
    let mut short = [0; 16];
    short.copy_from_slice(&digest.as_bytes()[..16]);
    short
}

fn meaning(spec: &StageSpec) -> Value {
    let inputs = spec.inputs.iter().map(|input| {
        json!({
            "id": input.id,
            "topic": input.topic,
            "role": role(input.role),
            "partitions": input.partitions,
            "external": input.external,
            "out_of_orderness_ms": input.out_of_orderness_ms,
            "idle_after_ms": input.idle_after_ms,
            "max_future_skew_ms": input.max_future_skew_ms,
        })
    });
    let operators = spec.nodes.iter().map(|node| {
        json!({
            "id": node.id,
            "type": node.operator.name,
            "settings": serde_json::to_value(&node.settings).unwrap_or_default(),
            "from": node.from.iter().map(|from| upstream_name(spec, *from)).collect::<Vec<_>>(),
        })
    });
    let outputs = spec.outputs.iter().map(|output| {
        json!({
            "topic": output.topic,
            "from": output.from.iter().map(|place| spec.nodes[*place].id.as_str()).collect::<Vec<_>>(),
            "kinds": output.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>(),
            "key": output.key_fields,
            "partitions": output.partitions,
        })
    });
    json!({
        "pipeline": spec.pipeline,
        "stage": spec.name,
        "inputs": inputs.collect::<Vec<_>>(),
        "operators": operators.collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
        "side_partitions": spec.side_partitions,
    })
}

/// The name of what feeds an operator.
pub fn upstream_name(spec: &StageSpec, upstream: Upstream) -> &str {
    match upstream {
        Upstream::Input(place) => &spec.inputs[place].id,
        Upstream::Node(place) => &spec.nodes[place].id,
    }
}

/// A role as the pipeline file writes it.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Driving => "driving",
        Role::Keyed => "keyed",
        Role::Broadcast => "broadcast",
        Role::Control => "control",
    }
}

fn on_error(policy: OnError) -> &'static str {
    match policy {
        OnError::DeadLetter => "dead-letter",
        OnError::Halt => "halt",
    }
}
