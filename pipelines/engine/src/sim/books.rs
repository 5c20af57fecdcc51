//! Orders: none without an approving decision, no limit exceeded, and every fill booked once.

use std::collections::{BTreeMap, BTreeSet};

use smol_str::SmolStr;
use tidewire_schemas::{
    ExecutionReport, NewOrder, Order, OrderIntent, OrderStatus, Position, Record, RiskDecision, RiskLimits,
    Side,
};

use super::follow::Made;
use super::operators::{DEFAULT_LIMIT, amount, is_poisoned, whole};
use super::trace::Broken;

struct Intent {
    instrument: SmolStr,
    buys: bool,
    quantity: i64,
    poisoned: bool,
    decided: bool,
}

struct Booked {
    account: SmolStr,
    instrument: SmolStr,
    buys: bool,
    quantity: i64,
    /// Filled by what the risk stage says.
    filled: i64,
    /// Filled by what the venue says.
    executed: i64,
    commanded: bool,
}

/// All intents, orders and positions, kept apart from the stages that make them.
#[derive(Default)]
pub struct Books {
    intents: BTreeMap<SmolStr, Intent>,
    /// Approved orders that were not made yet, with their intents.
    approved: BTreeMap<SmolStr, SmolStr>,
    orders: BTreeMap<SmolStr, Booked>,
    /// Position of an account in an instrument.
    held: BTreeMap<(SmolStr, SmolStr), i64>,
    /// Every limit that was ever in force.
    limits: BTreeMap<SmolStr, BTreeSet<i64>>,
    /// Intents that were approved.
    pub approvals: u64,
}

impl Books {
    /// Takes note of a limit that the outside appended.
    pub fn appended(&mut self, record: &Record) {
        if let Record::RiskLimits(limits) = record
            && let RiskLimits { account, max_position: Some(limit), .. } = &**limits
        {
            self.limits.entry(account.clone()).or_default().insert(whole(*limit));
        }
    }

    /// Takes an output that was made.
    pub fn take(&mut self, made: &Made) -> Result<(), Broken> {
        let done = match &made.record {
            Record::OrderIntent(intent) => self.intend(intent),
            Record::RiskDecision(decision) => self.decide(decision),
            Record::Order(order) => self.order(order),
            Record::NewOrder(order) => self.command(order),
            Record::ExecutionReport(report) => self.execute(report),
            Record::Position(position) => self.position(position),
            _ => Ok(()),
        };
        done.map_err(|(invariant, what)| {
            let detail = format!("{what}: {:?}, at {} offset {}", made.record, made.at, made.offset);
            Broken::new(invariant, detail)
        })
    }

    fn intend(&mut self, intent: &OrderIntent) -> Result<(), (&'static str, String)> {
        let known = self.intents.insert(
            intent.id.clone(),
            Intent {
                instrument: intent.instrument.clone(),
                buys: intent.side == Side::Buy,
                quantity: whole(intent.quantity),
                poisoned: is_poisoned(intent.quantity),
                decided: false,
            },
        );
        ensure(known.is_none(), "intents", || "an intent twice".to_owned())
    }

    fn decide(&mut self, decision: &RiskDecision) -> Result<(), (&'static str, String)> {
        let Some(intent) = self.intents.get_mut(&decision.intent_id) else {
            return Err(("decisions", "a decision without an intent".to_owned()));
        };
        ensure(!intent.decided, "decisions", || "a second decision on an intent".to_owned())?;
        intent.decided = true;
        let working: i64 = self
            .orders
            .values()
            .filter(|order| {
                order.account == decision.account
                    && order.instrument == intent.instrument
                    && order.buys == intent.buys
            })
            .map(|order| order.quantity - order.filled)
            .sum();
        let held = self.held.get(&(decision.account.clone(), intent.instrument.clone())).copied();
        let held = held.unwrap_or(0);
        let worst = if intent.buys { held } else { -held } + working + intent.quantity;
        let check = decision.checks.first().cloned().unwrap_or_default();
        ensure(check.value == Some(amount(worst)), "limits", || {
            format!("the position would be {worst}, not what was checked")
        })?;
        ensure(decision.approved == decision.order_id.is_some(), "decisions", || {
            "an order of a refused intent, or none of an approved one".to_owned()
        })?;
        let Some(order) = &decision.order_id else { return Ok(()) };
        let limit = check.limit.unwrap_or_default();
        let in_force = limit == amount(DEFAULT_LIMIT)
            || self
                .limits
                .get(&decision.account)
                .is_some_and(|limits| limits.iter().any(|known| amount(*known) == limit));
        ensure(in_force, "limits", || "a limit that was never set".to_owned())?;
        ensure(amount(worst) <= limit, "limits", || format!("approved up to {worst}"))?;
        self.approvals += 1;
        let known = self.approved.insert(order.clone(), decision.intent_id.clone());
        ensure(known.is_none(), "decisions", || "an order approved twice".to_owned())
    }

    fn order(&mut self, order: &Order) -> Result<(), (&'static str, String)> {
        if order.status == OrderStatus::New {
            let Some(intent) = self.approved.remove(&order.order_id) else {
                return Err(("orders", "an order without an approving decision".to_owned()));
            };
            let quantity = self.intents.get(&intent).map(|intent| intent.quantity);
            ensure(quantity == Some(whole(order.quantity)), "orders", || "another quantity".to_owned())?;
            let booked = Booked {
                account: order.account.clone(),
                instrument: order.instrument.clone(),
                buys: order.side == Side::Buy,
                quantity: whole(order.quantity),
                filled: 0,
                executed: 0,
                commanded: false,
            };
            let known = self.orders.insert(order.order_id.clone(), booked);
            return ensure(known.is_none(), "orders", || "an order twice".to_owned());
        }
        let Some(booked) = self.orders.get_mut(&order.order_id) else {
            return Err(("orders", "a fill of an order that is not there".to_owned()));
        };
        let filled = whole(order.cumulative_quantity);
        let right = filled > booked.filled
            && filled <= booked.quantity
            && (filled == booked.quantity) == (order.status == OrderStatus::Filled);
        ensure(right, "orders", || format!("{} were filled before", booked.filled))?;
        let held = self.held.entry((booked.account.clone(), booked.instrument.clone())).or_insert(0);
        *held += if booked.buys { filled - booked.filled } else { booked.filled - filled };
        booked.filled = filled;
        Ok(())
    }

    fn command(&mut self, order: &NewOrder) -> Result<(), (&'static str, String)> {
        let Some(booked) = self.orders.get_mut(&order.order_id) else {
            return Err(("orders", "a command without an order".to_owned()));
        };
        let right = !booked.commanded && booked.quantity == whole(order.quantity);
        booked.commanded = true;
        ensure(right, "orders", || "a second command, or one of another quantity".to_owned())
    }

    fn execute(&mut self, report: &ExecutionReport) -> Result<(), (&'static str, String)> {
        let Some(booked) = self.orders.get_mut(&report.order_id) else {
            return Err(("executions", "an execution without an order".to_owned()));
        };
        booked.executed += whole(report.last_quantity);
        let right = booked.commanded
            && booked.executed == whole(report.cumulative_quantity)
            && booked.executed <= booked.quantity;
        ensure(right, "executions", || format!("{} were executed", booked.executed))
    }

    fn position(&mut self, position: &Position) -> Result<(), (&'static str, String)> {
        let held = self.held.get(&(position.account.clone(), position.instrument.clone())).copied();
        ensure(held == Some(whole(position.quantity)), "books balance", || format!("{held:?} are held"))
    }

    /// Whether everything came to its end. Without a venue orders stay as they are.
    pub fn check_complete(&self, has_venue: bool) -> Result<(), Broken> {
        let broken = |invariant, detail: String| Err(Broken::new(invariant, detail));
        if let Some((id, _)) = self.intents.iter().find(|(_, intent)| intent.decided == intent.poisoned) {
            return broken("decisions", format!("intent {id} was not decided on, or must not have been"));
        }
        if let Some((id, intent)) = self.approved.first_key_value() {
            return broken("orders", format!("order {id} of intent {intent} was approved but never made"));
        }
        for (id, order) in &self.orders {
            if !order.commanded {
                return broken("orders", format!("order {id} has no command"));
            }
            if order.filled != order.executed {
                let detail = format!("order {id}: {} booked, {} executed", order.filled, order.executed);
                return broken("books balance", detail);
            }
            if has_venue && order.filled != order.quantity {
                let detail = format!("order {id}: {} of {} filled", order.filled, order.quantity);
                return broken("nothing stalls", detail);
            }
        }
        let mut executed: BTreeMap<(SmolStr, SmolStr), i64> = BTreeMap::new();
        for order in self.orders.values().filter(|order| order.executed > 0) {
            let sum = executed.entry((order.account.clone(), order.instrument.clone())).or_insert(0);
            *sum += if order.buys { order.executed } else { -order.executed };
        }
        match executed == self.held {
            true => Ok(()),
            false => broken("books balance", format!("held {:?}, executed {executed:?}", self.held)),
        }
    }
}

fn ensure(
    holds: bool,
    invariant: &'static str,
    otherwise: impl FnOnce() -> String,
) -> Result<(), (&'static str, String)> {
    if holds { Ok(()) } else { Err((invariant, otherwise())) }
}
