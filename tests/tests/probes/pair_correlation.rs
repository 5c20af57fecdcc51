//! (b) The correlation of the returns of each pair of instruments: a stage keyed by the universe.

use smol_str::{SmolStr, format_smolstr};
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, ListState, MapState, Operator, OperatorType, Settings, Timer,
    composite_state,
};
use tidewire_engine::driver::StageBuilder;
use tidewire_engine::plan::Role;
use tidewire_schemas::{EventTime, FeatureValue, Kind, Record};

use super::{rekeyed, through, value, values};

const EVERY_MS: i64 = 1_000;
const WINDOW: usize = 20;

/// Correlation over the last [`WINDOW`] seconds.
struct Correlation;

composite_state! {
    /// The last price of each by the boundary that may first see it (the record that makes a timer due is taken before
    /// it fires), and rows of log prices at whole seconds: (instrument, log price).
    struct Prices {
        last: MapState<(EventTime, SmolStr), f64>,
        now: MapState<SmolStr, f64>,
        rows: ListState<Vec<(SmolStr, f64)>>,
    }
}

impl Configured for Correlation {
    const NAME: &'static str = "correlation";
    const ABOUT: &'static str = "Correlation of the returns of each pair";
    type Settings = Settings;

    fn new(_: Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Correlation {
    type State = Prices;
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
        state: &mut Prices,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::FeatureValue(value) = input.record else { return Ok(()) };
        let next = value.event_time.floor_to(EVERY_MS * 1_000).plus_ms(EVERY_MS);
        state.last.insert((next, value.instrument.clone()), value.value);
        cx.set_timer(next, 0);
        Ok(())
    }

    fn on_timer(&self, cx: &mut Cx<'_>, timer: &Timer, state: &mut Prices, (): &()) -> Result<(), Fault> {
        while let Some((place, price)) = state.last.first().map(|(place, price)| (place.clone(), *price))
            && place.0 <= timer.at
        {
            state.last.remove(&place);
            state.now.insert(place.1, price);
        }
        state
            .rows
            .push_back(state.now.iter().map(|(name, price)| (name.clone(), libm::log(*price))).collect());
        while state.rows.len() > WINDOW + 1 {
            state.rows.pop_front();
        }
        if state.rows.len() <= WINDOW {
            return Ok(());
        }
        let names: Vec<SmolStr> = state.now.iter().map(|(name, _)| name.clone()).collect();
        for (place, a) in names.iter().enumerate() {
            for b in &names[place + 1..] {
                let (x, y) = (returns(state, a), returns(state, b));
                let pair = format_smolstr!("{a}/{b}");
                let value = correlation(&x, &y);
                cx.emit(FeatureValue {
                    instrument: pair,
                    event_time: timer.at,
                    name: "correlation".into(),
                    value,
                });
            }
        }
        Ok(())
    }
}

fn returns(state: &Prices, name: &SmolStr) -> Vec<f64> {
    let log =
        |row: &Vec<(SmolStr, f64)>| row.iter().find(|(other, _)| other == name).map_or(0.0, |(_, log)| *log);
    let logs: Vec<f64> = state.rows.iter().map(log).collect();
    logs.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    xy / (xx * yy).sqrt()
}

#[test]
fn pairs_over_instruments_of_all_partitions() {
    let mut records = Vec::new();
    for second in 0..30_i64 {
        let wave = f64::from(i32::try_from(second * second % 7).unwrap());
        let prices =
            [100.0 * libm::exp(0.01 * wave), 50.0 * libm::exp(0.02 * wave), 10.0 * libm::exp(-0.01 * wave)];
        for (place, price) in prices.into_iter().enumerate() {
            let name = ["A.X", "B.X", "C.X"][place];
            let at = second * 1_000 + 100 + i64::try_from(place).unwrap();
            records.push(("values", name.to_owned(), at, value(name, "mid", at, price).into()));
        }
    }
    let stage = StageBuilder::new("pairs")
        .input("universe", Role::Driving, 1)
        .node("pairs", OperatorType::of::<Correlation>(), "", &["universe"])
        .output("pairs", 1, &["pairs"], &["instrument"])
        .build();
    let first = rekeyed("values", "universe", "by = { fixed = 'all' }", 3, 1);
    let (_, seen) = through(first, records, stage);
    let got = values(&seen);
    assert_eq!(got.len(), 3 * 10, "three pairs, after 20 returns");
    for (pair, _, _, correlation) in got {
        let want = if pair == "A.X/B.X" { 1.0 } else { -1.0 };
        assert!((correlation - want).abs() < 1e-9, "{pair}: {correlation}");
    }
}
