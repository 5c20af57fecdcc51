//! To and from other number types.

use super::text::whole;
use super::{Amount, DecimalError, Price, Quantity, SCALE, for_each_decimal};
use rust_decimal::Decimal;

macro_rules! convert {
    ($name:ident) => {
        impl $name {
            /// From a whole number.
            pub fn from_int(value: i64) -> Result<$name, DecimalError> {
                whole(i128::from(value)).map($name)
            }
        }

        impl From<$name> for Decimal {
            /// Exact: 28 digits fit its 96 bits.
            fn from(value: $name) -> Decimal {
                Decimal::from_i128_with_scale(value.0, SCALE).normalize()
            }
        }

        impl TryFrom<Decimal> for $name {
            type Error = DecimalError;

            /// Exact, or refused: digits beyond 12 places are not rounded away.
            fn try_from(value: Decimal) -> Result<$name, DecimalError> {
                let value = value.normalize();
                let Some(missing) = SCALE.checked_sub(value.scale()) else {
                    return Err(DecimalError::TooManyPlaces);
                };
                let units =
                    value.mantissa().checked_mul(10_i128.pow(missing)).ok_or(DecimalError::Overflow)?;
                $name::from_units(units)
            }
        }
    };
}

for_each_decimal!(convert);
