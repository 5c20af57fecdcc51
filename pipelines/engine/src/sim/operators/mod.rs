//! The operators of the simulated pipeline: small, but with everything the engine has to keep whole.

mod features;
mod risk;
mod venue;

use std::any::Any;

use tidewire_contract::OperatorType;
use tidewire_schemas::{Amount, EventTime, FeatureValue, Price, Quantity, Trade};

pub use features::{ECHO, SIGNAL, WINDOWS};
pub use risk::{DEFAULT_LIMIT, RISK};
pub use venue::VENUE;

/// What a trade of the feed is made to do; it is written into the trade's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Nothing.
    None,
    /// The operator of short windows panics at it.
    Panic,
    /// The operator of long windows refuses it, after that of short ones has taken it.
    Refused,
    /// The timer of its short window panics.
    TimerPanics,
    /// What the timer of its short window gives out makes the next operator panic.
    PoisonedWindow,
    /// It leads to an intent at which the risk operator of the next stage panics.
    PoisonedIntent,
    /// It leads to a value that an operator two steps further refuses.
    RefusedLater,
}

/// Trade ids are this many times the place in [`Mischief::ALL`], plus a count.
const ID_SPAN: i64 = 1_000_000;
/// The quantity of an intent at which the risk operator panics.
const POISONED_QUANTITY: i64 = 666;

impl Mischief {
    /// All kinds, in the order of trade ids.
    pub const ALL: [Mischief; 7] = [
        Mischief::None,
        Mischief::Panic,
        Mischief::Refused,
        Mischief::TimerPanics,
        Mischief::PoisonedWindow,
        Mischief::PoisonedIntent,
        Mischief::RefusedLater,
    ];

    /// The id of the `count`-th trade, of this kind.
    pub fn trade_id(self, count: i64) -> i64 {
        let place = Self::ALL.iter().position(|kind| *kind == self).unwrap_or(0);
        i64::try_from(place).unwrap_or(0) * ID_SPAN + count
    }

    /// What a trade is made to do.
    pub fn of(trade: &Trade) -> Self {
        let place = usize::try_from(trade.trade_id / ID_SPAN).unwrap_or(0);
        Self::ALL.get(place).copied().unwrap_or(Mischief::None)
    }
}

/// Every operator, by its name.
pub const ALL: [OperatorType; 5] = [WINDOWS, SIGNAL, ECHO, RISK, VENUE];

/// Whole units of a quantity.
pub fn whole(quantity: Quantity) -> i64 {
    i64::try_from(quantity.units() / tidewire_schemas::decimal::UNITS_PER_ONE).unwrap_or(i64::MAX)
}

/// A quantity of whole units.
pub fn quantity(whole: i64) -> Quantity {
    let units = i128::from(whole) * tidewire_schemas::decimal::UNITS_PER_ONE;
    Quantity::from_units(units).unwrap_or_default()
}

/// An amount of whole units.
pub fn amount(whole: i64) -> Amount {
    Amount::from_units(quantity(whole).units()).unwrap_or_default()
}

/// A price of whole units.
pub fn price(whole: i64) -> Price {
    Price::from_units(quantity(whole).units()).unwrap_or_default()
}

/// Whether an intent's quantity is the one at which the risk operator panics.
pub fn is_poisoned(quantity: Quantity) -> bool {
    whole(quantity) == POISONED_QUANTITY
}

/// Start of the tumbling window of `width_ms` that holds `time_ms`.
pub fn window_start_ms(time_ms: i64, width_ms: i64) -> i64 {
    time_ms - time_ms.rem_euclid(width_ms)
}

fn feature(name: &str, key: &str, at: EventTime, value: i64) -> FeatureValue {
    #[expect(clippy::cast_precision_loss, reason = "counts stay small")]
    let value = value as f64;
    FeatureValue { instrument: key.into(), event_time: at, name: name.into(), value }
}

/// Panics without the words that a panic prints: it is meant to be caught.
fn panic_silently(text: &str) -> ! {
    let text: Box<dyn Any + Send> = Box::new(text.to_owned());
    std::panic::resume_unwind(text)
}
