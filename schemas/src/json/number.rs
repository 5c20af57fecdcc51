//! Decimals of any scale and length as text.

/// Longest decimal that is shown as a number, in bytes: 154 digits.
const MAX_BYTES: usize = 64;
/// Greatest scale that is shown as a number.
const MAX_SCALE: usize = 200;

/// Big-endian two's complement as decimal text with `scale` places, exact. `None` when empty or beyond the bounds.
pub(super) fn decimal_text(bytes: &[u8], scale: usize) -> Option<String> {
    if bytes.is_empty() || bytes.len() > MAX_BYTES || scale > MAX_SCALE {
        return None;
    }
    let negative = bytes[0] >= 0x80;
    let mut digits = digits_of(&magnitude(bytes, negative));
    // At least one digit before the point.
    while digits.len() <= scale {
        digits.insert(0, b'0');
    }
    let point = digits.len() - scale;
    let mut text = String::from(if negative { "-" } else { "" });
    text.extend(digits[..point].iter().map(|d| char::from(*d)));
    if scale > 0 {
        text.push('.');
        text.extend(digits[point..].iter().map(|d| char::from(*d)));
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    Some(text)
}

/// The bytes of the number without sign, big-endian.
fn magnitude(bytes: &[u8], negative: bool) -> Vec<u8> {
    if !negative {
        return bytes.to_vec();
    }
    // Two's complement: all bits turned, plus one. The top bit is 0 after the turn, so that no carry leaves it.
    let mut result: Vec<u8> = bytes.iter().map(|b| !b).collect();
    for byte in result.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return result;
        }
    }
    result
}

/// Decimal digits, most significant first, by repeated division by ten.
fn digits_of(magnitude: &[u8]) -> Vec<u8> {
    let mut rest = magnitude.to_vec();
    let mut digits = Vec::new();
    while rest.iter().any(|b| *b != 0) {
        let mut remainder = 0u16;
        for byte in &mut rest {
            let value = remainder * 256 + u16::from(*byte);
            *byte = (value / 10) as u8;
            remainder = value % 10;
        }
        digits.push(b'0' + remainder as u8);
    }
    digits.reverse();
    digits
}
