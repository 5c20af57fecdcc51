//! Binance's markets, and how their messages differ.

use super::message::Message;
use std::fmt;
use std::str::FromStr;

/// A market of Binance. Its name is the venue part of an instrument id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Venue {
    /// Spot.
    Spot,
    /// Futures in USDT or USDC (USD-M).
    UsdM,
    /// Futures settled in the coin (coin-M).
    CoinM,
}

impl Venue {
    /// All of them.
    pub const ALL: [Venue; 3] = [Venue::Spot, Venue::UsdM, Venue::CoinM];

    /// Name in an instrument id.
    pub const fn name(self) -> &'static str {
        match self {
            Venue::Spot => "BINANCE_SPOT",
            Venue::UsdM => "BINANCE_USDM",
            Venue::CoinM => "BINANCE_COINM",
        }
    }

    /// Name on the command line.
    pub const fn short_name(self) -> &'static str {
        match self {
            Venue::Spot => "spot",
            Venue::UsdM => "usdm",
            Venue::CoinM => "coinm",
        }
    }
}

impl fmt::Display for Venue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Venue {
    type Err = String;

    /// Reads either name.
    fn from_str(text: &str) -> Result<Venue, String> {
        Venue::ALL
            .into_iter()
            .find(|venue| text == venue.name() || text == venue.short_name())
            .ok_or_else(|| format!("`{text}` is no Binance market; use one of spot, usdm, coinm"))
    }
}

/// The markets that a message can be of, by its fields:
/// - coin-M: `ps` (in REST snapshots `pair`), except in trades;
/// - USD-M: no `ps`, but `pu` in depthUpdate, `e` in bookTicker, a time in snapshots;
/// - spot: neither; its trades have `M` where those of futures have `X`.
pub(super) fn possible(message: &Message<'_>) -> &'static [Venue] {
    use Venue::{CoinM, Spot, UsdM};
    if message.pair.is_some() {
        return &[CoinM];
    }
    match (message.event, message.snapshot_update_id) {
        (Some("trade"), _) if message.trade_type.is_some() => &[UsdM, CoinM],
        (Some("trade"), _) if message.spot_flag.is_some() => &[Spot],
        (Some("depthUpdate"), _) if message.previous_update_id.is_some() => &[UsdM],
        (Some("depthUpdate"), _) => &[Spot],
        (Some("bookTicker"), _) => &[UsdM],
        (None, Some(_)) if message.sent_ms.is_some() => &[UsdM],
        (None, Some(_)) => &[Spot],
        (None, None) if message.bid_quantity.is_some() => &[Spot],
        _ => &Venue::ALL,
    }
}
