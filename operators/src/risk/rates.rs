//! Checks of how often: duplicates, messages, repeated executions. Time is the task's.

use tidewire_schemas::{Amount, EventTime};

use super::account::MAX_RATE_WINDOW_MS;
use super::checks::{Case, Found};

/// The same intent again, or a like order within the window.
pub(super) fn duplicate(case: &Case<'_>) -> Found {
    let intent = case.intent;
    if case.account.intents.get(&intent.id).is_some() {
        return Found::Says { passes: false, text: format!("intent {} was taken before", intent.id) };
    }
    let Some(window_ms) = case.least(|limits| limits.duplicate_window_ms.map(std::cmp::Reverse)) else {
        return Found::Says { passes: true, text: String::new() };
    };
    // The strictest window is the longest.
    let after = case.now.minus_ms(window_ms.0.clamp(0, MAX_RATE_WINDOW_MS));
    let like = case.account.sent.iter().rev().take_while(|sent| sent.at > after).find(|sent| {
        (&sent.strategy, &sent.instrument, sent.side) == (&intent.strategy, &intent.instrument, intent.side)
            && (sent.quantity, sent.limit_price) == (intent.quantity, intent.limit_price)
    });
    match like {
        Some(sent) => Found::Says { passes: false, text: format!("a like order went out at {}", sent.at) },
        None => Found::Says { passes: true, text: String::new() },
    }
}

/// Messages to the venue within the window, this one included.
pub(super) fn messages(case: &Case<'_>) -> Found {
    let windows = case.limits.iter().map(|limits| (limits.max_messages, limits.messages_window_ms));
    strictest(
        windows,
        |after| case.account.sent.iter().rev().take_while(|sent| sent.at > after).count() + 1,
        case.now,
    )
}

/// Fills of the strategy within the window, beyond which it is stopped until they leave it.
pub(super) fn repeated(case: &Case<'_>) -> Found {
    let windows = case
        .limits
        .iter()
        .map(|limits| (limits.max_repeated_executions, limits.repeated_executions_window_ms));
    let count = |after: EventTime| {
        let recent = case.account.fills.iter().rev().take_while(|(at, _)| *at > after);
        recent.filter(|(_, strategy)| *strategy == case.intent.strategy).count() + 1
    };
    strictest(windows, count, case.now)
}

/// The first limit that is passed, else the last one looked at.
fn strictest(
    windows: impl Iterator<Item = (Option<i64>, Option<i64>)>,
    count: impl Fn(EventTime) -> usize,
    now: EventTime,
) -> Found {
    let mut found = Found::Skipped;
    for (limit, window_ms) in windows {
        let (limit, window_ms) = match (limit, window_ms) {
            (None, _) => continue,
            (Some(limit), Some(window_ms)) if (1..=MAX_RATE_WINDOW_MS).contains(&window_ms) => {
                (limit, window_ms)
            }
            (Some(_), _) => {
                return Found::Undecidable(format!(
                    "its window must be set, from 1 to {MAX_RATE_WINDOW_MS} ms"
                ));
            }
        };
        let value = i64::try_from(count(now.minus_ms(window_ms))).unwrap_or(i64::MAX);
        found = Found::of(
            Amount::from_int(limit)
                .and_then(|l| Ok(Found::Within { limit: l, value: Amount::from_int(value)? })),
        );
        if value > limit {
            return found;
        }
    }
    found
}
