//! Positions, profit and loss and cash, by average cost, in decimals.
//!
//! A fill of q at price p moves value in the settlement currency, seen from the account: for linear contracts and
//! spot `-side * q * p * multiplier` (what is bought is paid for), for inverse contracts `+side * q * multiplier /
//! p`. The sum of these over the part of a position that is open is its `open_flow`. When a part is closed, its
//! share of `open_flow` and the closing fill's own flow are realised. So `realised + open_flow` is the exact sum of
//! all flows whatever was rounded on the way: the books balance to the last unit.

use tidewire_contract::persist;
use tidewire_schemas::{Amount, AssetClass, DecimalError, Instrument, Price, Quantity};

persist! {
    /// What an account holds of one instrument.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Holding {
        /// Positive is long.
        pub quantity: Quantity,
        /// Flows of the open part.
        pub open_flow: Amount,
        /// Profit and loss of what was closed, without fees.
        pub realised: Amount,
        /// Fees in the settlement currency.
        pub fees: Amount,
    }
}

/// Flow of trading a signed quantity (positive: bought) at a price, in the settlement currency; rounded half-even.
pub fn flow(instrument: &Instrument, signed: Quantity, price: Price) -> Result<Amount, DecimalError> {
    if instrument.inverse {
        let worth = Price::ONE.checked_mul(signed.checked_scale(instrument.contract_multiplier)?)?;
        return Amount::from_units(worth.checked_div_price(price)?.units());
    }
    Ok(price.checked_mul(signed)?.checked_scale(instrument.contract_multiplier)?.negated())
}

impl Holding {
    /// Books a fill; returns the profit and loss that it realised.
    pub fn trade(
        &mut self,
        instrument: &Instrument,
        signed: Quantity,
        price: Price,
    ) -> Result<Amount, DecimalError> {
        let flow = flow(instrument, signed, price)?;
        let closes = self.quantity.signum() * signed.signum() < 0;
        let closed = if closes { signed.abs().min(self.quantity.abs()) } else { Quantity::ZERO };
        let (mut released, mut closing_flow) = (Amount::ZERO, Amount::ZERO);
        if closes {
            released = self.open_flow.checked_share(closed, self.quantity.abs())?;
            closing_flow = flow.checked_share(closed, signed.abs())?;
        }
        let realised = released.checked_add(closing_flow)?;
        let opening_flow = flow.checked_sub(closing_flow)?;
        // All or nothing: a failed sum leaves the holding as it was.
        let next = Self {
            quantity: self.quantity.checked_add(signed)?,
            open_flow: self.open_flow.checked_sub(released)?.checked_add(opening_flow)?,
            realised: self.realised.checked_add(realised)?,
            fees: self.fees,
        };
        *self = next;
        Ok(realised)
    }

    /// Average price of the open part: by quantity, and for inverse contracts the harmonic mean; 0 when flat.
    pub fn average_price(&self, instrument: &Instrument) -> Result<Price, DecimalError> {
        if self.quantity.is_zero() {
            return Ok(Price::ZERO);
        }
        let contracts = self.quantity.abs().checked_scale(instrument.contract_multiplier)?;
        if instrument.inverse {
            return Price::ONE
                .checked_mul(contracts)?
                .checked_div(Quantity::from_units(self.open_flow.abs().units())?);
        }
        self.open_flow.abs().checked_div(contracts)
    }

    /// Profit and loss of the open part, were it closed at `mark`.
    pub fn unrealised(&self, instrument: &Instrument, mark: Price) -> Result<Amount, DecimalError> {
        if self.quantity.is_zero() {
            return Ok(Amount::ZERO);
        }
        self.open_flow.checked_add(flow(instrument, self.quantity.negated(), mark)?)
    }
}

/// Whether a trade moves its full value in cash at once; otherwise only what it realised is paid.
pub fn pays_in_full(class: AssetClass) -> bool {
    !matches!(class, AssetClass::Perpetual | AssetClass::Future)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::dec;

    fn linear() -> Instrument {
        Instrument { contract_multiplier: Quantity::ONE, ..Instrument::default() }
    }

    fn inverse() -> Instrument {
        Instrument { contract_multiplier: dec("100"), inverse: true, ..Instrument::default() }
    }

    #[test]
    fn known_cases() {
        // signed quantity, price, then: quantity, average price, realised, unrealised at 100
        for (instrument, rows) in [
            (
                linear(),
                [
                    ("2", "100", "2", "100", "0", "0"),
                    ("2", "110", "4", "105", "0", "-20"),
                    ("-1", "120", "3", "105", "15", "-15"),
                    ("-5", "90", "-2", "90", "-30", "-20"),
                    ("2", "95", "0", "0", "-40", "0"),
                ],
            ),
            (
                inverse(),
                [
                    // 100 / 100 = 1 each; the harmonic mean of 100 and 50 is 66.67.
                    ("1", "100", "1", "100", "0", "0"),
                    ("1", "50", "2", "66.666666666667", "0", "1"),
                    ("-1", "200", "1", "66.666666666667", "1", "0.5"),
                    ("-2", "100", "-1", "100", "1.5", "0"),
                    ("1", "50", "0", "0", "2.5", "0"),
                ],
            ),
        ] {
            let mut holding = Holding::default();
            for (signed, price, quantity, average, realised, unrealised) in rows {
                holding.trade(&instrument, dec(signed), dec(price)).unwrap();
                assert_eq!(holding.quantity, dec(quantity));
                assert_eq!(holding.average_price(&instrument).unwrap(), dec(average), "{signed} at {price}");
                assert_eq!(holding.realised, dec(realised), "{signed} at {price}");
                assert_eq!(holding.unrealised(&instrument, dec("100")).unwrap(), dec(unrealised));
            }
        }
    }

    #[test]
    fn multiplied_contracts() {
        let instrument = Instrument { contract_multiplier: dec("0.1"), ..Instrument::default() };
        let mut holding = Holding::default();
        holding.trade(&instrument, dec("3"), dec("100")).unwrap();
        assert_eq!(holding.average_price(&instrument).unwrap(), dec("100"));
        assert_eq!(holding.trade(&instrument, dec("-3"), dec("110")).unwrap(), dec("3"));
    }

    #[test]
    fn overflow_leaves_the_holding_as_it_was() {
        let mut holding = Holding { quantity: Quantity::MAX, ..Holding::default() };
        let before = holding.clone();
        assert!(holding.trade(&linear(), dec("1"), dec("1")).is_err());
        assert!(holding.trade(&inverse(), dec("-1"), Price::ZERO).is_err());
        assert_eq!(holding, before);
    }
}
