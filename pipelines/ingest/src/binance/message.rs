//! The venue's messages as they lie in a line. Texts are borrowed from the line; only levels are copied.

use crate::limits::MAX_LEVELS;
use crate::reject::{RejectReason, excerpt};
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use tidewire_schemas::{Level, Price, Quantity};

/// Any message, or the wrapper of one. A field means what it means in the event named by `e`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Message<'a> {
    pub stream: Option<&'a str>,
    #[serde(borrow)]
    pub data: Option<Box<Message<'a>>>,
    #[serde(rename = "e")]
    pub event: Option<&'a str>,
    #[serde(rename = "E")]
    pub sent_ms: Option<i64>,
    #[serde(rename = "T")]
    pub time_ms: Option<i64>,
    #[serde(rename = "s", alias = "symbol")]
    pub symbol: Option<&'a str>,
    #[serde(rename = "ps", alias = "pair")]
    pub pair: Option<&'a str>,
    #[serde(rename = "t")]
    pub trade_id: Option<i64>,
    #[serde(rename = "p")]
    pub price: Option<&'a str>,
    #[serde(rename = "q")]
    pub quantity: Option<&'a str>,
    #[serde(rename = "X")]
    pub trade_type: Option<&'a str>,
    #[serde(rename = "m")]
    pub buyer_is_maker: Option<bool>,
    #[serde(rename = "M")]
    pub spot_flag: Option<IgnoredAny>,
    #[serde(rename = "U")]
    pub first_update_id: Option<i64>,
    #[serde(rename = "u")]
    pub last_update_id: Option<i64>,
    #[serde(rename = "pu")]
    pub previous_update_id: Option<i64>,
    #[serde(rename = "b", default, borrow)]
    pub bid: Side<'a>,
    #[serde(rename = "a", default, borrow)]
    pub ask: Side<'a>,
    #[serde(rename = "B")]
    pub bid_quantity: Option<&'a str>,
    #[serde(rename = "A")]
    pub ask_quantity: Option<&'a str>,
    #[serde(rename = "lastUpdateId")]
    pub snapshot_update_id: Option<i64>,
    #[serde(default, borrow)]
    pub bids: Side<'a>,
    #[serde(default, borrow)]
    pub asks: Side<'a>,
}

/// What one letter stands for in several events: a price (`bookTicker`), levels (`depthUpdate`), or something that is
/// not needed (an order's id in `trade`).
#[derive(Debug, Default)]
pub(super) enum Side<'a> {
    #[default]
    Absent,
    Text(&'a str),
    Levels(Vec<Level>),
    Other,
}

impl Message<'_> {
    /// Parses the JSON of a line. `offset` is how many bytes of the line are in front of it, for the column.
    pub fn parse(json: &[u8], offset: usize) -> Result<Message<'_>, RejectReason> {
        serde_json::from_slice(json).map_err(|error| reason(json, offset, &error))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Side<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Side<'a>, D::Error> {
        deserializer.deserialize_any(SideVisitor)
    }
}

struct SideVisitor;

impl<'de> Visitor<'de> for SideVisitor {
    type Value = Side<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a price in quotes or a list of [price, quantity]")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Side<'de>, E> {
        Ok(Side::Text(text))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Side<'de>, E> {
        Ok(Side::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Side<'de>, E> {
        Ok(Side::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Side<'de>, E> {
        Ok(Side::Other)
    }

    fn visit_unit<E>(self) -> Result<Side<'de>, E> {
        Ok(Side::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Side<'de>, A::Error> {
        let mut levels = Vec::new();
        while let Some(WireLevel(level)) = list.next_element()? {
            if levels.len() == MAX_LEVELS {
                return Err(A::Error::custom(format_args!("more than {MAX_LEVELS} levels")));
            }
            levels.push(level);
        }
        Ok(Side::Levels(levels))
    }
}

/// `["price", "quantity"]`; older messages have a third, empty element.
struct WireLevel(Level);

impl<'de> Deserialize<'de> for WireLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WireLevel, D::Error> {
        deserializer.deserialize_seq(LevelVisitor)
    }
}

struct LevelVisitor;

impl<'de> Visitor<'de> for LevelVisitor {
    type Value = WireLevel;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a level: [\"price\", \"quantity\"]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<WireLevel, A::Error> {
        let (Some(price), Some(quantity)) = (list.next_element::<&str>()?, list.next_element::<&str>()?)
        else {
            return Err(A::Error::custom("a level is [\"price\", \"quantity\"]"));
        };
        while list.next_element::<IgnoredAny>()?.is_some() {}
        let level = Level {
            price: price.parse::<Price>().map_err(|e| bad(price, &e))?,
            quantity: quantity.parse::<Quantity>().map_err(|e| bad(quantity, &e))?,
        };
        if !level.price.is_positive() {
            return Err(A::Error::custom(format_args!("price `{price}` of a level is not positive")));
        }
        if level.quantity.is_negative() {
            return Err(A::Error::custom(format_args!("quantity `{quantity}` of a level is negative")));
        }
        Ok(WireLevel(level))
    }
}

fn bad<E: serde::de::Error>(text: &str, error: &dyn fmt::Display) -> E {
    E::custom(format_args!("`{}`: {error}", excerpt(text)))
}

/// Says why it is no message: that it is another event, or what the parser found and where.
#[cold]
fn reason(json: &[u8], offset: usize, error: &serde_json::Error) -> RejectReason {
    #[derive(Deserialize)]
    struct Event<'a> {
        e: Option<&'a str>,
        #[serde(borrow)]
        data: Option<Box<Event<'a>>>,
    }
    if error.is_data()
        && let Ok(Event { e, data }) = serde_json::from_slice::<Event<'_>>(json)
        && let Some(event) = e.or_else(|| data.and_then(|data| data.e))
        && !matches!(event, "trade" | "depthUpdate" | "bookTicker")
    {
        return RejectReason::OtherEvent { event: excerpt(event) };
    }
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    RejectReason::Malformed { column: offset + error.column(), problem: problem.to_owned() }
}
