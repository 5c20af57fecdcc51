//! Tidewire's operators, one file each, with its tests beside it.
//!
//! Each file's documentation gives what the operator takes and gives, its formula and source, its units and its
//! warm-up. Adding one takes its file and one line in [`OPERATORS`].

pub mod as_of;
mod bar_field;
mod common;
pub mod ema;
pub mod instruments;
pub mod intents;
pub mod marks;
pub mod momentum;
pub mod order_book;
pub mod paper_venue;
pub mod price_jump;
pub mod quote_features;
pub mod risk;
pub mod rsi;
pub mod seen_ids;
pub mod sentiment;
pub mod stale_feed;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::float_cmp, reason = "tests")]
mod talib_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod testing;
pub mod time_bars;

use tidewire_contract::OperatorType;

/// Every operator a pipeline file can name, sorted by name.
pub const OPERATORS: &[OperatorType] = &[
    OperatorType::of::<as_of::AsOf>(),
    OperatorType::of::<ema::Ema>(),
    OperatorType::of::<intents::Intents>(),
    OperatorType::of::<marks::Marks>(),
    OperatorType::of::<quote_features::Microprice>(),
    OperatorType::of::<quote_features::Mid>(),
    OperatorType::of::<momentum::Momentum>(),
    OperatorType::of::<order_book::OrderBook>(),
    OperatorType::of::<paper_venue::PaperVenue>(),
    OperatorType::of::<price_jump::PriceJump>(),
    OperatorType::of::<risk::RiskOrders>(),
    OperatorType::of::<rsi::Rsi>(),
    OperatorType::of::<sentiment::Sentiment>(),
    OperatorType::of::<quote_features::Spread>(),
    OperatorType::of::<stale_feed::StaleFeed>(),
    OperatorType::of::<time_bars::TimeBars>(),
];

/// The operator of that name.
pub fn find(name: &str) -> Option<&'static OperatorType> {
    OPERATORS.iter().find(|operator| operator.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(OPERATORS.is_sorted_by(|a, b| a.name < b.name));
        assert!(
            OPERATORS
                .iter()
                .all(|operator| find(operator.name).is_some_and(|found| found.name == operator.name))
        );
        assert!(find("no_such").is_none());
    }
}
