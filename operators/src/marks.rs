//! `marks`: the mid of the best bid and offer as the mark for risk and profit and loss.
//!
//! Takes quotes, gives a [`MarkPrice`] with the touch and `source` = `mid`. The mark is `(bid + ask) / 2`, rounded
//! half-even to 12 places. A mark follows each quote whose bid or offer price differs from the last mark's; where
//! only quantities moved, at most one follows within `min_interval_ms`. There is no warm-up. Quotes with one side
//! only, or crossed, and quotes older than the last one taken give none.

use serde::Deserialize;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, Whole, persist};
use tidewire_schemas::{EventTime, Kind, MarkPrice, Price, Record};

use crate::common::{check_span, middle, overflow, two_sided};

/// Settings of [`Marks`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Least event time between marks when only quantities move, in milliseconds.
    pub min_interval_ms: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { min_interval_ms: 1_000 }
    }
}

/// See the module.
pub struct Marks {
    min_interval_ms: i64,
}

persist! {
    /// The last mark.
    #[derive(Clone, Debug, Default)]
    pub struct Last {
        /// Event time of the last quote taken.
        event_time: Option<EventTime>,
        /// Event time of the last mark.
        said_at: EventTime,
        bid: Price,
        ask: Price,
    }
}

impl Configured for Marks {
    const NAME: &'static str = "marks";
    const ABOUT: &'static str = "Mark prices for risk: the mid of the best bid and offer";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_span("min_interval_ms", settings.min_interval_ms)?;
        Ok(Self { min_interval_ms: settings.min_interval_ms })
    }
}

impl Operator for Marks {
    type State = Whole<Last>;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface { accepts: vec![Kind::Quote], emits: vec![Kind::MarkPrice], ..Interface::default() }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        last: &mut Whole<Last>,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::Quote(quote) = input.record else { return Ok(()) };
        if !two_sided(quote) || last.event_time.is_some_and(|time| quote.event_time < time) {
            return Ok(());
        }
        let now = quote.event_time;
        let moved = last.event_time.is_none() || (quote.bid_price, quote.ask_price) != (last.bid, last.ask);
        last.event_time = Some(now);
        if !moved && now < last.said_at.plus_ms(self.min_interval_ms) {
            return Ok(());
        }
        let mark = middle(quote.bid_price, quote.ask_price).map_err(overflow("mid", input.key))?;
        **last = Last {
            event_time: Some(quote.event_time),
            said_at: now,
            bid: quote.bid_price,
            ask: quote.ask_price,
        };
        cx.emit(MarkPrice {
            instrument: quote.instrument.clone(),
            event_time: quote.event_time,
            mark,
            bid: quote.bid_price,
            ask: quote.ask_price,
            bid_quantity: quote.bid_quantity,
            ask_quantity: quote.ask_quantity,
            source: "mid".into(),
        });
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, dec, ms, only};
    use tidewire_schemas::Quote;

    fn quote(at: i64, bid: &str, bid_quantity: &str, ask: &str) -> Quote {
        Quote {
            instrument: "A.V".into(),
            event_time: ms(at),
            bid_price: dec(bid),
            bid_quantity: dec(bid_quantity),
            ask_price: dec(ask),
            ask_quantity: dec("1"),
            ..Quote::default()
        }
    }

    #[test]
    fn marks_when_the_price_moved_or_the_interval_is_over() {
        for mut marks in [
            Harness::new::<Marks>("min_interval_ms = 100"),
            Harness::new::<Marks>("min_interval_ms = 100").restarting(),
        ] {
            for (quote, want) in [
                (quote(0, "10", "1", "11"), Some("10.5")),
                (quote(1, "10", "2", "11"), None),
                (quote(2, "10", "2", "10.5"), Some("10.25")),
                (quote(1, "9", "2", "10.5"), None),
                (quote(90, "10", "3", "10.5"), None),
                (quote(102, "10", "4", "10.5"), Some("10.25")),
                (quote(103, "0", "4", "10.5"), None),
                (quote(104, "11", "4", "10.5"), None),
                (quote(105, "10", "4", "10"), Some("10")),
            ] {
                let got = only::<MarkPrice>(&marks.send("A.V", quote.clone()));
                let got: Vec<_> = got.iter().map(|mark| mark.mark).collect();
                assert_eq!(got, want.map(dec).into_iter().collect::<Vec<Price>>(), "{quote:?}");
            }
        }
    }

    #[test]
    fn the_mid_is_rounded_half_even() {
        let mut marks = Harness::new::<Marks>("");
        let got = only::<MarkPrice>(&marks.send("A.V", quote(0, "0.000000000001", "1", "0.000000000002")));
        assert_eq!(got[0].mark, dec("0.000000000002"));
        assert_eq!((got[0].bid_quantity, got[0].source.as_str()), (dec("1"), "mid"));
    }
}
