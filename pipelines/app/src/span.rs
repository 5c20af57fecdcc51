//! A length of time on the command line: `90s`, `15m`, `12h`, `7d`.

use std::str::FromStr;
use std::time::Duration;

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 5] =
            [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let wrong = || "use a number and ms, s, m, h or d, such as 90s or 7d".to_owned();
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = text.split_at(digits);
        let unit_ms = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let ms = number.checked_mul(unit_ms).filter(|ms| *ms > 0 && *ms < 1 << 52).ok_or_else(wrong)?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

/// A length of time for people: at least two of its largest unit, and what is beyond whole ones left out.
pub fn shown(ms: u64) -> String {
    match ms {
        _ if ms >= 172_800_000 => format!("{} d", ms / 86_400_000),
        _ if ms >= 7_200_000 => format!("{} h", ms / 3_600_000),
        _ if ms >= 120_000 => format!("{} min", ms / 60_000),
        _ if ms >= 1_000 => format!("{} s", ms / 1_000),
        _ => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read() {
        let ms = |text: &str| text.parse::<Span>().map(|span| span.0.as_millis());
        assert_eq!((ms("90s"), ms("7d"), ms("250ms")), (Ok(90_000), Ok(604_800_000), Ok(250)));
        assert_eq!((ms("15m"), ms("12h")), (Ok(900_000), Ok(43_200_000)));
        for wrong in ["", "7", "d", "7 d", "0s", "-1s", "99999999999999d", "1w"] {
            assert!(ms(wrong).is_err(), "{wrong}");
        }
        assert_eq!([shown(604_800_000), shown(90_000), shown(5)], ["7 d", "90 s", "5 ms"]);
    }
}
