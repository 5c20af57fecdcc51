//! Times and their text.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

use proptest::prelude::*;
use tidewire_schemas::{EventTime, ReceivedTime};

fn time(text: &str) -> EventTime {
    text.parse().unwrap()
}

#[test]
fn known_times() {
    // Counts of seconds as `date -u -d ... +%s` gives them.
    let cases = [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (951_868_800, "2000-03-01T00:00:00Z"),
        (1_709_164_800, "2024-02-29T00:00:00Z"),
        (1_715_171_400, "2024-05-08T12:30:00Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (-11_676_096_000, "1600-01-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
        (253_402_300_800, "+010000-01-01T00:00:00Z"),
    ];
    for (seconds, text) in cases {
        let value = EventTime::from_micros(seconds * 1_000_000);
        assert_eq!(value.to_string(), text);
        if !text.starts_with('+') {
            assert_eq!(time(text), value);
        }
    }
    assert_eq!(EventTime::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    assert_eq!(EventTime::from_micros(1_500_000).to_string(), "1970-01-01T00:00:01.500Z");
    assert_eq!(ReceivedTime::from_nanos(1).to_string(), "1970-01-01T00:00:00.000000001Z");
    assert_eq!(ReceivedTime::from_nanos(1_000).to_string(), "1970-01-01T00:00:00.000001Z");
    // The ends of the range are shown, too.
    assert_eq!(EventTime::MIN.to_string(), "-290308-12-21T19:59:05.224192Z");
    assert_eq!(EventTime::MAX.to_string(), "+294247-01-10T04:00:54.775807Z");
}

#[test]
fn text_is_read() {
    assert_eq!(time("2024-05-08"), time("2024-05-08T00:00:00Z"));
    assert_eq!(time("2024-05-08T14:30:00+02:00"), time("2024-05-08T12:30:00Z"));
    assert_eq!(time("2024-05-08 10:00:00-02:30"), time("2024-05-08T12:30:00Z"));
    assert_eq!(time("2024-05-08T12:30:00.5Z"), time("2024-05-08T12:30:00Z").plus_ms(500));
    assert_eq!(time("2024-05-08T12:30:00.000001000Z"), time("2024-05-08T12:30:00Z").plus_micros(1));
}

#[test]
fn bad_text_is_refused() {
    let cases = [
        ("", "too short"),
        ("now", "too short"),
        ("2024-13-01", "no such date"),
        ("2024-00-01", "no such date"),
        ("2023-02-29", "no such date"),
        ("2024-04-31", "no such date"),
        ("2024/05/08", "YYYY-MM-DD"),
        ("2024-05-08T12:30", "hh:mm:ss"),
        ("2024-05-08T24:00:00Z", "time of day"),
        ("2024-05-08T12:30:60Z", "time of day"),
        ("2024-05-08T12:30:00", "offset"),
        ("2024-05-08T12:30:00+2:00", "offset"),
        ("2024-05-08T12:30:00+25:00", "offset"),
        ("2024-05-08T12:30:00.Z", "1 to 9 digits"),
        ("2024-05-08T12:30:00.0000000001Z", "1 to 9 digits"),
        ("2024-05-08T12:30:00.000000001Z", "finer"),
        ("2024-05-0é", "missing"),
        ("é024-05-08", "missing"),
    ];
    for (text, problem) in cases {
        let error = text.parse::<EventTime>().unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
        assert!(error.contains("write it like"), "{error}");
    }
}

#[test]
fn arithmetic_stays_in_range() {
    let at = EventTime::from_ms(1_500);
    assert_eq!((at.as_micros(), at.as_ms()), (1_500_000, 1_500));
    assert_eq!(at.plus_ms(-500), EventTime::from_ms(1_000));
    assert_eq!(at.minus_ms(2_000).as_micros(), -500_000);
    assert_eq!(EventTime::from_micros(-1).as_ms(), -1);
    assert_eq!(at.micros_since(EventTime::EPOCH), 1_500_000);
    assert_eq!(EventTime::MAX.plus_ms(1), EventTime::MAX);
    assert_eq!(EventTime::MIN.minus_ms(i64::MAX), EventTime::MIN);
    assert_eq!(EventTime::from_ms(i64::MAX), EventTime::MAX);
    assert_eq!(EventTime::MAX.micros_since(EventTime::MIN), i64::MAX);
    assert_eq!(at.floor_to(1_000_000), EventTime::from_ms(1_000));
    assert_eq!(EventTime::from_micros(-1).floor_to(60_000_000), EventTime::from_micros(-60_000_000));
    assert_eq!(at.floor_to(0), at);
    assert_eq!(EventTime::MIN.floor_to(1_000), EventTime::MIN);
    assert_eq!(ReceivedTime::from_ms(-1).as_nanos(), -1_000_000);
    assert_eq!(ReceivedTime::from_nanos(-1).as_ms(), -1);
    assert_eq!(ReceivedTime::from_nanos(-1).as_event_time(), EventTime::from_micros(-1));
    assert_eq!(ReceivedTime::from_nanos(1_999).as_event_time(), EventTime::from_micros(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Years 0 to 9999, as RFC 3339 has them.
    #[test]
    fn text_is_exact(micros in -62_167_219_200_000_000..253_402_300_800_000_000i64) {
        let value = EventTime::from_micros(micros);
        prop_assert_eq!(time(&value.to_string()), value);
    }

    #[test]
    fn any_time_is_shown(micros in any::<i64>()) {
        prop_assert!(EventTime::from_micros(micros).to_string().ends_with('Z'));
        prop_assert!(ReceivedTime::from_nanos(micros).to_string().ends_with('Z'));
    }

    /// Text and order agree.
    #[test]
    fn text_is_in_order(a in 0..253_402_300_800_000_000i64, step in 0..10_000_000i64) {
        let (first, then) = (EventTime::from_micros(a), EventTime::from_micros(a).plus_ms(step));
        if then.as_micros() < 253_402_300_800_000_000 {
            prop_assert!(first.to_string()[..19] <= then.to_string()[..19]);
        }
    }

    #[test]
    fn any_text_is_a_time_or_an_error(text in "[-+:.TZ0-9]{0,36}|\\PC{0,30}") {
        _ = text.parse::<EventTime>();
    }
}
