//! The end of an epoch with which the state that changed goes to the changelog.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;

use super::Case;
use super::market;
use super::stage::{self, Feed, Runner};

pub fn cases() -> Vec<Case> {
    [100, 10_000].into_iter().map(case).collect()
}

/// A stage of one average; a bar of each instrument has changed the state of each.
fn case(keys: usize) -> Case {
    Case::new(format!("flush/{keys} keys"), "key", keys, move || {
        let operators = stage::operators_of("pipelines/market-intel.toml");
        let average: Vec<toml::Table> =
            operators.into_iter().filter(|operator| operator["id"].as_str() == Some("ema_fast")).collect();
        let make = move || {
            let spec = stage::chain(1, &average);
            let mut feed = Feed::new(&spec, market::bars(keys));
            let mut runner = Runner::new(spec);
            runner.warm_up(&mut feed, 1, keys);
            runner.close(true);
            (runner, feed)
        };
        // A task with changed state serves one round, so each round that is ready has one of its own.
        let free = Rc::new(RefCell::new(vec![make()]));
        let done = Rc::clone(&free);
        let next = move || {
            let (mut runner, mut feed) = free.borrow_mut().pop().unwrap_or_else(&make);
            runner.process(feed.batch(keys));
            (runner, feed)
        };
        let run = move |(mut runner, feed): (Runner, Feed)| {
            let closed = black_box(runner.close(true));
            assert!(closed.changelog.is_some_and(|changelog| changelog.len() > keys));
            done.borrow_mut().push((runner, feed));
        };
        (next, run)
    })
}
