//! `paper_venue`: fills orders against the touch, as a venue would, without one.
//!
//! Keyed by instrument. Takes new, cancel and replace orders, mark prices (for the touch) and the broadcast of
//! instruments; gives execution reports and refused cancels, by the names of FIX. What it does:
//!
//! * A command takes effect `delay_ms` after the log's time of it, at the touch then known. An order is first
//!   acknowledged (NEW).
//! * A market order fills whole at the touch: a buy at the offer, a sell at the bid. The quantity at the touch is
//!   not looked at: fills of more than it holds are better than a real venue's.
//! * A limit order fills whole at the touch if that is no worse than its limit; otherwise IOC and FOK end as
//!   EXPIRED, and DAY and GTC rest. There are no trading days, so DAY rests like GTC. A resting order fills whole at
//!   its limit as MAKER when the touch reaches it: the report comes `delay_ms` after that touch, and no cancel can
//!   come between.
//! * Refused (REJECTED): no touch on the side needed, instrument not known, an order id used before, a quantity that
//!   is not positive.
//! * A cancel of an order that does not rest gives an OrderCancelReject: TooLateToCancel when it has ended,
//!   UnknownOrder when it was never seen. So does a replace.
//!
//! The fee is `fee_bps` (`maker_fee_bps` for a maker) of the fill's value in the settlement currency, half-even. All
//! that it gives out follows its cause by a positive time. Ids are `<node>:<instrument>:<count>`. There is no queue
//! position and no effect of an order on the market.

mod matching;

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Key, Keys, ListState, MapState, Operator, Timer, Whole,
    composite_state, persist,
};
use tidewire_schemas::{
    CancelOrder, EventTime, Instrument, Kind, MarkPrice, NewOrder, OrderStatus, Price, Quantity, Record,
    ReplaceOrder,
};

use crate::common::check_span;

/// Most commands under way, and most orders resting, of one instrument.
pub const MAX_ORDERS: usize = 100_000;

/// Settings of [`PaperVenue`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long a command takes to take effect, in milliseconds.
    pub delay_ms: i64,
    /// Fee of a fill, in basis points of its value; may be negative.
    #[serde(default)]
    pub fee_bps: Quantity,
    /// Fee of a resting order's fill; by default `fee_bps`.
    #[serde(default)]
    pub maker_fee_bps: Option<Quantity>,
}

/// See the module.
pub struct PaperVenue {
    delay_ms: i64,
    taker_fee_bps: Quantity,
    maker_fee_bps: Quantity,
}

persist! {
    /// The touch, and counts.
    #[derive(Clone, Debug, Default)]
    pub struct Desk {
        touch_time: Option<EventTime>,
        bid: Price,
        ask: Price,
        /// Commands and fills put under way so far.
        events: u64,
        /// Reports given out so far.
        reports: u64,
    }
}

persist! {
    /// An order at the venue.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Placed {
        order: NewOrder,
        filled: Quantity,
    }
}

persist! {
    /// What is under way: one of these.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Event {
        new: Option<NewOrder>,
        cancel: Option<CancelOrder>,
        replace: Option<ReplaceOrder>,
        /// A resting order that the touch reached.
        fill: Option<Placed>,
    }
}

composite_state! {
    /// The venue's side of one instrument.
    pub struct Venue {
        desk: Whole<Desk>,
        /// By the time at which they take effect, then arrival.
        under_way: MapState<(EventTime, u64), Event>,
        resting: MapState<SmolStr, Placed>,
        ended: MapState<SmolStr, OrderStatus>,
        ended_order: ListState<SmolStr>,
    }
}

impl Configured for PaperVenue {
    const NAME: &'static str = "paper_venue";
    const ABOUT: &'static str = "A venue on paper: fills orders at the touch after a delay";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_span("delay_ms", settings.delay_ms)?;
        let maker_fee_bps = settings.maker_fee_bps.unwrap_or(settings.fee_bps);
        let most = Quantity::from_int(10_000).map_err(|error| error.to_string())?;
        if settings.fee_bps.abs() > most || maker_fee_bps.abs() > most {
            return Err("`fee_bps` and `maker_fee_bps` must be from -10000 to 10000".into());
        }
        Ok(Self { delay_ms: settings.delay_ms, taker_fee_bps: settings.fee_bps, maker_fee_bps })
    }
}

impl Operator for PaperVenue {
    type State = Venue;
    type Shared = MapState<SmolStr, Instrument>;

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::NewOrder, Kind::CancelOrder, Kind::ReplaceOrder, Kind::MarkPrice],
            broadcasts: vec![Kind::Instrument],
            emits: vec![Kind::ExecutionReport, Kind::OrderCancelReject],
            delays: true,
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        venue: &mut Venue,
        instruments: &MapState<SmolStr, Instrument>,
    ) -> Result<(), Fault> {
        let event = match input.record {
            Record::MarkPrice(mark) => {
                // What took effect before this touch does so first, whether or not its timer could fire by now.
                self.take_effects(cx, venue, input.key, instruments, |due| due < input.time)?;
                self.on_mark(cx, mark, venue, input.time);
                return Ok(());
            }
            Record::NewOrder(order) => Event { new: Some((**order).clone()), ..Event::default() },
            Record::CancelOrder(cancel) => Event { cancel: Some(cancel.clone()), ..Event::default() },
            Record::ReplaceOrder(replace) => Event { replace: Some((**replace).clone()), ..Event::default() },
            _ => return Ok(()),
        };
        if venue.under_way.len() >= MAX_ORDERS || venue.resting.len() >= MAX_ORDERS {
            let text = format!("{MAX_ORDERS} orders of {} are at the venue; no more are taken", input.key);
            return Err(Fault::new("too-many-orders", text));
        }
        self.put_under_way(cx, venue, event, input.time);
        Ok(())
    }

    fn on_broadcast(
        &self,
        _cx: &mut Cx<'_>,
        input: &Input<'_>,
        _keys: &mut Keys<'_, Venue>,
        instruments: &mut MapState<SmolStr, Instrument>,
    ) -> Result<(), Fault> {
        crate::instruments::take(instruments, input.record);
        Ok(())
    }

    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        venue: &mut Venue,
        instruments: &MapState<SmolStr, Instrument>,
    ) -> Result<(), Fault> {
        self.take_effects(cx, venue, &timer.key, instruments, |due| due <= timer.at)
    }
}

impl PaperVenue {
    /// Takes all that is due, by the time at which it is.
    fn take_effects(
        &self,
        cx: &mut Cx<'_>,
        venue: &mut Venue,
        key: &Key,
        instruments: &MapState<SmolStr, Instrument>,
        is_due: impl Fn(EventTime) -> bool,
    ) -> Result<(), Fault> {
        while let Some(place) =
            venue.under_way.first().map(|(place, _)| *place).filter(|(due, _)| is_due(*due))
        {
            let Some(event) = venue.under_way.remove(&place) else { break };
            self.take_effect(cx, venue, event, instruments.get(key), place.0)?;
        }
        Ok(())
    }

    fn put_under_way(&self, cx: &mut Cx<'_>, venue: &mut Venue, event: Event, now: EventTime) {
        let due = now.plus_ms(self.delay_ms);
        let number = venue.desk.events;
        venue.desk.events += 1;
        venue.under_way.insert((due, number), event);
        cx.set_timer(due, 0);
    }

    /// Takes the touch. What rests and is reached by it is filled from now on; the report is under way.
    fn on_mark(&self, cx: &mut Cx<'_>, mark: &MarkPrice, venue: &mut Venue, now: EventTime) {
        if venue.desk.touch_time.is_some_and(|time| mark.event_time < time) {
            return;
        }
        venue.desk.touch_time = Some(mark.event_time);
        (venue.desk.bid, venue.desk.ask) = (mark.bid, mark.ask);
        let reached =
            venue.resting.iter().filter(|(_, placed)| venue.desk.touch_for(&placed.order).is_some());
        let reached: Vec<SmolStr> = reached.map(|(id, _)| id.clone()).collect();
        for id in reached {
            if let Some(placed) = venue.resting.remove(&id) {
                venue.end(id, OrderStatus::Filled);
                self.put_under_way(cx, venue, Event { fill: Some(placed), ..Event::default() }, now);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
