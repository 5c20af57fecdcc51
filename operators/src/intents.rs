//! `intents`: turns the direction of a signal into what an account is to trade.
//!
//! Takes signals, quotes or mark prices (the last touch) and the broadcast of instruments; gives [`OrderIntent`]s.
//!
//! The rule: each strategy has a target for each instrument, `+size` after LONG, `-size` after SHORT, 0 after FLAT,
//! and an intent is the difference to the target before: so LONG after SHORT buys twice the size. It knows its own
//! targets only, not fills: what an order failed to fill, or the risk checks refused, is not asked for again. `size`
//! is either `quantity`, or `notional` in the quote currency over the value of one unit at the touch when the signal
//! comes; it is rounded down to whole lots. Where the notional sizes an exit, the size of the entry is closed,
//! whatever the price has done since.
//!
//! The reference price is what the strategy saw: the touch it would trade with (the offer for a buy, the bid for a
//! sell) as of the signal's event time, whatever came since. A limit order's limit is the reference price, moved by
//! `limit_offset_bps` to the worse and rounded to a tick back to the better. An intent expires with its signal. With
//! several `accounts`, each instrument belongs to one of them, by a digest of its id.
//!
//! A signal that can not become an intent (no touch or instrument known, touch older than `max_touch_age_ms` against
//! the signal, size below a lot, signal expired) raises an alert of kind `intent-not-made`, and the target stays as
//! it was. There is no other warm-up. Ids are `<node>:<instrument>:<count>`.

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Key, Keys, MapState, Operator, Whole, composite_state,
    entry_hash, persist,
};
use tidewire_schemas::{
    AlertState, Amount, Direction, EventTime, Instrument, Kind, OrderIntent, OrderType, Price, Quantity,
    Record, Rounding, Severity, Side, Signal, TimeInForce,
};

use crate::common::{AlertBody, alert, check_between, check_name, check_span, overflow};
use crate::instruments::{on_tick, quantity_for_value, whole_lots};

/// Most strategies whose signals one node takes for an instrument.
pub const MAX_STRATEGIES: usize = 1_000;

/// Most touches kept of an instrument between the watermark and now; beyond it the oldest are dropped.
pub const MAX_TOUCHES: usize = 10_000;

/// Settings of [`Intents`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The account that trades; or use `accounts`.
    #[serde(default)]
    pub account: Option<SmolStr>,
    /// Accounts over which instruments are spread.
    #[serde(default)]
    pub accounts: Vec<SmolStr>,
    /// Size of a position, in units or contracts; or use `notional`.
    #[serde(default)]
    pub quantity: Option<Quantity>,
    /// Size of a position, in the quote currency.
    #[serde(default)]
    pub notional: Option<Amount>,
    /// `MARKET` or `LIMIT`.
    #[serde(default = "default_order_type")]
    pub order_type: OrderType,
    /// `IOC`, `FOK`, `GTC` or `DAY`.
    #[serde(default = "default_time_in_force")]
    pub time_in_force: TimeInForce,
    /// How much worse than the touch a limit may be, in basis points.
    #[serde(default)]
    pub limit_offset_bps: i64,
    /// Greatest age of the touch when a signal comes, in milliseconds.
    #[serde(default = "default_max_touch_age_ms")]
    pub max_touch_age_ms: i64,
}

fn default_order_type() -> OrderType {
    OrderType::Market
}
fn default_time_in_force() -> TimeInForce {
    TimeInForce::Ioc
}
fn default_max_touch_age_ms() -> i64 {
    10_000
}

#[derive(Clone, Copy, Debug)]
enum Size {
    Quantity(Quantity),
    Notional(Amount),
}

/// See the module.
pub struct Intents {
    accounts: Vec<SmolStr>,
    size: Size,
    settings: Settings,
}

persist! {
    /// Counts for ids.
    #[derive(Clone, Debug, Default)]
    pub struct Counts {
        intents: u64,
        alerts: u64,
    }
}

composite_state! {
    /// What is known of one instrument: the touch (bid, offer) by event time, and the target by strategy.
    pub struct Targets {
        counts: Whole<Counts>,
        touches: MapState<EventTime, (Price, Price)>,
        by_strategy: MapState<SmolStr, Quantity>,
    }
}

impl Configured for Intents {
    const NAME: &'static str = "intents";
    const ABOUT: &'static str = "Turns signals into order intents of a fixed size";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        let accounts: Vec<_> = settings.account.iter().chain(&settings.accounts).cloned().collect();
        if accounts.is_empty() || (settings.account.is_some() && accounts.len() > 1) {
            return Err("set either `account` or `accounts`".into());
        }
        accounts.iter().try_for_each(|account| check_name("account", account))?;
        let size = match (settings.quantity, settings.notional) {
            (Some(quantity), None) if quantity.is_positive() => Size::Quantity(quantity),
            (None, Some(notional)) if notional.is_positive() => Size::Notional(notional),
            (Some(_), Some(_)) | (None, None) => return Err("set either `quantity` or `notional`".into()),
            _ => return Err("`quantity` or `notional` must be greater than 0".into()),
        };
        if settings.order_type == OrderType::Unknown || settings.time_in_force == TimeInForce::Unknown {
            return Err("`order_type` and `time_in_force` must not be `UNKNOWN`".into());
        }
        check_between("limit_offset_bps", settings.limit_offset_bps, 0, 10_000)?;
        check_span("max_touch_age_ms", settings.max_touch_age_ms)?;
        Ok(Self { accounts, size, settings })
    }
}

impl Operator for Intents {
    type State = Targets;
    type Shared = MapState<SmolStr, Instrument>;

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Signal, Kind::Quote, Kind::MarkPrice],
            broadcasts: vec![Kind::Instrument],
            emits: vec![Kind::OrderIntent, Kind::Alert],
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Targets,
        instruments: &MapState<SmolStr, Instrument>,
    ) -> Result<(), Fault> {
        match input.record {
            Record::Quote(quote) => state.see(cx, quote.event_time, quote.bid_price, quote.ask_price),
            Record::MarkPrice(mark) => state.see(cx, mark.event_time, mark.bid, mark.ask),
            Record::Signal(signal) => {
                if let Err(why) = self.act(cx, input, signal, state, instruments)? {
                    let body = AlertBody {
                        scope: input.key,
                        kind: "intent-not-made",
                        severity: Severity::Warning,
                        about: &signal.strategy,
                        text: format!("{} signal {}: {why}", signal.direction, signal.id),
                        values: &[],
                        state: AlertState::Raised,
                        event_time: signal.event_time,
                    };
                    let alert = alert(cx, &mut state.counts.alerts, body);
                    cx.emit(alert);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_broadcast(
        &self,
        _cx: &mut Cx<'_>,
        input: &Input<'_>,
        _keys: &mut Keys<'_, Targets>,
        instruments: &mut MapState<SmolStr, Instrument>,
    ) -> Result<(), Fault> {
        crate::instruments::take(instruments, input.record);
        Ok(())
    }
}

impl Intents {
    /// Moves the target of the signal's strategy; says why if it can not.
    fn act(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        signal: &Signal,
        state: &mut Targets,
        instruments: &MapState<SmolStr, Instrument>,
    ) -> Result<Result<(), String>, Fault> {
        let key = input.key;
        let before = state.by_strategy.get(&signal.strategy).copied().unwrap_or_default();
        let flat = signal.direction == Direction::Flat;
        if (flat && before.is_zero()) || before.signum() == sign(signal.direction) {
            return Ok(Ok(()));
        }
        if !flat && signal.expiry <= input.time {
            return Ok(Err(format!("it expired at {}", signal.expiry)));
        }
        let Some(instrument) = instruments.get(key) else {
            return Ok(Err("the instrument is not known; publish it to the topic of instruments".into()));
        };
        let buys = sign(signal.direction) > before.signum();
        let oldest = signal.event_time.minus_ms(self.settings.max_touch_age_ms);
        let touch = state.touches.range(oldest..=signal.event_time).next_back();
        let reference_price = touch.map_or(Price::ZERO, |(_, (bid, ask))| if buys { *ask } else { *bid });
        if !reference_price.is_positive() {
            return Ok(Err("no recent touch to trade with is known".into()));
        }
        if state.by_strategy.len() >= MAX_STRATEGIES && state.by_strategy.get(&signal.strategy).is_none() {
            return Ok(Err(format!("{MAX_STRATEGIES} strategies have targets already")));
        }
        let fault = |error| overflow("size", key)(error);
        let size = match self.size {
            _ if flat => Quantity::ZERO,
            Size::Quantity(quantity) => quantity,
            Size::Notional(value) => quantity_for_value(instrument, value, reference_price).map_err(fault)?,
        };
        let size = whole_lots(instrument, size).map_err(fault)?;
        if !flat && size.is_zero() {
            return Ok(Err(format!("its size is below one lot of {}", instrument.lot_size)));
        }
        let target = if signal.direction == Direction::Short { size.negated() } else { size };
        let quantity = target.checked_sub(before).map_err(fault)?.abs();
        let limit_price = match self.settings.order_type {
            OrderType::Limit => Some(self.limit(instrument, buys, reference_price).map_err(fault)?),
            _ => None,
        };
        let id = cx.id(state.counts.intents).into();
        state.counts.intents += 1;
        if target.is_zero() {
            state.by_strategy.remove(&signal.strategy);
        } else {
            state.by_strategy.insert(signal.strategy.clone(), target);
        }
        cx.emit(OrderIntent {
            id,
            account: self.account_of(key).clone(),
            strategy: signal.strategy.clone(),
            instrument: key.clone(),
            side: if buys { Side::Buy } else { Side::Sell },
            order_type: self.settings.order_type,
            quantity,
            limit_price,
            time_in_force: self.settings.time_in_force,
            reference_price,
            signal_id: Some(signal.id.clone()),
            event_time: signal.event_time,
            expiry: Some(signal.expiry),
        });
        Ok(Ok(()))
    }

    fn limit(
        &self,
        instrument: &Instrument,
        buys: bool,
        reference: Price,
    ) -> Result<Price, tidewire_schemas::DecimalError> {
        let offset = reference.checked_mul_ratio(self.settings.limit_offset_bps, 10_000)?;
        // Rounded to the better, so that the limit is never worse than was asked for.
        if buys {
            on_tick(instrument, reference.checked_add(offset)?, Rounding::Floor)
        } else {
            on_tick(instrument, reference.checked_sub(offset)?, Rounding::Ceil)
        }
    }

    fn account_of(&self, instrument: &Key) -> &SmolStr {
        let place = entry_hash(&[instrument.as_bytes()]) % self.accounts.len() as u64;
        &self.accounts[usize::try_from(place).unwrap_or(0)]
    }
}

impl Targets {
    /// Keeps a touch. Those before the last that the watermark has passed are not needed any more.
    fn see(&mut self, cx: &Cx<'_>, time: EventTime, bid: Price, ask: Price) {
        let superseded = self.touches.first().is_some_and(|(oldest, _)| time < *oldest);
        if bid > ask || superseded {
            return;
        }
        self.touches.insert(time, (bid, ask));
        while let Some(oldest) = self.superseded(cx) {
            self.touches.remove(&oldest);
        }
    }

    /// The oldest touch, if the next one replaces it for good.
    fn superseded(&self, cx: &Cx<'_>) -> Option<EventTime> {
        let mut times = self.touches.iter().map(|(time, _)| *time);
        let (first, second) = (times.next()?, times.next()?);
        (cx.has_passed(second) || self.touches.len() > MAX_TOUCHES).then_some(first)
    }
}

fn sign(direction: Direction) -> i64 {
    match direction {
        Direction::Long => 1,
        Direction::Short => -1,
        Direction::Flat => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, dec, ms, only};
    use tidewire_schemas::{Alert, Quote};

    fn harness(settings: &str) -> Harness {
        let mut harness = Harness::new::<Intents>(settings);
        let instrument = Instrument {
            instrument: "A.V".into(),
            contract_multiplier: Quantity::ONE,
            lot_size: dec("0.1"),
            tick_size: dec("0.5"),
            ..Instrument::default()
        };
        harness.broadcast("A.V", instrument);
        harness.send("A.V", quote(0, "100", "101"));
        harness
    }

    fn quote(at: i64, bid: &str, ask: &str) -> Quote {
        Quote {
            instrument: "A.V".into(),
            event_time: ms(at),
            bid_price: dec(bid),
            ask_price: dec(ask),
            ..Quote::default()
        }
    }

    fn signal(at: i64, direction: Direction, strategy: &str) -> Signal {
        Signal {
            id: "s".into(),
            instrument: "A.V".into(),
            strategy: strategy.into(),
            direction,
            event_time: ms(at),
            expiry: ms(at + 1_000),
            ..Signal::default()
        }
    }

    fn rows(records: &[Record]) -> Vec<String> {
        only::<OrderIntent>(records)
            .iter()
            .map(|i| {
                format!(
                    "{} {} {} @{}",
                    i.side,
                    i.quantity,
                    i.strategy,
                    i.limit_price.unwrap_or(i.reference_price)
                )
            })
            .collect()
    }

    #[test]
    fn intents_are_differences_of_targets() {
        use Direction::{Flat, Long, Short};
        for restarting in [false, true] {
            let mut intents = harness("account = 'a'\nquantity = '2'");
            if restarting {
                intents = intents.restarting();
            }
            for (direction, strategy, want) in [
                (Flat, "x", None),
                (Long, "x", Some("BUY 2 x @101")),
                (Long, "x", None),
                (Short, "y", Some("SELL 2 y @100")),
                (Short, "x", Some("SELL 4 x @100")),
                (Flat, "x", Some("BUY 2 x @101")),
                (Flat, "x", None),
                (Flat, "y", Some("BUY 2 y @101")),
            ] {
                let got = rows(&intents.send("A.V", signal(1, direction, strategy)));
                assert_eq!(got, want.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn an_intent_names_its_signal_and_expires_with_it() {
        let mut intents = harness("account = 'a'\nquantity = '2'");
        let intent = only::<OrderIntent>(&intents.send("A.V", signal(1, Direction::Long, "x"))).remove(0);
        assert_eq!((intent.id.as_str(), intent.account.as_str()), ("node:A.V:0", "a"));
        assert_eq!((intent.signal_id.as_deref(), intent.expiry), (Some("s"), Some(ms(1_001))));
        assert_eq!((intent.order_type, intent.limit_price), (OrderType::Market, None));
        assert_eq!(intent.time_in_force, TimeInForce::Ioc);
    }

    #[test]
    fn notional_limits_and_steps() {
        let mut intents = harness(
            "account = 'a'\nnotional = '250'\norder_type = 'LIMIT'\nlimit_offset_bps = 60\ntime_in_force = 'GTC'",
        );
        // 250 / 101 = 2.475...; 101 * 1.006 = 101.606.
        assert_eq!(rows(&intents.send("A.V", signal(1, Direction::Long, "x"))), ["BUY 2.4 x @101.5"]);
        intents.send("A.V", quote(2, "50", "51"));
        // 250 / 50 = 5 short, and the 2.4; 50 * 0.994 = 49.7.
        assert_eq!(rows(&intents.send("A.V", signal(3, Direction::Short, "x"))), ["SELL 7.4 x @50"]);
    }

    #[test]
    fn what_can_not_be_an_intent_is_said() {
        let why = |intents: &mut Harness, signal: Signal| {
            let records = intents.send("A.V", signal);
            assert!(rows(&records).is_empty());
            only::<Alert>(&records).remove(0).text.to_string()
        };
        let mut unknown = Harness::new::<Intents>("account = 'a'\nquantity = 2");
        assert!(why(&mut unknown, signal(0, Direction::Long, "x")).contains("not known"));
        let mut small = harness("account = 'a'\nquantity = '0.09'");
        assert!(why(&mut small, signal(1, Direction::Long, "x")).contains("below one lot"));
        let mut intents = harness("account = 'a'\nquantity = '2'");
        assert!(
            why(&mut intents, Signal { expiry: ms(1), ..signal(1, Direction::Long, "x") })
                .contains("expired")
        );
        assert!(why(&mut intents, signal(10_001, Direction::Long, "x")).contains("touch"));
        intents.send("A.V", quote(10_001, "0", "101"));
        assert!(why(&mut intents, signal(10_001, Direction::Short, "x")).contains("touch"));
        assert_eq!(rows(&intents.send("A.V", signal(10_001, Direction::Long, "x"))).len(), 1);
        // An older quote does not replace the touch, and a newer one is not what the strategy saw.
        intents.send("A.V", quote(10_000, "1", "2"));
        intents.send("A.V", quote(10_001, "103", "104"));
        intents.send("A.V", quote(10_002, "1", "2"));
        assert_eq!(rows(&intents.send("A.V", signal(10_001, Direction::Flat, "x"))), ["SELL 2 x @103"]);
    }

    #[test]
    fn touches_are_forgotten_behind_the_watermark() {
        let mut intents = harness("account = 'a'\nquantity = '1'").out_of_orderness_ms(50);
        for at in 1..1_000 {
            intents.send("A.V", quote(at, "100", "101"));
        }
        assert!((45..60).contains(&intents.entries()), "{}", intents.entries());
    }

    #[test]
    fn accounts_share_instruments() {
        let intents =
            Intents::new(toml::from_str("accounts = ['a', 'b', 'c']\nquantity = '1'").unwrap()).unwrap();
        let mut used: Vec<_> =
            (0..50).map(|n| intents.account_of(&format!("I{n}.V").into()).as_str()).collect();
        assert_eq!(used[7], intents.account_of(&"I7.V".into()).as_str());
        used.sort_unstable();
        used.dedup();
        assert_eq!(used, ["a", "b", "c"]);
        for (settings, words) in [
            ("quantity = '1'", "`accounts`"),
            ("account = 'a'\naccounts = ['b']\nquantity = '1'", "`accounts`"),
            ("account = 'a'", "`notional`"),
            ("account = 'a'\nquantity = '-1'", "greater than 0"),
            ("account = 'a'\nquantity = '1'\norder_type = 'UNKNOWN'", "UNKNOWN"),
        ] {
            assert!(
                Intents::new(toml::from_str(settings).unwrap()).err().unwrap().contains(words),
                "{settings}"
            );
        }
    }
}
