//! Stage B: approves intents into orders, so that no limit is ever exceeded, and books executions.

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Keys, MapState, Operator, OperatorType, State as _, Timer,
    Whole, composite_state, persist,
};
use tidewire_schemas::{
    CheckResult, ControlAction, ExecutionReport, Kind, NewOrder, Order, OrderIntent, OrderStatus, OrderType,
    Position, Record, RiskDecision, RiskMetrics, Side, TimeInForce, Verdict,
};

use super::{amount, is_poisoned, panic_silently, price, quantity, whole};

/// The registry line of the risk operator.
pub const RISK: OperatorType = OperatorType::of::<Risk>();

/// The greatest position of an account in an instrument while no record says otherwise, in whole units.
pub const DEFAULT_LIMIT: i64 = 12;

/// How long after a decision an account's metrics come.
const METRICS_AFTER_MS: i64 = 45;

persist! {
    /// Counts of an account.
    #[derive(Default)]
    pub struct AccountCounts {
        decisions: u64,
        orders: u64,
    }
}

persist! {
    /// An order that is not filled yet.
    pub struct Working {
        instrument: SmolStr,
        buys: bool,
        quantity: i64,
        filled: i64,
        intent: SmolStr,
    }
}

composite_state! {
    /// An account.
    pub struct Account {
        counts: Whole<AccountCounts>,
        positions: MapState<SmolStr, i64>,
        working: MapState<SmolStr, Working>,
    }
}

composite_state! {
    /// What holds for all accounts.
    pub struct Rules {
        halted: Whole<bool>,
        limits: MapState<SmolStr, i64>,
        marks: MapState<SmolStr, i64>,
    }
}

/// Checks intents against a limit on positions, working orders included.
pub struct Risk;

/// Settings of [`Risk`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RiskSettings {
    #[serde(default)]
    note: String,
}

impl Configured for Risk {
    const NAME: &'static str = "sim_risk";
    const ABOUT: &'static str = "Approves intents within a limit.";
    type Settings = RiskSettings;
    fn new(settings: Self::Settings) -> Result<Self, String> {
        let _ = settings.note;
        Ok(Self)
    }
}

impl Risk {
    fn decide(cx: &mut Cx<'_>, intent: &OrderIntent, account: &mut Account, rules: &Rules) {
        let buys = intent.side == Side::Buy;
        let size = whole(intent.quantity);
        let held = account.positions.get(&intent.instrument).copied().unwrap_or(0);
        let working: i64 = account
            .working
            .iter()
            .filter(|(_, order)| order.instrument == intent.instrument && order.buys == buys)
            .map(|(_, order)| order.quantity - order.filled)
            .sum();
        let worst = if buys { held } else { -held } + working + size;
        let limit = rules.limits.get(&intent.account).copied().unwrap_or(DEFAULT_LIMIT);
        let stamp = cx.moment().stamp;
        let reason = match () {
            () if *rules.halted => Some("TradingHalted"),
            // The stamp decides here, so that a re-run with another stamp is seen.
            () if stamp.as_ms() % 11 == 0 => Some("StaleOrder"),
            () if worst > limit => Some("ExceedsLimit"),
            () => None,
        };
        account.counts.decisions += 1;
        let order_id = reason.is_none().then(|| {
            account.counts.orders += 1;
            SmolStr::from(cx.id(account.counts.orders))
        });
        cx.emit(RiskDecision {
            id: format!("{}/{}", intent.account, account.counts.decisions).into(),
            intent_id: intent.id.clone(),
            order_id: order_id.clone(),
            account: intent.account.clone(),
            strategy: intent.strategy.clone(),
            instrument: intent.instrument.clone(),
            approved: reason.is_none(),
            reason: reason.map(SmolStr::new_static),
            checks: vec![CheckResult {
                check: "max_position".into(),
                verdict: if worst > limit { Verdict::Fail } else { Verdict::Pass },
                limit: Some(amount(limit)),
                value: Some(amount(worst)),
                text: None,
            }],
            event_time: stamp,
        });
        cx.set_timer(cx.moment().stream_time.plus_ms(METRICS_AFTER_MS), 1);
        let Some(order_id) = order_id else { return };
        let working = Working {
            instrument: intent.instrument.clone(),
            buys,
            quantity: size,
            filled: 0,
            intent: intent.id.clone(),
        };
        cx.emit(order_of(&order_id, &intent.account, &working));
        cx.emit(NewOrder {
            order_id: order_id.clone(),
            account: intent.account.clone(),
            instrument: intent.instrument.clone(),
            side: intent.side,
            order_type: OrderType::Market,
            quantity: intent.quantity,
            limit_price: None,
            time_in_force: TimeInForce::Ioc,
            event_time: stamp,
        });
        account.working.insert(order_id, working);
    }

    fn book(
        cx: &mut Cx<'_>,
        report: &ExecutionReport,
        account: &mut Account,
        rules: &Rules,
    ) -> Result<(), Fault> {
        let Some(order) = account.working.get_mut(&report.order_id) else {
            return Err(Fault::new("unknown-order", "an execution of an order that is not working"));
        };
        let last = whole(report.last_quantity);
        order.filled += last;
        if order.filled != whole(report.cumulative_quantity) || order.filled > order.quantity {
            return Err(Fault::new("break", "the venue has filled another quantity than we have booked"));
        }
        let position = account.positions.get_or_insert_with(order.instrument.clone(), || 0);
        *position += if order.buys { last } else { -last };
        let position = *position;
        let mark = rules.marks.get(&order.instrument).copied();
        cx.emit(order_of(&report.order_id, &report.account, order));
        cx.emit(Position {
            account: report.account.clone(),
            instrument: order.instrument.clone(),
            quantity: quantity(position),
            mark: mark.map(price),
            event_time: report.event_time,
            ..Position::default()
        });
        if order.filled == order.quantity {
            account.working.remove(&report.order_id);
        }
        Ok(())
    }
}

fn order_of(id: &SmolStr, account: &SmolStr, order: &Working) -> Order {
    Order {
        order_id: id.clone(),
        account: account.clone(),
        strategy: "sim".into(),
        instrument: order.instrument.clone(),
        side: if order.buys { Side::Buy } else { Side::Sell },
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Ioc,
        quantity: quantity(order.quantity),
        status: match order.filled {
            0 => OrderStatus::New,
            filled if filled == order.quantity => OrderStatus::Filled,
            _ => OrderStatus::PartiallyFilled,
        },
        cumulative_quantity: quantity(order.filled),
        leaves_quantity: quantity(order.quantity - order.filled),
        intent_id: order.intent.clone(),
        ..Order::default()
    }
}

impl Operator for Risk {
    type State = Account;
    type Shared = Rules;
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::OrderIntent, Kind::ExecutionReport],
            broadcasts: vec![Kind::RiskLimits, Kind::ControlCommand, Kind::MarkPrice],
            emits: vec![Kind::RiskDecision, Kind::Order, Kind::NewOrder, Kind::Position, Kind::RiskMetrics],
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        account: &mut Account,
        rules: &Rules,
    ) -> Result<(), Fault> {
        match input.record {
            Record::OrderIntent(intent) if is_poisoned(intent.quantity) => {
                panic_silently("a poisoned intent")
            }
            Record::OrderIntent(intent) => Self::decide(cx, intent, account, rules),
            Record::ExecutionReport(report) => Self::book(cx, report, account, rules)?,
            _ => {}
        }
        Ok(())
    }
    fn on_broadcast(
        &self,
        _: &mut Cx<'_>,
        input: &Input<'_>,
        _: &mut Keys<'_, Account>,
        rules: &mut Rules,
    ) -> Result<(), Fault> {
        match input.record {
            Record::RiskLimits(limits) => {
                let limit = limits.max_position.map_or(DEFAULT_LIMIT, whole);
                rules.limits.insert(limits.account.clone(), limit);
            }
            Record::ControlCommand(command) => *rules.halted = command.command == ControlAction::Halt,
            Record::MarkPrice(mark) => {
                let units = mark.mark.units() / tidewire_schemas::decimal::UNITS_PER_ONE;
                rules.marks.insert(mark.instrument.clone(), i64::try_from(units).unwrap_or(0));
            }
            _ => {}
        }
        Ok(())
    }
    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        account: &mut Account,
        _: &Rules,
    ) -> Result<(), Fault> {
        let gross: i64 = account.positions.iter().map(|(_, held)| held.abs()).sum();
        let open = i64::try_from(account.working.entries()).unwrap_or(i64::MAX);
        cx.emit(RiskMetrics {
            account: timer.key.clone(),
            event_time: timer.at,
            gross_exposure: amount(gross),
            net_exposure: amount(open),
            ..RiskMetrics::default()
        });
        Ok(())
    }
}
