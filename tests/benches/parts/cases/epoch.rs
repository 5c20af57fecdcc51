//! An epoch of a task, from its records to what is committed: what the engine takes by itself, and with the chain of bars and
//! indicators of the bars workload.

use std::hint::black_box;

use tidewire_engine::plan::StageSpec;

use super::Case;
use super::market;
use super::stage::{self, Feed, Runner};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, spec) in [("no operator", bare as fn() -> StageSpec), ("bars", bars)] {
        for records in [1, 64, 4_096] {
            let name = format!("epoch/{what} {records}");
            cases.push(Case::new(name, "record", records, move || {
                let spec = spec();
                let mut feed = Feed::new(&spec, market::trades(market::SYMBOLS, 2_000));
                let mut runner = Runner::new(spec);
                runner.warm_up(&mut feed, 8, 4_096);
                let run = move |batch| {
                    runner.process(batch);
                    black_box(runner.close(false));
                };
                (move || feed.batch(records), run)
            }));
        }
    }
    cases
}

fn bare() -> StageSpec {
    stage::stage(1).build()
}

fn bars() -> StageSpec {
    stage::chain(1, &stage::operators_of("tests/peers/bars.toml"))
}
