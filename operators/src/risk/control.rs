//! Trading state and limits that apply to an intent.

use smol_str::SmolStr;
use tidewire_schemas::{ControlAction, ControlCommand, EventTime, OrderIntent, RiskLimits};

use super::account::Known;

/// Stands for every account, strategy or instrument.
pub const ALL: &str = "*";

/// What a command leaves open, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TradingState {
    /// Orders are taken.
    Active,
    /// Only orders that make a position smaller.
    Reducing,
    /// None.
    Halted,
}

impl TradingState {
    /// As control dashboards show it.
    pub const fn name(self) -> &'static str {
        match self {
            TradingState::Active => "ACTIVE",
            TradingState::Reducing => "REDUCING",
            TradingState::Halted => "HALTED",
        }
    }
}

/// Whether a scope covers an order: it names its account, strategy or instrument, or all.
pub fn covers(scope: &str, account: &str, strategy: &str, instrument: &str) -> bool {
    [ALL, account, strategy, instrument].contains(&scope)
}

/// The worst state that any command in force gives, and who asked for it and why.
pub fn trading_state<'a>(
    known: &'a Known,
    account: &str,
    strategy: &str,
    instrument: &str,
    now: EventTime,
) -> (TradingState, Option<&'a ControlCommand>) {
    let mut worst = (TradingState::Active, None);
    for scope in [ALL, account, strategy, instrument] {
        let command = known.commands.get(&SmolStr::new(scope));
        let Some(command) = command.filter(|command| command.expiry.is_none_or(|expiry| now < expiry)) else {
            continue;
        };
        let state = match command.command {
            ControlAction::Halt => TradingState::Halted,
            ControlAction::Reduce => TradingState::Reducing,
            _ => TradingState::Active,
        };
        if state > worst.0 {
            worst = (state, Some(command));
        }
    }
    worst
}

/// Takes a halt, reduction or resumption, unless a later one is known for its scope. Says whether it took it.
pub fn take_command(known: &mut Known, command: &ControlCommand) -> bool {
    let sets_state =
        matches!(command.command, ControlAction::Halt | ControlAction::Reduce | ControlAction::Resume);
    let old = known.commands.get(&command.scope);
    let newer = old.is_none_or(|old| old.event_time <= command.event_time);
    if sets_state && newer {
        known.commands.insert(command.scope.clone(), command.clone());
    }
    sets_state && newer
}

/// Takes limits, unless later ones are known for the same account, strategy and instrument.
pub fn take_limits(known: &mut Known, limits: &RiskLimits) {
    let place = (limits.account.clone(), limits.strategy.clone(), limits.instrument.clone());
    if known.limits.get(&place).is_none_or(|old| old.event_time <= limits.event_time) {
        known.limits.insert(place, limits.clone());
    }
}

/// Limits that apply to an intent: those of its account, for its strategy or all, its instrument or all.
pub fn limits_for<'a>(known: &'a Known, intent: &OrderIntent) -> Vec<&'a RiskLimits> {
    let all = SmolStr::new_static(ALL);
    let mut found = Vec::new();
    for strategy in [&intent.strategy, &all] {
        for instrument in [&intent.instrument, &all] {
            found.extend(known.limits.get(&(intent.account.clone(), strategy.clone(), instrument.clone())));
        }
    }
    found
}
