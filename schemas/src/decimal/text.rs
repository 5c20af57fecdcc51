//! Decimals as text: exact both ways.

use super::{Amount, DecimalError, MAX_UNITS, Price, Quantity, SCALE, UNITS_PER_ONE, for_each_decimal};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Reads digits with at most one point and an optional sign. Zeros beyond 12 places are fine, digits are not.
pub(super) fn parse_units(text: &str) -> Result<i128, DecimalError> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let (mut units, mut places, mut any) = (0i128, None::<u32>, false);
    for &byte in digits {
        match (byte, places) {
            (b'.', None) => places = Some(0),
            (b'0'..=b'9', _) => {
                any = true;
                let digit = i128::from(byte - b'0');
                match places {
                    Some(SCALE) if digit != 0 => return Err(DecimalError::TooManyPlaces),
                    Some(SCALE) => continue,
                    Some(n) => places = Some(n + 1),
                    None => {}
                }
                // Checked each time: the value stays below 10 * MAX_UNITS and never wraps.
                units = units * 10 + digit;
                if units > MAX_UNITS {
                    return Err(DecimalError::Overflow);
                }
            }
            _ => return Err(DecimalError::NotANumber),
        }
    }
    if !any {
        return Err(DecimalError::NotANumber);
    }
    for _ in places.unwrap_or(0)..SCALE {
        units *= 10;
        if units > MAX_UNITS {
            return Err(DecimalError::Overflow);
        }
    }
    Ok(if negative { -units } else { units })
}

/// Writes the shortest exact text, without exponent.
fn write_units(units: i128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let magnitude = units.abs();
    let (whole, mut fraction) = (magnitude / UNITS_PER_ONE, magnitude % UNITS_PER_ONE);
    let mut places = if fraction == 0 { 0 } else { SCALE as usize };
    while places > 0 && fraction % 10 == 0 {
        fraction /= 10;
        places -= 1;
    }
    let text = if places == 0 { format!("{whole}") } else { format!("{whole}.{fraction:0places$}") };
    f.pad_integral(units >= 0, "", &text)
}

macro_rules! text {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = DecimalError;

            fn from_str(text: &str) -> Result<$name, DecimalError> {
                parse_units(text).map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_units(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_units(self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            /// From a string or a whole number. A float is refused: it is not the number that was meant.
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                deserializer.deserialize_any(UnitsVisitor).map($name)
            }
        }
    };
}

for_each_decimal!(text);

struct UnitsVisitor;

impl serde::de::Visitor<'_> for UnitsVisitor {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal number in quotes, such as \"12.50\", or a whole number")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<i128, E> {
        parse_units(text).map_err(|e| E::custom(format_args!("`{text}`: {e}")))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<i128, E> {
        whole(i128::from(value)).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<i128, E> {
        whole(i128::from(value)).map_err(E::custom)
    }
}

/// Units of a whole number.
pub(super) fn whole(value: i128) -> Result<i128, DecimalError> {
    match value.checked_mul(UNITS_PER_ONE) {
        Some(units) if units.abs() <= MAX_UNITS => Ok(units),
        _ => Err(DecimalError::Overflow),
    }
}
