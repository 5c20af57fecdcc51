use super::*;

fn command(at: i64, scope: &str, action: ControlAction) -> ControlCommand {
    ControlCommand {
        scope: scope.into(),
        command: action,
        who: "risk desk".into(),
        why: "test".into(),
        event_time: ms(at),
        ..ControlCommand::default()
    }
}

#[test]
fn halt_reduce_and_resume() {
    for scope in ["*", "acc", "s", "A.V"] {
        let mut risk = setup(limits()).restarting();
        let order = decision(&risk.send("acc", intent("a", Side::Buy, "2"))).unwrap();
        risk.send("acc", fill(&order, "e1", "1", "100", "1", "1"));
        // What works is taken back, once.
        let records = risk.broadcast(scope, command(2_000, scope, ControlAction::Halt));
        assert_eq!(statuses(&records), ["PENDING_CANCEL"]);
        assert_eq!(only::<CancelOrder>(&records)[0].original_order_id, order);
        assert!(risk.broadcast(scope, command(2_001, scope, ControlAction::Halt)).is_empty());
        let refused = decision(&risk.send("acc", intent("b", Side::Sell, "1"))).unwrap_err();
        assert_eq!(refused, ("ExchangeClosed".into(), vec!["trading_state".to_owned()]));
        assert!(risk.broadcast(scope, command(1_999, scope, ControlAction::Resume)).is_empty());
        assert!(decision(&risk.send("acc", intent("c", Side::Sell, "1"))).is_err(), "an older command");
        // Reducing: out of the 1 that is held, but not through zero.
        risk.broadcast(scope, command(2_002, scope, ControlAction::Reduce));
        assert!(decision(&risk.send("acc", intent("d", Side::Buy, "0.1"))).is_err());
        assert!(decision(&risk.send("acc", intent("e", Side::Sell, "1.1"))).is_err());
        decision(&risk.send("acc", intent("f", Side::Sell, "0.6"))).unwrap();
        assert!(decision(&risk.send("acc", intent("g", Side::Sell, "0.5"))).is_err(), "0.6 are working");
        risk.broadcast(scope, command(2_003, scope, ControlAction::Resume));
        decision(&risk.send("acc", intent("h", Side::Buy, "1"))).unwrap();
    }
    let mut risk = setup(limits());
    risk.broadcast("other", command(0, "other", ControlAction::Halt));
    decision(&risk.send("acc", intent("a", Side::Buy, "1"))).expect("another's halt");
    risk.broadcast("*", ControlCommand { expiry: Some(ms(1_000)), ..command(0, "*", ControlAction::Halt) });
    decision(&risk.send("acc", intent("b", Side::Buy, "1"))).expect("a halt that is over");
    // One order, by name.
    let records = risk.broadcast(
        "*",
        ControlCommand { target: Some("node:acc:3".into()), ..command(0, "*", ControlAction::Cancel) },
    );
    assert_eq!(only::<CancelOrder>(&records).len(), 1);
    let records = risk.broadcast("acc", command(0, "acc", ControlAction::Override));
    assert_eq!(only::<Alert>(&records)[0].kind, "command-not-supported");
}

#[test]
fn the_life_of_an_order() {
    for restarting in [false, true] {
        let mut risk = setup(limits());
        if restarting {
            risk = risk.restarting();
        }
        let order = decision(&risk.send("acc", intent("a", Side::Buy, "3"))).unwrap();
        assert_eq!(statuses(&risk.send("acc", report(&order, "e0", ExecType::New))), ["NEW"]);
        assert_eq!(
            statuses(&risk.send("acc", report(&order, "e0", ExecType::New))),
            ["NEW"],
            "again: no break"
        );
        let records = risk.send("acc", fill(&order, "e1", "1", "100", "1", "2"));
        assert_eq!(statuses(&records), ["PARTIALLY_FILLED"]);
        assert!(risk.send("acc", fill(&order, "e1", "1", "100", "1", "2")).is_empty(), "sent twice");
        let twice = risk.send("acc", fill(&order, "e1", "2", "100", "1", "2"));
        assert_eq!(breaks(&twice).len(), 1, "sent twice, but not the same");
        risk.broadcast("acc", command(0, "acc", ControlAction::Cancel));
        // A fill crosses the cancel; the cancel is refused; then the rest fills.
        assert_eq!(statuses(&risk.send("acc", fill(&order, "e2", "1", "102", "2", "1"))), ["PENDING_CANCEL"]);
        let reject = OrderCancelReject {
            original_order_id: order.clone(),
            account: "acc".into(),
            event_time: ms(2_000),
            ..OrderCancelReject::default()
        };
        assert_eq!(statuses(&risk.send("acc", reject)), ["PARTIALLY_FILLED"]);
        let records = risk.send("acc", fill(&order, "e3", "1", "104", "3", "0"));
        let last = only::<Order>(&records).remove(0);
        assert_eq!((last.status, last.leaves_quantity), (OrderStatus::Filled, Quantity::ZERO));
        assert_eq!(last.average_price, Some(dec("102")));
        assert!(breaks(&records).is_empty());
    }
}

#[test]
fn what_contradicts_us_is_a_break_and_moves_the_position() {
    type Row = (&'static str, Vec<ExecutionReport>, &'static str, &'static str);
    let id = "node:acc:1";
    let rows: Vec<Row> = vec![
        (
            "a fill after the cancel",
            vec![report(id, "a", ExecType::Canceled), fill(id, "b", "1", "100", "1", "0")],
            "CANCELED",
            "1",
        ),
        ("more than was ordered", vec![fill(id, "a", "4", "100", "4", "0")], "FILLED", "4"),
        ("another count than ours", vec![fill(id, "a", "1", "100", "2", "2")], "PARTIALLY_FILLED", "1"),
        ("another rest than ours", vec![fill(id, "a", "1", "100", "1", "1")], "PARTIALLY_FILLED", "1"),
        (
            "accepted after it ended",
            vec![fill(id, "a", "3", "100", "3", "0"), report(id, "b", ExecType::New)],
            "FILLED",
            "3",
        ),
        (
            "cancelled after it was full",
            vec![fill(id, "a", "3", "100", "3", "0"), report(id, "b", ExecType::Canceled)],
            "FILLED",
            "3",
        ),
        ("an order never sent", vec![fill("x", "a", "1", "100", "1", "0")], "PENDING_NEW", "1"),
        ("a kind not known", vec![report(id, "a", ExecType::Unknown)], "PENDING_NEW", "0"),
        (
            "a bust of what is not known",
            vec![ExecutionReport {
                exec_type: ExecType::TradeCancel,
                execution_ref_id: Some("z".into()),
                ..fill("x", "a", "1", "100", "0", "0")
            }],
            "PENDING_NEW",
            "-1",
        ),
    ];
    for (name, reports, status, quantity) in rows {
        let mut risk = setup(limits()).restarting();
        decision(&risk.send("acc", intent("i", Side::Buy, "3"))).unwrap();
        let mut records = Vec::new();
        for report in reports {
            records.extend(risk.send("acc", report));
        }
        assert!(!breaks(&records).is_empty(), "{name}");
        let position = only::<Position>(&records).pop().map_or(Quantity::ZERO, |position| position.quantity);
        assert_eq!(position, dec(quantity), "{name}");
        let last = statuses(&records).pop().unwrap_or("PENDING_NEW");
        assert_eq!(last, status, "{name}");
    }
}

#[test]
fn busts_and_corrections() {
    let mut risk = setup(limits()).restarting();
    let order = decision(&risk.send("acc", intent("i", Side::Buy, "2"))).unwrap();
    let fee = |report| ExecutionReport { fee: dec("0.5"), fee_currency: "USD".into(), ..report };
    risk.send("acc", fee(fill(&order, "e1", "1", "100", "1", "1")));
    risk.send("acc", fee(fill(&order, "e2", "1", "110", "2", "0")));
    let corrected = ExecutionReport {
        exec_type: ExecType::TradeCorrect,
        execution_ref_id: Some("e2".into()),
        ..fee(fill(&order, "e3", "1", "106", "2", "0"))
    };
    let records = risk.send("acc", corrected);
    assert!(breaks(&records).is_empty());
    assert_eq!(only::<Order>(&records)[0].average_price, Some(dec("103")));
    assert_eq!(only::<Position>(&records)[0].fees, dec("1"));
    let bust = ExecutionReport {
        exec_type: ExecType::TradeCancel,
        execution_ref_id: Some("e1".into()),
        order_status: OrderStatus::PartiallyFilled,
        ..fill(&order, "e4", "1", "100", "1", "1")
    };
    let records = risk.send("acc", bust.clone());
    assert!(breaks(&records).is_empty(), "{:?}", breaks(&records));
    assert_eq!(statuses(&records), ["PARTIALLY_FILLED"], "it works again");
    let position = only::<Position>(&records).remove(0);
    assert_eq!((position.quantity, position.fees), (dec("1"), dec("0.5")));
    // What is left is the corrected fill at 106: at 100 it lost 6, however the bust split that.
    assert_eq!(position.realised_pnl.checked_add(position.unrealised_pnl).unwrap(), dec("-6"));
    assert!(risk.send("acc", bust).is_empty() || breaks(&records).is_empty());
}

#[test]
fn refused_orders_and_bad_reports() {
    let mut risk = setup(limits());
    let order = decision(&risk.send("acc", intent("i", Side::Buy, "2"))).unwrap();
    let rejected =
        ExecutionReport { text: Some("no margin".into()), ..report(&order, "e", ExecType::Rejected) };
    let records = risk.send("acc", rejected);
    let rejected = only::<Order>(&records).remove(0);
    assert_eq!(
        (rejected.status, rejected.reject_reason.as_deref()),
        (OrderStatus::Rejected, Some("no margin"))
    );
    for bad in [
        fill(&order, "f", "0", "100", "0", "0"),
        fill(&order, "f", "1", "0", "0", "0"),
        ExecutionReport { side: Side::Unknown, ..fill(&order, "f", "1", "1", "0", "0") },
    ] {
        assert_eq!(risk.try_send("acc", bad, false).unwrap_err().code, "bad-execution");
    }
    let unknown = ExecutionReport { instrument: "X.V".into(), ..fill(&order, "f", "1", "1", "0", "0") };
    assert_eq!(risk.try_send("acc", unknown, false).unwrap_err().code, "unknown-instrument");
}
