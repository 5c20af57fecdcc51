//! Products of 256 bits, so that no intermediate result overflows.

/// `a * b / divisor`, rounded half to even. `None` when the divisor is 0 or the result does not fit `i128`.
#[inline]
pub(super) fn mul_div(a: i128, b: i128, divisor: i128) -> Option<i128> {
    match a.checked_mul(b) {
        Some(product) => div_half_even(product, divisor),
        None => mul_div_wide(a, b, divisor),
    }
}

/// `dividend / divisor`, rounded half to even. `None` when the divisor is 0 or the result does not fit.
#[inline]
pub(super) fn div_half_even(dividend: i128, divisor: i128) -> Option<i128> {
    if divisor == 0 {
        return None;
    }
    let (top, bottom) = (dividend.unsigned_abs(), divisor.unsigned_abs());
    // One division: the remainder follows.
    let whole = top / bottom;
    let quotient = rounded(whole, top - whole * bottom, bottom)?;
    with_sign(quotient, (dividend < 0) != (divisor < 0))
}

#[cold]
fn mul_div_wide(a: i128, b: i128, divisor: i128) -> Option<i128> {
    if divisor == 0 {
        return None;
    }
    let bottom = divisor.unsigned_abs();
    let (high, low) = mul(a.unsigned_abs(), b.unsigned_abs());
    let (quotient, remainder) = div(high, low, bottom)?;
    with_sign(rounded(quotient, remainder, bottom)?, ((a < 0) != (b < 0)) != (divisor < 0))
}

/// One more when the remainder is more than half the divisor, or just half and the quotient odd.
#[inline]
fn rounded(quotient: u128, remainder: u128, divisor: u128) -> Option<u128> {
    // `remainder < divisor`, so `divisor - remainder` is the distance to the next.
    let to_next = divisor - remainder;
    let up = remainder > to_next || (remainder == to_next && quotient & 1 == 1);
    if up { quotient.checked_add(1) } else { Some(quotient) }
}

#[inline]
fn with_sign(magnitude: u128, negative: bool) -> Option<i128> {
    let value = i128::try_from(magnitude).ok()?;
    Some(if negative { -value } else { value })
}

/// The 256-bit product as high and low half, by schoolbook multiplication of 64-bit digits.
fn mul(a: u128, b: u128) -> (u128, u128) {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let low = a0 * b0;
    let middle = a1 * b0 + (low >> 64);
    let other = a0 * b1 + (middle & LOW);
    let high = a1 * b1 + (middle >> 64) + (other >> 64);
    (high, (other << 64) | (low & LOW))
}

/// Quotient and remainder of a 256-bit number by the magnitude of an `i128`, bit by bit. `None` when the quotient does not fit 128 bits.
fn div(high: u128, low: u128, divisor: u128) -> Option<(u128, u128)> {
    if high >= divisor {
        return None;
    }
    let (mut remainder, mut quotient) = (high, 0u128);
    for bit in (0..128).rev() {
        // The remainder is below the divisor, and that at most 2^127: twice the remainder fits.
        remainder = (remainder << 1) | ((low >> bit) & 1);
        quotient <<= 1;
        if remainder >= divisor {
            remainder -= divisor;
            quotient |= 1;
        }
    }
    Some((quotient, remainder))
}
