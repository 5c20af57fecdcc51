//! What several operators need: faults with the words of a decimal error, bounds of settings, prices of a quote.

use tidewire_contract::{Cx, Fault};
use tidewire_schemas::{Alert, AlertState, DecimalError, EventTime, Price, Quote, Severity};

/// Longest span of time a setting may name: ten years. Far below what would overflow microseconds.
pub(crate) const MAX_SPAN_MS: i64 = 10 * 366 * 86_400_000;

/// Refuses a span of time that is not within 1 ms and ten years.
pub(crate) fn check_span(name: &str, value_ms: i64) -> Result<(), String> {
    check_between(name, value_ms, 1, MAX_SPAN_MS)
}

/// Refuses a number beyond its bounds, which the message names.
pub(crate) fn check_between(name: &str, value: i64, least: i64, greatest: i64) -> Result<(), String> {
    if (least..=greatest).contains(&value) {
        return Ok(());
    }
    Err(format!("`{name}` is {value}; it must be from {least} to {greatest}"))
}

/// Refuses a number that is not finite or lies beyond its bounds.
pub(crate) fn check_float(name: &str, value: f64, least: f64, greatest: f64) -> Result<(), String> {
    if value >= least && value <= greatest {
        return Ok(());
    }
    Err(format!("`{name}` is {value}; it must be from {least} to {greatest}"))
}

/// Refuses an empty or overlong name.
pub(crate) fn check_name(setting: &str, name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > 100 {
        return Err(format!("`{setting}` must have 1 to 100 characters"));
    }
    Ok(())
}

/// Makes a decimal error of `what` into a fault that names where it happened.
pub(crate) fn overflow<'a>(what: &'a str, of: &'a str) -> impl FnOnce(DecimalError) -> Fault + 'a {
    move |error| Fault::new("overflow", format!("{what} of {of}: {error}"))
}

/// Half way between two prices, rounded half to even.
pub(crate) fn middle(bid: Price, ask: Price) -> Result<Price, DecimalError> {
    bid.checked_add(ask)?.checked_mul_ratio(1, 2)
}

/// Whether a quote has two sides and they do not cross. Only of such a quote is there a mid or a spread.
pub(crate) fn two_sided(quote: &Quote) -> bool {
    quote.bid_price.is_positive() && quote.ask_price.is_positive() && quote.bid_price <= quote.ask_price
}

/// The first boundary of `every_ms` that is not before `time`.
pub(crate) fn boundary_at_or_after(time: EventTime, every_ms: i64) -> EventTime {
    let floor = time.floor_to(every_ms.saturating_mul(1_000));
    if floor == time { time } else { floor.plus_ms(every_ms) }
}

/// The first boundary of `every_ms` that is after `time`.
pub(crate) fn boundary_after(time: EventTime, every_ms: i64) -> EventTime {
    time.floor_to(every_ms.saturating_mul(1_000)).plus_ms(every_ms)
}

/// What an alert says, apart from its id.
pub(crate) struct AlertBody<'a> {
    pub scope: &'a str,
    pub kind: &'a str,
    pub severity: Severity,
    /// What tells alerts of one kind and scope apart; empty where there is only one.
    pub about: &'a str,
    pub text: String,
    pub values: &'a [(&'a str, f64)],
    pub state: AlertState,
    pub event_time: EventTime,
}

/// Makes an alert with the next id and counts it. Raised and recovered alerts share their dedupe key.
pub(crate) fn alert(cx: &Cx<'_>, count: &mut u64, body: AlertBody<'_>) -> Alert {
    let id = cx.id(*count).into();
    *count += 1;
    let mut dedupe_key = format!("{}:{}", body.kind, body.scope);
    if !body.about.is_empty() {
        dedupe_key.push(':');
        dedupe_key.push_str(body.about);
    }
    Alert {
        id,
        scope: body.scope.into(),
        kind: body.kind.into(),
        severity: body.severity,
        dedupe_key: dedupe_key.into(),
        text: body.text.into(),
        values: body.values.iter().map(|(name, value)| ((*name).into(), *value)).collect(),
        state: body.state,
        event_time: body.event_time,
    }
}
