//! Compares two records field by field, with tolerances and fields left out.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use tidewire_schemas::Kind;

/// Decimals are compared as whole numbers of this many places.
const PLACES: u32 = 18;

/// A field that differs: its path and both values; `null` where a side does not have it.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDiff {
    /// Names from the outermost to the innermost, joined by dots.
    pub field: String,
    /// The value of A.
    pub a: Value,
    /// The value of B.
    pub b: Value,
}

/// A field, of one kind of record or of all, as it is written on the command line: `FIELD` or `KIND.FIELD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName {
    kind: Option<Kind>,
    path: String,
}

impl FieldName {
    fn is(&self, kind: &str, path: &str) -> bool {
        self.kind.is_none_or(|wanted| wanted.name() == kind)
            && (path == self.path
                || path.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with(['.', '['])))
    }
}

impl FromStr for FieldName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, path) = match text.split_once('.') {
            Some((first, rest)) if Kind::from_name(first).is_some() => (Kind::from_name(first), rest),
            _ => (None, text),
        };
        let first = path.split('.').next().unwrap_or_default();
        let known = |kind: Kind| kind.fields().contains(&first);
        if path == TIMESTAMP {
            return Ok(Self { kind, path: path.to_owned() });
        }
        match kind {
            Some(kind) if !known(kind) => {
                Err(format!("{kind} has no field `{first}`; it has {}", kind.fields().join(", ")))
            }
            None if !Kind::ALL.iter().any(|kind| known(*kind)) => {
                Err(format!("no record has a field `{first}`; write FIELD or KIND.FIELD, such as Bar.vwap"))
            }
            _ => Ok(Self { kind, path: path.to_owned() }),
        }
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{kind}.{}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

/// Name under which a record's timestamp is compared, where that is asked for.
pub const TIMESTAMP: &str = "@timestamp";

/// How far two numbers may be apart and still count as the same: `FIELD=0.01` or `FIELD=0.5%`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tolerance {
    field: FieldName,
    text: String,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// In units of the last of [`PLACES`], and as a float.
    Absolute(i128, f64),
    /// In percent of the greater number.
    Percent(f64),
}

impl FromStr for Tolerance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WRONG: &str = "write FIELD=0.01 or FIELD=0.5%, or KIND.FIELD=...";
        let (field, bound) = text.split_once('=').ok_or(WRONG)?;
        let number = bound.strip_suffix('%').unwrap_or(bound);
        let value: f64 = number.parse().map_err(|_| WRONG)?;
        if !value.is_finite() || value < 0.0 {
            return Err(format!("a tolerance is a number from 0 on, not {bound}"));
        }
        let bound = if bound.ends_with('%') {
            Bound::Percent(value)
        } else {
            Bound::Absolute(decimal(number).ok_or(WRONG)?, value)
        };
        Ok(Self { field: field.parse()?, text: text.to_owned(), bound })
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Tolerance {
    fn takes(&self, a: &Value, b: &Value) -> bool {
        match self.bound {
            Bound::Absolute(exact, float) => match (exact_number(a), exact_number(b)) {
                // Money is compared exactly; a difference too large to be told is no small one.
                (Some(a), Some(b)) => a.checked_sub(b).is_some_and(|apart| apart.abs() <= exact),
                _ => floats(a, b).is_some_and(|(a, b)| (a - b).abs() <= float),
            },
            Bound::Percent(percent) => {
                floats(a, b).is_some_and(|(a, b)| (a - b).abs() * 100.0 <= percent * a.abs().max(b.abs()))
            }
        }
    }
}

/// How records are compared.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Numbers that may be a little apart.
    pub tolerances: Vec<Tolerance>,
    /// Fields that are not looked at.
    pub ignored: Vec<FieldName>,
}

impl Rules {
    /// The fields that differ between two values of this kind.
    pub fn compare(&self, kind: &str, a: &Value, b: &Value) -> Vec<FieldDiff> {
        let mut found = Vec::new();
        self.walk(kind, "", a, b, &mut found);
        found
    }

    fn walk(&self, kind: &str, path: &str, a: &Value, b: &Value, found: &mut Vec<FieldDiff>) {
        if a == b {
            return;
        }
        match (a, b) {
            (Value::Object(left), Value::Object(right)) => {
                let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
                names.sort_unstable();
                names.dedup();
                for name in names {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    let (a, b) = (left.get(name), right.get(name));
                    self.walk(kind, &path, a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null), found);
                }
            }
            (Value::Array(left), Value::Array(right)) => {
                for place in 0..left.len().max(right.len()) {
                    let (a, b) = (left.get(place), right.get(place));
                    let path = format!("{path}[{place}]");
                    self.walk(kind, &path, a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null), found);
                }
            }
            _ => {
                let ignored = self.ignored.iter().any(|field| field.is(kind, path));
                let mut tolerances =
                    self.tolerances.iter().filter(|tolerance| tolerance.field.is(kind, path));
                if !ignored && !tolerances.any(|tolerance| tolerance.takes(a, b)) {
                    found.push(FieldDiff { field: path.to_owned(), a: a.clone(), b: b.clone() });
                }
            }
        }
    }
}

fn exact_number(value: &Value) -> Option<i128> {
    match value {
        Value::String(text) => decimal(text),
        Value::Number(number) if !number.is_f64() => decimal(&number.to_string()),
        _ => None,
    }
}

fn floats(a: &Value, b: &Value) -> Option<(f64, f64)> {
    let float = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        // Only what is a decimal throughout counts as a number.
        Value::String(text) => decimal(text).and_then(|_| text.parse().ok()),
        _ => None,
    };
    Some((float(a)?, float(b)?))
}

/// A decimal as a whole number of [`PLACES`] places; `None` if the text is none, or too long.
fn decimal(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && places.is_empty()) || !all_digits(whole) || !all_digits(places) {
        return None;
    }
    let missing = PLACES.checked_sub(u32::try_from(places.len()).ok()?)?;
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: i128 = if places.is_empty() { 0 } else { places.parse().ok()? };
    let scaled = whole.checked_mul(10_i128.pow(PLACES))?.checked_add(part * 10_i128.pow(missing))?;
    Some(if negative { -scaled } else { scaled })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use serde_json::json;

    fn rules(tolerances: &[&str], ignored: &[&str]) -> Rules {
        Rules {
            tolerances: tolerances.iter().map(|text| text.parse().unwrap()).collect(),
            ignored: ignored.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn names(rules: &Rules, a: &Value, b: &Value) -> Vec<String> {
        rules.compare("Bar", a, b).into_iter().map(|diff| diff.field).collect()
    }

    #[test]
    fn differing_fields_are_named_with_both_values() {
        let (a, b) = (
            json!({"close": "1", "values": {"x": 1.0, "y": 2.0}}),
            json!({"close": "2", "values": {"x": 1.5}}),
        );
        assert_eq!(names(&Rules::default(), &a, &b), ["close", "values.x", "values.y"]);
        assert_eq!(Rules::default().compare("Bar", &a, &b)[0].b, json!("2"));
        assert_eq!(names(&rules(&[], &["values"]), &a, &b), ["close"]);
        assert_eq!(names(&rules(&[], &["Signal.values"]), &a, &b).len(), 3, "of another kind");
        assert_eq!(names(&rules(&[], &["Bar.close", "values.x"]), &a, &b), ["values.y"]);
    }

    #[test]
    fn numbers_within_a_tolerance_are_the_same() {
        let (a, b) = (json!({"close": "100.00", "open": "7"}), json!({"close": "100.01", "open": "7.1"}));
        assert_eq!(names(&rules(&["close=0.01"], &[]), &a, &b), ["open"], "the bound itself is within");
        assert_eq!(names(&rules(&["close=0.009999999999"], &[]), &a, &b), ["close", "open"]);
        assert_eq!(names(&rules(&["Bar.close=0.02%", "open=1.5%"], &[]), &a, &b), Vec::<String>::new());
        assert_eq!(names(&rules(&["Signal.strength=1"], &[]), &a, &b).len(), 2);
        let (a, b) = (json!({"close": "x"}), json!({"close": "y"}));
        assert_eq!(names(&rules(&["close=1000"], &[]), &a, &b), ["close"], "text has no distance");
        let (a, b) = (json!({"close": null}), json!({"close": "0"}));
        assert_eq!(names(&rules(&["close=1000"], &[]), &a, &b), ["close"], "nothing is not zero");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in ["close", "close=", "close=x", "close=-1", "close=nan", "no_such=1", "Bar.strength=1"] {
            assert!(text.parse::<Tolerance>().is_err(), "{text}");
        }
        assert!("Bar.vwap".parse::<FieldName>().is_ok());
    }
}
