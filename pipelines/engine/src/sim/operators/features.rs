//! Stage A: windows, a signal with broadcast and control state and timers, and an operator with two edges.

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Keys, ListState, MapState, Operator, OperatorType, Timer, Whole,
    composite_state, persist,
};
use tidewire_schemas::{
    ControlAction, EventTime, Kind, MarkPrice, OrderIntent, OrderType, Record, Side, TimeInForce, Trade,
};

use super::{Mischief, POISONED_QUANTITY, feature, panic_silently, price, quantity, whole, window_start_ms};

/// The registry line of the windows.
pub const WINDOWS: OperatorType = OperatorType::of::<Windows>();
/// The registry line of the signal.
pub const SIGNAL: OperatorType = OperatorType::of::<SignalMaker>();
/// The registry line of the echo.
pub const ECHO: OperatorType = OperatorType::of::<Echo>();

persist! {
    /// What a window holds.
    #[derive(Default)]
    pub struct Window {
        sum: i64,
        trades: u64,
        timer_panics: bool,
        poisoned: bool,
    }
}

/// Sums quantities over tumbling windows; trades that come too late go to the late records.
pub struct Windows {
    width_ms: i64,
    panics: bool,
    refuses: bool,
}

/// Settings of [`Windows`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowsSettings {
    width_ms: i64,
    #[serde(default)]
    panics: bool,
    #[serde(default)]
    refuses: bool,
    /// Has no effect: for changed pipeline files that change nothing.
    #[serde(default)]
    note: String,
}

impl Configured for Windows {
    const NAME: &'static str = "sim_windows";
    const ABOUT: &'static str = "Sums quantities over tumbling windows.";
    type Settings = WindowsSettings;
    fn new(settings: Self::Settings) -> Result<Self, String> {
        let _ = settings.note;
        Ok(Self { width_ms: settings.width_ms, panics: settings.panics, refuses: settings.refuses })
    }
}

impl Operator for Windows {
    type State = MapState<i64, Window>;
    type Shared = ();
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Trade],
            broadcasts: vec![Kind::SentimentScore],
            emits: vec![Kind::FeatureValue],
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut MapState<i64, Window>,
        (): &(),
    ) -> Result<(), Fault> {
        let Some(trade) = input.record.as_trade() else { return Ok(()) };
        let mischief = Mischief::of(trade);
        if self.panics && mischief == Mischief::Panic {
            panic_silently("a trade that no window bears");
        }
        if self.refuses && mischief == Mischief::Refused {
            return Err(Fault::new("refused", "a trade that is not liked"));
        }
        let start_ms = window_start_ms(trade.event_time.as_ms(), self.width_ms);
        let end = EventTime::from_ms(start_ms + self.width_ms);
        if cx.has_passed(end) {
            cx.late(input, EventTime::from_ms(start_ms), end);
            return Ok(());
        }
        if state.get(&start_ms).is_none() {
            state.insert(start_ms, Window::default());
        }
        let Some(window) = state.get_mut(&start_ms) else { return Ok(()) };
        window.sum += whole(trade.quantity);
        window.trades += 1;
        window.timer_panics |= self.panics && mischief == Mischief::TimerPanics;
        window.poisoned |= self.panics && mischief == Mischief::PoisonedWindow;
        cx.set_timer(end, 0);
        Ok(())
    }
    fn on_broadcast(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        keys: &mut Keys<'_, MapState<i64, Window>>,
        (): &mut (),
    ) -> Result<(), Fault> {
        // Shows which keys are held: that must not depend on when state was flushed.
        for key in keys.keys() {
            let open = keys.get(&key).map_or(0, MapState::len);
            let open = i64::try_from(open).unwrap_or(i64::MAX);
            cx.emit_for(&key, feature("open", &key, input.time, open));
        }
        Ok(())
    }
    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        state: &mut MapState<i64, Window>,
        (): &(),
    ) -> Result<(), Fault> {
        let start_ms = timer.at.as_ms() - self.width_ms;
        let Some(window) = state.get(&start_ms) else {
            return Err(Fault::new("no-window", "a timer without its window"));
        };
        if window.timer_panics {
            panic_silently("a window that can not be closed");
        }
        let name = if window.poisoned { "poison".to_owned() } else { format!("sum-{}", self.width_ms) };
        let sum = window.sum;
        cx.emit(feature(&name, &timer.key, timer.at, sum));
        state.remove(&start_ms);
        Ok(())
    }
}

persist! {
    /// Counts of a key.
    #[derive(Default)]
    pub struct Counts {
        trades: u64,
        intents: u64,
        lots: u64,
        beat_at: Option<EventTime>,
    }
}

composite_state! {
    /// What the signal keeps of a key.
    pub struct SignalState {
        counts: Whole<Counts>,
        recent: ListState<i64>,
    }
}

composite_state! {
    /// What the signal keeps for all keys.
    pub struct SignalShared {
        halted: Whole<bool>,
        scores: MapState<SmolStr, i64>,
        lots: MapState<SmolStr, i64>,
    }
}

/// Turns trades and windows into features, marks and order intents.
pub struct SignalMaker {
    accounts: u64,
}

/// Settings of [`SignalMaker`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalSettings {
    accounts: u64,
    #[serde(default)]
    note: String,
}

impl Configured for SignalMaker {
    const NAME: &'static str = "sim_signal";
    const ABOUT: &'static str = "Turns trades into order intents.";
    type Settings = SignalSettings;
    fn new(settings: Self::Settings) -> Result<Self, String> {
        let _ = settings.note;
        Ok(Self { accounts: settings.accounts.max(1) })
    }
}

/// How long after a trade a key's heartbeat comes.
const BEAT_AFTER_MS: i64 = 60;
/// How long after a score each key is nudged.
const NUDGE_AFTER_MS: i64 = 25;
/// The mark of timers for heartbeats.
const BEAT: u32 = 7;
/// The mark of timers for nudges.
const NUDGE: u32 = 9;

impl SignalMaker {
    fn on_trade(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        trade: &Trade,
        state: &mut SignalState,
        shared: &SignalShared,
    ) {
        let counts = &mut *state.counts;
        counts.trades += 1;
        if let Some(at) = counts.beat_at.take()
            && counts.trades.is_multiple_of(2)
        {
            cx.cancel_timer(at, BEAT);
        }
        let at = input.time.plus_ms(BEAT_AFTER_MS);
        counts.beat_at = Some(at);
        cx.set_timer(at, BEAT);
        state.recent.push_back(whole(trade.quantity));
        if state.recent.len() > 4 {
            state.recent.pop_front();
        }
        let recent: i64 = state.recent.iter().sum();
        let lot = shared.lots.get(input.key).copied().unwrap_or(0);
        let score: i64 = shared.scores.iter().map(|(_, score)| *score).sum();
        cx.emit(feature("recent", input.key, input.time, recent + 10 * lot + score));
        let mischief = Mischief::of(trade);
        if mischief == Mischief::RefusedLater {
            cx.emit(feature("bad", input.key, input.time, 0));
        }
        if counts.trades % 4 == 1 {
            cx.emit(MarkPrice {
                instrument: input.key.clone(),
                event_time: input.time,
                mark: price(100 + recent),
                ..MarkPrice::default()
            });
        }
        let poisoned = mischief == Mischief::PoisonedIntent;
        if poisoned || (counts.trades.is_multiple_of(3) && !*shared.halted) {
            counts.intents += 1;
            let account = (trade.trade_id.unsigned_abs() + counts.intents) % self.accounts;
            let size = if poisoned { POISONED_QUANTITY } else { 1 + recent.rem_euclid(5) };
            cx.emit(OrderIntent {
                id: cx.id(counts.intents).into(),
                account: format!("acct-{account}").into(),
                strategy: "sim".into(),
                instrument: input.key.clone(),
                side: if trade.trade_id % 3 == 0 { Side::Sell } else { Side::Buy },
                order_type: OrderType::Market,
                quantity: quantity(size),
                time_in_force: TimeInForce::Ioc,
                reference_price: trade.price,
                event_time: input.time,
                ..OrderIntent::default()
            });
        }
    }
}

impl Operator for SignalMaker {
    type State = SignalState;
    type Shared = SignalShared;
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Trade, Kind::FeatureValue],
            broadcasts: vec![Kind::SentimentScore, Kind::Instrument, Kind::ControlCommand],
            emits: vec![Kind::FeatureValue, Kind::MarkPrice, Kind::OrderIntent],
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut SignalState,
        shared: &SignalShared,
    ) -> Result<(), Fault> {
        match input.record {
            Record::Trade(trade) => self.on_trade(cx, input, trade, state, shared),
            Record::FeatureValue(value) if value.name == "poison" => panic_silently("a poisoned window"),
            Record::FeatureValue(value) => {
                let trades = i64::try_from(state.counts.trades).unwrap_or(i64::MAX);
                cx.emit(feature(&format!("after-{}", value.name), input.key, value.event_time, trades));
            }
            _ => {}
        }
        Ok(())
    }
    fn on_broadcast(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        keys: &mut Keys<'_, SignalState>,
        shared: &mut SignalShared,
    ) -> Result<(), Fault> {
        match input.record {
            Record::SentimentScore(score) => {
                #[expect(clippy::cast_possible_truncation, reason = "scores are whole and small")]
                shared.scores.insert(score.asset.clone(), score.score as i64);
                for key in keys.keys() {
                    let told =
                        keys.get(&key).map_or(0, |state| state.counts.trades + 1_000 * state.counts.lots);
                    let told = i64::try_from(told).unwrap_or(i64::MAX);
                    cx.emit_for(&key, feature("told", &key, input.time, told));
                    cx.set_timer_for(&key, input.time.plus_ms(NUDGE_AFTER_MS), NUDGE);
                }
            }
            Record::Instrument(instrument) => {
                let lot = i64::try_from(instrument.lot_size.units()).unwrap_or(0);
                shared.lots.insert(input.key.clone(), lot);
                if keys.get(input.key).is_some() {
                    keys.get_mut(input.key).counts.lots += 1;
                }
            }
            Record::ControlCommand(command) => *shared.halted = command.command == ControlAction::Halt,
            _ => {}
        }
        Ok(())
    }
    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        state: &mut SignalState,
        _: &SignalShared,
    ) -> Result<(), Fault> {
        let trades = i64::try_from(state.counts.trades).unwrap_or(i64::MAX);
        let name = if timer.tag == NUDGE { "nudge" } else { "beat" };
        cx.emit(feature(name, &timer.key, timer.at, trades));
        Ok(())
    }
}

/// Counts what comes by each of its edges.
pub struct Echo;

/// Settings of [`Echo`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EchoSettings {}

impl Configured for Echo {
    const NAME: &'static str = "sim_echo";
    const ABOUT: &'static str = "Counts what it gets.";
    type Settings = EchoSettings;
    fn new(_: Self::Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Echo {
    type State = Whole<u64>;
    type Shared = ();
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::FeatureValue],
            emits: vec![Kind::FeatureValue],
            time_to_live_ms: Some(300),
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Whole<u64>,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::FeatureValue(value) = input.record else { return Ok(()) };
        if value.name == "bad" {
            return Err(Fault::new("refused-later", "a value that is not liked"));
        }
        **state += 1;
        if (**state).is_multiple_of(3) {
            let count = i64::try_from(**state).unwrap_or(i64::MAX);
            let name = format!("echo-{}-{}", input.edge, value.name);
            cx.emit(feature(&name, input.key, input.time, count));
        }
        Ok(())
    }
}
