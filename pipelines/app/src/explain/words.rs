//! Records and calls in plain words.

use serde_json::Value;
use tidewire_contract::TimerChange;
use tidewire_engine::trace::{Call, Took};
use tidewire_schemas::Kind;

use super::states::{MORE, short};
use super::tree::{Brief, TreeNode};

/// Most fields of a record that are put on one line.
const MAX_FIELDS: usize = 10;
/// Most items of a list in a field that are put on the line.
const MAX_ITEMS: usize = 8;
/// Fields that are shown elsewhere, or that nobody asks for first.
const LESSER: [&str; 4] = ["event_time", "received_time", "body", "checks"];

/// What made an operator act.
pub fn trigger(call: &Call) -> String {
    match &call.took {
        Took::Record { record, .. } if call.broadcast => {
            format!("{} came by broadcast", with_article(record.kind().name()))
        }
        Took::Record { record, .. } => format!("{} came", with_article(record.kind().name())),
        Took::Timer(timer) => format!("its timer for {} fired (tag {})", timer.at, timer.tag),
    }
}

fn with_article(name: &str) -> String {
    let article = if name.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// A timer set or taken back.
pub fn timer_change(change: &TimerChange) -> String {
    match change {
        TimerChange::Set { key, at, tag } => format!("set for {at} (key {key}, tag {tag})"),
        TimerChange::Cancel { key, at, tag } => format!("taken back: {at} (key {key}, tag {tag})"),
    }
}

/// The fields of a record on one line, in the order of its schema.
pub fn fields(kind: &str, key: &str, value: &Value) -> String {
    let Value::Object(map) = value else { return plain(value) };
    let known = Kind::from_name(kind).map_or(&[][..], Kind::fields);
    let mut names: Vec<&String> = map.keys().collect();
    names.sort_by_key(|name| known.iter().position(|known| known == name).unwrap_or(usize::MAX));
    let is_shown = |name: &&&String| {
        let value = &map[**name];
        !value.is_null() && !LESSER.contains(&name.as_str()) && value.as_str() != Some(key)
    };
    let shown: Vec<&&String> = names.iter().filter(is_shown).collect();
    let value = |name: &str| plain(&short(&map[name], MAX_ITEMS));
    let mut line: Vec<String> =
        shown.iter().take(MAX_FIELDS).map(|name| format!("{name}={}", value(name))).collect();
    if shown.len() > MAX_FIELDS {
        line.push(format!("and {} more", shown.len() - MAX_FIELDS));
    }
    line.join(" ")
}

/// A value without the quotes of JSON where none are needed.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() || text.contains(' ') => format!("\"{text}\""),
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Object(map) => {
            let rest = map.get(MORE).map(|more| format!("... {}", more.as_str().unwrap_or_default()));
            let fields = map.iter().filter(|(name, _)| *name != MORE);
            let fields = fields.map(|(name, value)| format!("{name}={}", plain(value)));
            let fields: Vec<String> = fields.chain(rest).collect();
            format!("{{{}}}", fields.join(" "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

/// Why a record is there, as far as the records tell.
pub fn why(root: &TreeNode, after: &[Brief]) -> String {
    let value = &root.value;
    let get = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let what = match root.kind.as_str() {
        "Order" => {
            let fate = after.iter().rev().find(|brief| brief.kind == "Order");
            let status = fate.and_then(|brief| brief.value.get("status")).and_then(Value::as_str);
            let status = status.map_or_else(|| get("status"), str::to_owned);
            format!(
                "{} to {} {} {} for {} because its intent {} passed {}; it is {status} now",
                get("order_id"),
                get("side"),
                get("quantity"),
                get("instrument"),
                get("account"),
                get("intent_id"),
                checks_passed(root),
            )
        }
        "RiskDecision" => decision(value),
        "OrderIntent" => {
            let decided = after.iter().find(|brief| brief.kind == "RiskDecision");
            let fate = decided.map_or_else(String::new, |brief| format!("; {}", decision(&brief.value)));
            format!(
                "{} of {} wants to {} {} {} for {} because of signal {}{fate}",
                get("id"),
                get("strategy"),
                get("side"),
                get("quantity"),
                get("instrument"),
                get("account"),
                get("signal_id"),
            )
        }
        "Alert" => format!("{} {}: {}", get("severity"), get("kind"), get("text")),
        "Bar" => format!(
            "{} trades from {} until {} in {}",
            value.get("trade_count").map(plain).unwrap_or_default(),
            get("window_start"),
            get("window_end"),
            get("instrument")
        ),
        _ => format!("{} {}", root.kind, fields(&root.kind, &root.key, value)),
    };
    let signal = find(root, "Signal").map_or_else(String::new, |signal| {
        let get = |name: &str| signal.value.get(name).map(plain).unwrap_or_default();
        match signal.value.get("values") {
            Some(Value::Object(values)) if !values.is_empty() => format!(
                "; {} went {} on {}",
                get("strategy"),
                get("direction"),
                plain(&Value::Object(values.clone()))
            ),
            _ => format!("; {} went {} as its signal had run out", get("strategy"), get("direction")),
        }
    });
    let cause = match (&root.made, root.kind.as_str()) {
        (_, "Order" | "RiskDecision" | "OrderIntent" | "Signal") => signal,
        (Some(made), _) => {
            format!("; {} of stage {} made it when {}", made.operator, made.stage, made.trigger)
        }
        (None, _) if root.external => "; it came from outside: no stage of this pipeline made it".to_owned(),
        (None, _) => String::new(),
    };
    format!("{what}{cause}")
}

/// Why a feature has its value.
pub fn why_feature(name: &str, vector: &TreeNode) -> String {
    let value = vector.value.get("values").and_then(|values| values.get(name)).map(plain).unwrap_or_default();
    let role = format!("latest {name}");
    let latest = vector.children.iter().find(|child| child.role == role);
    let made = latest.and_then(|latest| latest.made.as_ref());
    let from = match (latest, made) {
        (Some(latest), Some(made)) => format!(
            ": {} ({}) gave it at {} when {}",
            made.operator,
            made.type_name,
            latest.event_time.as_deref().unwrap_or_default(),
            made.trigger
        ),
        _ => String::new(),
    };
    let time = vector.event_time.as_deref().unwrap_or_default();
    format!("{name} of {} is {value} in the vector of {time}{from}", vector.key)
}

fn checks_passed(root: &TreeNode) -> String {
    let given = root.made.as_ref().map_or(&[][..], |made| made.given_with_it.as_slice());
    let decision = given.iter().find(|brief| brief.kind == "RiskDecision");
    match decision.and_then(|brief| checks(&brief.value)) {
        Some((decided, _)) => format!("all {} checks that apply", decided.len()),
        None => "the checks".to_owned(),
    }
}

fn decision(value: &Value) -> String {
    let get = |name: &str| value.get(name).map(plain).unwrap_or_default();
    if value.get("approved").and_then(Value::as_bool) == Some(true) {
        return format!("intent {} was approved as order {}", get("intent_id"), get("order_id"));
    }
    let failed = value.get("checks").and_then(Value::as_array).into_iter().flatten();
    let failed: Vec<String> = failed
        .filter(|check| !is_passed(check))
        .map(|check| {
            let get = |name: &str| check.get(name).map(plain).unwrap_or_default();
            match check.get("text").and_then(Value::as_str) {
                Some(text) => format!("{}: {text}", get("check")),
                None => format!("{}: {} against a limit of {}", get("check"), get("value"), get("limit")),
            }
        })
        .collect();
    format!("intent {} was refused with {} ({})", get("intent_id"), get("reason"), failed.join("; "))
}

/// The checks that decided something, and the names of those that did not apply.
pub fn checks(value: &Value) -> Option<(Vec<&Value>, Vec<&str>)> {
    let all = value.get("checks")?.as_array()?;
    let (skipped, decided): (Vec<&Value>, Vec<&Value>) =
        all.iter().partition(|check| check.get("verdict").and_then(Value::as_str) == Some("SKIPPED"));
    Some((decided, skipped.into_iter().filter_map(|check| check.get("check")?.as_str()).collect()))
}

/// Whether a check let the intent through.
pub fn is_passed(check: &Value) -> bool {
    check.get("verdict").and_then(Value::as_str) != Some("FAIL")
}

fn find<'a>(node: &'a TreeNode, kind: &str) -> Option<&'a TreeNode> {
    if node.kind == kind && !node.shown_elsewhere {
        return Some(node);
    }
    node.children.iter().filter(|child| child.role == "cause").find_map(|child| find(child, kind))
}
