use super::*;

#[test]
fn positions_follow_the_mark_at_most_once_an_interval() {
    let mut risk = setup(limits());
    let order = decision(&risk.send("acc", intent("i", Side::Buy, "2"))).unwrap();
    risk.send("acc", fill(&order, "e", "2", "100", "2", "0"));
    let unrealised = |records: Vec<Record>| {
        only::<Position>(&records)
            .iter()
            .map(|position| position.unrealised_pnl.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(unrealised(risk.broadcast("A.V", mark(3_000, "A.V", "101"))), ["2"]);
    assert!(unrealised(risk.broadcast("A.V", mark(3_999, "A.V", "102"))).is_empty());
    assert!(unrealised(risk.broadcast("A.V", mark(2_000, "A.V", "500"))).is_empty(), "older than the last");
    assert_eq!(unrealised(risk.broadcast("A.V", mark(4_000, "A.V", "103"))), ["6"]);
    assert!(unrealised(risk.broadcast("I.V", mark(9_000, "I.V", "1"))).is_empty(), "nothing is held of it");
}

/// A generator of numbers for tests: the same every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn the_books_balance() {
    let mut total = 0;
    for seed in 0..20 {
        let mut numbers = Numbers(seed);
        let mut risk = setup(limits());
        let mut books = Books::default();
        let spot = Instrument { asset_class: AssetClass::Spot, ..instrument("S.V", false) };
        risk.broadcast("S.V", spot.clone());
        risk.broadcast("S.V", mark(0, "S.V", "30"));
        let all = [instrument("A.V", false), instrument("I.V", true), spot];
        all.iter().for_each(|instrument| books.add_instrument(instrument));
        let (mut positions, mut cash, mut made) = (Vec::new(), Vec::new(), Vec::<ExecutionReport>::new());
        for n in 0..200 {
            let instrument = &all[numbers.below(3) as usize];
            let price = Price::from_units(i128::from(numbers.below(60_000_000) + 1) * 1_000_000_000).unwrap();
            let mut report = ExecutionReport {
                instrument: instrument.instrument.clone(),
                side: if numbers.below(2) == 0 { Side::Buy } else { Side::Sell },
                last_price: price,
                fee: Amount::from_units(i128::from(numbers.below(1_000)) - 200).unwrap(),
                fee_currency: if numbers.below(5) == 0 { "BNB".into() } else { instrument.settle.clone() },
                ..fill(
                    "none",
                    &format!("e{n}"),
                    &format!("{}.{}", numbers.below(50), numbers.below(9) + 1),
                    "1",
                    "0",
                    "0",
                )
            };
            // Now and then a bust, a correction, or the same again.
            let earlier = made.get(numbers.below(300) as usize).cloned();
            if let Some(earlier) = earlier {
                report.exec_type = match numbers.below(3) {
                    0 => ExecType::TradeCancel,
                    1 => ExecType::TradeCorrect,
                    _ => ExecType::Trade,
                };
                if report.exec_type == ExecType::Trade {
                    report = earlier;
                } else {
                    (report.instrument, report.side) = (earlier.instrument, earlier.side);
                    report.execution_ref_id = Some(earlier.execution_id.clone());
                    made.retain(|other| other.execution_id != earlier.execution_id);
                }
            }
            if report.exec_type == ExecType::Trade {
                made.push(report.clone());
            }
            books.add(&report);
            let records = risk.send("acc", report);
            positions.extend(only::<Position>(&records));
            cash.extend(only::<CashBalance>(&records));
        }
        assert_eq!(books.differences(&positions, &cash), Vec::<String>::new(), "seed {seed}");
        total += books.fills();
        // The check itself can fail.
        let mut wrong = cash.clone();
        let last = wrong.last_mut().unwrap();
        last.balance = last.balance.checked_add(dec("0.000001")).unwrap();
        assert_eq!(books.differences(&positions, &wrong).len(), 1);
        positions.last_mut().unwrap().realised_pnl = dec("123456789");
        assert!(!books.differences(&positions, &cash).is_empty());
    }
    assert!(total > 2_000, "{total} fills");
}

#[test]
fn memory_is_bounded() {
    let mut risk = setup(limits());
    for n in 0..account::MAX_REMEMBERED + 500 {
        let order = decision(&risk.send("acc", intent(&format_smolstr!("i{n}"), Side::Buy, "0.1"))).unwrap();
        risk.send("acc", fill(&order, &format_smolstr!("e{n}"), "0.1", "100", "0.1", "0"));
        if n % 1_000 == 0 {
            risk.flush();
        }
    }
    // Three remembered maps with their queues, and the queues of messages and fills.
    assert!(risk.entries() < 8 * account::MAX_REMEMBERED + 2_000 + 20, "{}", risk.entries());
}
