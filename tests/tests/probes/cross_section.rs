//! (a) The rank of each instrument among all, every second: a stage keyed by the universe.

use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, MapState, Operator, OperatorType, Settings, Timer,
};
use tidewire_engine::driver::StageBuilder;
use tidewire_engine::plan::Role;
use tidewire_schemas::{EventTime, FeatureValue, Kind, Record};

use super::{rekeyed, through, value, values};

const EVERY_MS: i64 = 1_000;

struct Rank;

impl Configured for Rank {
    const NAME: &'static str = "rank";
    const ABOUT: &'static str = "Rank of each instrument's value among all, 0 to 1";
    type Settings = Settings;

    fn new(_: Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Rank {
    /// The last value of each instrument, by the boundary that may first see it.
    type State = MapState<(SmolStr, EventTime), f64>;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::FeatureValue],
            emits: vec![Kind::FeatureValue],
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        last: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::FeatureValue(value) = input.record else { return Ok(()) };
        let floor = value.event_time.floor_to(EVERY_MS * 1_000);
        let boundary = if floor == value.event_time { floor } else { floor.plus_ms(EVERY_MS) };
        last.insert((value.instrument.clone(), boundary), value.value);
        cx.set_timer(boundary, 0);
        Ok(())
    }

    fn on_timer(&self, cx: &mut Cx<'_>, timer: &Timer, last: &mut Self::State, (): &()) -> Result<(), Fault> {
        let mut now: std::collections::BTreeMap<SmolStr, f64> = std::collections::BTreeMap::new();
        let seen: Vec<_> =
            last.iter().filter(|((_, at), _)| *at <= timer.at).map(|(k, v)| (k.clone(), *v)).collect();
        for (place, value) in seen {
            if now.insert(place.0.clone(), value).is_some() {
                let before = last.range(..&place).next_back().map(|(place, _)| place.clone());
                before.map(|before| last.remove(&before));
            }
        }
        let most = (now.len().max(2) - 1) as f64;
        for (instrument, value) in &now {
            let below = now.values().filter(|other| *other < value).count() as f64;
            let (instrument, name) = (instrument.clone(), "rank".into());
            cx.emit(FeatureValue { instrument, event_time: timer.at, name, value: below / most });
        }
        Ok(())
    }
}

#[test]
fn rank_over_instruments_of_all_partitions() {
    let mut records = Vec::new();
    for (at, prices) in [(100, [1.0, 2.0, 3.0]), (1_100, [9.0, 2.0, 3.0]), (2_050, [9.0, 9.5, 3.0])] {
        for (place, price) in prices.into_iter().enumerate() {
            let name = ["A.X", "B.X", "C.X"][place];
            let at = at + i64::try_from(place).unwrap();
            records.push(("values", name.to_owned(), at, value(name, "momentum", at, price).into()));
        }
    }
    let run = |partitions: u32| {
        let rank = StageBuilder::new("ranks")
            .input("universe", Role::Driving, 2)
            .node("rank", OperatorType::of::<Rank>(), "", &["universe"])
            .output("ranks", 4, &["rank"], &["instrument"])
            .build();
        let first = rekeyed("values", "universe", "by = { fixed = 'all' }", partitions, 2);
        let (_, seen) = through(first, records.clone(), rank);
        let mut ranks = values(&seen);
        ranks.sort_by(|a, b| (a.2, &a.0).cmp(&(b.2, &b.0)));
        ranks.into_iter().map(|(instrument, _, at, rank)| (at, instrument, rank)).collect::<Vec<_>>()
    };
    let got = run(3);
    let row = |at, name: &str, rank| (at, name.to_owned(), rank);
    assert_eq!(
        got,
        [
            row(1_000, "A.X", 0.0),
            row(1_000, "B.X", 0.5),
            row(1_000, "C.X", 1.0),
            row(2_000, "A.X", 1.0),
            row(2_000, "B.X", 0.0),
            row(2_000, "C.X", 0.5),
            row(3_000, "A.X", 0.5),
            row(3_000, "B.X", 1.0),
            row(3_000, "C.X", 0.0),
        ]
    );
    assert_eq!(run(1), got, "partitions of the instruments do not show");
}
