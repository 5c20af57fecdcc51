//! `time_bars`: open, high, low, close and volume of trades over fixed windows of event time.
//!
//! Takes trades, gives a [`Bar`] a window. Windows are tumbling, aligned to 1970-01-01T00:00Z and half-open: a trade
//! at the end of one belongs to the next. Open and close go by event time, then arrival. Volume is the sum of
//! quantities, notional the sum of price times quantity (each rounded half-even to 12 places), VWAP is notional over
//! volume, half-even. For multiplied or inverse contracts volume counts contracts, and VWAP keeps its meaning as a
//! price weighted by contracts. Trades that are no market trades are left out, and so is a trade whose id the window
//! has already: a feed that reconnects sends some twice. An id of 0 is none. Where a venue's ids leave many gaps,
//! only the highest are remembered (see [`crate::seen_ids`]).
//!
//! A bar is given out when the watermark passes the window's end, with `event_time` = `window_end`; there is no
//! warm-up. A trade that comes after that, but no later than `allowed_lateness_ms`, gives the bar again with
//! `revision` + 1; a later one goes to the late records. `is_final` is true when no lateness is allowed, since only
//! then no revision can follow. Windows without trades give nothing, unless `emit_empty` is set: then they repeat
//! the last close with volume 0, at most `max_empty_bars` in a row.

use serde::Deserialize;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Key, MapState, Operator, Timer, Whole, composite_state, persist,
};
use tidewire_schemas::{
    Aggressor, Amount, Bar, BarKind, DecimalError, EventTime, Kind, Price, Quantity, Record, Trade,
};

use crate::common::{check_between, check_span, overflow};
use crate::seen_ids::SeenIds;

/// Most windows of one instrument that may be open at once. Only event times far apart reach it.
pub const MAX_OPEN_WINDOWS: usize = 100_000;

const CLOSE: u32 = 0;
const DROP: u32 = 1;

/// Settings of [`TimeBars`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Length of a window in milliseconds.
    pub interval_ms: i64,
    /// How long after its end a window still takes trades, in milliseconds.
    #[serde(default)]
    pub allowed_lateness_ms: i64,
    /// Give bars of windows without trades too.
    #[serde(default)]
    pub emit_empty: bool,
    /// Most bars without trades in a row.
    #[serde(default = "default_max_empty_bars")]
    pub max_empty_bars: u32,
}

fn default_max_empty_bars() -> u32 {
    1_440
}

/// See the module.
pub struct TimeBars {
    settings: Settings,
}

persist! {
    /// A window so far.
    #[derive(Clone, Debug, Default)]
    pub struct Window {
        first_time: EventTime,
        last_time: EventTime,
        open: Price,
        high: Price,
        low: Price,
        close: Price,
        volume: Quantity,
        buy_volume: Quantity,
        notional: Amount,
        trade_count: i64,
        ids: SeenIds,
        /// Revision of the next output; above 0 the window has closed before.
        revision: i32,
    }
}

persist! {
    /// The last bar given out for the first time.
    #[derive(Clone, Debug, Default)]
    pub struct Last {
        window_start: EventTime,
        close: Option<Price>,
        empty_in_a_row: u32,
    }
}

composite_state! {
    /// Windows of one instrument by their starts.
    pub struct Windows {
        open: MapState<EventTime, Window>,
        last: Whole<Last>,
    }
}

impl Configured for TimeBars {
    const NAME: &'static str = "time_bars";
    const ABOUT: &'static str = "Bars (OHLC, volume, VWAP) of trades over fixed windows of event time";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_span("interval_ms", settings.interval_ms)?;
        check_between("allowed_lateness_ms", settings.allowed_lateness_ms, 0, crate::common::MAX_SPAN_MS)?;
        check_between("max_empty_bars", settings.max_empty_bars.into(), 1, 1_000_000)?;
        Ok(Self { settings })
    }
}

impl Operator for TimeBars {
    type State = Windows;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface { accepts: vec![Kind::Trade], emits: vec![Kind::Bar], ..Interface::default() }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Windows,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::Trade(trade) = input.record else { return Ok(()) };
        if !trade.market {
            return Ok(());
        }
        if !trade.quantity.is_positive() {
            let text = format!(
                "trade {} of {}: quantity {} is not positive",
                trade.trade_id, input.key, trade.quantity
            );
            return Err(Fault::new("bad-trade", text));
        }
        let start = trade.event_time.floor_to(self.settings.interval_ms * 1_000);
        let end = start.plus_ms(self.settings.interval_ms);
        if cx.has_passed(end.plus_ms(self.settings.allowed_lateness_ms)) {
            cx.late(input, start, end);
            return Ok(());
        }
        let open = state.open.len();
        let window = state.open.get_or_insert_with(start, Window::default);
        if open >= MAX_OPEN_WINDOWS && window.is_new() {
            let text =
                format!("{} has {MAX_OPEN_WINDOWS} open windows: event times are too far apart", input.key);
            return Err(Fault::new("too-many-windows", text));
        }
        let is_new = window.is_new();
        if trade.trade_id != 0 && !window.ids.insert(trade.trade_id) {
            return Ok(());
        }
        window.add(trade).map_err(overflow("bar", input.key))?;
        if cx.has_passed(end) {
            self.emit(cx, input.key, state, start, false)?;
            cx.set_timer(end.plus_ms(self.settings.allowed_lateness_ms), DROP);
        } else if is_new {
            cx.set_timer(end, CLOSE);
        }
        Ok(())
    }

    fn on_timer(&self, cx: &mut Cx<'_>, timer: &Timer, state: &mut Windows, (): &()) -> Result<(), Fault> {
        let lateness = self.settings.allowed_lateness_ms;
        if timer.tag == DROP {
            state.open.remove(&timer.at.minus_ms(lateness + self.settings.interval_ms));
            return Ok(());
        }
        let start = timer.at.minus_ms(self.settings.interval_ms);
        let traded = state.open.get(&start).is_some();
        if !traded {
            // Only `emit_empty` sets a timer for a window without trades.
            let Some(close) = state.last.close else { return Ok(()) };
            if state.last.empty_in_a_row >= self.settings.max_empty_bars {
                return Ok(());
            }
            state.open.insert(start, Window::empty(start, close));
        }
        self.emit(cx, &timer.key, state, start, !traded)?;
        if lateness == 0 {
            state.open.remove(&start);
        } else {
            cx.set_timer(timer.at.plus_ms(lateness), DROP);
        }
        if self.settings.emit_empty {
            cx.set_timer(timer.at.plus_ms(self.settings.interval_ms), CLOSE);
        }
        Ok(())
    }
}

impl TimeBars {
    fn emit(
        &self,
        cx: &mut Cx<'_>,
        instrument: &Key,
        state: &mut Windows,
        start: EventTime,
        empty: bool,
    ) -> Result<(), Fault> {
        let Some(window) = state.open.get_mut(&start) else { return Ok(()) };
        let vwap = if window.volume.is_zero() {
            window.close
        } else {
            window.notional.checked_div(window.volume).map_err(overflow("VWAP", instrument))?
        };
        let end = start.plus_ms(self.settings.interval_ms);
        let bar = Bar {
            instrument: instrument.clone(),
            event_time: end,
            bar_kind: BarKind::Time,
            window_start: start,
            window_end: end,
            interval_ms: self.settings.interval_ms,
            open: window.open,
            high: window.high,
            low: window.low,
            close: window.close,
            volume: window.volume,
            buy_volume: window.buy_volume,
            notional: window.notional,
            vwap,
            trade_count: window.trade_count,
            revision: window.revision,
            is_final: self.settings.allowed_lateness_ms == 0,
        };
        window.revision = window.revision.saturating_add(1);
        if state.last.close.is_none() || start >= state.last.window_start {
            let in_a_row = if empty { state.last.empty_in_a_row + 1 } else { 0 };
            *state.last = Last { window_start: start, close: Some(bar.close), empty_in_a_row: in_a_row };
        }
        cx.emit(bar);
        Ok(())
    }
}

impl Window {
    /// A window in which nothing was traded.
    fn empty(start: EventTime, close: Price) -> Self {
        Self {
            first_time: start,
            last_time: start,
            open: close,
            high: close,
            low: close,
            close,
            ..Self::default()
        }
    }

    /// Whether nothing was added yet, nor given out.
    fn is_new(&self) -> bool {
        self.trade_count == 0 && self.revision == 0
    }

    fn add(&mut self, trade: &Trade) -> Result<(), DecimalError> {
        let (time, price) = (trade.event_time, trade.price);
        if self.trade_count == 0 {
            let (revision, ids) = (self.revision, std::mem::take(&mut self.ids));
            *self = Self { revision, ids, ..Self::empty(time, price) };
        }
        if time < self.first_time {
            (self.first_time, self.open) = (time, price);
        }
        if time >= self.last_time {
            (self.last_time, self.close) = (time, price);
        }
        self.high = self.high.max(price);
        self.low = self.low.min(price);
        self.volume = self.volume.checked_add(trade.quantity)?;
        if trade.aggressor == Aggressor::Buyer {
            self.buy_volume = self.buy_volume.checked_add(trade.quantity)?;
        }
        self.notional = self.notional.checked_add(price.checked_mul(trade.quantity)?)?;
        self.trade_count += 1;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, dec, ms, only};

    fn trade(at: i64, price: &str, quantity: &str) -> Trade {
        Trade {
            instrument: "A.V".into(),
            event_time: ms(at),
            price: dec(price),
            quantity: dec(quantity),
            aggressor: if at % 2 == 0 { Aggressor::Buyer } else { Aggressor::Seller },
            market: true,
            ..Trade::default()
        }
    }

    /// start, open, high, low, close, volume, buy volume, trades, revision
    fn rows(records: &[Record]) -> Vec<String> {
        let row = |b: &Bar| {
            format!(
                "{} {} {} {} {} {} {} {} r{}",
                b.window_start.as_ms(),
                b.open,
                b.high,
                b.low,
                b.close,
                b.volume,
                b.buy_volume,
                b.trade_count,
                b.revision
            )
        };
        only::<Bar>(records).iter().map(row).collect()
    }

    #[test]
    fn ohlc_by_event_time_and_volume() {
        for mut bars in [
            Harness::new::<TimeBars>("interval_ms = 1000"),
            Harness::new::<TimeBars>("interval_ms = 1000").restarting(),
        ] {
            bars = bars.out_of_orderness_ms(100);
            for trade in [
                trade(1_001, "10", "1"),
                trade(1_050, "12", "2"),
                trade(1_000, "11", "4"),
                trade(999, "9", "7"),
            ] {
                assert!(rows(&bars.send("A.V", trade)).is_empty());
            }
            // Passes 1000, then 2000: a trade at the end of a window is the next one's.
            assert_eq!(rows(&bars.send("A.V", trade(1_100, "10.5", "8"))), ["0 9 9 9 9 7 0 1 r0"]);
            let records = bars.send("A.V", trade(2_100, "20", "1"));
            assert_eq!(rows(&records), ["1000 11 12 10 10.5 15 14 4 r0"]);
            let bar = &only::<Bar>(&records)[0];
            assert_eq!((bar.event_time, bar.window_end, bar.is_final), (ms(2_000), ms(2_000), true));
            assert_eq!(bar.notional, dec("162"));
            assert_eq!(bar.vwap, dec("10.8"));
        }
    }

    #[test]
    fn trades_of_one_time_count_by_arrival() {
        let mut bars = Harness::new::<TimeBars>("interval_ms = 1000");
        for price in ["5", "6", "7"] {
            bars.send("A.V", trade(0, price, "1"));
        }
        assert_eq!(rows(&bars.advance_to(ms(1_000))), ["0 5 7 5 7 3 3 3 r0"]);
        assert_eq!(bars.entries(), 1, "without lateness nothing is kept but the last close");
    }

    #[test]
    fn vwap_is_rounded_half_even() {
        let mut bars = Harness::new::<TimeBars>("interval_ms = 1000");
        bars.send("A.V", trade(0, "1", "1"));
        bars.send("A.V", trade(0, "2", "2"));
        let bar = only::<Bar>(&bars.advance_to(ms(1_000))).remove(0);
        assert_eq!(bar.vwap, dec("1.666666666667"));
    }

    #[test]
    fn what_is_no_market_trade_stays_out() {
        let mut bars = Harness::new::<TimeBars>("interval_ms = 1000");
        bars.send("A.V", Trade { market: false, ..trade(0, "99", "1") });
        assert!(bars.advance_to(ms(5_000)).is_empty());
    }

    #[test]
    fn a_trade_sent_twice_counts_once() {
        let mut bars = Harness::new::<TimeBars>("interval_ms = 1000").restarting();
        for (id, price) in [(7, "1"), (8, "2"), (7, "1"), (6, "3"), (8, "2"), (0, "4"), (0, "4")] {
            bars.send("A.V", Trade { trade_id: id, ..trade(0, price, "1") });
        }
        let bar = only::<Bar>(&bars.advance_to(ms(1_000))).remove(0);
        assert_eq!((bar.trade_count, bar.notional), (5, dec("14")));
    }

    #[test]
    fn a_late_trade_is_noted_with_the_window_it_missed() {
        let mut bars = Harness::new::<TimeBars>("interval_ms = 1000");
        bars.send("A.V", trade(500, "10", "1"));
        bars.send("A.V", trade(1_000, "10", "1"));
        let entries = bars.entries();
        assert!(bars.send("A.V", trade(999, "50", "1")).is_empty());
        assert_eq!((bars.late[0].window_start, bars.late[0].window_end), (ms(0), ms(1_000)));
        assert_eq!((bars.late.len(), bars.entries()), (1, entries));
        assert_eq!(rows(&bars.advance_to(ms(2_000))), ["1000 10 10 10 10 1 1 1 r0"]);
    }

    #[test]
    fn a_window_is_given_again_within_the_allowed_lateness() {
        for restarting in [false, true] {
            let mut bars = Harness::new::<TimeBars>(
                "interval_ms = 1000
allowed_lateness_ms = 500",
            );
            if restarting {
                bars = bars.restarting();
            }
            bars.send("A.V", trade(500, "10", "1"));
            let first = bars.send("A.V", trade(1_000, "20", "1"));
            assert_eq!(rows(&first), ["0 10 10 10 10 1 1 1 r0"]);
            assert!(!only::<Bar>(&first)[0].is_final);
            assert_eq!(rows(&bars.send("A.V", trade(502, "5", "1"))), ["0 10 10 5 5 2 2 2 r1"]);
            assert_eq!(rows(&bars.send("A.V", trade(498, "8", "1"))), ["0 8 10 5 5 3 3 3 r2"]);
            // A window that had no trades when it closed.
            bars.send("A.V", trade(-500, "7", "1"));
            assert_eq!(bars.late.len(), 1, "it ended 1000 ms before the watermark");
            bars.send("A.V", trade(1_499, "20", "1"));
            assert_eq!(rows(&bars.send("A.V", trade(400, "6", "1"))), ["0 6 10 5 5 4 4 4 r3"]);
            bars.send("A.V", trade(1_500, "20", "1"));
            assert!(bars.send("A.V", trade(400, "6", "1")).is_empty());
            assert_eq!(bars.late.len(), 2);
        }
    }

    #[test]
    fn state_of_closed_windows_is_dropped() {
        let mut bars = Harness::new::<TimeBars>(
            "interval_ms = 1000
allowed_lateness_ms = 500",
        );
        for second in 0..100 {
            bars.send("A.V", trade(second * 1_000, "1", "1"));
        }
        assert_eq!(rows(&bars.advance_to(ms(200_000))).len(), 1);
        assert_eq!((bars.entries(), bars.timers()), (1, 0), "only the last close is kept");
    }

    #[test]
    fn empty_windows_repeat_the_close_up_to_a_bound() {
        let mut bars = Harness::new::<TimeBars>(
            "interval_ms = 1000
emit_empty = true
max_empty_bars = 2",
        );
        bars.send("A.V", trade(0, "3", "1"));
        let records = bars.advance_to(ms(99_000));
        assert_eq!(rows(&records), ["0 3 3 3 3 1 1 1 r0", "1000 3 3 3 3 0 0 0 r0", "2000 3 3 3 3 0 0 0 r0"]);
        assert_eq!(only::<Bar>(&records)[1].vwap, dec("3"));
        // A trade starts it again.
        bars.send("A.V", trade(99_000, "4", "1"));
        assert_eq!(
            rows(&bars.advance_to(ms(101_000))),
            ["99000 4 4 4 4 1 1 1 r0", "100000 4 4 4 4 0 0 0 r0"]
        );
    }

    #[test]
    fn overflow_and_bad_quantities_are_faults() {
        let mut bars = Harness::new::<TimeBars>("interval_ms = 1000");
        let fault = bars.try_send("A.V", trade(0, "9999999999999999", "10"), false).unwrap_err();
        assert_eq!((fault.code, fault.text.contains("A.V")), ("overflow", true));
        assert_eq!(bars.try_send("A.V", trade(0, "1", "0"), false).unwrap_err().code, "bad-trade");
        assert!(
            TimeBars::new(Settings {
                interval_ms: 0,
                allowed_lateness_ms: 0,
                emit_empty: false,
                max_empty_bars: 1
            })
            .is_err()
        );
    }

    #[test]
    fn any_order_within_the_bound_gives_the_same_bars() {
        let all: Vec<Trade> = (0..40).map(|n| trade(n * 50, &format!("{}", 10 + n * 7 % 11), "1")).collect();
        let run = |order: &[usize]| {
            let mut bars = Harness::new::<TimeBars>("interval_ms = 500").out_of_orderness_ms(300);
            let mut records: Vec<_> = order.iter().flat_map(|n| bars.send("A.V", all[*n].clone())).collect();
            records.extend(bars.advance_to(ms(10_000)));
            assert!(bars.late.is_empty());
            records
        };
        let straight: Vec<usize> = (0..40).collect();
        let mut mixed = straight.clone();
        mixed.chunks_mut(5).for_each(<[usize]>::reverse);
        assert_eq!(run(&straight), run(&mixed));
    }
}
