//! Stage C: a venue that fills each order after a delay, in one or two parts.

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Keys, MapState, Operator, OperatorType, Timer, Whole,
    composite_state, persist,
};
use tidewire_schemas::{EventTime, ExecType, ExecutionReport, Kind, OrderStatus, Record, Side};

use super::{price, quantity, whole};

/// The registry line of the venue.
pub const VENUE: OperatorType = OperatorType::of::<Venue>();

/// The price of an instrument that has no mark, in whole units.
const PRICE_WITHOUT_MARK: i64 = 100;

persist! {
    /// An order with something to fill.
    #[derive(Clone)]
    pub struct Resting {
        account: SmolStr,
        sells: bool,
        quantity: i64,
        filled: i64,
    }
}

composite_state! {
    /// An instrument: its orders by the time of their next fill, in microseconds.
    pub struct Book {
        reports: Whole<u64>,
        resting: MapState<(i64, SmolStr), Resting>,
    }
}

/// Fills everything after a while.
pub struct Venue;

/// Settings of [`Venue`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenueSettings {
    #[serde(default)]
    note: String,
}

impl Configured for Venue {
    const NAME: &'static str = "sim_venue";
    const ABOUT: &'static str = "Fills orders after a delay.";
    type Settings = VenueSettings;
    fn new(settings: Self::Settings) -> Result<Self, String> {
        let _ = settings.note;
        Ok(Self)
    }
}

impl Operator for Venue {
    type State = Book;
    type Shared = MapState<SmolStr, i64>;
    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::NewOrder],
            broadcasts: vec![Kind::MarkPrice],
            emits: vec![Kind::ExecutionReport],
            delays: true,
            ..Interface::default()
        }
    }
    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        book: &mut Book,
        _: &MapState<SmolStr, i64>,
    ) -> Result<(), Fault> {
        let Record::NewOrder(order) = input.record else { return Ok(()) };
        let spread: i64 = order.order_id.bytes().map(i64::from).sum();
        let at = cx.moment().stream_time.plus_ms(3 + spread % 60);
        let resting = Resting {
            account: order.account.clone(),
            sells: order.side == Side::Sell,
            quantity: whole(order.quantity),
            filled: 0,
        };
        book.resting.insert((at.as_micros(), order.order_id.clone()), resting);
        cx.set_timer(at, 0);
        Ok(())
    }
    fn on_broadcast(
        &self,
        _: &mut Cx<'_>,
        input: &Input<'_>,
        _: &mut Keys<'_, Book>,
        marks: &mut MapState<SmolStr, i64>,
    ) -> Result<(), Fault> {
        if let Record::MarkPrice(mark) = input.record {
            let units = mark.mark.units() / tidewire_schemas::decimal::UNITS_PER_ONE;
            marks.insert(mark.instrument.clone(), i64::try_from(units).unwrap_or(0));
        }
        Ok(())
    }
    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        book: &mut Book,
        marks: &MapState<SmolStr, i64>,
    ) -> Result<(), Fault> {
        let at_us = timer.at.as_micros();
        let due: Vec<_> = book
            .resting
            .range((at_us, SmolStr::default())..)
            .map(|(place, _)| place.clone())
            .take_while(|(time_us, _)| *time_us == at_us)
            .collect();
        if due.is_empty() {
            return Err(Fault::new("no-order", "a timer without an order"));
        }
        for place in due {
            let Some(mut order) = book.resting.remove(&place) else { continue };
            let left = order.quantity - order.filled;
            // A first part, then the rest.
            let last = if order.filled == 0 && left > 1 { left / 2 } else { left };
            order.filled += last;
            *book.reports += 1;
            let done = order.filled == order.quantity;
            let mark = marks.get(&timer.key).copied().unwrap_or(PRICE_WITHOUT_MARK);
            cx.emit(ExecutionReport {
                execution_id: cx.id(*book.reports).into(),
                order_id: place.1.clone(),
                account: order.account.clone(),
                instrument: timer.key.clone(),
                side: if order.sells { Side::Sell } else { Side::Buy },
                exec_type: ExecType::Trade,
                order_status: if done { OrderStatus::Filled } else { OrderStatus::PartiallyFilled },
                last_quantity: quantity(last),
                last_price: price(mark),
                leaves_quantity: quantity(order.quantity - order.filled),
                cumulative_quantity: quantity(order.filled),
                event_time: timer.at,
                ..ExecutionReport::default()
            });
            if !done {
                let next = EventTime::from_micros(at_us).plus_ms(7);
                book.resting.insert((next.as_micros(), place.1), order);
                cx.set_timer(next, 0);
            }
        }
        Ok(())
    }
}
