//! Operators made for tests: small, but with windows, timers, chains and broadcast state.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use serde::Deserialize;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Keys, MapState, Operator, OperatorType, Timer, Whole, persist,
};
use tidewire_engine::driver::StageBuilder;
use tidewire_engine::plan::{Role, StageSpec};
use tidewire_schemas::{EventTime, FeatureValue, Kind, Quantity, Record, Trade};

persist! {
    /// Sum of a window.
    #[derive(Default)]
    pub struct WindowSum {
        sum: Quantity,
        count: u64,
    }
}

/// Sums quantities over tumbling windows of event time.
pub struct WindowedSum {
    width_ms: i64,
}

/// Settings of [`WindowedSum`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowedSumSettings {
    width_ms: i64,
}

impl Configured for WindowedSum {
    const NAME: &'static str = "windowed_sum";
    const ABOUT: &'static str = "Sums quantities over windows.";
    type Settings = WindowedSumSettings;
    fn new(settings: Self::Settings) -> Result<Self, String> {
        Ok(Self { width_ms: settings.width_ms })
    }
}

impl Operator for WindowedSum {
    type State = MapState<i64, WindowSum>;
    type Shared = ();
    fn interface(&self) -> Interface {
        Interface { accepts: vec![Kind::Trade], emits: vec![Kind::FeatureValue], ..Interface::default() }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut MapState<i64, WindowSum>,
        (): &(),
    ) -> Result<(), Fault> {
        let Some(trade) = input.record.as_trade() else { return Ok(()) };
        if trade.trade_id == 666 {
            panic!("the devil's trade");
        }
        if trade.trade_id == 667 {
            return Err(Fault::new("refused", "a trade that is not liked"));
        }
        let time_ms = trade.event_time.as_ms();
        let start_ms = time_ms - time_ms.rem_euclid(self.width_ms);
        let end = EventTime::from_ms(start_ms + self.width_ms);
        if cx.has_passed(end) {
            cx.late(input, EventTime::from_ms(start_ms), end);
            return Ok(());
        }
        let window = state.get_or_insert_with(start_ms, WindowSum::default);
        window.sum = window.sum.checked_add(trade.quantity).map_err(|_| Fault::new("overflow", "sum"))?;
        window.count += 1;
        cx.set_timer(end, 0);
        Ok(())
    }
    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        state: &mut MapState<i64, WindowSum>,
        (): &(),
    ) -> Result<(), Fault> {
        let window = state.remove(&(timer.at.as_ms() - self.width_ms)).unwrap();
        if window.sum == "666".parse().unwrap() {
            panic!("the devil's sum");
        }
        let value = window.sum.to_f64();
        cx.emit(feature("sum", &timer.key, timer.at, value));
        Ok(())
    }
}

/// A feature value.
pub fn feature(name: &str, key: &str, at: EventTime, value: f64) -> FeatureValue {
    FeatureValue { instrument: key.into(), event_time: at, name: name.into(), value }
}

/// Counts what passes, per key, and adds a factor that is broadcast.
pub struct Counter {
    scale: f64,
}

/// Settings of [`Counter`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterSettings {
    #[serde(default = "one")]
    scale: f64,
    #[serde(default)]
    note: String,
}

fn one() -> f64 {
    1.0
}

impl Configured for Counter {
    const NAME: &'static str = "counter";
    const ABOUT: &'static str = "Counts.";
    type Settings = CounterSettings;
    fn new(settings: Self::Settings) -> Result<Self, String> {
        let _ = settings.note;
        Ok(Self { scale: settings.scale })
    }
}

persist! {
    /// A count, and when it was last shown.
    #[derive(Default)]
    pub struct Count {
        count: u64,
        total: f64,
    }
}

impl Operator for Counter {
    type State = Whole<Count>;
    type Shared = Whole<Count>;
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::FeatureValue, Kind::Trade],
            broadcasts: vec![Kind::SentimentScore, Kind::ControlCommand],
            emits: vec![Kind::FeatureValue],
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Whole<Count>,
        shared: &Whole<Count>,
    ) -> Result<(), Fault> {
        state.count += 1;
        let (count, time) = (state.count, input.time);
        let value = match input.record {
            Record::FeatureValue(value) => value.value,
            _ => 0.0,
        };
        state.total += value;
        let total = state.total;
        let shown = (total + count as f64) * self.scale + shared.total;
        cx.emit(feature(&format!("count-e{}", input.edge), input.key, time, shown));
        // A heartbeat a little later: timers of one node follow records of another at the same time.
        cx.set_timer(time.plus_ms(500), 7);
        Ok(())
    }
    fn on_broadcast(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        keys: &mut Keys<'_, Whole<Count>>,
        shared: &mut Whole<Count>,
    ) -> Result<(), Fault> {
        shared.count += 1;
        shared.total += match input.record {
            Record::SentimentScore(score) => score.score,
            _ => 1000.0,
        };
        for key in keys.keys() {
            let count = keys.get(&key).map_or(0, |count| count.count);
            cx.emit_for(&key, feature("told", &key, input.time, count as f64));
        }
        Ok(())
    }
    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        state: &mut Whole<Count>,
        _: &Whole<Count>,
    ) -> Result<(), Fault> {
        cx.emit(feature("beat", &timer.key, timer.at, state.count as f64));
        Ok(())
    }
}

/// The registry line of [`WindowedSum`].
pub const WINDOWED_SUM: OperatorType = OperatorType::of::<WindowedSum>();
/// The registry line of [`Counter`].
pub const COUNTER: OperatorType = OperatorType::of::<Counter>();

/// Another operator under the settings of [`Counter`]: its state has another layout.
pub const WINDOWED_SUM_AS_COUNTER: OperatorType =
    OperatorType { name: "counter", ..OperatorType::of::<Wider>() };

/// Like [`Counter`], but with another state.
pub struct Wider;

impl Configured for Wider {
    const NAME: &'static str = "wider";
    const ABOUT: &'static str = "Nothing.";
    type Settings = CounterSettings;
    fn new(_: Self::Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Wider {
    type State = Whole<u64>;
    type Shared = ();
    fn interface(&self) -> Interface {
        Interface::default()
    }
    fn on_record(&self, _: &mut Cx<'_>, _: &Input<'_>, _: &mut Whole<u64>, (): &()) -> Result<(), Fault> {
        Ok(())
    }
}

/// A trade.
pub fn trade(key: &str, id: i64, time_ms: i64, quantity: &str) -> Trade {
    Trade {
        instrument: key.into(),
        event_time: EventTime::from_ms(time_ms),
        trade_id: id,
        quantity: quantity.parse().unwrap(),
        market: true,
        ..Trade::default()
    }
}

/// A stage with windows, a chain with two edges, a broadcast and a control input.
pub fn stage(partitions: u32, change: impl FnOnce(&mut StageSpec)) -> StageSpec {
    StageBuilder::new("features")
        .input("market.ticks.v1", Role::Driving, partitions)
        .tuned(|input| {
            input.out_of_orderness_ms = 100;
            input.max_future_skew_ms = Some(60_000);
        })
        .input("market.sentiment.v1", Role::Broadcast, 1)
        .input("control.v1", Role::Control, 1)
        .node("short", WINDOWED_SUM, "width_ms = 1000", &["market.ticks.v1"])
        .node("long", WINDOWED_SUM, "width_ms = 5000", &["market.ticks.v1"])
        .node("count", COUNTER, "", &["short", "long", "market.sentiment.v1", "control.v1"])
        .node("again", COUNTER, "scale = 0.5", &["count", "short"])
        .output("features.values.v1", partitions, &["short", "long", "count"], &["instrument"])
        .output("signals.v1", 1, &["again"], &["instrument"])
        .with(|spec| spec.flush_interval_ms = 50)
        .with(change)
        .build()
}

/// Counts trades a key, and forgets keys after a second.
pub struct Forgetful;

/// The registry line of [`Forgetful`].
pub const FORGETFUL: OperatorType = OperatorType::of::<Forgetful>();

impl Configured for Forgetful {
    const NAME: &'static str = "forgetful";
    const ABOUT: &'static str = "Counts, and forgets.";
    type Settings = CounterSettings;
    fn new(_: Self::Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Forgetful {
    type State = Whole<u64>;
    type Shared = ();
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Trade],
            emits: vec![Kind::FeatureValue],
            time_to_live_ms: Some(1_000),
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Whole<u64>,
        (): &(),
    ) -> Result<(), Fault> {
        **state += 1;
        let count = **state;
        cx.emit(feature("count", input.key, input.time, count as f64));
        Ok(())
    }
}
