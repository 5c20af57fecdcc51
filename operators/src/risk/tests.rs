mod balance;
mod checks;
mod life;
use super::books::Books;
use super::*;
use crate::testing::{Harness, dec, ms, only};
use smol_str::{SmolStr, format_smolstr};
use tidewire_schemas::{
    Alert, Amount, AssetClass, CashBalance, ExecType, ExecutionReport, Instrument, NewOrder, Order,
    OrderCancelReject, OrderType, Position, Price, Quantity, RiskLimits, TimeInForce, Verdict,
};

fn instrument(name: &str, inverse: bool) -> Instrument {
    Instrument {
        instrument: name.into(),
        asset_class: AssetClass::Perpetual,
        base: "BTC".into(),
        quote: "USD".into(),
        settle: if inverse { "BTC" } else { "USD" }.into(),
        contract_multiplier: if inverse { dec("100") } else { Quantity::ONE },
        inverse,
        tick_size: dec("0.5"),
        lot_size: dec("0.1"),
        min_notional: dec("5"),
        ..Instrument::default()
    }
}

fn limits() -> RiskLimits {
    RiskLimits {
        account: "acc".into(),
        strategy: "*".into(),
        instrument: "*".into(),
        ..RiskLimits::default()
    }
}

fn mark(at: i64, instrument: &str, price: &str) -> MarkPrice {
    MarkPrice { instrument: instrument.into(), event_time: ms(at), mark: dec(price), ..MarkPrice::default() }
}

fn intent(id: &str, side: Side, quantity: &str) -> OrderIntent {
    OrderIntent {
        id: id.into(),
        account: "acc".into(),
        strategy: "s".into(),
        instrument: "A.V".into(),
        side,
        order_type: OrderType::Market,
        quantity: dec(quantity),
        time_in_force: TimeInForce::Ioc,
        reference_price: dec("100"),
        event_time: ms(1_000),
        ..OrderIntent::default()
    }
}

fn setup(limits: RiskLimits) -> Harness {
    let mut risk = Harness::new::<RiskOrders>("");
    risk.broadcast("A.V", instrument("A.V", false));
    risk.broadcast("I.V", instrument("I.V", true));
    risk.broadcast("A.V", mark(1_000, "A.V", "100"));
    risk.broadcast("I.V", mark(1_000, "I.V", "50000"));
    risk.broadcast("acc/*/*", limits);
    risk
}

/// The order id of an approved intent, or the reason and the checks that failed.
fn decision(records: &[Record]) -> Result<SmolStr, (SmolStr, Vec<String>)> {
    let decision = only::<RiskDecision>(records).remove(0);
    let orders = only::<NewOrder>(records);
    if decision.approved {
        assert_eq!(orders[0].order_id, decision.order_id.clone().unwrap());
        assert_eq!(only::<Order>(records)[0].status, OrderStatus::PendingNew);
        return Ok(orders[0].order_id.clone());
    }
    assert!(orders.is_empty() && only::<Order>(records).is_empty() && decision.order_id.is_none());
    let failed = decision.checks.iter().filter(|check| check.verdict == Verdict::Fail);
    Err((decision.reason.unwrap(), failed.map(|check| check.check.to_string()).collect()))
}

fn report(order_id: &str, id: &str, exec_type: ExecType) -> ExecutionReport {
    ExecutionReport {
        execution_id: id.into(),
        order_id: order_id.into(),
        account: "acc".into(),
        instrument: "A.V".into(),
        side: Side::Buy,
        exec_type,
        event_time: ms(2_000),
        ..ExecutionReport::default()
    }
}

/// A fill of a buy.
fn fill(
    order_id: &str,
    id: &str,
    quantity: &str,
    price: &str,
    cumulative: &str,
    leaves: &str,
) -> ExecutionReport {
    ExecutionReport {
        last_quantity: dec(quantity),
        last_price: dec(price),
        cumulative_quantity: dec(cumulative),
        leaves_quantity: dec(leaves),
        ..report(order_id, id, ExecType::Trade)
    }
}

fn statuses(records: &[Record]) -> Vec<&'static str> {
    only::<Order>(records).iter().map(|order| order.status.name()).collect()
}

fn breaks(records: &[Record]) -> Vec<String> {
    only::<Alert>(records).iter().filter(|a| a.kind == "break").map(|a| a.text.to_string()).collect()
}

#[test]
fn the_interface_names_all_it_emits() {
    let risk = RiskOrders::new(Settings::default()).unwrap();
    let emits = risk.interface().emits;
    assert!(emits.contains(&Kind::RiskDecision) && emits.contains(&Kind::CancelOrder));
    assert!(!risk.interface().delays, "the venue is what delays");
}
