//! The pipeline that ships, made fit for recordings of a past year.

use crate::root;

/// The text of the shipped pipeline without the limit on an intent's age, and with signals that do not expire: the
/// recording is of 2024, and catching up must not trade the past. `changes` are made too: what stands there, and what is
/// to stand there instead.
pub fn lasting_pipeline(changes: &[(&str, String)]) -> String {
    let mut text = std::fs::read_to_string(root().join("pipelines/market-intel.toml")).unwrap();
    let lasting = [
        ("max_intent_age_ms = 5_000\n", String::new()),
        ("horizon_ms = 60_000", "horizon_ms = 300_000_000_000".to_owned()),
    ];
    for (from, to) in lasting.iter().chain(changes) {
        assert_eq!(text.matches(from).count(), 1, "the shipped pipeline has `{from}` once");
        text = text.replace(from, to);
    }
    text
}
