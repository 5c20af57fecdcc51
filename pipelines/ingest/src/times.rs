//! Times as recorded files have them: RFC 3339 text, or a count since 1970 whose unit is told by its magnitude.

use tidewire_schemas::EventTime;

/// Below it a count is seconds (until the year 5138).
const SECONDS_BELOW: u64 = 100_000_000_000;
/// Below it a count is milliseconds (from 1973 to 5138).
const MILLIS_BELOW: u64 = 100_000_000_000_000;
/// Below it a count is microseconds; from here on it is nanoseconds.
const MICROS_BELOW: u64 = 100_000_000_000_000_000;
/// 9999-12-31T23:59:59.999Z in milliseconds: later times are faults.
const LAST_MS: i64 = 253_402_300_799_999;

/// Nanoseconds since 1970 of a count in seconds, milliseconds, microseconds or nanoseconds, by its magnitude.
/// `None` for 0 and beyond the year 2262.
pub(crate) fn nanos_by_magnitude(count: u64) -> Option<i64> {
    let factor = match count {
        0 => return None,
        _ if count < SECONDS_BELOW => 1_000_000_000,
        _ if count < MILLIS_BELOW => 1_000_000,
        _ if count < MICROS_BELOW => 1_000,
        _ => 1,
    };
    i64::try_from(u128::from(count) * factor).ok()
}

/// A venue's time in milliseconds: after 1970 and before the year 10000.
pub(crate) fn venue_time(ms: i64) -> Option<EventTime> {
    (ms > 0 && ms <= LAST_MS).then(|| EventTime::from_ms(ms))
}

/// Nanoseconds since 1970 of a CSV value: a count by magnitude, or RFC 3339.
pub(crate) fn parse_nanos(text: &str) -> Result<i64, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let count = text.parse::<u64>().map_err(|_| "more than 64 bits".to_owned())?;
        return nanos_by_magnitude(count).ok_or_else(|| "not between 1970 and 2262".to_owned());
    }
    let time = text.parse::<EventTime>().map_err(|e| e.to_string())?;
    time.as_micros().checked_mul(1_000).ok_or_else(|| "not between 1677 and 2262".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_unit_is_told_by_the_magnitude() {
        let ns = 1_723_161_255_030_314_667;
        for (text, expected) in [
            ("1723161255", 1_723_161_255_000_000_000),
            ("1723161255030", 1_723_161_255_030_000_000),
            ("1723161255030314", 1_723_161_255_030_314_000),
            ("1723161255030314667", ns),
            ("2024-08-08T23:54:15.030314Z", 1_723_161_255_030_314_000),
            (" 2024-08-09T01:54:15+02:00 ", 1_723_161_255_000_000_000),
        ] {
            assert_eq!(parse_nanos(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "0",
            "-5",
            "99999999999999999999",
            "18446744073709551615",
            "yesterday",
            "2024-13-01",
            "1.5e9",
        ] {
            assert!(parse_nanos(text).is_err(), "{text}");
        }
    }
}
