//! Each message as a normalized record.
//!
//! Event time: `T` of trades and of all futures messages, `E` of spot depthUpdate. Spot bookTicker and spot snapshots
//! have none: the time of receipt, moved by the estimated difference of the clocks.

use super::message::{Message, Side};
use super::venue::Venue;
use crate::reject::{RejectReason, excerpt};
use crate::times;
use smol_str::SmolStr;
use std::fmt::Display;
use std::str::FromStr;
use tidewire_schemas::{
    Aggressor, BookDelta, BookSnapshot, EventTime, Level, Price, Quantity, Quote, ReceivedTime, Trade,
};

/// What is known of a message beside its text.
pub(super) struct Received {
    pub instrument: SmolStr,
    pub nanos: i64,
    pub venue: Venue,
    /// When the venue sent it, by the difference of the clocks.
    pub estimated: EventTime,
}

impl Received {
    fn time(&self) -> ReceivedTime {
        ReceivedTime::from_nanos(self.nanos)
    }
}

/// A trade. It is a market trade when the venue's flag `X` says so, or is not there (spot), and its price and
/// quantity are not 0. The aggressor is the buyer unless the buyer was the maker (`m`).
pub(super) fn trade(message: &Message<'_>, received: &Received) -> Result<Trade, RejectReason> {
    let field = Fields { event: "trade" };
    let price = field.not_negative::<Price>("p", message.price)?;
    let quantity = field.not_negative::<Quantity>("q", message.quantity)?;
    let flagged = message.trade_type.is_none_or(|kind| kind == "MARKET");
    let buyer_is_maker = field.need("m", message.buyer_is_maker)?;
    Ok(Trade {
        instrument: received.instrument.clone(),
        event_time: field.time("T", message.time_ms)?,
        received_time: received.time(),
        trade_id: field.id("t", message.trade_id)?,
        price,
        quantity,
        aggressor: if buyer_is_maker { Aggressor::Seller } else { Aggressor::Buyer },
        market: flagged && price.is_positive() && quantity.is_positive(),
    })
}

/// Changes of the book.
pub(super) fn delta(message: &mut Message<'_>, received: &Received) -> Result<BookDelta, RejectReason> {
    let field = Fields { event: "depthUpdate" };
    let event_time = match received.venue {
        Venue::Spot => field.time("E", message.sent_ms)?,
        Venue::UsdM | Venue::CoinM => field.time("T", message.time_ms)?,
    };
    let first_update_id = field.id("U", message.first_update_id)?;
    let last_update_id = field.id("u", message.last_update_id)?;
    if first_update_id > last_update_id {
        return Err(RejectReason::Contradiction(format!(
            "depthUpdate: its first update {first_update_id} is after its last {last_update_id}"
        )));
    }
    let previous_update_id = match received.venue {
        Venue::Spot => None,
        Venue::UsdM | Venue::CoinM => Some(field.need("pu", message.previous_update_id)?),
    };
    Ok(BookDelta {
        instrument: received.instrument.clone(),
        event_time,
        received_time: received.time(),
        first_update_id,
        last_update_id,
        previous_update_id,
        bids: field.levels("b", &mut message.bid)?,
        asks: field.levels("a", &mut message.ask)?,
    })
}

/// The best bid and offer.
pub(super) fn quote(message: &Message<'_>, received: &Received) -> Result<Quote, RejectReason> {
    let field = Fields { event: "bookTicker" };
    let (event_time, event_time_estimated) = match (received.venue, message.time_ms) {
        (Venue::Spot, None) => (received.estimated, true),
        (_, time) => (field.time("T", time)?, false),
    };
    Ok(Quote {
        instrument: received.instrument.clone(),
        event_time,
        received_time: received.time(),
        update_id: field.id("u", message.last_update_id)?,
        bid_price: field.positive::<Price>("b", message.bid.text())?,
        bid_quantity: field.not_negative::<Quantity>("B", message.bid_quantity)?,
        ask_price: field.positive::<Price>("a", message.ask.text())?,
        ask_quantity: field.not_negative::<Quantity>("A", message.ask_quantity)?,
        event_time_estimated,
    })
}

/// A whole book.
pub(super) fn snapshot(message: &mut Message<'_>, received: &Received) -> Result<BookSnapshot, RejectReason> {
    let field = Fields { event: "depth snapshot" };
    let event_time = match message.time_ms {
        Some(_) => field.time("T", message.time_ms)?,
        None => received.estimated,
    };
    let snapshot = BookSnapshot {
        instrument: received.instrument.clone(),
        event_time,
        received_time: received.time(),
        update_id: field.id("lastUpdateId", message.snapshot_update_id)?,
        bids: field.levels("bids", &mut message.bids)?,
        asks: field.levels("asks", &mut message.asks)?,
    };
    let empty = snapshot.bids.iter().chain(&snapshot.asks).find(|level| level.quantity.is_zero());
    match empty {
        Some(level) => {
            Err(RejectReason::Contradiction(format!("depth snapshot: nothing at the level {}", level.price)))
        }
        None => Ok(snapshot),
    }
}

impl<'a> Side<'a> {
    fn text(&self) -> Option<&'a str> {
        match self {
            Side::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads the fields of one message; errors name message and field.
#[derive(Clone, Copy)]
struct Fields {
    event: &'static str,
}

impl Fields {
    fn need<T>(self, field: &'static str, value: Option<T>) -> Result<T, RejectReason> {
        value.ok_or(RejectReason::MissingField { event: self.event, field })
    }

    fn bad(self, field: &'static str, value: impl Display, problem: impl Display) -> RejectReason {
        let (value, problem) = (excerpt(&value.to_string()), problem.to_string());
        RejectReason::BadField { event: self.event, field, value, problem }
    }

    fn time(self, field: &'static str, ms: Option<i64>) -> Result<EventTime, RejectReason> {
        let ms = self.need(field, ms)?;
        times::venue_time(ms).ok_or_else(|| self.bad(field, ms, "no time in ms between 1970 and 9999"))
    }

    fn id(self, field: &'static str, id: Option<i64>) -> Result<i64, RejectReason> {
        match self.need(field, id)? {
            id if id >= 0 => Ok(id),
            id => Err(self.bad(field, id, "an id is not negative")),
        }
    }

    fn not_negative<T>(self, field: &'static str, text: Option<&str>) -> Result<T, RejectReason>
    where
        T: FromStr + Default + PartialOrd,
        T::Err: Display,
    {
        let text = self.need(field, text)?;
        let value = text.parse::<T>().map_err(|e| self.bad(field, text, e))?;
        if value < T::default() {
            return Err(self.bad(field, text, "must not be negative"));
        }
        Ok(value)
    }

    fn positive<T>(self, field: &'static str, text: Option<&str>) -> Result<T, RejectReason>
    where
        T: FromStr + Default + PartialOrd,
        T::Err: Display,
    {
        let value = self.not_negative::<T>(field, text)?;
        if value > T::default() {
            return Ok(value);
        }
        Err(self.bad(field, text.unwrap_or_default(), "must be positive"))
    }

    fn levels(self, field: &'static str, side: &mut Side<'_>) -> Result<Vec<Level>, RejectReason> {
        match std::mem::take(side) {
            Side::Levels(levels) => Ok(levels),
            Side::Absent => Err(RejectReason::MissingField { event: self.event, field }),
            Side::Text(text) => Err(self.bad(field, text, "must be a list of levels")),
            Side::Other => Err(self.bad(field, "...", "must be a list of levels")),
        }
    }
}
