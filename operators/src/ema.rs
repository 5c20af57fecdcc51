//! `ema`: exponential moving average of a number of each bar.
//!
//! `ema = (x - ema_before) * 2 / (period + 1) + ema_before`. Warm-up: the first value comes with bar `period` and is
//! the simple average of the first `period` numbers. These are the values of TA-Lib's `EMA` in its default
//! compatibility mode, operation by operation. Unit: that of the field. Bars that are revisions, or not newer than
//! the last one, are passed by.

use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, Whole, persist};
use tidewire_schemas::{EventTime, FeatureValue, Kind};

use crate::bar_field::Indicator;
pub use crate::bar_field::Settings;

/// See the module.
pub struct Ema(Indicator);

persist! {
    /// An average so far.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Average {
        last: Option<EventTime>,
        /// Numbers taken, up to the period.
        count: u32,
        /// Sum of the first numbers, then the average.
        value: f64,
    }
}

impl Average {
    /// Takes the next number; gives the average once it is defined.
    pub fn next(&mut self, period: u32, x: f64) -> Option<f64> {
        if self.count < period {
            self.value += x;
            self.count += 1;
            if self.count < period {
                return None;
            }
            self.value /= f64::from(period);
        } else {
            let weight = 2.0 / f64::from(period + 1);
            self.value += (x - self.value) * weight;
        }
        Some(self.value)
    }
}

impl Configured for Ema {
    const NAME: &'static str = "ema";
    const ABOUT: &'static str = "Exponential moving average over bars, as TA-Lib's EMA";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        Indicator::new(Self::NAME, 1, settings).map(Self)
    }
}

impl Operator for Ema {
    type State = Whole<Average>;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Bar],
            emits: vec![Kind::FeatureValue],
            features_out: vec![self.0.name.clone()],
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Whole<Average>,
        (): &(),
    ) -> Result<(), Fault> {
        let Some((bar, x)) = self.0.take(input, state.last) else { return Ok(()) };
        state.last = Some(bar.event_time);
        if let Some(value) = state.next(self.0.period, x) {
            let (instrument, name) = (bar.instrument.clone(), self.0.name.clone());
            cx.emit(FeatureValue { instrument, event_time: bar.event_time, name, value });
        }
        Ok(())
    }
}
