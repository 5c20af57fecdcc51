//! What the parts cost: codecs, the merge, an epoch, each operator, a flush, a commit. Items a second are records, or keys
//! where state is flushed; allocations are those of a round. Counting these costs about 30 instructions for each.
//!
//! Run with `cargo bench -p tidewire-tests --bench parts [-- FILTER]`, or `-- --help`.
//!
//! With `COUNT=list` it prints the cases, each with the unit and number of items of a round; with `COUNT=CASE,ROUNDS` it does
//! one case for so many rounds inside [`tidewire_counted`], for tools that count what is executed there:
//! `scripts/instructions`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_wrap,
    reason = "a bench talks and may stop"
)]

mod cases;

use std::cell::RefCell;

use cases::{Case, Work};
use divan::Bencher;
use divan::counter::ItemsCount;

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

/// Rounds before those that are counted: memory is there, and what is made once has been made.
const BEFORE: usize = 4;

fn main() {
    let missing = cases::missing_operators();
    assert!(missing.is_empty(), "operators without a case: {missing:?}; add them to cases/operators.rs");
    match std::env::var("COUNT") {
        Err(_) => divan::main(),
        Ok(all) if all == "list" => {
            for Case { name, unit, items, .. } in cases::all() {
                println!("{name}\t{unit}\t{items}");
            }
        }
        Ok(one) => {
            let (name, rounds) = one.rsplit_once(',').expect("COUNT is CASE,ROUNDS");
            count(name, rounds.parse().expect("ROUNDS is a number"));
        }
    }
}

fn count(name: &str, rounds: usize) {
    let mut work = find(name).start();
    for _ in 0..BEFORE {
        work.prepare();
        work.round();
    }
    (0..rounds).for_each(|_| work.prepare());
    tidewire_counted(&mut *work, rounds);
}

/// What is counted, and nothing else: found by this name.
#[inline(never)]
fn tidewire_counted(work: &mut dyn Work, rounds: usize) {
    for _ in 0..rounds {
        work.round();
    }
}

fn find(name: &str) -> Case {
    let found = cases::all().into_iter().find(|case| case.name == name);
    found.unwrap_or_else(|| panic!("no case is called {name}; COUNT=list prints all"))
}

/// Names of the cases of a group, without it.
fn of(group: &str) -> Vec<String> {
    let all = cases::all().into_iter();
    all.filter_map(|case| Some(case.name.strip_prefix(group)?.strip_prefix('/')?.to_owned())).collect()
}

fn bench(bencher: Bencher<'_, '_>, group: &str, name: &str) {
    let case = find(&format!("{group}/{name}"));
    let work = RefCell::new(case.start());
    bencher
        .counter(ItemsCount::new(case.items))
        .with_inputs(|| work.borrow_mut().prepare())
        .bench_local_values(|()| work.borrow_mut().round());
}

/// A function for each group, as divan wants it.
macro_rules! groups {
    ($($group:ident)*) => { $(
        #[divan::bench(args = of(stringify!($group)), max_time = 2)]
        fn $group(bencher: Bencher<'_, '_>, name: &str) {
            bench(bencher, stringify!($group), name);
        }
    )* };
}

groups!(codec merge epoch operator flush commit);
