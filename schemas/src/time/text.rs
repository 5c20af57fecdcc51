//! Times as RFC 3339 text in UTC. Dates by the civil calendar of ISO 8601 (proleptic Gregorian).

use super::{EventTime, ReceivedTime};
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no time: {problem}; write it like 2024-05-08T12:30:00Z or 2024-05-08T12:30:00.000123+02:00"
)]
pub struct TimeError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.as_micros();
        seconds(f, micros.div_euclid(1_000_000))?;
        fraction(f, micros.rem_euclid(1_000_000), 6)
    }
}

impl fmt::Display for ReceivedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.as_nanos();
        seconds(f, nanos.div_euclid(1_000_000_000))?;
        fraction(f, nanos.rem_euclid(1_000_000_000), 9)
    }
}

impl FromStr for EventTime {
    type Err = TimeError;

    /// Reads RFC 3339 with an offset or `Z`; a date alone is its midnight in UTC. Finer than a microsecond is refused.
    fn from_str(text: &str) -> Result<EventTime, TimeError> {
        parse(text).map_err(|problem| TimeError { text: text.to_owned(), problem })
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ReceivedTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn seconds(f: &mut fmt::Formatter<'_>, seconds: i64) -> fmt::Result {
    let (year, month, day) = date_of(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    // Years beyond four digits carry a sign (ISO 8601, expanded).
    if (0..=9_999).contains(&year) {
        write!(f, "{year:04}")?
    } else {
        write!(f, "{year:+07}")?
    }
    write!(f, "-{month:02}-{day:02}T{:02}:{:02}:{:02}", of_day / 3_600, of_day / 60 % 60, of_day % 60)
}

/// The shortest of none, 3, 6 or 9 places that is exact, then `Z`.
fn fraction(f: &mut fmt::Formatter<'_>, fraction: i64, places: usize) -> fmt::Result {
    let (mut rest, mut places) = (fraction, places);
    while places > 0 && rest % 1_000 == 0 {
        rest /= 1_000;
        places -= 3;
    }
    if places > 0 { write!(f, ".{rest:0places$}Z") } else { f.write_str("Z") }
}

/// Year, month and day of a count of days since 1970. Years are counted from 1 March, in cycles of 400 years
/// (146,097 days), so that the leap day ends a year.
fn date_of(days: i64) -> (i64, i64, i64) {
    let from_march_of_year_0 = days + 719_468;
    let cycle = from_march_of_year_0.div_euclid(146_097);
    let day = from_march_of_year_0.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year + i64::from(month <= 2);
    (year, month, day_of_month)
}

/// Days since 1970 of a date: the inverse of [`date_of`].
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let cycle = year.div_euclid(400);
    let of_cycle = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719_468
}

fn parse(text: &str) -> Result<EventTime, &'static str> {
    let bytes = text.as_bytes();
    let (year, month, day) = (number(bytes, 0, 4)?, number(bytes, 5, 2)?, number(bytes, 8, 2)?);
    if bytes.get(4) != Some(&b'-') || bytes.get(7) != Some(&b'-') {
        return Err("the date is not YYYY-MM-DD");
    }
    let days = days_of(year, month, day);
    if !(1..=12).contains(&month) || date_of(days) != (year, month, day) {
        return Err("there is no such date");
    }
    let midnight = days * 86_400;
    let Some(rest) = bytes.get(10..).filter(|rest| !rest.is_empty()) else {
        return Ok(EventTime::from_micros(midnight * 1_000_000));
    };
    if !matches!(rest[0], b'T' | b't' | b' ') || rest.get(3) != Some(&b':') || rest.get(6) != Some(&b':') {
        return Err("the time of day is not hh:mm:ss");
    }
    let (hour, minute, second) = (number(rest, 1, 2)?, number(rest, 4, 2)?, number(rest, 7, 2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return Err("there is no such time of day");
    }
    let (micros, zone) = parse_fraction(&rest[9..])?;
    let seconds = midnight + hour * 3_600 + minute * 60 + second - parse_zone(zone)?;
    Ok(EventTime::from_micros(seconds * 1_000_000 + micros))
}

/// Microseconds, and what follows them.
fn parse_fraction(rest: &[u8]) -> Result<(i64, &[u8]), &'static str> {
    let Some(digits) = rest.strip_prefix(b".") else {
        return Ok((0, rest));
    };
    let length = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if length == 0 || length > 9 {
        return Err("a fraction has 1 to 9 digits");
    }
    let nanos = number(digits, 0, length)? * 10_i64.pow(9 - length as u32);
    if nanos % 1_000 != 0 {
        return Err("finer than a microsecond");
    }
    Ok((nanos / 1_000, &digits[length..]))
}

/// Seconds east of UTC.
fn parse_zone(zone: &[u8]) -> Result<i64, &'static str> {
    let sign = match zone {
        [b'Z' | b'z'] => return Ok(0),
        [b'+', _, _, b':', _, _] => 1,
        [b'-', _, _, b':', _, _] => -1,
        _ => return Err("the offset from UTC is neither Z nor +hh:mm"),
    };
    let (hours, minutes) = (number(zone, 1, 2)?, number(zone, 4, 2)?);
    if hours > 23 || minutes > 59 {
        return Err("there is no such offset from UTC");
    }
    Ok(sign * (hours * 3_600 + minutes * 60))
}

fn number(bytes: &[u8], from: usize, length: usize) -> Result<i64, &'static str> {
    let digits = bytes.get(from..from + length).ok_or("it is too short")?;
    let mut value = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err("a digit is missing");
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Ok(value)
}
