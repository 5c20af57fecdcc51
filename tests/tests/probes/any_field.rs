//! (e) An aggregate over windows of any numeric field of any record, both named in the settings.

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, MapState, Operator, OperatorType, Timer, persist,
};
use tidewire_engine::driver::{StageBuilder, TestDriver};
use tidewire_engine::plan::Role;
use tidewire_schemas::{Bar, EventTime, FeatureValue, FieldId, Kind, MarkPrice, Record, SentimentScore};

use super::{dec, ms, trade, values};

struct Aggregate {
    field: FieldId,
    how: How,
    window_ms: i64,
    name: SmolStr,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Sum,
    Mean,
    Max,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AggregateSettings {
    kind: Kind,
    field: SmolStr,
    how: How,
    window_ms: i64,
    name: SmolStr,
}

persist! {
    /// A window so far.
    #[derive(Default)]
    struct Window {
        count: u64,
        sum: f64,
        max: Option<f64>,
    }
}

impl Configured for Aggregate {
    const NAME: &'static str = "aggregate";
    const ABOUT: &'static str = "Aggregates any numeric field over windows";
    type Settings = AggregateSettings;

    fn new(settings: AggregateSettings) -> Result<Self, String> {
        let field = settings.kind.numeric_field(&settings.field).ok_or_else(|| {
            let all: Vec<_> = settings.kind.numbers().map(FieldId::name).collect();
            format!("{} has no number `{}`; use one of {}", settings.kind, settings.field, all.join(", "))
        })?;
        Ok(Self { field, how: settings.how, window_ms: settings.window_ms, name: settings.name })
    }
}

impl Operator for Aggregate {
    type State = MapState<EventTime, Window>;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![self.field.kind()],
            emits: vec![Kind::FeatureValue],
            features_out: vec![self.name.clone()],
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        windows: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let time = input.record.event_time().unwrap_or(input.time);
        let Some(x) = input.record.number(self.field) else { return Ok(()) };
        let start = time.floor_to(self.window_ms * 1_000);
        let end = start.plus_ms(self.window_ms);
        if cx.has_passed(end) {
            cx.late(input, start, end);
            return Ok(());
        }
        let window = windows.get_or_insert_with(start, Window::default);
        window.count += 1;
        window.sum += x;
        window.max = Some(window.max.map_or(x, |max| max.max(x)));
        cx.set_timer(end, 0);
        Ok(())
    }

    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        windows: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let Some(window) = windows.remove(&timer.at.minus_ms(self.window_ms)) else { return Ok(()) };
        let value = match self.how {
            How::Sum => window.sum,
            How::Mean => window.sum / window.count as f64,
            How::Max => window.max.unwrap_or(f64::NAN),
        };
        let (instrument, name) = (timer.key.clone(), self.name.clone());
        cx.emit(FeatureValue { instrument, event_time: timer.at, name, value });
        Ok(())
    }
}

fn run(settings: &str, records: Vec<Record>) -> Vec<f64> {
    let stage = StageBuilder::new("aggregate")
        .input("in", Role::Driving, 1)
        .node("op", OperatorType::of::<Aggregate>(), settings, &["in"])
        .output("out", 1, &["op"], &[])
        .build();
    let mut driver = TestDriver::new(stage);
    for record in records {
        driver.append("in", "K", record.event_time().unwrap().as_ms(), record);
    }
    let mut seen = driver.run();
    seen.extend(driver.wait_ms(10_000));
    assert!(driver.dead_letters().is_empty());
    values(&seen).into_iter().map(|(_, _, _, value)| value).collect()
}

#[test]
fn any_number_of_any_record() {
    let trades =
        [("1", "2"), ("3", "4")].map(|(price, quantity)| Record::from(trade("A.X", 10, price, quantity)));
    let settings = |kind: &str, field: &str, how: &str| {
        format!("kind = '{kind}'\nfield = '{field}'\nhow = '{how}'\nwindow_ms = 1000\nname = 'x'")
    };
    assert_eq!(run(&settings("Trade", "quantity", "sum"), trades.to_vec()), [6.0]);
    assert_eq!(run(&settings("Trade", "price", "mean"), trades.to_vec()), [2.0]);
    let bars =
        [5, 7, 6].map(|count| Record::from(Bar { trade_count: count, event_time: ms(0), ..Bar::default() }));
    assert_eq!(run(&settings("Bar", "trade_count", "max"), bars.to_vec()), [7.0]);
    let scores = [Some(0.5), None, Some(0.25)].map(|x| {
        Record::from(SentimentScore { subjectivity: x, event_time: ms(1), ..SentimentScore::default() })
    });
    assert_eq!(
        run(&settings("SentimentScore", "subjectivity", "sum"), scores.to_vec()),
        [0.75],
        "null counts not"
    );
    let marks = ["1.5", "0.25"]
        .map(|x| Record::from(MarkPrice { mark: dec(x), event_time: ms(2), ..MarkPrice::default() }));
    assert_eq!(run(&settings("MarkPrice", "mark", "sum"), marks.to_vec()), [1.75]);
    let build = OperatorType::of::<Aggregate>().build;
    let error = build(&toml::from_str(&settings("Trade", "instrument", "sum")).unwrap()).err().unwrap();
    assert!(
        error.contains("Trade has no number `instrument`; use one of trade_id, price, quantity"),
        "{error}"
    );
}
