use super::*;

#[test]
fn an_account_without_limits_trades_nothing() {
    let mut risk = setup(RiskLimits { account: "other".into(), ..limits() });
    let refused = decision(&risk.send("acc", intent("i", Side::Buy, "1"))).unwrap_err();
    assert_eq!(refused, ("UnknownAccount".into(), vec!["limits_set".to_owned()]));
}

#[test]
fn every_check_is_published() {
    let mut risk = setup(limits());
    let decision = only::<RiskDecision>(&risk.send("acc", intent("i", Side::Buy, "1"))).remove(0);
    assert_eq!(decision.id, "node:acc:0");
    assert_eq!(decision.order_id.as_deref(), Some("node:acc:1"));
    let names: Vec<_> = decision.checks.iter().map(|check| check.check.as_str()).collect();
    assert_eq!(names.len(), 27);
    for name in
        ["trading_state", "maximum_intent_age", "price_collar", "maximum_order_value", "maximum_position"]
    {
        assert!(names.contains(&name), "{name}");
    }
    // Without limits of their own these are skipped, not passed.
    let verdict = |name: &str| decision.checks.iter().find(|check| check.check == name).unwrap().verdict;
    assert_eq!(verdict("price_collar"), Verdict::Skipped);
    assert_eq!(verdict("lot_size"), Verdict::Pass);
}

/// One row a check: what is set, the intent that just passes, the one that just does not, and why.
#[test]
fn limits_at_their_edges() {
    let buy = |quantity: &str| intent("i", Side::Buy, quantity);
    let at = |price: &str| OrderIntent { reference_price: dec(price), ..buy("1") };
    let limit =
        |price: &str| OrderIntent { order_type: OrderType::Limit, limit_price: Some(dec(price)), ..buy("1") };
    let old = |event_time: i64| OrderIntent { event_time: ms(event_time), ..buy("1") };
    let some = |text: &str| Some(dec::<Amount>(text));
    let l = limits;
    let rows: Vec<(RiskLimits, OrderIntent, OrderIntent, &str, &str)> = vec![
        (
            RiskLimits { max_order_value: some("200"), ..l() },
            buy("2"),
            buy("2.1"),
            "NotionalValueExceedsThreshold",
            "maximum_order_value",
        ),
        (
            RiskLimits { max_order_quantity: Some(dec("3")), ..l() },
            buy("3"),
            buy("3.1"),
            "OrderExceedsLimit",
            "maximum_order_volume",
        ),
        (
            RiskLimits { max_position: Some(dec("3")), ..l() },
            buy("3"),
            buy("3.1"),
            "OrderExceedsLimit",
            "maximum_position",
        ),
        (
            RiskLimits { max_position_value: some("300"), ..l() },
            buy("3"),
            buy("3.1"),
            "NotionalValueExceedsThreshold",
            "maximum_position_value",
        ),
        (
            RiskLimits { price_collar_bps: Some(100), ..l() },
            at("101"),
            at("101.0001"),
            "PriceExceedsCurrentPriceBand",
            "price_collar",
        ),
        (
            RiskLimits { price_collar_bps: Some(100), ..l() },
            at("99"),
            at("98.9999"),
            "PriceExceedsCurrentPriceBand",
            "price_collar",
        ),
        (
            RiskLimits { price_collar_bps: Some(100), ..l() },
            limit("101"),
            limit("101.5"),
            "PriceExceedsCurrentPriceBand",
            "price_collar",
        ),
        (
            RiskLimits { max_intent_age_ms: Some(500), ..l() },
            old(500),
            old(499),
            "StaleOrder",
            "maximum_intent_age",
        ),
        (
            RiskLimits { max_gross_exposure: some("300"), ..l() },
            buy("3"),
            buy("3.1"),
            "NotionalValueExceedsThreshold",
            "gross_exposure",
        ),
        (
            RiskLimits { max_net_exposure: some("300"), ..l() },
            buy("3"),
            buy("3.1"),
            "NotionalValueExceedsThreshold",
            "net_exposure",
        ),
        (
            RiskLimits { max_long_exposure: some("300"), ..l() },
            buy("3"),
            buy("3.1"),
            "NotionalValueExceedsThreshold",
            "long_exposure",
        ),
        (
            RiskLimits { max_short_exposure: some("300"), ..l() },
            buy("9"),
            intent("i", Side::Sell, "3.1"),
            "NotionalValueExceedsThreshold",
            "short_exposure",
        ),
        (
            RiskLimits { restricted: Some(false), ..l() },
            buy("1"),
            buy("0.15"),
            "IncorrectQuantity",
            "lot_size",
        ),
        (l(), limit("100.5"), limit("100.4"), "InvalidPriceIncrement", "price_increment"),
        (
            l(),
            limit("50"),
            OrderIntent { quantity: dec("0.1"), ..limit("49.5") },
            "IncorrectQuantity",
            "minimum_notional",
        ),
        (
            l(),
            OrderIntent { expiry: Some(ms(1_001)), ..buy("1") },
            OrderIntent { expiry: Some(ms(1_000)), ..buy("1") },
            "TooLateToEnter",
            "intent_expiry",
        ),
        (
            l(),
            buy("1"),
            OrderIntent { side: Side::Unknown, ..buy("1") },
            "UnsupportedOrderCharacteristic",
            "order_characteristics",
        ),
        (
            l(),
            buy("1"),
            OrderIntent { order_type: OrderType::Limit, ..buy("1") },
            "UnsupportedOrderCharacteristic",
            "order_characteristics",
        ),
        (
            l(),
            buy("1"),
            OrderIntent { limit_price: Some(dec("1")), ..buy("100") },
            "UnsupportedOrderCharacteristic",
            "order_characteristics",
        ),
        (
            l(),
            buy("1"),
            OrderIntent { time_in_force: TimeInForce::Unknown, ..buy("1") },
            "UnsupportedOrderCharacteristic",
            "order_characteristics",
        ),
    ];
    for (limits, passes, fails, reason, check) in rows {
        let mut risk = setup(limits.clone());
        decision(&risk.send("acc", passes)).unwrap_or_else(|failed| panic!("{check} passes: {failed:?}"));
        let refused = decision(&setup(limits).send("acc", fails)).unwrap_err();
        assert_eq!(refused, (reason.into(), vec![check.to_owned()]));
    }
}

#[test]
fn what_can_not_be_decided_is_refused() {
    let limits = RiskLimits { price_collar_bps: Some(100), max_mark_age_ms: Some(1_000), ..limits() };
    let mut risk = setup(limits.clone());
    // The mark is of 1000; the intent makes it 2001.
    let old = OrderIntent { event_time: ms(2_001), ..intent("i", Side::Buy, "1") };
    assert_eq!(decision(&risk.send("acc", old)).unwrap_err().1, ["stale_market_data"]);
    let mut unknown = intent("i", Side::Buy, "1");
    unknown.instrument = "X.V".into();
    let refused = decision(&setup(limits.clone()).send("acc", unknown.clone())).unwrap_err();
    assert_eq!(refused.0, "UnknownSymbol");
    assert!(refused.1.contains(&"price_collar".to_owned()), "{refused:?}");
    // Known, but without a mark; the strategy's own price must not stand in for the collar.
    let mut risk = setup(limits);
    risk.broadcast("X.V", instrument("X.V", false));
    let refused = decision(&risk.send("acc", unknown)).unwrap_err();
    assert_eq!(
        refused,
        ("ReferencePriceNotAvailable".into(), vec!["stale_market_data".into(), "price_collar".into()])
    );
    // A limit that is not enforced must not look as if it were.
    let mut risk = setup(RiskLimits { max_daily_loss: Some(dec("1")), ..self::limits() });
    assert_eq!(
        decision(&risk.send("acc", intent("i", Side::Buy, "1"))).unwrap_err().1,
        ["maximum_daily_loss"]
    );
    // An overflow.
    let mut risk = setup(RiskLimits { max_order_value: Some(Amount::MAX), ..self::limits() });
    let huge = intent("i", Side::Buy, "9999999999999999");
    assert_eq!(decision(&risk.send("acc", huge)).unwrap_err().1, ["minimum_notional", "maximum_order_value"]);
    let none = decision(&risk.send("acc", intent("i", Side::Buy, "0"))).unwrap_err();
    assert_eq!(none, ("IncorrectQuantity".into(), vec!["lot_size".into(), "minimum_notional".into()]));
    let wrong = risk.try_send("other", intent("i", Side::Buy, "1"), false).unwrap_err();
    assert_eq!(wrong.code, "wrong-key");
}

#[test]
fn working_orders_count_until_they_end() {
    for restarting in [false, true] {
        let mut risk = setup(RiskLimits { max_position: Some(dec("3")), ..limits() });
        if restarting {
            risk = risk.restarting();
        }
        let order = decision(&risk.send("acc", intent("a", Side::Buy, "2"))).unwrap();
        assert!(decision(&risk.send("acc", intent("b", Side::Buy, "2"))).is_err(), "2 are working");
        decision(&risk.send("acc", intent("c", Side::Sell, "3")))
            .expect("the buy does not help a sell, nor hurt it");
        assert!(decision(&risk.send("acc", intent("d", Side::Sell, "0.1"))).is_err());
        risk.send("acc", fill(&order, "e1", "1.5", "100", "1.5", "0.5"));
        assert!(decision(&risk.send("acc", intent("f", Side::Buy, "1.1"))).is_err(), "1.5 held, 0.5 working");
        risk.send("acc", report(&order, "e2", ExecType::Canceled));
        decision(&risk.send("acc", intent("g", Side::Buy, "1.5"))).expect("what was cancelled is free again");
        assert!(decision(&risk.send("acc", intent("h", Side::Buy, "0.1"))).is_err());
    }
}

#[test]
fn the_strictest_limit_counts_and_changes_at_once() {
    let mut risk = setup(RiskLimits { max_order_quantity: Some(dec("5")), ..limits() });
    let own = RiskLimits {
        strategy: "s".into(),
        instrument: "A.V".into(),
        max_order_quantity: Some(dec("2")),
        event_time: ms(5),
        ..limits()
    };
    risk.broadcast("acc/s/A.V", own.clone());
    assert!(decision(&risk.send("acc", intent("a", Side::Buy, "3"))).is_err());
    let other = OrderIntent { strategy: "t".into(), ..intent("b", Side::Buy, "3") };
    decision(&risk.send("acc", other)).expect("those are another strategy's");
    risk.broadcast(
        "acc/s/A.V",
        RiskLimits { max_order_quantity: Some(dec("9")), event_time: ms(4), ..own.clone() },
    );
    assert!(decision(&risk.send("acc", intent("c", Side::Buy, "3"))).is_err(), "older limits change nothing");
    risk.broadcast("acc/s/A.V", RiskLimits { max_order_quantity: Some(dec("3")), event_time: ms(6), ..own });
    decision(&risk.send("acc", intent("d", Side::Buy, "3"))).unwrap();
}

#[test]
fn rates() {
    let windows = RiskLimits {
        max_messages: Some(2),
        messages_window_ms: Some(1_000),
        duplicate_window_ms: Some(100),
        ..limits()
    };
    let mut risk = setup(windows.clone()).restarting();
    let at = |id: &str, time: i64, quantity: &str| OrderIntent {
        event_time: ms(time),
        ..intent(id, Side::Buy, quantity)
    };
    decision(&risk.send("acc", at("a", 1_000, "1"))).unwrap();
    let refused = decision(&risk.send("acc", at("a", 1_500, "2"))).unwrap_err();
    assert_eq!(refused, ("DuplicateOrder".into(), vec!["duplicative_order".to_owned()]), "the same intent");
    assert!(decision(&setup(windows.clone()).send("acc", at("a", 1_500, "2"))).is_ok());
    assert!(decision(&risk.send("acc", at("b", 1_501, "2"))).is_ok());
    let refused = decision(&risk.send("acc", at("c", 1_550, "2"))).unwrap_err();
    assert_eq!(refused.1, ["duplicative_order", "maximum_messages"]);
    let refused = decision(&risk.send("acc", at("d", 1_999, "2"))).unwrap_err();
    assert_eq!(refused, ("AlgorithmRiskThresholdBreached".into(), vec!["maximum_messages".to_owned()]));
    decision(&risk.send("acc", at("e", 2_000, "2"))).expect("the first has left the window");
    // Executions of one strategy.
    let mut risk = setup(RiskLimits { max_repeated_executions: Some(1), ..limits() });
    let refused = decision(&risk.send("acc", at("a", 1_000, "1"))).unwrap_err();
    assert_eq!(refused.1, ["repeated_automated_execution"], "a limit without its window");
    let repeated =
        RiskLimits { max_repeated_executions: Some(1), repeated_executions_window_ms: Some(500), ..limits() };
    let mut risk = setup(repeated);
    let order = decision(&risk.send("acc", at("a", 1_000, "1"))).unwrap();
    risk.send("acc", ExecutionReport { event_time: ms(1_100), ..fill(&order, "e", "1", "100", "1", "0") });
    let refused = decision(&risk.send("acc", at("b", 1_599, "1"))).unwrap_err();
    assert_eq!(refused.1, ["repeated_automated_execution"]);
    decision(&risk.send("acc", at("c", 1_600, "1"))).unwrap();
}

#[test]
fn catching_up_does_not_trade_the_past() {
    let aged = RiskLimits { max_intent_age_ms: Some(500), ..limits() };
    let mut risk = setup(aged);
    // The task's time is that of the intent; only the stamp knows how late it is.
    risk.set_stamp(ms(1_501));
    let refused = decision(&risk.send("acc", intent("i", Side::Buy, "1"))).unwrap_err();
    assert_eq!(refused, ("StaleOrder".into(), vec!["maximum_intent_age".to_owned()]));
}

#[test]
fn an_older_mark_does_not_replace_the_last() {
    let mut risk = setup(RiskLimits { price_collar_bps: Some(100), ..limits() });
    risk.broadcast("A.V", mark(999, "A.V", "200"));
    decision(&risk.send("acc", intent("i", Side::Buy, "1"))).unwrap();
    risk.broadcast("A.V", mark(1_001, "A.V", "200"));
    assert!(decision(&risk.send("acc", intent("j", Side::Buy, "1"))).is_err());
}
