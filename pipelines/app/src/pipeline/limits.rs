//! `[[risk.limit]]`: limits that are put into their topic when the pipeline starts for the first time.

use std::collections::BTreeSet;

use smol_str::SmolStr;
use tidewire_schemas::{Amount, EventTime, Quantity, RiskLimits};

use super::fields::Fields;
use super::problem::Problems;
use super::tree::{Node, Table, Value};

/// Most sections `[[risk.limit]]`.
const MAX_LIMITS: usize = 100_000;

/// Reads all sections; what can not be read is noted.
pub fn read(tables: &[Table], problems: &mut Problems) -> Vec<RiskLimits> {
    if let Some(table) = tables.get(MAX_LIMITS) {
        problems.add(&table.place, format!("more than {MAX_LIMITS} sections `[[risk.limit]]`"));
    }
    let mut limits: Vec<RiskLimits> = Vec::new();
    let mut keys = BTreeSet::new();
    for table in tables.iter().take(MAX_LIMITS) {
        let Some(limit) = one(table, problems) else { continue };
        if !keys.insert(key(&limit)) {
            problems.add(&table.place, format!("there are two limits for `{}`", key(&limit)));
        }
        limits.push(limit);
    }
    limits
}

/// The key under which limits lie in their topic.
pub fn key(limits: &RiskLimits) -> SmolStr {
    SmolStr::from(format!("{}/{}/{}", limits.account, limits.strategy, limits.instrument))
}

fn one(table: &Table, problems: &mut Problems) -> Option<RiskLimits> {
    let mut fields = Fields::new(table, "[[risk.limit]]");
    let account = fields.required_text("account", problems);
    let all = |text: Option<super::fields::Named>| text.map_or_else(|| "*".into(), |text| text.name);
    let mut limits = RiskLimits {
        strategy: all(fields.text("strategy", problems)),
        instrument: all(fields.text("instrument", problems)),
        ..RiskLimits::default()
    };
    macro_rules! decimals {
        ($read:ident: $($name:ident)*) => {
            $( limits.$name = fields.node(stringify!($name)).and_then(|node| $read(stringify!($name), node, problems)); )*
        };
    }
    macro_rules! integers {
        ($($name:ident)*) => { $( limits.$name = fields.integer(stringify!($name), 0..=i64::MAX, problems); )* };
    }
    decimals!(amount: max_order_value max_position_value capital_threshold max_gross_exposure max_net_exposure
        max_long_exposure max_short_exposure max_daily_loss);
    decimals!(quantity: max_order_quantity max_position);
    integers!(price_collar_bps max_intent_age_ms max_mark_age_ms max_messages messages_window_ms
        max_repeated_executions repeated_executions_window_ms duplicate_window_ms max_concentration_bps);
    limits.restricted = fields.boolean("restricted", problems).map(|(yes, _)| yes);
    limits.event_time = fields.text("event_time", problems).map_or(EventTime::EPOCH, |text| {
        text.name.parse().unwrap_or_else(|error| {
            problems.add(&text.place, format!("`event_time`: {error}"));
            EventTime::EPOCH
        })
    });
    fields.finish(problems);
    limits.account = account?.name;
    Some(limits)
}

fn amount(name: &str, node: &Node, problems: &mut Problems) -> Option<Amount> {
    decimal(name, node, problems)
}

fn quantity(name: &str, node: &Node, problems: &mut Problems) -> Option<Quantity> {
    decimal(name, node, problems)
}

/// Money and sizes: whole numbers, or text with a point. A float is refused, as it would be rounded.
fn decimal<D: std::str::FromStr<Err = E> + PartialOrd + Default, E: std::fmt::Display>(
    name: &str,
    node: &Node,
    problems: &mut Problems,
) -> Option<D> {
    let text = match &node.value {
        Value::Integer(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Float(number) => {
            let text = format!("`{name}` is {number} without quotes, which would be rounded");
            problems.add_with_help(&node.place, text, format!("write `{name} = \"{number}\"`"));
            return None;
        }
        other => {
            problems.add(&node.place, format!("`{name}` must be a decimal number, not {}", other.what()));
            return None;
        }
    };
    match text.parse::<D>() {
        Ok(number) if number < D::default() => {
            problems.add(&node.place, format!("`{name}` is {text}; a limit can not be negative"));
            None
        }
        Ok(number) => Some(number),
        Err(error) => {
            problems.add(&node.place, format!("`{name}` is `{text}`: {error}"));
            None
        }
    }
}
