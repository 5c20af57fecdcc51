//! Values as text, as the formats read them from CSV.

use std::fmt::Write;
use tidewire_schemas::EventTime;

/// A day in nanoseconds.
pub(super) const DAY_NS: i128 = 86_400 * 1_000_000_000;
/// The Julian day on which 1970 begins: INT96 counts by Julian days.
const JULIAN_DAY_1970: i128 = 2_440_588;
/// Counts from here on are read as nanoseconds: `times` tells the unit by the magnitude.
const FIRST_COUNT_NS: i128 = 100_000_000_000_000_000;

/// Appends a field of a CSV record, in quotes where it needs them.
pub(super) fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    let begins_comment = field.first() == Some(&b'#');
    if !begins_comment && !field.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        out.extend_from_slice(field);
        return;
    }
    out.push(b'"');
    for &byte in field {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// A time, of nanoseconds since 1970: as their count, which loses nothing; before 1973, where a count would be taken for
/// another unit, and after 2262, which it does not reach, in RFC 3339.
pub(super) fn write_time(out: &mut String, nanos: i128) -> std::fmt::Result {
    match i64::try_from(nanos.div_euclid(1_000)) {
        Ok(_) if (FIRST_COUNT_NS..=i64::MAX.into()).contains(&nanos) => write!(out, "{nanos}"),
        Ok(micros) => write!(out, "{}", EventTime::from_micros(micros)),
        Err(_) => write!(out, "{nanos} ns since 1970"),
    }
}

/// A decimal of `digits` of which the last `scale` are behind the point.
pub(super) fn write_decimal(out: &mut String, digits: i128, scale: i32) -> std::fmt::Result {
    let Ok(scale) = usize::try_from(scale) else {
        return write!(out, "{digits}e{}", scale.unsigned_abs());
    };
    if digits < 0 {
        out.push('-');
    }
    let text = digits.unsigned_abs().to_string();
    if scale == 0 {
        out.push_str(&text);
        return Ok(());
    }
    let padded = format!("{text:0>width$}", width = scale.saturating_add(1).min(100));
    let (whole, fraction) = padded.split_at(padded.len().saturating_sub(scale));
    write!(out, "{whole}")?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { Ok(()) } else { write!(out, ".{fraction}") }
}

/// A number in two's complement, its most significant byte first; none beyond 16 bytes.
pub(super) fn big_endian(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let mut whole = [if first & 0x80 == 0 { 0 } else { 0xff }; 16];
    let from = whole.len().checked_sub(bytes.len())?;
    whole[from..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(whole))
}

/// Days since 1970 and nanoseconds of the day of an INT96.
pub(super) fn days_and_nanos(parts: &[u32]) -> (i128, i128) {
    let part = |index: usize| i128::from(parts.get(index).copied().unwrap_or(0));
    (part(2) - JULIAN_DAY_1970, (part(1) << 32) + part(0))
}

/// In groups, as UUIDs are written.
pub(super) fn write_uuid(out: &mut String, bytes: &[u8]) -> std::fmt::Result {
    for (place, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&place) {
            out.push('-');
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn decimals() {
        for (digits, scale, expected) in [
            (6_180_030, 2, "61800.3"),
            (-5, 3, "-0.005"),
            (0, 4, "0"),
            (1_200, 0, "1200"),
            (100, 2, "1"),
            (i128::MAX, 0, "170141183460469231731687303715884105727"),
            (12, -3, "12e3"),
        ] {
            let mut text = String::new();
            write_decimal(&mut text, digits, scale).unwrap();
            assert_eq!(text, expected);
        }
        let mut text = String::new();
        write_decimal(&mut text, 1, i32::MAX).unwrap();
        assert!(text.len() <= 110, "{text}");
    }

    #[test]
    fn numbers_in_twos_complement() {
        assert_eq!(big_endian(&[]), None);
        assert_eq!(big_endian(&[0xff]), Some(-1));
        assert_eq!(big_endian(&[0x01, 0x00]), Some(256));
        assert_eq!(big_endian(&i128::MIN.to_be_bytes()), Some(i128::MIN));
        assert_eq!(big_endian(&[0; 17]), None);
    }

    #[test]
    fn times() {
        for (nanos, expected) in [
            (1_723_161_255_030_314_667, "1723161255030314667"),
            (0, "1970-01-01T00:00:00Z"),
            (-1_000, "1969-12-31T23:59:59.999999Z"),
            (253_402_214_400 * 1_000_000_000, "9999-12-31T00:00:00Z"),
            (i128::from(i64::MAX) * 1_001, "9232595408891630582807 ns since 1970"),
        ] {
            let mut text = String::new();
            write_time(&mut text, nanos).unwrap();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn fields_that_need_quotes_get_them() {
        for (field, expected) in [
            ("plain text", "plain text"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("#", "\"#\""),
        ] {
            let mut out = Vec::new();
            push_field(&mut out, field.as_bytes());
            assert_eq!(out, expected.as_bytes());
        }
    }
}
