//! `risk_orders`: pre-trade checks, orders, positions and cash of each account, in one keyed state.
//!
//! Keyed by account, so that one task sees all of an account and its limits hold across every process.
//!
//! Takes order intents, execution reports and refused cancels; the broadcasts of marks and instruments; the control
//! inputs of limits and commands. Gives
//!
//! * a [`RiskDecision`] for each intent, with every check, its limit, value and verdict ([`checks`]);
//! * for an approved one a [`NewOrder`](tidewire_schemas::NewOrder) to the venue, and an
//!   [`Order`](tidewire_schemas::Order) after each event of its life ([`orders`]);
//! * after each fill the [`Position`](tidewire_schemas::Position) and each movement of cash ([`positions`]), and
//!   positions again at new marks, at most every `pnl_interval_ms` of the marks' time;
//! * [`CancelOrder`]s when a command halts trading or cancels;
//! * alerts of kind `break` where the venue contradicts us.
//!
//! An account without any limits trades nothing. Working orders count against limits with all that is still open.
//! Ids are `<node>:<account>:<count>`, so a re-run orders the same. `OVERRIDE` is not acted on, and an alert of kind
//! `command-not-supported` says so for the account it names. Limits and commands older than what is known are passed
//! by.

pub mod account;
pub mod books;
pub mod checks;
pub mod control;
mod exposure;
pub mod orders;
pub mod positions;
mod rates;
pub mod reasons;
mod reports;

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Keys, Operator};
use tidewire_schemas::{
    AlertState, CancelOrder, ControlAction, ControlCommand, EventTime, Kind, MarkPrice, OrderIntent,
    OrderStatus, Record, RiskDecision, Severity, Side,
};

use self::account::{Account, Known, Sent, remember};
use crate::common::{AlertBody, alert, check_span, overflow};

/// Settings of [`RiskOrders`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Least time between positions of an instrument given out for new marks, in milliseconds.
    pub pnl_interval_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { pnl_interval_ms: 1_000 }
    }
}

/// See the module.
pub struct RiskOrders {
    pnl_interval_ms: i64,
}

impl Configured for RiskOrders {
    const NAME: &'static str = "risk_orders";
    const ABOUT: &'static str = "Pre-trade checks, orders, positions and cash of each account";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_span("pnl_interval_ms", settings.pnl_interval_ms)?;
        Ok(Self { pnl_interval_ms: settings.pnl_interval_ms })
    }
}

impl Operator for RiskOrders {
    type State = Account;
    type Shared = Known;

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::OrderIntent, Kind::ExecutionReport, Kind::OrderCancelReject],
            broadcasts: vec![Kind::MarkPrice, Kind::Instrument, Kind::RiskLimits, Kind::ControlCommand],
            emits: vec![
                Kind::RiskDecision,
                Kind::Order,
                Kind::NewOrder,
                Kind::CancelOrder,
                Kind::Position,
                Kind::CashBalance,
                Kind::Alert,
            ],
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        account: &mut Account,
        known: &Known,
    ) -> Result<(), Fault> {
        if let Some(named) = input.record.text("account")
            && named != input.key.as_str()
        {
            let text =
                format!("the record is of account {named}, its key is {}: key it by its account", input.key);
            return Err(Fault::new("wrong-key", text));
        }
        match input.record {
            Record::OrderIntent(intent) => {
                decide(cx, intent, account, known, input.time);
                Ok(())
            }
            Record::ExecutionReport(report) => reports::on_report(cx, report, account, known),
            Record::OrderCancelReject(reject) => reports::on_cancel_reject(cx, reject, account),
            _ => Ok(()),
        }
    }

    fn on_broadcast(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        keys: &mut Keys<'_, Account>,
        known: &mut Known,
    ) -> Result<(), Fault> {
        match input.record {
            Record::MarkPrice(mark) => self.on_mark(cx, mark, keys, known),
            Record::RiskLimits(limits) => {
                control::take_limits(known, limits);
                Ok(())
            }
            Record::ControlCommand(command) => {
                on_command(cx, command, keys, known);
                Ok(())
            }
            record => {
                crate::instruments::take(&mut known.instruments, record);
                Ok(())
            }
        }
    }
}

/// Runs the checks, publishes them, and orders if they allow it.
fn decide(cx: &mut Cx<'_>, intent: &OrderIntent, account: &mut Account, known: &Known, now: EventTime) {
    let checks = checks::run(intent, account, known, now, cx.moment().stamp);
    let id = account.new_id(cx.node(), &intent.account);
    let approved = checks.refused.is_none();
    let order_id = approved.then(|| account.new_id(cx.node(), &intent.account));
    cx.emit(RiskDecision {
        id,
        intent_id: intent.id.clone(),
        order_id: order_id.clone(),
        account: intent.account.clone(),
        strategy: intent.strategy.clone(),
        instrument: intent.instrument.clone(),
        approved,
        reason: checks.refused.map(|reason| reason.name().into()),
        checks: checks.results,
        event_time: now,
    });
    let Some(order_id) = order_id else { return };
    remember(&mut account.intents, &mut account.intent_order, intent.id.clone(), ());
    let (tracked, command) = orders::new_order(intent, &order_id, now);
    account.note_sent(Sent {
        at: now,
        strategy: intent.strategy.clone(),
        instrument: intent.instrument.clone(),
        side: intent.side,
        quantity: intent.quantity,
        limit_price: intent.limit_price,
    });
    cx.emit(tracked.order.clone());
    cx.emit(command);
    account.keep(tracked, false);
}

impl RiskOrders {
    /// Keeps the mark, and gives out the positions in its instrument if that is due.
    fn on_mark(
        &self,
        cx: &mut Cx<'_>,
        mark: &MarkPrice,
        keys: &mut Keys<'_, Account>,
        known: &mut Known,
    ) -> Result<(), Fault> {
        if known.marks.get(&mark.instrument).is_some_and(|old| mark.event_time < old.event_time) {
            return Ok(());
        }
        known.marks.insert(mark.instrument.clone(), mark.clone());
        let due = known
            .said
            .get(&mark.instrument)
            .is_none_or(|said| mark.event_time >= said.plus_ms(self.pnl_interval_ms));
        if !due || !mark.mark.is_positive() {
            return Ok(());
        }
        let Some(instrument) = known.instruments.get(&mark.instrument).cloned() else { return Ok(()) };
        known.said.insert(mark.instrument.clone(), mark.event_time);
        for key in keys.keys() {
            let Some(account) = keys.get(&key) else { continue };
            if account.holdings.get(&mark.instrument).is_some_and(|holding| !holding.quantity.is_zero()) {
                reports::say_position(
                    cx,
                    &key,
                    &mark.instrument,
                    &instrument,
                    account,
                    known,
                    mark.event_time,
                )
                .map_err(overflow("position", &mark.instrument))?;
            }
        }
        Ok(())
    }
}

/// Halts, reductions and resumptions hold from here on; halts and cancels take working orders back.
fn on_command(cx: &mut Cx<'_>, command: &ControlCommand, keys: &mut Keys<'_, Account>, known: &mut Known) {
    let now = cx.moment().stream_time;
    let took = control::take_command(known, command);
    match command.command {
        ControlAction::Halt if took && command.expiry.is_none_or(|expiry| now < expiry) => {
            cancel_covered(cx, command, keys, now)
        }
        ControlAction::Cancel => cancel_covered(cx, command, keys, now),
        ControlAction::Override | ControlAction::Unknown if keys.get(&command.scope).is_some() => {
            let account = keys.get_mut(&command.scope);
            let body = AlertBody {
                scope: &command.scope,
                kind: "command-not-supported",
                severity: Severity::Warning,
                about: command.command.name(),
                text: format!(
                    "{} by {} has no effect: this build does not know it",
                    command.command, command.who
                ),
                values: &[],
                state: AlertState::Raised,
                event_time: now,
            };
            let mut alert = alert(cx, &mut 0, body);
            alert.id = account.new_id(cx.node(), &command.scope);
            cx.emit_for(&command.scope, alert);
        }
        _ => {}
    }
}

fn cancel_covered(cx: &mut Cx<'_>, command: &ControlCommand, keys: &mut Keys<'_, Account>, now: EventTime) {
    let target = if command.command == ControlAction::Cancel { command.target.as_ref() } else { None };
    for key in keys.keys() {
        let Some(account) = keys.get(&key) else { continue };
        let covered: Vec<SmolStr> = account
            .working
            .iter()
            .filter(|(id, tracked)| {
                let order = &tracked.order;
                order.status != OrderStatus::PendingCancel
                    && control::covers(&command.scope, &order.account, &order.strategy, &order.instrument)
                    && target.is_none_or(|target| target == *id)
            })
            .map(|(id, _)| id.clone())
            .collect();
        if covered.is_empty() {
            continue;
        }
        let account = keys.get_mut(&key);
        for id in covered {
            cancel(cx, &key, account, &id, now);
        }
    }
}

fn cancel(cx: &mut Cx<'_>, key: &SmolStr, account: &mut Account, id: &SmolStr, now: EventTime) {
    let Some(mut tracked) = account.working.get(id).cloned() else { return };
    let request_id = account.new_id(cx.node(), key);
    tracked.order.status = OrderStatus::PendingCancel;
    tracked.order.event_time = now;
    let order = &tracked.order;
    let request = CancelOrder {
        order_id: request_id,
        original_order_id: id.clone(),
        account: order.account.clone(),
        instrument: order.instrument.clone(),
        side: order.side,
        event_time: now,
    };
    account.note_sent(Sent {
        at: now,
        strategy: order.strategy.clone(),
        instrument: order.instrument.clone(),
        side: Side::Unknown,
        quantity: tidewire_schemas::Quantity::ZERO,
        limit_price: None,
    });
    cx.emit_for(key, order.clone());
    cx.emit_for(key, request);
    account.keep(tracked, false);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
