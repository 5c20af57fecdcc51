//! What an order of an instrument is worth, and to which steps prices and quantities go.

use smol_str::SmolStr;
use tidewire_contract::MapState;
use tidewire_schemas::{Amount, DecimalError, Instrument, Price, Quantity, Record, Rounding};

/// Value of a quantity at a price, in the quote currency; never negative.
///
/// Linear contracts and spot: `price * quantity * multiplier`. Inverse contracts are worth a fixed sum of the quote
/// currency: `quantity * multiplier`, whatever the price.
pub fn quote_value(
    instrument: &Instrument,
    quantity: Quantity,
    price: Price,
) -> Result<Amount, DecimalError> {
    if instrument.inverse {
        return instrument.contract_multiplier.abs().checked_mul(ONE)?.checked_scale(quantity.abs());
    }
    price.abs().checked_mul(quantity.abs())?.checked_scale(instrument.contract_multiplier.abs())
}

/// The quantity whose value in the quote currency is `value` at `price`: the inverse of [`quote_value`].
pub fn quantity_for_value(
    instrument: &Instrument,
    value: Amount,
    price: Price,
) -> Result<Quantity, DecimalError> {
    let multiplier = instrument.contract_multiplier;
    if instrument.inverse {
        return value.checked_div_price(ONE.checked_scale(multiplier)?);
    }
    value.checked_div_price(price.checked_scale(multiplier)?)
}

/// The greatest multiple of the lot that is not more than a positive quantity.
pub fn whole_lots(instrument: &Instrument, quantity: Quantity) -> Result<Quantity, DecimalError> {
    if instrument.lot_size.is_positive() {
        quantity.round_to(instrument.lot_size, Rounding::Floor)
    } else {
        Ok(quantity)
    }
}

/// A price on the instrument's ticks, where they are known.
pub fn on_tick(instrument: &Instrument, price: Price, rounding: Rounding) -> Result<Price, DecimalError> {
    if instrument.tick_size.is_positive() {
        price.round_to(instrument.tick_size, rounding)
    } else {
        Ok(price)
    }
}

/// Keeps an instrument of the broadcast, unless a later description of it is known.
pub(crate) fn take(known: &mut MapState<SmolStr, Instrument>, record: &Record) {
    let Record::Instrument(instrument) = record else { return };
    let old = known.get(&instrument.instrument);
    if old.is_none_or(|old| old.event_time <= instrument.event_time && *old != **instrument) {
        known.insert(instrument.instrument.clone(), (**instrument).clone());
    }
}

const ONE: Price = Price::ONE;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::dec;

    fn instrument(multiplier: &str, inverse: bool) -> Instrument {
        Instrument {
            contract_multiplier: dec(multiplier),
            inverse,
            lot_size: dec("0.1"),
            tick_size: dec("0.5"),
            ..Instrument::default()
        }
    }

    #[test]
    fn linear_and_inverse_values() {
        for (multiplier, inverse, quantity, price, value) in [
            ("1", false, "2", "60000", "120000"),
            ("1", false, "-2", "60000", "120000"),
            ("0.1", false, "2", "60000", "12000"),
            ("100", true, "3", "60000", "300"),
            ("100", true, "-3", "1", "300"),
        ] {
            let instrument = instrument(multiplier, inverse);
            let got = quote_value(&instrument, dec(quantity), dec(price)).unwrap();
            assert_eq!(got, dec(value));
            assert_eq!(
                quantity_for_value(&instrument, got, dec(price)).unwrap(),
                dec::<Quantity>(quantity).abs()
            );
        }
        assert!(quantity_for_value(&instrument("1", false), dec("1"), Price::ZERO).is_err());
    }

    #[test]
    fn steps() {
        let instrument = instrument("1", false);
        assert_eq!(whole_lots(&instrument, dec("0.19")).unwrap(), dec("0.1"));
        assert_eq!(on_tick(&instrument, dec("10.3"), Rounding::Floor).unwrap(), dec("10"));
        let unknown = Instrument::default();
        assert_eq!(whole_lots(&unknown, dec("0.19")).unwrap(), dec("0.19"));
        assert_eq!(on_tick(&unknown, dec("10.3"), Rounding::Ceil).unwrap(), dec("10.3"));
    }
}
