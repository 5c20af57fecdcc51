//! Intents to orders to a paper venue and back: two stages, each on the production step of a task, their outputs
//! handed from one to the other. The books must balance with the executions, whatever crashed meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Numbers, dec, instrument, ms, operator};
use tidewire_engine::driver::{Seen, StageBuilder, TestDriver};
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_operators::risk::books::Books;
use tidewire_schemas::{
    CashBalance, ExecType, ExecutionReport, Instrument, Kind, MarkPrice, Order, OrderIntent, OrderStatus,
    OrderType, Position, Record, RiskDecision, RiskLimits, Side, TimeInForce, topics,
};

const ACCOUNTS: [&str; 2] = ["one", "two"];

fn internal(stage: StageBuilder, topic: &str, role: Role, partitions: u32) -> StageBuilder {
    stage.input(topic, role, partitions).tuned(|input| input.external = false)
}

fn risk() -> StageSpec {
    let mut stage = StageBuilder::new("risk");
    stage = internal(stage, topics::INTENTS, Role::Driving, 2);
    stage = internal(stage, topics::EXECUTIONS, Role::Keyed, 2);
    stage = internal(stage, topics::MARKS, Role::Broadcast, 1);
    let inputs = [
        topics::INTENTS,
        topics::EXECUTIONS,
        topics::MARKS,
        topics::INSTRUMENTS,
        topics::RISK_LIMITS,
        topics::CONTROL,
    ];
    stage
        .input(topics::INSTRUMENTS, Role::Broadcast, 1)
        .input(topics::RISK_LIMITS, Role::Control, 1)
        .input(topics::CONTROL, Role::Control, 1)
        .node("risk", operator("risk_orders"), "", &inputs)
        .output(topics::RISK_DECISIONS, 2, &["risk"], &["account"])
        .output(topics::ORDERS, 2, &["risk"], &["account"])
        .output(topics::VENUE_COMMANDS, 1, &["risk"], &["instrument"])
        .output(topics::POSITIONS, 2, &["risk"], &["account", "instrument"])
        .output(topics::CASH, 2, &["risk"], &["account", "currency"])
        .output(topics::ALERTS, 2, &["risk"], &["scope"])
        .with(by_kind)
        .build()
}

fn venue() -> StageSpec {
    let stage = internal(StageBuilder::new("venue"), topics::VENUE_COMMANDS, Role::Driving, 1);
    internal(stage, topics::MARKS, Role::Keyed, 1)
        .input(topics::INSTRUMENTS, Role::Broadcast, 1)
        .node(
            "paper",
            operator("paper_venue"),
            "delay_ms = 20\nfee_bps = '4'\nmaker_fee_bps = '-1'",
            &[topics::VENUE_COMMANDS, topics::MARKS, topics::INSTRUMENTS],
        )
        .output(topics::EXECUTIONS, 2, &["paper"], &["account"])
        .with(by_kind)
        .build()
}

fn by_kind(spec: &mut StageSpec) {
    for output in &mut spec.outputs {
        output.kinds = topics::find(&output.topic).unwrap().kinds.to_vec();
    }
}

fn inverse() -> Instrument {
    Instrument {
        quote: "USD".into(),
        settle: "ETH".into(),
        contract_multiplier: dec("10"),
        inverse: true,
        tick_size: dec("0.05"),
        lot_size: dec("1"),
        ..instrument("ETHUSD.X")
    }
}

/// Both stages, and all that came out of them.
struct Loop {
    risk: TestDriver,
    venue: TestDriver,
    seen: Vec<Seen>,
}

impl Loop {
    fn new() -> Self {
        let both = Self { risk: TestDriver::new(risk()), venue: TestDriver::new(venue()), seen: Vec::new() };
        for instrument in [instrument("BTCUSDT.X"), inverse()] {
            both.risk.append(topics::INSTRUMENTS, &instrument.instrument.clone(), 0, instrument.clone());
            both.venue.append(topics::INSTRUMENTS, &instrument.instrument.clone(), 0, instrument);
        }
        for account in ACCOUNTS {
            let limits = RiskLimits {
                account: account.into(),
                strategy: "*".into(),
                instrument: "*".into(),
                max_position: Some(dec("40")),
                max_order_value: Some(dec("400000")),
                price_collar_bps: Some(500),
                ..RiskLimits::default()
            };
            both.risk.append(topics::RISK_LIMITS, &format!("{account}/*/*"), 0, limits);
        }
        both
    }

    fn mark(&mut self, now: i64, name: &str, mid: i64) {
        let cents = |price: i64| dec(&format!("{}.{:02}", price / 100, price % 100));
        let mark = MarkPrice {
            instrument: name.into(),
            event_time: ms(now),
            mark: cents(mid),
            bid: cents(mid - 5),
            ask: cents(mid + 5),
            ..MarkPrice::default()
        };
        self.risk.append(topics::MARKS, name, now, mark.clone());
        self.venue.append(topics::MARKS, name, now, mark);
    }

    /// Runs both until neither has anything for the other.
    fn settle(&mut self) {
        loop {
            let from_risk = self.risk.run();
            for seen in from_risk.iter().filter(|seen| seen.topic == topics::VENUE_COMMANDS) {
                self.venue.append(topics::VENUE_COMMANDS, &seen.key, seen.time_ms, seen.record.clone());
            }
            let from_venue = self.venue.run();
            for seen in &from_venue {
                self.risk.append(topics::EXECUTIONS, &seen.key, seen.time_ms, seen.record.clone());
            }
            let done = from_venue.is_empty();
            self.seen.extend(from_risk.into_iter().chain(from_venue));
            if done {
                return;
            }
        }
    }

    fn all<B: tidewire_schemas::Body>(&self) -> Vec<B> {
        self.seen.iter().filter_map(|seen| B::of(&seen.record)).cloned().collect()
    }
}

fn run(crashing: bool) -> Loop {
    let mut both = Loop::new();
    let mut numbers = Numbers(3);
    let mut mids = [6_000_000_i64, 250_000];
    let names = ["BTCUSDT.X", "ETHUSD.X"];
    for step in 0..400_i64 {
        let now = 1_000 + step * 30;
        let which = usize::try_from(numbers.below(2)).unwrap();
        mids[which] += numbers.below(2_001) - 1_000;
        both.mark(now, names[which], mids[which]);
        if step % 2 == 0 {
            let limit = numbers.below(3) == 0;
            let away = numbers.below(40) * 25;
            let side = if numbers.below(2) == 0 { Side::Buy } else { Side::Sell };
            let price = (mids[which] + if side == Side::Buy { -away } else { away }) / 5 * 5;
            let account = ACCOUNTS[usize::try_from(numbers.below(2)).unwrap()];
            let reference = dec(&format!("{}.{:02}", mids[which] / 100, mids[which] % 100));
            let intent = OrderIntent {
                id: format!("i{step}").into(),
                account: account.into(),
                strategy: "s".into(),
                instrument: names[which].into(),
                side,
                order_type: if limit { OrderType::Limit } else { OrderType::Market },
                quantity: dec(&format!("{}", 1 + numbers.below(12))),
                limit_price: limit.then(|| dec(&format!("{}.{:02}", price / 100, price % 100))),
                time_in_force: if limit { TimeInForce::Gtc } else { TimeInForce::Ioc },
                reference_price: reference,
                event_time: ms(now),
                ..OrderIntent::default()
            };
            both.risk.append(topics::INTENTS, account, now, intent);
        }
        both.settle();
        if crashing && step % 37 == 11 {
            both.risk.crash();
            both.venue.crash();
        }
    }
    both.venue.wait_ms(60_000);
    both.settle();
    // A last mark of each, so that positions are published with it.
    both.mark(60_000, names[0], mids[0]);
    both.mark(60_000, names[1], mids[1]);
    both.settle();
    both
}

#[test]
fn the_books_balance_and_no_order_is_without_an_approving_decision() {
    let both = run(false);
    assert!(both.risk.dead_letters().is_empty() && both.venue.dead_letters().is_empty());
    let mut counts = BTreeMap::<Kind, usize>::new();
    both.seen.iter().for_each(|seen| *counts.entry(seen.record.kind()).or_default() += 1);
    assert!(!counts.contains_key(&Kind::Alert), "no break: {counts:?}");
    let decisions = both.all::<RiskDecision>();
    let (approved, refused): (Vec<_>, Vec<_>) = decisions.iter().partition(|decision| decision.approved);
    assert!(
        approved.len() > 100 && refused.len() > 10,
        "{} approved, {} refused",
        approved.len(),
        refused.len()
    );
    let allowed: BTreeSet<_> = approved.iter().filter_map(|decision| decision.order_id.clone()).collect();
    let sent: Vec<_> = both.seen.iter().filter(|seen| seen.record.kind() == Kind::NewOrder).collect();
    assert_eq!(sent.len(), allowed.len(), "each approval orders once");
    assert!(sent.iter().all(|seen| seen.record.text("order_id").is_some_and(|id| allowed.contains(id))));
    let mut books = Books::default();
    books.add_instrument(&instrument("BTCUSDT.X"));
    books.add_instrument(&inverse());
    let reports = both.all::<ExecutionReport>();
    reports.iter().for_each(|report| books.add(report));
    assert!(books.fills() > 100, "{} fills", books.fills());
    assert!(
        reports.iter().any(|report| report.exec_type == ExecType::Trade && report.fee.is_negative()),
        "a maker"
    );
    let differences = books.differences(&both.all::<Position>(), &both.all::<CashBalance>());
    assert_eq!(differences, Vec::<String>::new());
    // Each market order has ended; positions kept within the limit.
    let mut last = BTreeMap::new();
    both.all::<Order>().into_iter().for_each(|order| _ = last.insert(order.order_id.clone(), order));
    assert!(
        last.values()
            .filter(|order| order.order_type == OrderType::Market)
            .all(|o| o.status == OrderStatus::Filled)
    );
    assert!(both.all::<Position>().iter().all(|position| position.quantity.abs() <= dec("40")));
}

#[test]
fn crashes_change_nothing() {
    let bodies = |both: &Loop| -> Vec<String> {
        let mut all: Vec<_> =
            both.seen.iter().map(|s| format!("{} {} {:?} {:?}", s.topic, s.key, s.id, s.record)).collect();
        all.sort();
        all
    };
    let (straight, crashed) = (run(false), run(true));
    common::assert_same(&bodies(&crashed), &bodies(&straight), "crashes");
    let orders = |both: &Loop| both.seen.iter().filter(|s| matches!(s.record, Record::NewOrder(_))).count();
    assert_eq!(orders(&straight), orders(&crashed));
}
