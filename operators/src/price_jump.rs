//! `price_jump`: an alert when the price moves far in a short time.
//!
//! Takes trades, gives alerts of kind `price_jump`. A trade at price p raises one when `max(p / low - 1, 1 - p /
//! high) * 10 000 >= threshold_bps`, where low and high are over the trades of the window before and at it. The
//! window slides in 64ths of `window_ms`: it spans the current 64th and the 64 before, so a price leaves it between
//! 1 and 65/64 windows after it traded. Severity is CRITICAL from twice the threshold, else WARNING.
//!
//! While raised no other alert follows, until `cooldown_ms` after: then the alert is recovered if no move of that
//! size is in the window any more, and otherwise looked at again after each further `cooldown_ms`. Trades that are
//! no market trades are left out. A trade older than the window goes to the late records; one out of order within it
//! counts for low and high, but raises nothing itself. There is no warm-up.

use serde::Deserialize;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Key, MapState, Operator, Timer, Whole, composite_state, persist,
};
use tidewire_schemas::{AlertState, EventTime, Kind, Price, Record, Severity};

use crate::common::{AlertBody, MAX_SPAN_MS, alert, check_between, check_float, check_span};

const SLICES: i64 = 64;

/// Settings of [`PriceJump`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Length of the window in milliseconds.
    pub window_ms: i64,
    /// The move that raises an alert, in basis points.
    pub threshold_bps: f64,
    /// Least time an alert stays raised, in milliseconds.
    #[serde(default = "default_cooldown_ms")]
    pub cooldown_ms: i64,
}

fn default_cooldown_ms() -> i64 {
    60_000
}

/// See the module.
pub struct PriceJump {
    settings: Settings,
    slice_us: i64,
}

persist! {
    /// Where the alert of an instrument stands.
    #[derive(Clone, Debug, Default)]
    pub struct Watch {
        newest: Option<EventTime>,
        /// While raised: when it is looked at again.
        check_at: Option<EventTime>,
        alerts: u64,
    }
}

composite_state! {
    /// Lows and highs by slice of the window.
    pub struct Prices {
        watch: Whole<Watch>,
        slices: MapState<EventTime, (Price, Price)>,
    }
}

impl Configured for PriceJump {
    const NAME: &'static str = "price_jump";
    const ABOUT: &'static str = "Alert when the traded price moves far within a window";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_span("window_ms", settings.window_ms)?;
        check_float("threshold_bps", settings.threshold_bps, 1e-6, 1e6)?;
        check_between("cooldown_ms", settings.cooldown_ms, 1, MAX_SPAN_MS)?;
        let slice_us = (settings.window_ms * 1_000 / SLICES).max(1);
        Ok(Self { settings, slice_us })
    }
}

impl Operator for PriceJump {
    type State = Prices;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface { accepts: vec![Kind::Trade], emits: vec![Kind::Alert], ..Interface::default() }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Prices,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::Trade(trade) = input.record else { return Ok(()) };
        if !trade.market || !trade.price.is_positive() {
            return Ok(());
        }
        let end = trade.event_time.plus_ms(self.settings.window_ms);
        if cx.has_passed(end) {
            cx.late(input, trade.event_time, end);
            return Ok(());
        }
        // Checks that fall before this trade go first, whether or not their timers could fire by now: what is said
        // depends on the instrument's own trades alone.
        while let Some(check_at) = state.watch.check_at.filter(|check_at| *check_at <= trade.event_time) {
            self.check(cx, input.key, state, check_at);
        }
        let slice = trade.event_time.floor_to(self.slice_us);
        let (low, high) = state.slices.get(&slice).copied().unwrap_or((trade.price, trade.price));
        let range = (low.min(trade.price), high.max(trade.price));
        if state.slices.get(&slice) != Some(&range) {
            state.slices.insert(slice, range);
        }
        if state.watch.newest.is_some_and(|newest| trade.event_time < newest) {
            return Ok(());
        }
        state.watch.newest = Some(trade.event_time);
        self.forget_before(state, slice);
        let (low, high, move_bps) = self.widest(state, trade.price);
        if state.watch.check_at.is_some() || move_bps < self.settings.threshold_bps {
            return Ok(());
        }
        let critical = move_bps >= 2.0 * self.settings.threshold_bps;
        let up = trade.price.to_f64() / low - 1.0 >= 1.0 - trade.price.to_f64() / high;
        let (word, from) = if up { ("rose", low) } else { ("fell", high) };
        let text =
            format!("{word} by {move_bps:.1} bps to {} within {} ms", trade.price, self.settings.window_ms);
        let values = [
            ("price", trade.price.to_f64()),
            ("from", from),
            ("move_bps", move_bps),
            ("threshold_bps", self.settings.threshold_bps),
        ];
        let body = AlertBody {
            scope: input.key,
            kind: "price_jump",
            severity: if critical { Severity::Critical } else { Severity::Warning },
            about: cx.node(),
            text,
            values: &values,
            state: AlertState::Raised,
            event_time: trade.event_time,
        };
        let alert = alert(cx, &mut state.watch.alerts, body);
        cx.emit(alert);
        self.check_again(cx, state, trade.event_time);
        Ok(())
    }

    fn on_timer(&self, cx: &mut Cx<'_>, timer: &Timer, state: &mut Prices, (): &()) -> Result<(), Fault> {
        if state.watch.check_at == Some(timer.at) {
            self.check(cx, &timer.key, state, timer.at);
        }
        Ok(())
    }
}

impl PriceJump {
    fn check_again(&self, cx: &mut Cx<'_>, state: &mut Prices, now: EventTime) {
        let at = now.plus_ms(self.settings.cooldown_ms);
        state.watch.check_at = Some(at);
        cx.set_timer(at, 0);
    }

    /// Recovers the alert if no move of its size is in the window any more.
    fn check(&self, cx: &mut Cx<'_>, key: &Key, state: &mut Prices, now: EventTime) {
        self.forget_before(state, now.floor_to(self.slice_us));
        let all = state.slices.iter().map(|(_, range)| *range);
        let range = all.reduce(|all, range| (all.0.min(range.0), all.1.max(range.1)));
        let width_bps = range.map_or(0.0, |(low, high)| (high.to_f64() / low.to_f64() - 1.0) * 10_000.0);
        if width_bps >= self.settings.threshold_bps {
            self.check_again(cx, state, now);
            return;
        }
        state.watch.check_at = None;
        let text = format!(
            "no move of {} bps within {} ms any more",
            self.settings.threshold_bps, self.settings.window_ms
        );
        let body = AlertBody {
            scope: key,
            kind: "price_jump",
            severity: Severity::Warning,
            about: cx.node(),
            text,
            values: &[("width_bps", width_bps), ("threshold_bps", self.settings.threshold_bps)],
            state: AlertState::Recovered,
            event_time: now,
        };
        let alert = alert(cx, &mut state.watch.alerts, body);
        cx.emit(alert);
    }

    fn forget_before(&self, state: &mut Prices, slice: EventTime) {
        let first = slice.plus_micros(-SLICES * self.slice_us);
        while let Some(old) = state.slices.first().map(|(start, _)| *start).filter(|start| *start < first) {
            state.slices.remove(&old);
        }
    }

    /// Low, high and the greater move from either to `price`, in basis points.
    fn widest(&self, state: &Prices, price: Price) -> (f64, f64, f64) {
        let (low, high) = state
            .slices
            .iter()
            .fold((price, price), |(low, high), (_, range)| (low.min(range.0), high.max(range.1)));
        let (low, high, price) = (low.to_f64(), high.to_f64(), price.to_f64());
        (low, high, (price / low - 1.0).max(1.0 - price / high) * 10_000.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, dec, ms, only};
    use tidewire_schemas::{Alert, Trade};

    const SETTINGS: &str = "window_ms = 6400\nthreshold_bps = 100\ncooldown_ms = 10000";

    fn trade(at: i64, price: &str) -> Trade {
        Trade { event_time: ms(at), price: dec(price), market: true, ..Trade::default() }
    }

    fn rows(records: &[Record]) -> Vec<String> {
        only::<Alert>(records).iter().map(|a| format!("{} {} {}", a.state, a.severity, a.text)).collect()
    }

    #[test]
    fn raises_once_and_recovers() {
        for mut jump in
            [Harness::new::<PriceJump>(SETTINGS), Harness::new::<PriceJump>(SETTINGS).restarting()]
        {
            assert!(jump.send("A.V", trade(0, "100")).is_empty());
            assert!(jump.send("A.V", trade(50, "100.99")).is_empty());
            let records = jump.send("A.V", trade(60, "101"));
            assert_eq!(rows(&records), ["RAISED WARNING rose by 100.0 bps to 101 within 6400 ms"]);
            assert_eq!(only::<Alert>(&records)[0].dedupe_key, "price_jump:A.V:node");
            assert!(jump.send("A.V", trade(70, "110")).is_empty(), "raised already");
            assert!(jump.send("A.V", trade(8_000, "110")).is_empty());
            assert_eq!(
                rows(&jump.send("A.V", trade(10_060, "110"))),
                ["RECOVERED WARNING no move of 100 bps within 6400 ms any more"]
            );
            let records = jump.send("A.V", trade(10_100, "100"));
            assert_eq!(rows(&records), ["RAISED CRITICAL fell by 909.1 bps to 100 within 6400 ms"]);
            // Still moving when the cooldown is over.
            assert!(jump.send("A.V", trade(20_000, "103")).is_empty());
            assert!(jump.send("A.V", trade(20_050, "100")).is_empty());
            assert_eq!(rows(&jump.advance_to(ms(30_100))).len(), 1);
            assert_eq!((jump.timers(), jump.entries()), (0, 1), "the window is empty");
        }
    }

    #[test]
    fn prices_leave_the_window() {
        let mut jump = Harness::new::<PriceJump>(SETTINGS);
        jump.send("A.V", trade(0, "100"));
        assert!(jump.send("A.V", trade(6_500, "110")).is_empty());
        let mut jump = Harness::new::<PriceJump>(SETTINGS);
        jump.send("A.V", trade(0, "100"));
        assert_eq!(jump.send("A.V", trade(6_400, "110")).len(), 1);
    }

    #[test]
    fn out_of_order_late_and_not_of_the_market() {
        let mut jump = Harness::new::<PriceJump>(SETTINGS);
        jump.send("A.V", trade(86_400_000, "100"));
        assert!(jump.send("A.V", Trade { market: false, ..trade(86_400_001, "200") }).is_empty());
        assert!(
            jump.send("A.V", trade(86_399_000, "200")).is_empty(),
            "out of order: counts, raises nothing"
        );
        assert_eq!(jump.entries(), 3);
        assert!(jump.send("A.V", trade(0, "1")).is_empty());
        assert_eq!((jump.late[0].window_start, jump.late[0].window_end), (ms(0), ms(6_400)));
        assert_eq!(jump.entries(), 3);
        assert_eq!(jump.send("A.V", trade(86_400_000, "100")).len(), 1);
    }
}
