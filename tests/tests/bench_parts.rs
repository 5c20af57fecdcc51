//! The micro-benchmarks of the parts keep working: each case is done once, and each operator has one.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests fail by panicking; the bench uses what this does not"
)]

#[path = "../benches/parts/cases/mod.rs"]
mod cases;

use std::collections::BTreeSet;

#[test]
fn each_case_can_be_done() {
    let mut names = BTreeSet::new();
    for case in cases::all() {
        let mut work = case.start();
        // Several are made ready before the first is done, as the bench does it.
        (0..2).for_each(|_| work.prepare());
        (0..2).for_each(|_| work.round());
        assert!(case.items > 0 && !case.unit.is_empty() && case.name.contains('/'), "{}", case.name);
        assert!(!case.name.contains(['\t', ',', '"']), "{}: scripts take names apart", case.name);
        assert!(names.insert(case.name.clone()), "{} is there twice", case.name);
    }
}

#[test]
fn each_operator_is_measured() {
    assert_eq!(cases::missing_operators(), Vec::<&str>::new());
}
