//! (d) The exposure of each account at broadcast marks. Positions are keyed by account and instrument, so they are
//! given out again under the account first: the same task, as partitions go by the first part of a key.

use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Key, Keys, MapState, Operator, OperatorType, Settings,
};
use tidewire_engine::driver::{StageBuilder, TestDriver};
use tidewire_engine::plan::Role;
use tidewire_schemas::{Amount, EventTime, Kind, MarkPrice, Position, Price, Quantity, Record, RiskMetrics};

use super::{Rekey, dec, ms};

struct Exposure;

impl Configured for Exposure {
    const NAME: &'static str = "exposure";
    const ABOUT: &'static str = "Gross and net exposure of each account";
    type Settings = Settings;

    fn new(_: Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

type Held = MapState<SmolStr, Quantity>;
type Marks = MapState<SmolStr, Price>;

impl Operator for Exposure {
    type State = Held;
    type Shared = Marks;

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Position],
            broadcasts: vec![Kind::MarkPrice],
            emits: vec![Kind::RiskMetrics],
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        held: &mut Held,
        marks: &Marks,
    ) -> Result<(), Fault> {
        let Record::Position(position) = input.record else { return Ok(()) };
        held.insert(position.instrument.clone(), position.quantity);
        say(cx, input.key, held, marks, position.event_time)
    }

    fn on_broadcast(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        keys: &mut Keys<'_, Held>,
        marks: &mut Marks,
    ) -> Result<(), Fault> {
        let Record::MarkPrice(mark) = input.record else { return Ok(()) };
        marks.insert(mark.instrument.clone(), mark.mark);
        for key in keys.keys() {
            if let Some(held) = keys.get(&key).filter(|held| held.get(&mark.instrument).is_some()) {
                say(cx, &key, held, marks, mark.event_time)?;
            }
        }
        Ok(())
    }
}

fn say(cx: &mut Cx<'_>, account: &Key, held: &Held, marks: &Marks, now: EventTime) -> Result<(), Fault> {
    let overflow = |_| Fault::new("overflow", format!("exposure of {account}"));
    let (mut gross, mut net) = (Amount::ZERO, Amount::ZERO);
    for (instrument, quantity) in held.iter() {
        let Some(mark) = marks.get(instrument) else { continue };
        let value = mark.checked_mul(*quantity).map_err(overflow)?;
        gross = gross.checked_add(value.abs()).map_err(overflow)?;
        net = net.checked_add(value).map_err(overflow)?;
    }
    let metrics = RiskMetrics {
        account: account.clone(),
        event_time: now,
        gross_exposure: gross,
        net_exposure: net,
        ..RiskMetrics::default()
    };
    cx.emit_for(account, metrics);
    Ok(())
}

#[test]
fn exposure_follows_positions_and_marks() {
    let stage = StageBuilder::new("exposure")
        .input("positions", Role::Driving, 3)
        .input("marks", Role::Broadcast, 1)
        .node("by-account", OperatorType::of::<Rekey>(), "by = { before = '/' }", &["positions"])
        .node("exposure", OperatorType::of::<Exposure>(), "", &["by-account", "marks"])
        .output("metrics", 3, &["exposure"], &["account"])
        .build();
    let mut driver = TestDriver::new(stage);
    let mark = |at: i64, name: &str, price: &str| MarkPrice {
        instrument: name.into(),
        event_time: ms(at),
        mark: dec(price),
        ..MarkPrice::default()
    };
    let position = |at: i64, account: &str, name: &str, quantity: &str| Position {
        account: account.into(),
        instrument: name.into(),
        event_time: ms(at),
        quantity: dec(quantity),
        ..Position::default()
    };
    driver.append("marks", "A.X", 0, mark(0, "A.X", "10"));
    driver.append("marks", "B.X", 0, mark(0, "B.X", "100"));
    for (at, account, name, quantity) in
        [(1, "one", "A.X", "5"), (2, "two", "A.X", "-3"), (3, "one", "B.X", "-2"), (4, "one", "A.X", "1")]
    {
        driver.append("positions", &format!("{account}/{name}"), at, position(at, account, name, quantity));
    }
    driver.append("marks", "A.X", 5, mark(5, "A.X", "20"));
    let mut got: Vec<_> = driver
        .run()
        .into_iter()
        .map(|seen| {
            let m = RiskMetrics::try_from(seen.record).unwrap();
            assert_eq!(seen.key, m.account);
            (
                m.event_time.as_ms(),
                m.account.to_string(),
                m.gross_exposure.to_string(),
                m.net_exposure.to_string(),
            )
        })
        .collect();
    got.sort();
    let row = |at, account: &str, gross: &str, net: &str| (at, account.into(), gross.into(), net.into());
    assert_eq!(
        got,
        [
            row(1, "one", "50", "50"),
            row(2, "two", "30", "-30"),
            row(3, "one", "250", "-150"),
            row(4, "one", "210", "-190"),
            row(5, "one", "220", "-180"),
            row(5, "two", "60", "-60"),
        ]
    );
    assert!(driver.dead_letters().is_empty());
}
