//! (g) A model that scores records by the batch: how records fall into batches must not show.

use std::cell::RefCell;
use std::collections::BTreeSet;

use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, OperatorType, Settings};
use tidewire_engine::driver::{StageBuilder, TestDriver};
use tidewire_engine::plan::Role;
use tidewire_schemas::{FeatureValue, FeatureVector, Kind, Record};

use super::{ms, values};

thread_local! {
    /// Sizes of the batches that the model was asked for.
    static BATCHES: RefCell<BTreeSet<usize>> = const { RefCell::new(BTreeSet::new()) };
}

/// A small network with fixed weights.
struct Model;

impl Configured for Model {
    const NAME: &'static str = "model";
    const ABOUT: &'static str = "Scores feature vectors by the batch";
    type Settings = Settings;

    fn new(_: Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Model {
    type State = ();
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::FeatureVector],
            emits: vec![Kind::FeatureValue],
            prepares: true,
            ..Interface::default()
        }
    }

    fn prepare(&self, batch: &[&Record]) -> Vec<Vec<f64>> {
        if !batch.is_empty() {
            BATCHES.with_borrow_mut(|sizes| _ = sizes.insert(batch.len()));
        }
        // Layer by layer over the whole batch, as a model runtime does it.
        let inputs: Vec<Vec<f64>> = batch.iter().map(|record| numbers(record)).collect();
        let weight = |from: usize, to: usize| ((from * 31 + to * 17 + 7) % 23) as f64 / 23.0 - 0.5;
        let hidden: Vec<Vec<f64>> = inputs
            .iter()
            .map(|row| {
                let cell =
                    |to| row.iter().enumerate().map(|(from, x)| x * weight(from, to)).sum::<f64>().max(0.0);
                (0..8).map(cell).collect()
            })
            .collect();
        hidden
            .iter()
            .map(|row| vec![row.iter().enumerate().map(|(from, x)| x * weight(from, 9)).sum()])
            .collect()
    }

    fn on_record(&self, cx: &mut Cx<'_>, input: &Input<'_>, (): &mut (), (): &()) -> Result<(), Fault> {
        let Record::FeatureVector(vector) = input.record else { return Ok(()) };
        let Some(&[value]) = input.prepared else {
            return Err(Fault::new("not-scored", "the model gave no row"));
        };
        let (instrument, name) = (vector.instrument.clone(), "score".into());
        cx.emit(FeatureValue { instrument, event_time: vector.event_time, name, value });
        Ok(())
    }
}

fn numbers(record: &Record) -> Vec<f64> {
    match record {
        Record::FeatureVector(vector) => vector.values.values().copied().collect(),
        _ => Vec::new(),
    }
}

#[test]
fn batches_do_not_show() {
    let run = |max_records: usize| {
        let stage = StageBuilder::new("model")
            .input("vectors", Role::Driving, 1)
            .node("model", OperatorType::of::<Model>(), "", &["vectors"])
            .output("out", 1, &["model"], &[])
            .with(|spec| spec.caps.max_records = max_records)
            .build();
        let mut driver = TestDriver::new(stage);
        for number in 0..200_i64 {
            let key = ["A.X", "B.X"][usize::try_from(number % 2).unwrap()];
            let x = number as f64 / 7.0;
            let names = [("a", x), ("b", x * x % 5.0), ("c", 1.0 / (x + 1.0))];
            let values = names.map(|(name, value)| (name.into(), value)).into();
            let vector = FeatureVector { instrument: key.into(), event_time: ms(number), values };
            driver.append("vectors", key, number, vector);
        }
        let got: Vec<_> =
            values(&driver.run()).into_iter().map(|(key, _, at, x)| (key, at, x.to_bits())).collect();
        assert!(driver.dead_letters().is_empty());
        (got, BATCHES.with_borrow_mut(std::mem::take))
    };
    let (one_by_one, sizes) = run(1);
    assert_eq!((one_by_one.len(), sizes), (200, BTreeSet::from([1])));
    for max_records in [3, 64, 1_000] {
        let (got, sizes) = run(max_records);
        assert!(sizes.iter().any(|size| *size > 1 && *size <= max_records), "{sizes:?}");
        assert_eq!(got, one_by_one, "batches of {max_records}");
    }
}
