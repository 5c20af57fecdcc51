//! Records that were read, into the one order that a task takes them in.

use std::collections::VecDeque;
use std::hint::black_box;

use tidewire_engine::intake::{Intake, Source};
use tidewire_engine::log::Fetched;
use tidewire_engine::plan::Role;

use super::Case;
use super::market::{self, Made};
use super::stage::{self, Feed};

/// Records a round, all sources together.
const RECORDS: usize = 4_096;
/// Rounds of records that are made; then they come again.
const MADE: usize = 8;

pub fn cases() -> Vec<Case> {
    vec![case("merge/1 source", 1), case("merge/4 sources", 4)]
}

/// The same trades from one partition, or spread over so many.
fn case(name: &str, sources: usize) -> Case {
    Case::new(name, "record", RECORDS, move || {
        let mut stage = stage::stage(1);
        for further in 1..sources {
            stage = stage.input(&format!("further-{further}"), Role::Keyed, 1);
        }
        let spec = stage.build();
        let spread =
            market::trades(100, 2_000).enumerate().map(move |(n, made)| Made { input: n % sources, ..made });
        let mut feed = Feed::new(&spec, spread);
        let mut made: VecDeque<Vec<Fetched>> = (0..MADE).map(|_| feed.fetch(RECORDS)).collect();
        let mut intake = Intake::new(Source::of_task(&spec, 0), &[]);
        let next = move || {
            let next = made.pop_front().expect("some were made");
            made.push_back(next.clone());
            next
        };
        let run = move |fetched: Vec<Fetched>| {
            for (source, fetched) in fetched.into_iter().enumerate() {
                intake.offer(source, fetched);
            }
            black_box(intake.take(&stage::all()));
        };
        (next, run)
    })
}
