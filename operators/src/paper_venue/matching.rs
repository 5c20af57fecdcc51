//! What a command does when it takes effect.

use smol_str::SmolStr;
use tidewire_contract::{Cx, Fault};
use tidewire_schemas::{
    Amount, CancelRejectResponseTo, DecimalError, EventTime, ExecType, ExecutionReport, Instrument,
    Liquidity, NewOrder, OrderCancelReject, OrderStatus, OrderType, Price, Quantity, ReplaceOrder, Side,
    TimeInForce,
};

use super::{Desk, Event, PaperVenue, Placed, Venue};
use crate::common::overflow;
use crate::risk::account::remember;
use crate::risk::orders::has_ended;
use crate::risk::positions::flow;
use crate::risk::reasons::Reason;

impl Desk {
    /// The price at which an order would trade now, if it would.
    pub(super) fn touch_for(&self, order: &NewOrder) -> Option<Price> {
        let touch = match order.side {
            Side::Buy => self.ask,
            Side::Sell => self.bid,
            Side::Unknown => return None,
        };
        let no_worse = match (order.side, order.limit_price) {
            (_, None) => true,
            (Side::Sell, Some(limit)) => touch >= limit,
            (_, Some(limit)) => touch <= limit,
        };
        (touch.is_positive() && no_worse).then_some(touch)
    }

    fn has_side(&self, side: Side) -> bool {
        match side {
            Side::Buy => self.ask.is_positive(),
            Side::Sell => self.bid.is_positive(),
            Side::Unknown => false,
        }
    }
}

impl Venue {
    /// Remembers how an order ended.
    pub(super) fn end(&mut self, id: SmolStr, status: OrderStatus) {
        remember(&mut self.ended, &mut self.ended_order, id, status);
    }

    fn next_report(&mut self, cx: &Cx<'_>) -> SmolStr {
        let id = cx.id(self.desk.reports).into();
        self.desk.reports += 1;
        id
    }
}

impl PaperVenue {
    pub(super) fn take_effect(
        &self,
        cx: &mut Cx<'_>,
        venue: &mut Venue,
        event: Event,
        instrument: Option<&Instrument>,
        now: EventTime,
    ) -> Result<(), Fault> {
        if let Some(order) = event.new {
            return self.take_new(cx, venue, order, instrument, now);
        }
        if let Some(placed) = event.fill {
            let limit = placed.order.limit_price.unwrap_or_default();
            return self.fill(cx, venue, placed, limit, Liquidity::Maker, instrument, now);
        }
        if let Some(cancel) = event.cancel {
            let Some(placed) = venue.resting.remove(&cancel.original_order_id) else {
                let request =
                    (&cancel.order_id, &cancel.original_order_id, &cancel.account, &cancel.instrument);
                refuse(cx, venue, request, CancelRejectResponseTo::Cancel, now);
                return Ok(());
            };
            venue.end(cancel.original_order_id.clone(), OrderStatus::Canceled);
            let report = ExecutionReport {
                order_id: cancel.order_id,
                original_order_id: Some(cancel.original_order_id),
                leaves_quantity: Quantity::ZERO,
                ..report(cx, venue, &placed, ExecType::Canceled, OrderStatus::Canceled, now)
            };
            cx.emit(report);
        }
        match event.replace {
            Some(replace) => self.take_replace(cx, venue, replace, instrument, now),
            None => Ok(()),
        }
    }

    fn take_new(
        &self,
        cx: &mut Cx<'_>,
        venue: &mut Venue,
        order: NewOrder,
        instrument: Option<&Instrument>,
        now: EventTime,
    ) -> Result<(), Fault> {
        let id = order.order_id.clone();
        let known = venue.resting.get(&id).is_some() || venue.ended.get(&id).is_some();
        let limit_is_sound = match order.order_type {
            OrderType::Market => order.limit_price.is_none(),
            OrderType::Limit => order.limit_price.is_some_and(Price::is_positive),
            OrderType::Unknown => false,
        };
        let refused = if known {
            Some((Reason::DuplicateOrder, "an order of this id was here before"))
        } else if instrument.is_none() {
            Some((Reason::UnknownSymbol, "the instrument is not known"))
        } else if !order.quantity.is_positive() {
            Some((Reason::IncorrectQuantity, "the quantity is not positive"))
        } else if order.side == Side::Unknown
            || order.time_in_force == TimeInForce::Unknown
            || !limit_is_sound
        {
            Some((Reason::UnsupportedOrderCharacteristic, "side, type, limit or time in force make no order"))
        } else if !venue.desk.has_side(order.side) {
            Some((Reason::ReferencePriceNotAvailable, "no touch is known to trade with"))
        } else {
            None
        };
        let placed = Placed { order, filled: Quantity::ZERO };
        if let Some((reason, words)) = refused {
            if !known {
                venue.end(id, OrderStatus::Rejected);
            }
            let report = ExecutionReport {
                leaves_quantity: Quantity::ZERO,
                text: Some(format!("{}: {words}", reason.name()).into()),
                ..report(cx, venue, &placed, ExecType::Rejected, OrderStatus::Rejected, now)
            };
            cx.emit(report);
            return Ok(());
        }
        let accepted = report(cx, venue, &placed, ExecType::New, OrderStatus::New, now);
        cx.emit(accepted);
        self.match_or_rest(cx, venue, placed, instrument, now)
    }

    fn take_replace(
        &self,
        cx: &mut Cx<'_>,
        venue: &mut Venue,
        replace: ReplaceOrder,
        instrument: Option<&Instrument>,
        now: EventTime,
    ) -> Result<(), Fault> {
        let known =
            venue.resting.get(&replace.order_id).is_some() || venue.ended.get(&replace.order_id).is_some();
        let fits = |placed: &Placed| {
            let sound =
                replace.order_type == OrderType::Limit && replace.limit_price.is_some_and(Price::is_positive);
            sound && !known && replace.quantity > placed.filled && replace.side == placed.order.side
        };
        let placed = venue.resting.get(&replace.original_order_id).filter(|placed| fits(placed)).cloned();
        let Some(mut placed) = placed else {
            let request =
                (&replace.order_id, &replace.original_order_id, &replace.account, &replace.instrument);
            refuse(cx, venue, request, CancelRejectResponseTo::Replace, now);
            return Ok(());
        };
        venue.resting.remove(&replace.original_order_id);
        venue.end(replace.original_order_id.clone(), OrderStatus::Replaced);
        placed.order.order_id = replace.order_id;
        placed.order.quantity = replace.quantity;
        placed.order.limit_price = replace.limit_price;
        placed.order.time_in_force = replace.time_in_force;
        let status =
            if placed.filled.is_positive() { OrderStatus::PartiallyFilled } else { OrderStatus::New };
        let report = ExecutionReport {
            original_order_id: Some(replace.original_order_id),
            ..report(cx, venue, &placed, ExecType::Replaced, status, now)
        };
        cx.emit(report);
        self.match_or_rest(cx, venue, placed, instrument, now)
    }

    fn match_or_rest(
        &self,
        cx: &mut Cx<'_>,
        venue: &mut Venue,
        placed: Placed,
        instrument: Option<&Instrument>,
        now: EventTime,
    ) -> Result<(), Fault> {
        if let Some(touch) = venue.desk.touch_for(&placed.order) {
            return self.fill(cx, venue, placed, touch, Liquidity::Taker, instrument, now);
        }
        let rests = matches!(placed.order.time_in_force, TimeInForce::Day | TimeInForce::Gtc);
        if rests {
            venue.resting.insert(placed.order.order_id.clone(), placed);
            return Ok(());
        }
        venue.end(placed.order.order_id.clone(), OrderStatus::Expired);
        let report = ExecutionReport {
            leaves_quantity: Quantity::ZERO,
            ..report(cx, venue, &placed, ExecType::Expired, OrderStatus::Expired, now)
        };
        cx.emit(report);
        Ok(())
    }

    /// Fills all that is open.
    #[allow(clippy::too_many_arguments, reason = "each is one fact of the fill")]
    fn fill(
        &self,
        cx: &mut Cx<'_>,
        venue: &mut Venue,
        placed: Placed,
        price: Price,
        liquidity: Liquidity,
        instrument: Option<&Instrument>,
        now: EventTime,
    ) -> Result<(), Fault> {
        let fault = |error: DecimalError| overflow("fill", &placed.order.order_id)(error);
        let Some(instrument) = instrument else {
            return Err(Fault::new(
                "unknown-instrument",
                format!("{} is not known", placed.order.instrument),
            ));
        };
        let quantity = placed.order.quantity.checked_sub(placed.filled).map_err(fault)?;
        let bps = if liquidity == Liquidity::Maker { self.maker_fee_bps } else { self.taker_fee_bps };
        let fee = fee(instrument, quantity, price, bps).map_err(fault)?;
        let filled = Placed { filled: placed.order.quantity, order: placed.order.clone() };
        let report = ExecutionReport {
            last_quantity: quantity,
            last_price: price,
            leaves_quantity: Quantity::ZERO,
            fee,
            fee_currency: if fee.is_zero() { SmolStr::default() } else { instrument.settle.clone() },
            liquidity,
            ..report(cx, venue, &filled, ExecType::Trade, OrderStatus::Filled, now)
        };
        venue.end(filled.order.order_id, OrderStatus::Filled);
        cx.emit(report);
        Ok(())
    }
}

fn fee(
    instrument: &Instrument,
    quantity: Quantity,
    price: Price,
    bps: Quantity,
) -> Result<Amount, DecimalError> {
    flow(instrument, quantity, price)?.abs().checked_share(bps, Quantity::from_int(10_000)?)
}

/// A report of an order as it stands, with the next execution id and without a fill.
fn report(
    cx: &Cx<'_>,
    venue: &mut Venue,
    placed: &Placed,
    exec_type: ExecType,
    order_status: OrderStatus,
    now: EventTime,
) -> ExecutionReport {
    let order = &placed.order;
    ExecutionReport {
        execution_id: venue.next_report(cx),
        order_id: order.order_id.clone(),
        account: order.account.clone(),
        instrument: order.instrument.clone(),
        side: order.side,
        exec_type,
        order_status,
        leaves_quantity: order.quantity.checked_sub(placed.filled).unwrap_or_default(),
        cumulative_quantity: placed.filled,
        event_time: now,
        ..ExecutionReport::default()
    }
}

/// Refuses a cancel or replace request: (request, original, account, instrument).
fn refuse(
    cx: &mut Cx<'_>,
    venue: &Venue,
    (order_id, original, account, instrument): (&SmolStr, &SmolStr, &SmolStr, &SmolStr),
    response_to: CancelRejectResponseTo,
    now: EventTime,
) {
    let resting = venue.resting.get(original).map(|placed| {
        if placed.filled.is_positive() { OrderStatus::PartiallyFilled } else { OrderStatus::New }
    });
    let order_status =
        resting.or_else(|| venue.ended.get(original).copied()).unwrap_or(OrderStatus::Rejected);
    // FIX tag 102, CxlRejReason.
    let reason = match (resting, venue.ended.get(original)) {
        (Some(_), _) => "Other",
        (None, Some(status)) if has_ended(*status) => "TooLateToCancel",
        _ => "UnknownOrder",
    };
    cx.emit(OrderCancelReject {
        order_id: order_id.clone(),
        original_order_id: original.clone(),
        account: account.clone(),
        instrument: instrument.clone(),
        order_status,
        response_to,
        reason: reason.into(),
        text: None,
        event_time: now,
    });
}
