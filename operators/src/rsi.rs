//! `rsi`: relative strength index of a number of each bar (Wilder, *New Concepts in Technical Trading Systems*,
//! 1978).
//!
//! `rsi = 100 * gain / (gain + loss)`, 0 to 100, where gain and loss are averages of the rises and falls from bar to
//! bar: first the simple averages of the first `period` of them, then `(before * (period - 1) + now) / period`.
//! Where nothing moved (both together below 10^-14) it is 0. Warm-up: the first value comes with bar `period + 1`.
//! These are the values of TA-Lib's `RSI`, operation by operation. Bars that are revisions, or not newer than the
//! last one, are passed by.

use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, Whole, persist};
use tidewire_schemas::{EventTime, FeatureValue, Kind};

use crate::bar_field::Indicator;
pub use crate::bar_field::Settings;

/// Below this, movement counts as none.
const NO_MOVEMENT: f64 = 1e-14;

/// See the module.
pub struct Rsi(Indicator);

persist! {
    /// Average rises and falls so far.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Strength {
        last: Option<EventTime>,
        /// Differences taken, up to the period.
        count: u32,
        before: f64,
        gain: f64,
        loss: f64,
    }
}

impl Strength {
    /// Takes the next number; gives the index once it is defined.
    pub fn next(&mut self, period: u32, x: f64) -> Option<f64> {
        let first = self.last.is_none();
        let change = x - std::mem::replace(&mut self.before, x);
        if first {
            return None;
        }
        let length = f64::from(period);
        let warm = self.count == period;
        if warm {
            self.gain *= length - 1.0;
            self.loss *= length - 1.0;
        }
        if change < 0.0 {
            self.loss -= change;
        } else {
            self.gain += change;
        }
        if !warm {
            self.count += 1;
            if self.count < period {
                return None;
            }
        }
        // TA-Lib 0.8 multiplies by the reciprocal, which may differ from a division in the last bit.
        self.gain *= 1.0 / length;
        self.loss *= 1.0 / length;
        let both = self.gain + self.loss;
        Some(if both < NO_MOVEMENT { 0.0 } else { 100.0 * (self.gain / both) })
    }
}

impl Configured for Rsi {
    const NAME: &'static str = "rsi";
    const ABOUT: &'static str = "Relative strength index over bars (Wilder), as TA-Lib's RSI";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        Indicator::new(Self::NAME, 2, settings).map(Self)
    }
}

impl Operator for Rsi {
    type State = Whole<Strength>;
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
        state: &mut Whole<Strength>,
        (): &(),
    ) -> Result<(), Fault> {
        let Some((bar, x)) = self.0.take(input, state.last) else { return Ok(()) };
        let value = state.next(self.0.period, x);
        state.last = Some(bar.event_time);
        if let Some(value) = value {
            let (instrument, name) = (bar.instrument.clone(), self.0.name.clone());
            cx.emit(FeatureValue { instrument, event_time: bar.event_time, name, value });
        }
        Ok(())
    }
}
