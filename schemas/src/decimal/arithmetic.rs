//! Checked arithmetic.

use super::wide::{div_half_even, mul_div};
use super::{Amount, DecimalError, Price, Quantity, Rounding, UNITS_PER_ONE, for_each_decimal};

macro_rules! arithmetic {
    ($name:ident) => {
        impl $name {
            /// Sum.
            #[inline]
            pub const fn checked_add(self, other: $name) -> Result<$name, DecimalError> {
                // Both are far below the range of i128, so that the sum cannot wrap.
                $name::from_units(self.0 + other.0)
            }

            /// Difference.
            #[inline]
            pub const fn checked_sub(self, other: $name) -> Result<$name, DecimalError> {
                $name::from_units(self.0 - other.0)
            }

            /// The same with the other sign; always in range.
            #[inline]
            pub const fn negated(self) -> $name {
                $name(-self.0)
            }

            /// The same without sign; always in range.
            #[inline]
            pub const fn abs(self) -> $name {
                $name(self.0.abs())
            }

            /// -1, 0 or 1.
            #[inline]
            pub const fn signum(self) -> i64 {
                if self.0 > 0 {
                    1
                } else if self.0 < 0 {
                    -1
                } else {
                    0
                }
            }

            /// Whether it is zero.
            #[inline]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }

            /// Whether it is greater than zero.
            #[inline]
            pub const fn is_positive(self) -> bool {
                self.0 > 0
            }

            /// Whether it is less than zero.
            #[inline]
            pub const fn is_negative(self) -> bool {
                self.0 < 0
            }

            /// Times a whole number.
            #[inline]
            pub fn checked_mul_int(self, factor: i64) -> Result<$name, DecimalError> {
                self.0
                    .checked_mul(i128::from(factor))
                    .ok_or(DecimalError::Overflow)
                    .and_then($name::from_units)
            }

            /// Times `numerator / denominator`, rounded half to even: basis points are `(bps, 10_000)`.
            #[inline]
            pub fn checked_mul_ratio(self, numerator: i64, denominator: i64) -> Result<$name, DecimalError> {
                ratio(self.0, i128::from(numerator), i128::from(denominator)).and_then($name::from_units)
            }

            /// Times a pure number given as a quantity, such as a contract multiplier; rounded half to even.
            #[inline]
            pub fn checked_scale(self, factor: Quantity) -> Result<$name, DecimalError> {
                ratio(self.0, factor.units(), UNITS_PER_ONE).and_then($name::from_units)
            }

            /// The nearest multiple of `step` (a tick or a lot) by the rounding given.
            pub fn round_to(self, step: $name, rounding: Rounding) -> Result<$name, DecimalError> {
                if step.0 <= 0 {
                    return Err(DecimalError::StepNotPositive);
                }
                let steps = match rounding {
                    Rounding::Floor => self.0.div_euclid(step.0),
                    Rounding::Ceil => -(-self.0).div_euclid(step.0),
                    Rounding::HalfEven => div_half_even(self.0, step.0).ok_or(DecimalError::Overflow)?,
                };
                // The multiple lies within one step of a value in range: it cannot wrap.
                $name::from_units(steps * step.0)
            }

            /// Whether it is a multiple of `step`. A step of 0 means there is none, and all values are.
            pub const fn is_multiple_of(self, step: $name) -> bool {
                step.0 == 0 || self.0 % step.0 == 0
            }

            /// As a float, for statistics only: the nearest up to 2^53 units, then within one unit in the last place.
            #[inline]
            pub fn to_f64(self) -> f64 {
                // Up to 2^53 units the count itself is exact, so that one rounding happens, in the division. Beyond,
                // whole and fraction apart lose less than the count.
                if self.0.unsigned_abs() <= 1 << 53 {
                    return self.0 as f64 / UNITS_PER_ONE as f64;
                }
                let whole = self.0 / UNITS_PER_ONE;
                let fraction = self.0 % UNITS_PER_ONE;
                whole as f64 + fraction as f64 / UNITS_PER_ONE as f64
            }
        }
    };
}

for_each_decimal!(arithmetic);

impl Price {
    /// Price times quantity, rounded half to even to 12 places.
    #[inline]
    pub fn checked_mul(self, quantity: Quantity) -> Result<Amount, DecimalError> {
        ratio(self.0, quantity.0, UNITS_PER_ONE).and_then(Amount::from_units)
    }
}

impl Quantity {
    /// Quantity times price, rounded half to even to 12 places.
    #[inline]
    pub fn checked_mul(self, price: Price) -> Result<Amount, DecimalError> {
        price.checked_mul(self)
    }
}

impl Amount {
    /// Amount over quantity, such as an average price, rounded half to even to 12 places.
    #[inline]
    pub fn checked_div(self, quantity: Quantity) -> Result<Price, DecimalError> {
        ratio(self.0, UNITS_PER_ONE, quantity.0).and_then(Price::from_units)
    }

    /// The part of the amount that `part` is of `whole`, rounded half to even to 12 places once, at the end.
    #[inline]
    pub fn checked_share(self, part: Quantity, whole: Quantity) -> Result<Amount, DecimalError> {
        ratio(self.0, part.0, whole.0).and_then(Amount::from_units)
    }

    /// Amount over price: how much it buys, rounded half to even to 12 places.
    #[inline]
    pub fn checked_div_price(self, price: Price) -> Result<Quantity, DecimalError> {
        ratio(self.0, UNITS_PER_ONE, price.0).and_then(Quantity::from_units)
    }
}

#[inline]
fn ratio(a: i128, b: i128, divisor: i128) -> Result<i128, DecimalError> {
    if divisor == 0 {
        return Err(DecimalError::DivisionByZero);
    }
    mul_div(a, b, divisor).ok_or(DecimalError::Overflow)
}
