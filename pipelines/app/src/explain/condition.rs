//! A condition on a field of a record: `price >= 61800`, decimals compared as decimals.

use std::cmp::Ordering;
use std::str::FromStr;

use serde_json::Value;
use tidewire_schemas::EventTime;

/// Most digits that an exponent may stand for.
const MAX_EXPONENT: i32 = 400;

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer ones first: `<` begins `<=`.
const COMPARISONS: [(&str, Comparison); 7] = [
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("==", Comparison::Equal),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    path: Vec<String>,
    comparison: Comparison,
    wanted: String,
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WRONG: &str =
            "a condition is FIELD OP VALUE with one of = != < <= > >=, for example `price >= 61800`";
        let at = text.find(['=', '!', '<', '>']).ok_or(WRONG)?;
        let (field, rest) = text.split_at(at);
        let found =
            COMPARISONS.iter().find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?)));
        let (comparison, wanted) = found.ok_or(WRONG)?;
        let path: Vec<String> = field.trim().split('.').map(str::to_owned).collect();
        let wanted = wanted.trim().trim_matches(['"', '\'']);
        if wanted.is_empty() || path.iter().any(String::is_empty) {
            return Err(WRONG.to_owned());
        }
        Ok(Self { path, comparison, wanted: wanted.to_owned() })
    }
}

impl Condition {
    /// Whether a record's field fulfils it. A record without the field does not.
    pub fn holds(&self, record: &Value) -> bool {
        let mut value = record;
        for name in &self.path {
            let Some(inner) = value.get(name) else { return false };
            value = inner;
        }
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => return false,
        };
        let order = compare(&text, &self.wanted);
        match self.comparison {
            Comparison::Equal => order == Ordering::Equal,
            Comparison::NotEqual => order != Ordering::Equal,
            Comparison::Less => order == Ordering::Less,
            Comparison::LessOrEqual => order != Ordering::Greater,
            Comparison::Greater => order == Ordering::Greater,
            Comparison::GreaterOrEqual => order != Ordering::Less,
        }
    }
}

/// Decimals as decimals, times as times, all else as text.
fn compare(one: &str, other: &str) -> Ordering {
    if let (Some(one), Some(other)) = (Decimal::read(one), Decimal::read(other)) {
        return one.cmp(&other);
    }
    if let (Ok(one), Ok(other)) = (one.parse::<EventTime>(), other.parse::<EventTime>()) {
        return one.cmp(&other);
    }
    one.cmp(other)
}

/// A decimal of any length, digit by digit: nothing is rounded.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    whole: String,
    places: String,
}

impl Decimal {
    fn read(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (digits, exponent) = match digits.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
            None => (digits, 0),
        };
        let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + places.len() == 0
            || !is_number(whole)
            || !is_number(places)
            || exponent.abs() > MAX_EXPONENT
        {
            return None;
        }
        let (mut whole, mut places) = (whole.to_owned(), places.to_owned());
        for _ in 0..exponent.max(0) {
            whole.push(if places.is_empty() { '0' } else { places.remove(0) });
        }
        for _ in 0..exponent.min(0).abs() {
            places.insert(0, whole.pop().unwrap_or('0'));
        }
        let whole = whole.trim_start_matches('0').to_owned();
        let places = places.trim_end_matches('0').to_owned();
        let is_zero = whole.is_empty() && places.is_empty();
        Some(Self { negative: negative && !is_zero, whole, places })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |one: &Self, other: &Self| {
            (one.whole.len(), &one.whole, &one.places).cmp(&(other.whole.len(), &other.whole, &other.places))
        };
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size(self, other),
            (true, true) => size(other, self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_compared_as_what_they_are() {
        let record = json!({
            "price": "61800.30", "big": "9007199254740993.000000000001", "small": -1e-7, "n": 10,
            "side": "BUY", "market": true, "none": null,
            "event_time": "2024-08-08T23:54:15.1Z", "values": { "rsi": 55.5 }
        });
        for (text, wanted) in [
            ("price = 61800.3", true),
            ("price>=61800.3000", true),
            ("price < 61800.30000000000001", true),
            ("price != 61800.3", false),
            ("big > 9007199254740993", true),
            ("big = 9007199254740993", false),
            ("small = -0.0000001", true),
            ("small < 0", true),
            ("small > -1", true),
            ("n > 9", true),
            ("n = 10.0", true),
            ("n < 1e1", false),
            ("side = BUY", true),
            ("side == \"SELL\"", false),
            ("market = true", true),
            ("none = 0", false),
            ("none != 0", false),
            ("absent != 1", false),
            ("event_time < 2024-08-08T23:54:15.100001Z", true),
            ("event_time = 2024-08-08T23:54:15.100Z", true),
            ("values.rsi > 55", true),
            ("values.ema > 1", false),
        ] {
            assert_eq!(text.parse::<Condition>().unwrap().holds(&record), wanted, "{text}");
        }
        for wrong in ["", "price", "price ~ 1", "= 1", "price =", "a..b = 1"] {
            assert!(wrong.parse::<Condition>().is_err(), "{wrong}");
        }
    }
}
