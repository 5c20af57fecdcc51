//! Money and sizes: exact decimals with 12 places and at most 28 digits, as the Avro logical type (28, 12) has them.
//!
//! One scale for all: no value needs its instrument to be understood. Every operation is checked; where a result
//! is not exact it is rounded half to even. A float is made only for statistics, and never turned back into money.

mod arithmetic;
mod convert;
mod text;
mod wide;

/// Places after the point.
pub const SCALE: u32 = 12;
/// Units of 10^-12 in one.
pub const UNITS_PER_ONE: i128 = 1_000_000_000_000;
/// Greatest count of units: 28 nines.
pub const MAX_UNITS: i128 = 9_999_999_999_999_999_999_999_999_999;

/// Why a decimal could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    /// More than 28 digits, 16 of them before the point.
    #[error("the result has more than 16 digits before the point")]
    Overflow,
    /// Division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A step to round to is not positive.
    #[error("the step to round to is not positive")]
    StepNotPositive,
    /// Text is no decimal.
    #[error("not a decimal number: write digits with at most one point and no exponent, such as -12.50")]
    NotANumber,
    /// More than 12 places after the point.
    #[error("more than 12 places after the point")]
    TooManyPlaces,
}

/// How to round to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Towards negative infinity.
    Floor,
    /// Towards positive infinity.
    Ceil,
    /// To the nearest, a tie to the even multiple.
    HalfEven,
}

macro_rules! decimal_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(i128);

        impl $name {
            /// Zero.
            pub const ZERO: $name = $name(0);
            /// One.
            pub const ONE: $name = $name(UNITS_PER_ONE);
            /// The greatest value.
            pub const MAX: $name = $name(MAX_UNITS);
            /// The least value.
            pub const MIN: $name = $name(-MAX_UNITS);

            /// From a count of 10^-12 units.
            #[inline]
            pub const fn from_units(units: i128) -> Result<$name, DecimalError> {
                if units > MAX_UNITS || units < -MAX_UNITS {
                    return Err(DecimalError::Overflow);
                }
                Ok($name(units))
            }

            /// From a count of units that the cursor has checked.
            #[inline]
            pub(crate) const fn from_wire(units: i128) -> $name {
                $name(units)
            }

            /// Count of 10^-12 units.
            #[inline]
            pub const fn units(self) -> i128 {
                self.0
            }
        }
    };
}

decimal_type!(
    /// A price: quote currency for one unit of the instrument.
    Price
);
decimal_type!(
    /// A quantity: units or contracts of an instrument, or a multiplier of them. Signed where a position is.
    Quantity
);
decimal_type!(
    /// An amount of a currency.
    Amount
);

/// Calls a macro once for each decimal type.
macro_rules! for_each_decimal {
    ($call:ident) => {
        $call!(Price);
        $call!(Quantity);
        $call!(Amount);
    };
}
pub(crate) use for_each_decimal;
