//! What is measured of the parts: each case makes work that can be done round by round, always the same from its start.
//!
//! The bench takes its time, `scripts/instructions` counts what it executes, and a test does each once.

mod codec;
mod commit;
mod epoch;
mod flush;
mod market;
mod merge;
mod operators;
mod orders;
mod stage;

use std::collections::VecDeque;

/// One thing that is measured.
pub struct Case {
    /// `<group>/<what>`, unique.
    pub name: String,
    /// What it is counted by.
    pub unit: &'static str,
    /// How many of these a round takes.
    pub items: usize,
    start: Box<dyn Fn() -> Box<dyn Work>>,
}

impl Case {
    /// `start` brings what is measured to where it goes on alike, and says how to make ready what a round takes, and how to
    /// do the round.
    fn new<I, N, R>(
        name: impl Into<String>,
        unit: &'static str,
        items: usize,
        start: impl Fn() -> (N, R) + 'static,
    ) -> Self
    where
        I: 'static,
        N: FnMut() -> I + 'static,
        R: FnMut(I) + 'static,
    {
        let start = move || {
            let (next, run) = start();
            Box::new(Rounds { next, run, ready: VecDeque::new() }) as Box<dyn Work>
        };
        Self { name: name.into(), unit, items, start: Box::new(start) }
    }

    /// The work from its start.
    pub fn start(&self) -> Box<dyn Work> {
        (self.start)()
    }
}

/// Work that goes on for as many rounds as wished.
pub trait Work {
    /// Makes ready what one round takes. This is not measured.
    fn prepare(&mut self);
    /// Does a round with the oldest that is ready. This is measured.
    fn round(&mut self);
}

struct Rounds<I, N, R> {
    next: N,
    run: R,
    ready: VecDeque<I>,
}

impl<I, N: FnMut() -> I, R: FnMut(I)> Work for Rounds<I, N, R> {
    fn prepare(&mut self) {
        self.ready.push_back((self.next)());
    }

    fn round(&mut self) {
        let input = self.ready.pop_front().expect("a round is prepared before it is done");
        (self.run)(input);
    }
}

/// All cases, group by group.
pub fn all() -> Vec<Case> {
    [codec::cases(), merge::cases(), epoch::cases(), operators::cases(), flush::cases(), commit::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Operators that a pipeline file can name and that no case measures.
pub fn missing_operators() -> Vec<&'static str> {
    let cases = operators::cases();
    let has_case = |name: &str| cases.iter().any(|case| case.name == format!("operator/{name}"));
    let all = tidewire_operators::OPERATORS.iter().map(|operator| operator.name);
    all.filter(|name| !has_case(name)).collect()
}
