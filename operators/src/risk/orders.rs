//! The life of an order, by FIX OrdStatus.
//!
//! Closed for what we do: an order is made as PENDING_NEW and we move it to PENDING_CANCEL only. What the venue
//! reports is always taken as it is (a fill after a cancel fills); where it contradicts what we knew, a break says
//! so.

use tidewire_schemas::{
    Amount, DecimalError, ExecType, ExecutionReport, NewOrder, Order, OrderIntent, OrderStatus, Quantity,
};

use super::account::Tracked;

/// A contradiction between the venue and us, in words.
pub type Break = String;

/// How a fill, a bust or a correction changed what is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FillChange {
    /// Quantity filled more; negative for a bust.
    pub quantity: Quantity,
    /// Its price times quantity.
    pub value: Amount,
}

/// The order that an approved intent becomes.
pub fn new_order(
    intent: &OrderIntent,
    order_id: &str,
    now: tidewire_schemas::EventTime,
) -> (Tracked, NewOrder) {
    let order = Order {
        order_id: order_id.into(),
        account: intent.account.clone(),
        strategy: intent.strategy.clone(),
        instrument: intent.instrument.clone(),
        side: intent.side,
        order_type: intent.order_type,
        limit_price: intent.limit_price,
        time_in_force: intent.time_in_force,
        quantity: intent.quantity,
        status: OrderStatus::PendingNew,
        cumulative_quantity: Quantity::ZERO,
        leaves_quantity: intent.quantity,
        average_price: None,
        intent_id: intent.id.clone(),
        reject_reason: None,
        event_time: now,
    };
    let command = NewOrder {
        order_id: order_id.into(),
        account: intent.account.clone(),
        instrument: intent.instrument.clone(),
        side: intent.side,
        order_type: intent.order_type,
        quantity: intent.quantity,
        limit_price: intent.limit_price,
        time_in_force: intent.time_in_force,
        event_time: now,
    };
    (Tracked { order, filled_value: Amount::ZERO }, command)
}

/// Whether an order of this status can still be filled, as far as we know.
pub const fn has_ended(status: OrderStatus) -> bool {
    match status {
        OrderStatus::Filled
        | OrderStatus::Canceled
        | OrderStatus::Replaced
        | OrderStatus::Rejected
        | OrderStatus::Expired
        | OrderStatus::DoneForDay => true,
        OrderStatus::Unknown
        | OrderStatus::PendingNew
        | OrderStatus::New
        | OrderStatus::PartiallyFilled
        | OrderStatus::PendingCancel
        | OrderStatus::PendingReplace
        | OrderStatus::Stopped
        | OrderStatus::Suspended => false,
    }
}

/// Takes a report of the venue on one of our orders.
pub fn take_report(
    tracked: &mut Tracked,
    report: &ExecutionReport,
    change: Option<FillChange>,
) -> Result<Vec<Break>, DecimalError> {
    let mut breaks = Vec::new();
    let order = &mut tracked.order;
    order.event_time = report.event_time;
    if (&report.instrument, report.side) != (&order.instrument, order.side) {
        breaks.push(format!(
            "the venue reports {} {}, ordered was {} {}",
            report.side, report.instrument, order.side, order.instrument
        ));
    }
    if let Some(change) = change {
        take_change(tracked, report, change, &mut breaks)?;
        return Ok(breaks);
    }
    let before = order.status;
    match report.exec_type {
        ExecType::New if before == OrderStatus::PendingNew => order.status = OrderStatus::New,
        ExecType::Canceled => end(order, OrderStatus::Canceled, &mut breaks),
        ExecType::Expired => end(order, OrderStatus::Expired, &mut breaks),
        ExecType::DoneForDay => end(order, OrderStatus::DoneForDay, &mut breaks),
        ExecType::Rejected => {
            if !order.cumulative_quantity.is_zero() {
                breaks.push(format!("rejected after {} were filled", order.cumulative_quantity));
            }
            order.reject_reason = Some(report.text.clone().unwrap_or_else(|| "Other".into()));
            end(order, OrderStatus::Rejected, &mut breaks);
        }
        ExecType::PendingCancel => work(order, OrderStatus::PendingCancel, &mut breaks),
        ExecType::PendingReplace => work(order, OrderStatus::PendingReplace, &mut breaks),
        ExecType::Stopped => work(order, OrderStatus::Stopped, &mut breaks),
        ExecType::Suspended => work(order, OrderStatus::Suspended, &mut breaks),
        ExecType::Replaced | ExecType::Restated => {
            let quantity = report.cumulative_quantity.checked_add(report.leaves_quantity)?;
            if report.exec_type == ExecType::Replaced || quantity > order.quantity {
                breaks.push(format!("the venue changed the quantity from {} to {quantity}", order.quantity));
            }
            (order.quantity, order.leaves_quantity) = (quantity, report.leaves_quantity);
        }
        ExecType::OrderStatus if report.order_status != before => {
            breaks.push(format!("the venue says {}, we have {before}", report.order_status));
        }
        ExecType::New if has_ended(before) => breaks.push(format!("accepted after it was {before}")),
        ExecType::Unknown => breaks.push("a report of a kind that this build does not know".into()),
        // An acknowledgement again, or of what is known.
        ExecType::New | ExecType::PendingNew | ExecType::OrderStatus => {}
        ExecType::Trade | ExecType::TradeCorrect | ExecType::TradeCancel => {
            breaks.push("a trade without effect".into());
        }
    }
    Ok(breaks)
}

fn take_change(
    tracked: &mut Tracked,
    report: &ExecutionReport,
    change: FillChange,
    breaks: &mut Vec<Break>,
) -> Result<(), DecimalError> {
    let order = &mut tracked.order;
    let before = order.status;
    order.cumulative_quantity = order.cumulative_quantity.checked_add(change.quantity)?;
    tracked.filled_value = tracked.filled_value.checked_add(change.value)?;
    order.average_price = if order.cumulative_quantity.is_positive() {
        Some(tracked.filled_value.checked_div(order.cumulative_quantity)?)
    } else {
        None
    };
    let left = order.quantity.checked_sub(order.cumulative_quantity)?.max(Quantity::ZERO);
    let fills_more = report.exec_type == ExecType::Trade;
    if has_ended(before) {
        let revived = !fills_more && before == OrderStatus::Filled && !has_ended(report.order_status);
        if revived {
            // A bust made a full order a working one again.
            order.leaves_quantity = left;
            order.status = worked(order);
        } else if fills_more {
            breaks.push(format!("filled after it was {before}"));
        }
    } else {
        order.leaves_quantity = left;
        let waits = matches!(
            before,
            OrderStatus::PendingCancel
                | OrderStatus::PendingReplace
                | OrderStatus::Suspended
                | OrderStatus::Stopped
        );
        if left.is_zero() {
            order.status = OrderStatus::Filled;
        } else if !waits {
            order.status = worked(order);
        }
    }
    if order.cumulative_quantity > order.quantity {
        breaks.push(format!("{} filled of {} ordered", order.cumulative_quantity, order.quantity));
    }
    if order.cumulative_quantity.is_negative() {
        breaks.push(format!("more was busted than filled: {}", order.cumulative_quantity));
    }
    if report.cumulative_quantity != order.cumulative_quantity {
        breaks.push(format!(
            "the venue has {} filled, we have {}",
            report.cumulative_quantity, order.cumulative_quantity
        ));
    }
    if !has_ended(order.status) && report.leaves_quantity != order.leaves_quantity {
        breaks.push(format!(
            "the venue has {} open, we have {}",
            report.leaves_quantity, order.leaves_quantity
        ));
    }
    Ok(())
}

/// The status of an order that works, by what is filled.
pub fn worked(order: &Order) -> OrderStatus {
    if order.cumulative_quantity.is_positive() { OrderStatus::PartiallyFilled } else { OrderStatus::New }
}

fn end(order: &mut Order, status: OrderStatus, breaks: &mut Vec<Break>) {
    if has_ended(order.status) && order.status != status {
        breaks.push(format!("{status} after it was {}", order.status));
        return;
    }
    order.status = status;
    order.leaves_quantity = Quantity::ZERO;
}

fn work(order: &mut Order, status: OrderStatus, breaks: &mut Vec<Break>) {
    if has_ended(order.status) {
        breaks.push(format!("{status} after it was {}", order.status));
    } else {
        order.status = status;
    }
}
