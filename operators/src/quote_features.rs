//! `mid`, `spread` and `microprice`: numbers of the best bid and offer.
//!
//! Each takes quotes and gives a feature value a quote, with the quote's event time; there is no warm-up. A quote
//! with one side only, or crossed, gives none; nor does one older than the last.
//!
//! * `mid`: `(bid + ask) / 2`, in the quote currency.
//! * `spread`: `ask - bid`, in the quote currency; with `in_bps`, in basis points of the mid.
//! * `microprice`: `(ask * bid_quantity + bid * ask_quantity) / (bid_quantity + ask_quantity)`, the mid weighted by
//!   the imbalance of the touch: it leans towards the side with less in it. This is the weighted mid from which
//!   Stoikov, *The micro-price: a high-frequency estimator of future prices* (2018), starts; his own estimator adds
//!   corrections learned from data, which are not made here. A touch without quantities gives none.

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, Whole};
use tidewire_schemas::{EventTime, FeatureValue, Kind, Quote, Record};

use crate::common::{check_name, two_sided};

/// Settings of [`Mid`] and [`Microprice`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Name of the feature value; by default the operator's.
    pub name: Option<SmolStr>,
}

/// Settings of [`Spread`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpreadSettings {
    /// Name of the feature value; by default `spread`, or `spread_bps`.
    pub name: Option<SmolStr>,
    /// In basis points of the mid instead of the quote currency.
    pub in_bps: bool,
}

/// Half way between best bid and offer.
pub struct Mid(SmolStr);

/// Best offer less best bid.
pub struct Spread {
    name: SmolStr,
    in_bps: bool,
}

/// The mid, weighted by the imbalance of the touch.
pub struct Microprice(SmolStr);

/// A number of a quote.
trait QuoteFeature: 'static {
    fn name(&self) -> &SmolStr;
    /// Bid, offer and their quantities as floats: the value is a statistic, no money.
    fn value(&self, touch: [f64; 4]) -> Option<f64>;
}

impl QuoteFeature for Mid {
    fn name(&self) -> &SmolStr {
        &self.0
    }
    fn value(&self, [bid, ask, ..]: [f64; 4]) -> Option<f64> {
        Some((bid + ask) / 2.0)
    }
}

impl QuoteFeature for Spread {
    fn name(&self) -> &SmolStr {
        &self.name
    }
    fn value(&self, [bid, ask, ..]: [f64; 4]) -> Option<f64> {
        let spread = ask - bid;
        Some(if self.in_bps { spread / ((bid + ask) / 2.0) * 10_000.0 } else { spread })
    }
}

impl QuoteFeature for Microprice {
    fn name(&self) -> &SmolStr {
        &self.0
    }
    fn value(&self, [bid, ask, bid_quantity, ask_quantity]: [f64; 4]) -> Option<f64> {
        let total = bid_quantity + ask_quantity;
        (total > 0.0).then(|| (ask * bid_quantity + bid * ask_quantity) / total)
    }
}

macro_rules! quote_operator {
    ($type:ident) => {
        impl Operator for $type {
            /// Event time of the last quote.
            type State = Whole<Option<EventTime>>;
            type Shared = ();

            fn interface(&self) -> Interface {
                Interface {
                    accepts: vec![Kind::Quote],
                    emits: vec![Kind::FeatureValue],
                    features_out: vec![self.name().clone()],
                    ..Interface::default()
                }
            }

            fn on_record(
                &self,
                cx: &mut Cx<'_>,
                input: &Input<'_>,
                last: &mut Whole<Option<EventTime>>,
                (): &(),
            ) -> Result<(), Fault> {
                let Record::Quote(quote) = input.record else { return Ok(()) };
                if last.is_some_and(|last| quote.event_time < last) {
                    return Ok(());
                }
                **last = Some(quote.event_time);
                if let Some(value) = touch_of(quote).and_then(|touch| self.value(touch)) {
                    let (instrument, name) = (quote.instrument.clone(), self.name().clone());
                    cx.emit(FeatureValue { instrument, event_time: quote.event_time, name, value });
                }
                Ok(())
            }
        }
    };
}
quote_operator!(Mid);
quote_operator!(Spread);
quote_operator!(Microprice);

fn touch_of(quote: &Quote) -> Option<[f64; 4]> {
    two_sided(quote).then(|| {
        [
            quote.bid_price.to_f64(),
            quote.ask_price.to_f64(),
            quote.bid_quantity.to_f64(),
            quote.ask_quantity.to_f64(),
        ]
    })
}

fn named(name: Option<SmolStr>, default: &str) -> Result<SmolStr, String> {
    let name = name.unwrap_or_else(|| default.into());
    check_name("name", &name)?;
    Ok(name)
}

impl Configured for Mid {
    const NAME: &'static str = "mid";
    const ABOUT: &'static str = "Half way between best bid and offer";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        named(settings.name, "mid").map(Self)
    }
}

impl Configured for Spread {
    const NAME: &'static str = "spread";
    const ABOUT: &'static str = "Best offer less best bid, absolute or in basis points of the mid";
    type Settings = SpreadSettings;

    fn new(settings: SpreadSettings) -> Result<Self, String> {
        let default = if settings.in_bps { "spread_bps" } else { "spread" };
        Ok(Self { name: named(settings.name, default)?, in_bps: settings.in_bps })
    }
}

impl Configured for Microprice {
    const NAME: &'static str = "microprice";
    const ABOUT: &'static str = "Mid weighted by the imbalance of the touch (Stoikov's weighted mid)";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        named(settings.name, "microprice").map(Self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, dec, ms, only};

    fn quote(at: i64, bid: &str, bid_quantity: &str, ask: &str, ask_quantity: &str) -> Quote {
        Quote {
            instrument: "A.V".into(),
            event_time: ms(at),
            bid_price: dec(bid),
            bid_quantity: dec(bid_quantity),
            ask_price: dec(ask),
            ask_quantity: dec(ask_quantity),
            ..Quote::default()
        }
    }

    fn values(records: &[Record]) -> Vec<(String, f64)> {
        only::<FeatureValue>(records).iter().map(|value| (value.name.to_string(), value.value)).collect()
    }

    #[test]
    fn formulas() {
        let quote = quote(0, "99", "3", "101", "1");
        for (mut operator, name, want) in [
            (Harness::new::<Mid>(""), "mid", 100.0),
            (Harness::new::<Spread>(""), "spread", 2.0),
            (Harness::new::<Spread>("in_bps = true"), "spread_bps", 200.0),
            // Three quarters of the way up: more is bid than offered.
            (Harness::new::<Microprice>("name = \"fair\""), "fair", 100.5),
        ] {
            assert_eq!(values(&operator.send("A.V", quote.clone())), [(name.to_owned(), want)]);
        }
    }

    #[test]
    fn quotes_that_have_no_value() {
        for mut operator in
            [Harness::new::<Mid>("").restarting(), Harness::new::<Spread>(""), Harness::new::<Microprice>("")]
        {
            for bad in
                [quote(0, "0", "1", "10", "1"), quote(0, "10", "1", "0", "1"), quote(0, "11", "1", "10", "1")]
            {
                assert!(operator.send("A.V", bad).is_empty());
            }
            assert_eq!(
                operator.send("A.V", quote(5, "10", "1", "10", "1")).len(),
                1,
                "locked is not crossed"
            );
            assert!(operator.send("A.V", quote(4, "10", "1", "11", "1")).is_empty(), "older");
            assert_eq!(
                operator.send("A.V", quote(5, "10", "1", "11", "1")).len(),
                1,
                "of the same time, later"
            );
        }
        assert!(Harness::new::<Microprice>("").send("A.V", quote(0, "10", "0", "11", "0")).is_empty());
    }
}
