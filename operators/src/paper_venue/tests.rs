use tidewire_schemas::{
    Amount, AssetClass, ExecutionReport, OrderCancelReject, OrderType, Side, TimeInForce,
};

use super::*;
use crate::testing::{Harness, dec, ms, only};

fn instrument() -> Instrument {
    Instrument {
        instrument: "A.V".into(),
        asset_class: AssetClass::Perpetual,
        settle: "USD".into(),
        contract_multiplier: Quantity::ONE,
        ..Instrument::default()
    }
}

fn venue() -> Harness {
    let mut venue = Harness::new::<PaperVenue>("delay_ms = 10\nfee_bps = '5'\nmaker_fee_bps = '-1'");
    venue.broadcast("A.V", instrument());
    venue.send("A.V", touch(0, "100", "101"));
    venue
}

fn touch(at: i64, bid: &str, ask: &str) -> MarkPrice {
    MarkPrice { event_time: ms(at), bid: dec(bid), ask: dec(ask), ..MarkPrice::default() }
}

fn market(id: &str, at: i64, side: Side, quantity: &str) -> NewOrder {
    NewOrder {
        order_id: id.into(),
        account: "acc".into(),
        instrument: "A.V".into(),
        side,
        order_type: OrderType::Market,
        quantity: dec(quantity),
        limit_price: None,
        time_in_force: TimeInForce::Ioc,
        event_time: ms(at),
    }
}

fn limit(id: &str, at: i64, side: Side, price: &str, time_in_force: TimeInForce) -> NewOrder {
    NewOrder {
        order_type: OrderType::Limit,
        limit_price: Some(dec(price)),
        time_in_force,
        ..market(id, at, side, "2")
    }
}

fn cancel(at: i64, original: &str) -> CancelOrder {
    CancelOrder {
        order_id: "c".into(),
        original_order_id: original.into(),
        account: "acc".into(),
        event_time: ms(at),
        ..CancelOrder::default()
    }
}

fn rows(records: &[Record]) -> Vec<String> {
    let row = |r: &ExecutionReport| {
        let fill = if r.last_quantity.is_zero() {
            String::new()
        } else {
            format!(" {}@{}", r.last_quantity, r.last_price)
        };
        format!("{} {} {}{fill}", r.event_time.as_ms(), r.order_id, r.exec_type)
    };
    only::<ExecutionReport>(records).iter().map(row).collect()
}

#[test]
fn a_market_order_fills_at_the_touch_after_the_delay() {
    for restarting in [false, true] {
        let mut venue = venue();
        if restarting {
            venue = venue.restarting();
        }
        assert!(venue.send("A.V", market("b", 5, Side::Buy, "3")).is_empty(), "nothing without delay");
        assert!(venue.send("A.V", touch(14, "102", "103")).is_empty());
        let records = venue.advance_to(ms(15));
        assert_eq!(rows(&records), ["15 b NEW", "15 b TRADE 3@103"]);
        let reports = only::<ExecutionReport>(&records);
        assert_eq!(
            (reports[0].execution_id.as_str(), reports[1].execution_id.as_str()),
            ("node:A.V:0", "node:A.V:1")
        );
        assert_eq!((reports[0].leaves_quantity, reports[0].cumulative_quantity), (dec("3"), Quantity::ZERO));
        let fill = &reports[1];
        assert_eq!((fill.leaves_quantity, fill.cumulative_quantity), (Quantity::ZERO, dec("3")));
        // 309 * 5 bps
        assert_eq!((fill.fee, fill.fee_currency.as_str()), (dec::<Amount>("0.1545"), "USD"));
        venue.send("A.V", market("s", 20, Side::Sell, "1"));
        assert_eq!(rows(&venue.advance_to(ms(99))), ["30 s NEW", "30 s TRADE 1@102"]);
    }
}

#[test]
fn limits_fill_rest_or_expire() {
    use TimeInForce::{Day, Fok, Gtc, Ioc};
    for (side, price, tif, want) in [
        (Side::Buy, "101", Ioc, Some("TRADE 2@101")),
        (Side::Buy, "105", Gtc, Some("TRADE 2@101")),
        (Side::Buy, "100.9", Ioc, Some("EXPIRED")),
        (Side::Buy, "100.9", Fok, Some("EXPIRED")),
        (Side::Buy, "100.9", Gtc, None),
        (Side::Sell, "100", Ioc, Some("TRADE 2@100")),
        (Side::Sell, "100.1", Ioc, Some("EXPIRED")),
        (Side::Sell, "100.1", Day, None),
    ] {
        let mut venue = venue();
        venue.send("A.V", limit("o", 0, side, price, tif));
        let mut expected = vec!["10 o NEW".to_owned()];
        expected.extend(want.map(|want| format!("10 o {want}")));
        assert_eq!(rows(&venue.advance_to(ms(50))), expected, "{side} {price} {tif}");
    }
}

#[test]
fn a_resting_order_fills_at_its_limit_when_the_touch_reaches_it() {
    for restarting in [false, true] {
        let mut venue = venue();
        if restarting {
            venue = venue.restarting();
        }
        venue.send("A.V", limit("b", 0, Side::Buy, "99", TimeInForce::Gtc));
        venue.send("A.V", limit("far", 0, Side::Buy, "90", TimeInForce::Gtc));
        venue.advance_to(ms(10));
        assert!(venue.send("A.V", touch(20, "98", "98.5")).is_empty(), "not without delay");
        // Filled at the venue, though the report is under way: a cancel is too late.
        venue.send("A.V", cancel(25, "b"));
        venue.send("A.V", touch(26, "100", "101"));
        let records = venue.advance_to(ms(50));
        assert_eq!(rows(&records), ["30 b TRADE 2@99"]);
        let fill = &only::<ExecutionReport>(&records)[0];
        assert_eq!(fill.liquidity, tidewire_schemas::Liquidity::Maker);
        assert_eq!(fill.fee, dec("-0.0198"));
        let reject = only::<OrderCancelReject>(&records).remove(0);
        assert_eq!((reject.reason.as_str(), reject.order_status), ("TooLateToCancel", OrderStatus::Filled));
        assert_eq!(reject.event_time, ms(35));
    }
}

#[test]
fn cancels_and_replaces() {
    let mut venue = venue();
    venue.send("A.V", limit("b", 0, Side::Buy, "99", TimeInForce::Gtc));
    venue.send("A.V", cancel(20, "b"));
    venue.send("A.V", cancel(21, "x"));
    let records = venue.advance_to(ms(40));
    assert_eq!(rows(&records), ["30 c CANCELED"]);
    let report = &only::<ExecutionReport>(&records)[0];
    assert_eq!((report.original_order_id.as_deref(), report.leaves_quantity), (Some("b"), Quantity::ZERO));
    assert_eq!(only::<OrderCancelReject>(&records)[0].reason, "UnknownOrder");
    venue.send("A.V", limit("d", 50, Side::Buy, "99", TimeInForce::Gtc));
    let replace = ReplaceOrder {
        order_id: "e".into(),
        original_order_id: "d".into(),
        account: "acc".into(),
        instrument: "A.V".into(),
        side: Side::Buy,
        order_type: OrderType::Limit,
        quantity: dec("3"),
        limit_price: Some(dec("101")),
        time_in_force: TimeInForce::Gtc,
        event_time: ms(70),
    };
    venue.send("A.V", replace.clone());
    let records = venue.advance_to(ms(90));
    assert_eq!(rows(&records), ["80 e REPLACED", "80 e TRADE 3@101"]);
    venue.send("A.V", ReplaceOrder { order_id: "f".into(), event_time: ms(91), ..replace });
    let reject = only::<OrderCancelReject>(&venue.advance_to(ms(120))).remove(0);
    assert_eq!((reject.reason.as_str(), reject.order_status), ("TooLateToCancel", OrderStatus::Replaced));
}

#[test]
fn refusals() {
    let order = market("o", 0, Side::Buy, "1");
    for (order, words) in [
        (NewOrder { quantity: Quantity::ZERO, ..order.clone() }, "IncorrectQuantity"),
        (NewOrder { side: Side::Unknown, ..order.clone() }, "UnsupportedOrderCharacteristic"),
        (NewOrder { order_type: OrderType::Limit, ..order.clone() }, "UnsupportedOrderCharacteristic"),
        (NewOrder { limit_price: Some(dec("1")), ..order.clone() }, "UnsupportedOrderCharacteristic"),
    ] {
        let mut venue = venue();
        venue.send("A.V", order);
        let records = venue.advance_to(ms(20));
        assert_eq!(rows(&records), ["10 o REJECTED"]);
        assert!(only::<ExecutionReport>(&records)[0].text.as_deref().unwrap().starts_with(words));
    }
    let mut venue = venue();
    venue.send("A.V", order.clone());
    venue.send("A.V", order.clone());
    assert_eq!(rows(&venue.advance_to(ms(20))), ["10 o NEW", "10 o TRADE 1@101", "10 o REJECTED"]);
    // No touch, on the side that is needed; an instrument that is not known.
    venue.send("A.V", touch(30, "100", "0"));
    venue.send("A.V", touch(29, "100", "101"));
    venue.send("A.V", market("p", 31, Side::Buy, "1"));
    venue.send("A.V", market("q", 31, Side::Sell, "1"));
    venue.send("X.V", market("r", 31, Side::Sell, "1"));
    let got = rows(&venue.advance_to(ms(50)));
    assert_eq!(got, ["41 p REJECTED", "41 q NEW", "41 q TRADE 1@100", "41 r REJECTED"]);
}

#[test]
fn settings_that_can_not_be() {
    let words = |settings: &str| PaperVenue::new(toml::from_str(settings).unwrap()).err().unwrap();
    assert!(words("delay_ms = 0").contains("delay_ms"));
    assert!(words("delay_ms = 1\nfee_bps = '10001'").contains("fee_bps"));
    assert!(PaperVenue::new(toml::from_str("delay_ms = 1").unwrap()).unwrap().interface().delays);
}

#[test]
fn a_cancel_under_way_when_the_touch_comes_is_too_late() {
    let mut venue = venue();
    venue.send("A.V", limit("b", 0, Side::Buy, "99", TimeInForce::Gtc));
    venue.send("A.V", cancel(15, "b"));
    // The touch reaches the order at 20; the cancel takes effect at 25, the report of the fill comes at 30.
    venue.send("A.V", touch(20, "98", "99"));
    let records = venue.advance_to(ms(50));
    assert_eq!(rows(&records), ["30 b TRADE 2@99"]);
    assert_eq!(only::<OrderCancelReject>(&records)[0].reason, "TooLateToCancel");
}

#[test]
fn an_order_does_not_see_a_touch_after_it_took_effect() {
    // Timers lag behind records here, as they do within an epoch.
    let mut venue = venue().out_of_orderness_ms(1_000);
    assert!(venue.send("A.V", market("b", 5, Side::Buy, "3")).is_empty());
    assert!(venue.send("A.V", touch(15, "102", "103")).is_empty());
    assert_eq!(rows(&venue.send("A.V", touch(16, "200", "201"))), ["15 b NEW", "15 b TRADE 3@103"]);
}
