//! Decimals: exact text, half-even rounding, and overflow that is an error.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_wrap,
    reason = "tests"
)]

mod common;

use common::{MAX_UNITS, decimal};
use proptest::prelude::*;
use rust_decimal::Decimal;
use tidewire_schemas::{Amount, DecimalError, Price, Quantity, Rounding};

const ONE: i128 = 1_000_000_000_000;

fn price(text: &str) -> Price {
    text.parse().unwrap()
}

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap()
}

fn amount(text: &str) -> Amount {
    text.parse().unwrap()
}

fn units(value: i128) -> Price {
    Price::from_units(value).unwrap()
}

#[test]
fn text_is_read_and_written() {
    let cases: [(&str, i128, &str); 13] = [
        ("0", 0, "0"),
        ("-0", 0, "0"),
        ("0.000", 0, "0"),
        ("1", ONE, "1"),
        ("+1.50", ONE + ONE / 2, "1.5"),
        (".5", ONE / 2, "0.5"),
        ("5.", 5 * ONE, "5"),
        ("-0.000000000001", -1, "-0.000000000001"),
        ("0.00001234", 12_340_000, "0.00001234"),
        ("46116860414", 46_116_860_414 * ONE, "46116860414"),
        ("0000000000000000000000000000000000001", ONE, "1"),
        ("9999999999999999.999999999999", MAX_UNITS, "9999999999999999.999999999999"),
        ("-9999999999999999.999999999999000", -MAX_UNITS, "-9999999999999999.999999999999"),
    ];
    for (text, count, shown) in cases {
        assert_eq!(price(text).units(), count, "{text}");
        assert_eq!(price(text).to_string(), shown, "{text}");
    }
    assert_eq!(
        format!("{:>8}|{:<8}|{:08}", price("-1.5"), price("1.5"), price("-1.5")),
        "    -1.5|1.5     |-00001.5"
    );
}

#[test]
fn bad_text_is_refused() {
    use DecimalError::{NotANumber, Overflow, TooManyPlaces};
    let cases = [
        ("", NotANumber),
        ("-", NotANumber),
        (".", NotANumber),
        ("1e5", NotANumber),
        ("1,5", NotANumber),
        ("1.2.3", NotANumber),
        (" 1", NotANumber),
        ("--1", NotANumber),
        ("NaN", NotANumber),
        ("١", NotANumber),
        ("0.0000000000001", TooManyPlaces),
        ("10000000000000000", Overflow),
        ("-10000000000000000", Overflow),
        ("99999999999999999999999999999999999999999999999999", Overflow),
    ];
    for (text, error) in cases {
        assert_eq!(text.parse::<Price>(), Err(error), "{text}");
    }
}

#[test]
fn products_and_quotients_round_half_even() {
    // Half a unit is rounded to the even one.
    assert_eq!(price("0.000000000001").checked_mul(quantity("0.5")).unwrap().units(), 0);
    assert_eq!(price("0.000000000003").checked_mul(quantity("0.5")).unwrap().units(), 2);
    assert_eq!(price("-0.000000000003").checked_mul(quantity("0.5")).unwrap().units(), -2);
    assert_eq!(price("0.000000000001").checked_mul(quantity("0.500000000001")).unwrap().units(), 1);
    assert_eq!(price("61234.56").checked_mul(quantity("-0.125")), Ok(amount("-7654.32")));
    assert_eq!(quantity("2").checked_mul(price("3.5")), Ok(amount("7")));
    assert_eq!(amount("1").checked_div(quantity("3")).unwrap().to_string(), "0.333333333333");
    assert_eq!(amount("2").checked_div(quantity("-3")).unwrap().to_string(), "-0.666666666667");
    assert_eq!(amount("0.000000000001").checked_div(quantity("2")).unwrap().units(), 0);
    assert_eq!(amount("0.000000000003").checked_div(quantity("2")).unwrap().units(), 2);
    assert_eq!(amount("100").checked_div_price(price("8")), Ok(quantity("12.5")));
    assert_eq!(price("10").checked_mul_ratio(-25, 10_000), Ok(price("-0.025")));
    assert_eq!(price("0.000000000005").checked_mul_ratio(1, 2).unwrap().units(), 2);
    assert_eq!(quantity("3").checked_scale(quantity("0.001")), Ok(quantity("0.003")));
    assert_eq!(price("-1.5").checked_mul_int(3), Ok(price("-4.5")));
}

#[test]
fn beyond_the_range_is_an_error() {
    use DecimalError::{DivisionByZero, Overflow, StepNotPositive};
    assert_eq!(Price::MAX.checked_add(units(1)), Err(Overflow));
    assert_eq!(Price::MIN.checked_sub(units(1)), Err(Overflow));
    assert_eq!(Price::MAX.checked_add(Price::ZERO), Ok(Price::MAX));
    assert_eq!(Price::MAX.negated(), Price::MIN);
    assert_eq!(Price::MIN.abs(), Price::MAX);
    assert_eq!(Price::MAX.checked_mul(Quantity::MAX), Err(Overflow));
    assert_eq!(Price::MAX.checked_mul(quantity("1.000000000001")), Err(Overflow));
    assert_eq!(Price::MAX.checked_mul_int(i64::MIN), Err(Overflow));
    assert_eq!(Price::MAX.checked_mul_ratio(i64::MAX, 1), Err(Overflow));
    assert_eq!(Price::MAX.checked_mul_ratio(i64::MAX, i64::MAX), Ok(Price::MAX));
    assert_eq!(Price::MAX.checked_mul_ratio(i64::MIN, i64::MIN), Ok(Price::MAX));
    assert_eq!(Amount::MAX.checked_div(quantity("0.5")), Err(Overflow));
    assert_eq!(Amount::MAX.checked_div(Quantity::ONE), Ok(Price::MAX));
    assert_eq!(Amount::ONE.checked_div(Quantity::ZERO), Err(DivisionByZero));
    assert_eq!(Amount::ONE.checked_div_price(Price::ZERO), Err(DivisionByZero));
    assert_eq!(Price::ONE.checked_mul_ratio(1, 0), Err(DivisionByZero));
    assert_eq!(Price::ONE.round_to(Price::ZERO, Rounding::Floor), Err(StepNotPositive));
    assert_eq!(Price::ONE.round_to(price("-1"), Rounding::Floor), Err(StepNotPositive));
    assert_eq!(Price::MAX.round_to(Price::ONE, Rounding::Ceil), Err(Overflow));
    assert_eq!(Price::from_units(MAX_UNITS + 1), Err(Overflow));
    assert_eq!(Price::from_units(i128::MIN), Err(Overflow));
    assert_eq!(Price::from_int(10_000_000_000_000_000), Err(Overflow));
    assert_eq!(Price::from_int(-9_999_999_999_999_999), Ok(price("-9999999999999999")));
}

#[test]
fn steps() {
    use Rounding::{Ceil, Floor, HalfEven};
    let cases = [
        ("10.07", "0.05", Floor, "10.05"),
        ("10.07", "0.05", Ceil, "10.1"),
        ("10.07", "0.05", HalfEven, "10.05"),
        ("10.075", "0.05", HalfEven, "10.1"),
        ("10.025", "0.05", HalfEven, "10"),
        ("-10.07", "0.05", Floor, "-10.1"),
        ("-10.07", "0.05", Ceil, "-10.05"),
        ("-10.025", "0.05", HalfEven, "-10"),
        ("10.05", "0.05", Ceil, "10.05"),
        ("0", "5", Ceil, "0"),
    ];
    for (value, step, rounding, expected) in cases {
        assert_eq!(
            price(value).round_to(price(step), rounding),
            Ok(price(expected)),
            "{value} {step} {rounding:?}"
        );
    }
    assert!(price("10.05").is_multiple_of(price("0.05")));
    assert!(!price("10.06").is_multiple_of(price("0.05")));
    assert!(price("10.06").is_multiple_of(Price::ZERO));
    assert_eq!((price("-2").signum(), Price::ZERO.signum(), price("2").signum()), (-1, 0, 1));
    assert!(price("-2").is_negative() && price("2").is_positive() && Price::ZERO.is_zero());
    assert!(price("-2") < price("0.1") && Price::default() == Price::ZERO);
}

#[test]
fn serde_takes_text_and_whole_numbers_only() {
    let read = |json: &str| serde_json::from_str::<Price>(json);
    assert_eq!(read("\"-12.50\"").unwrap(), price("-12.5"));
    assert_eq!(read("7").unwrap(), price("7"));
    assert_eq!(read("-7").unwrap(), price("-7"));
    assert!(read("0.1").unwrap_err().to_string().contains("in quotes"));
    assert!(read("\"1e3\"").unwrap_err().to_string().contains("`1e3`"));
    assert!(read("18446744073709551615").is_err());
    assert_eq!(serde_json::to_string(&price("-12.50")).unwrap(), "\"-12.5\"");
}

#[test]
fn floats_are_for_statistics() {
    assert!((price("0.1").to_f64() - 0.1).abs() < f64::EPSILON / 100.0);
    assert!((price("61234.56").to_f64() - 61_234.56).abs() < 1e-11);
    assert!((Price::MIN.to_f64() + 1e16).abs() < 4.0);
}

/// `a * b / c` half-even, by long division in decimal digits of the numbers' sizes: slow, and plainly right.
fn reference(a: i128, b: i128, c: i128) -> Option<i128> {
    let negative = (a < 0) ^ (b < 0) ^ (c < 0);
    let (a, b, c) = (a.unsigned_abs(), b.unsigned_abs(), c.unsigned_abs());
    // Multiply bit by bit of `a` from the top, keeping quotient and remainder of the division by `c`.
    let (mut quotient, mut remainder) = (0u128, 0u128);
    let (b_quotient, b_remainder) = (b / c, b % c);
    for bit in (0..128).rev() {
        quotient = quotient.checked_mul(2)?;
        remainder *= 2;
        if a >> bit & 1 == 1 {
            quotient = quotient.checked_add(b_quotient)?;
            remainder += b_remainder;
        }
        quotient = quotient.checked_add(remainder / c)?;
        remainder %= c;
    }
    if remainder * 2 > c || (remainder * 2 == c && quotient % 2 == 1) {
        quotient += 1;
    }
    let value = i128::try_from(quotient).ok()?;
    Some(if negative { -value } else { value })
}

fn in_range(value: Option<i128>) -> Option<i128> {
    value.filter(|v| v.abs() <= MAX_UNITS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_is_exact(count in decimal()) {
        let text = units(count).to_string();
        prop_assert_eq!(price(&text).units(), count);
        prop_assert!(!text.ends_with('.') && (!text.contains('.') || !text.ends_with('0')));
    }

    #[test]
    fn any_text_is_a_number_or_an_error(text in "[-+.0-9e]{0,40}|\\PC{0,12}") {
        if let Ok(value) = text.parse::<Amount>() {
            prop_assert!(value.units().abs() <= MAX_UNITS);
            prop_assert_eq!(value.to_string().parse::<Amount>(), Ok(value));
        }
    }

    #[test]
    fn products_are_exact(a in decimal(), b in decimal()) {
        let product = units(a).checked_mul(Quantity::from_units(b).unwrap());
        prop_assert_eq!(product.ok().map(Amount::units), in_range(reference(a, b, ONE)));
    }

    #[test]
    fn quotients_are_exact(a in decimal(), b in decimal()) {
        let quotient = Amount::from_units(a).unwrap().checked_div(Quantity::from_units(b).unwrap());
        let expected = if b == 0 { None } else { in_range(reference(a, ONE, b)) };
        prop_assert_eq!(quotient.ok().map(Price::units), expected);
    }

    #[test]
    fn ratios_are_exact(a in decimal(), n in any::<i64>(), d in any::<i64>()) {
        let expected = if d == 0 { None } else { in_range(reference(a, i128::from(n), i128::from(d))) };
        prop_assert_eq!(units(a).checked_mul_ratio(n, d).ok().map(Price::units), expected);
    }

    #[test]
    fn sums_are_exact(a in decimal(), b in decimal()) {
        prop_assert_eq!(units(a).checked_add(units(b)).ok().map(Price::units), in_range(Some(a + b)));
        prop_assert_eq!(units(a).checked_sub(units(b)).ok().map(Price::units), in_range(Some(a - b)));
    }

    #[test]
    fn steps_are_the_nearest(a in decimal(), step in 1..=MAX_UNITS / 4) {
        let value = units(a);
        let to = |rounding| value.round_to(units(step), rounding).ok().map(Price::units);
        if let (Some(floor), Some(ceil), Some(even)) = (to(Rounding::Floor), to(Rounding::Ceil), to(Rounding::HalfEven)) {
            prop_assert!(floor <= a && a <= ceil && ceil - floor <= step);
            prop_assert!(floor % step == 0 && ceil % step == 0 && even % step == 0);
            prop_assert!((even - a).abs() * 2 <= step);
            prop_assert!((even - a).abs() * 2 < step || (even / step) % 2 == 0);
        }
    }

    #[test]
    fn floats_are_near(count in decimal()) {
        let parsed: f64 = units(count).to_string().parse().unwrap();
        let made = units(count).to_f64();
        let ulps = (made.to_bits() as i64).abs_diff(parsed.to_bits() as i64);
        prop_assert!(ulps <= 1 || (made + parsed).abs() < 1e-300, "{} {}", made, parsed);
        prop_assert!(count.abs() > 1 << 53 || made.to_bits() == parsed.to_bits());
    }

    /// rust_decimal is another implementation of the same numbers.
    #[test]
    fn rust_decimal_agrees(a in decimal(), b in decimal()) {
        let (x, y) = (Decimal::from(units(a)), Decimal::from(units(b)));
        prop_assert_eq!(x.to_string(), units(a).to_string());
        prop_assert_eq!(Price::try_from(x), Ok(units(a)));
        prop_assert_eq!(x.cmp(&y), units(a).cmp(&units(b)));
        if let Ok(sum) = units(a).checked_add(units(b)) {
            prop_assert_eq!(Decimal::from(sum), x + y);
        }
    }
}

#[test]
fn rust_decimal_digits_beyond_are_refused() {
    assert_eq!(Price::try_from(Decimal::new(1, 13)), Err(DecimalError::TooManyPlaces));
    assert_eq!(Price::try_from(Decimal::new(10, 13)), Ok(units(1)));
    assert_eq!(Price::try_from(Decimal::MAX), Err(DecimalError::Overflow));
    assert_eq!(Price::try_from(Decimal::from(10_000_000_000_000_000_i64)), Err(DecimalError::Overflow));
}
