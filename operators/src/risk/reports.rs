//! What the venue reports: fills, busts, corrections and the ends of orders, and what they do to the books.

use smol_str::SmolStr;
use tidewire_contract::{Cx, Fault};
use tidewire_schemas::{
    AlertState, Amount, CashBalance, DecimalError, EventTime, ExecType, ExecutionReport, Instrument,
    OrderCancelReject, OrderStatus, Position, Price, Quantity, Severity, Side,
};

use super::account::{Account, Executed, Known, remember};
use super::orders::{FillChange, has_ended, take_report, worked};
use super::positions::{Holding, flow, pays_in_full};
use crate::common::{AlertBody, alert, overflow};

/// Takes an execution report: position and cash move first, then the order.
pub fn on_report(
    cx: &mut Cx<'_>,
    report: &ExecutionReport,
    account: &mut Account,
    known: &Known,
) -> Result<(), Fault> {
    let trades = matches!(report.exec_type, ExecType::Trade | ExecType::TradeCorrect | ExecType::TradeCancel);
    let mut breaks = Vec::new();
    let mut change = None;
    if trades {
        let before = account.executions.get(&report.execution_id).cloned();
        if let Some(before) = before {
            // The venue sent it again.
            if report.exec_type == ExecType::Trade && before != executed(report)? {
                breaks.push("sent again with other numbers".to_owned());
                say_breaks(cx, report, account, breaks);
            }
            return Ok(());
        }
        let instrument = known.instruments.get(&report.instrument).ok_or_else(|| {
            let text = format!(
                "execution {} is of {}, which is not known; publish it to the topic of instruments, then replay this",
                report.execution_id, report.instrument
            );
            Fault::new("unknown-instrument", text)
        })?;
        change = Some(book(cx, report, instrument, account, known, &mut breaks)?);
    }
    let id = order_id(report, account);
    let Some(mut tracked) = account.order(&id).cloned() else {
        breaks.push(format!("order {} is not known", report.order_id));
        say_breaks(cx, report, account, breaks);
        return Ok(());
    };
    let found = take_report(&mut tracked, report, change).map_err(overflow("order", &report.order_id))?;
    breaks.extend(found);
    if report.exec_type == ExecType::Trade {
        account.note_fill(report.event_time, tracked.order.strategy.clone());
    }
    cx.emit(tracked.order.clone());
    let ended = has_ended(tracked.order.status);
    if !ended {
        // A bust may bring an order back.
        account.finished.remove(&id);
    }
    account.keep(tracked, ended);
    say_breaks(cx, report, account, breaks);
    Ok(())
}

/// A request to cancel was refused: the order goes on as it was.
pub fn on_cancel_reject(
    cx: &mut Cx<'_>,
    reject: &OrderCancelReject,
    account: &mut Account,
) -> Result<(), Fault> {
    let Some(mut tracked) = account.working.get(&reject.original_order_id).cloned() else {
        // Filled or cancelled meanwhile: that is why. An order never heard of is another matter.
        if account.finished.get(&reject.original_order_id).is_none() {
            let text = format!(
                "the venue refused to cancel {}: {}; the order is not known",
                reject.original_order_id, reject.reason
            );
            say_break(cx, account, &reject.account, &reject.original_order_id, text, reject.event_time);
        }
        return Ok(());
    };
    if matches!(tracked.order.status, OrderStatus::PendingCancel | OrderStatus::PendingReplace) {
        tracked.order.status = worked(&tracked.order);
        tracked.order.event_time = reject.event_time;
        cx.emit(tracked.order.clone());
        account.keep(tracked, false);
    }
    Ok(())
}

/// Our order that a report is on: a cancelled or replaced one is named as the original.
fn order_id(report: &ExecutionReport, account: &Account) -> SmolStr {
    let original = report.original_order_id.as_ref().filter(|id| account.order(id).is_some());
    original.unwrap_or(&report.order_id).clone()
}

/// Books a fill, a bust or a correction; returns what it changed of the order.
fn book(
    cx: &mut Cx<'_>,
    report: &ExecutionReport,
    instrument: &Instrument,
    account: &mut Account,
    known: &Known,
    breaks: &mut Vec<String>,
) -> Result<FillChange, Fault> {
    let fault = |error| overflow("position", &report.instrument)(error);
    let mut total = FillChange::default();
    if report.exec_type != ExecType::Trade {
        let reference = report.execution_ref_id.clone().unwrap_or_default();
        match account.executions.get(&reference).cloned() {
            Some(fill) => {
                let undone = fill.reversed();
                apply(cx, report, &undone, instrument, account)?;
                total = undone.change(report.side).map_err(fault)?;
                account
                    .executions
                    .insert(reference, Executed { signed: Quantity::ZERO, fee: Amount::ZERO, ..fill });
            }
            None => {
                breaks.push(format!("execution {reference}, which it takes back, is not known"));
                if report.exec_type == ExecType::TradeCancel && report.last_quantity.is_positive() {
                    // All that is known of it is what the bust says.
                    let undone = executed(report)?.reversed();
                    apply(cx, report, &undone, instrument, account)?;
                    total = undone.change(report.side).map_err(fault)?;
                }
            }
        }
    }
    let made = if report.exec_type == ExecType::TradeCancel {
        Executed { signed: Quantity::ZERO, fee: Amount::ZERO, ..executed_parts(report) }
    } else {
        let fill = executed(report)?;
        apply(cx, report, &fill, instrument, account)?;
        let more = fill.change(report.side).map_err(fault)?;
        total.quantity = total.quantity.checked_add(more.quantity).map_err(fault)?;
        total.value = total.value.checked_add(more.value).map_err(fault)?;
        fill
    };
    remember(&mut account.executions, &mut account.execution_order, report.execution_id.clone(), made);
    say_position(cx, &report.account, &report.instrument, instrument, account, known, report.event_time)
        .map_err(fault)?;
    Ok(total)
}

/// Moves position and cash by a fill, and says each movement of cash.
fn apply(
    cx: &mut Cx<'_>,
    report: &ExecutionReport,
    fill: &Executed,
    instrument: &Instrument,
    account: &mut Account,
) -> Result<(), Fault> {
    let fault = |error| overflow("position", &report.instrument)(error);
    let mut moved = Amount::ZERO;
    if !fill.signed.is_zero() {
        let holding = account.holdings.get_or_insert_with(report.instrument.clone(), Holding::default);
        let realised = holding.trade(instrument, fill.signed, fill.price).map_err(fault)?;
        moved = if pays_in_full(instrument.asset_class) {
            flow(instrument, fill.signed, fill.price).map_err(fault)?
        } else {
            realised
        };
    }
    move_cash(cx, report, account, &instrument.settle, moved, "fill").map_err(fault)?;
    if !fill.fee.is_zero() {
        let currency = if fill.fee_currency.is_empty() { &instrument.settle } else { &fill.fee_currency };
        if *currency == instrument.settle {
            let holding = account.holdings.get_or_insert_with(report.instrument.clone(), Holding::default);
            holding.fees = holding.fees.checked_add(fill.fee).map_err(fault)?;
        }
        move_cash(cx, report, account, currency, fill.fee.negated(), "fee").map_err(fault)?;
    }
    Ok(())
}

fn move_cash(
    cx: &mut Cx<'_>,
    report: &ExecutionReport,
    account: &mut Account,
    currency: &SmolStr,
    change: Amount,
    reason: &'static str,
) -> Result<(), DecimalError> {
    if change.is_zero() {
        return Ok(());
    }
    let balance = account.cash.get(currency).copied().unwrap_or_default().checked_add(change)?;
    account.cash.insert(currency.clone(), balance);
    cx.emit(CashBalance {
        account: report.account.clone(),
        currency: currency.clone(),
        balance,
        change,
        reason: reason.into(),
        event_time: report.event_time,
    });
    Ok(())
}

/// Gives out a position at the last mark.
pub fn say_position(
    cx: &mut Cx<'_>,
    account_name: &SmolStr,
    instrument_name: &SmolStr,
    instrument: &Instrument,
    account: &Account,
    known: &Known,
    event_time: EventTime,
) -> Result<(), DecimalError> {
    let Some(holding) = account.holdings.get(instrument_name) else { return Ok(()) };
    let mark = known.marks.get(instrument_name).map(|mark| mark.mark).filter(|mark| mark.is_positive());
    let unrealised_pnl = match mark {
        Some(mark) => holding.unrealised(instrument, mark)?,
        None => Amount::ZERO,
    };
    let position = Position {
        account: account_name.clone(),
        instrument: instrument_name.clone(),
        quantity: holding.quantity,
        average_price: holding.average_price(instrument)?,
        realised_pnl: holding.realised,
        unrealised_pnl,
        fees: holding.fees,
        currency: instrument.settle.clone(),
        mark,
        event_time,
    };
    cx.emit_for(account_name, position);
    Ok(())
}

impl Executed {
    fn reversed(&self) -> Self {
        Self { signed: self.signed.negated(), fee: self.fee.negated(), ..self.clone() }
    }

    /// What it adds to an order of that side.
    fn change(&self, side: Side) -> Result<FillChange, DecimalError> {
        let quantity = if side == Side::Sell { self.signed.negated() } else { self.signed };
        Ok(FillChange { quantity, value: self.price.checked_mul(quantity)? })
    }
}

fn executed_parts(report: &ExecutionReport) -> Executed {
    let signed =
        if report.side == Side::Sell { report.last_quantity.negated() } else { report.last_quantity };
    Executed {
        order_id: report.order_id.clone(),
        instrument: report.instrument.clone(),
        signed,
        price: report.last_price,
        fee: report.fee,
        fee_currency: report.fee_currency.clone(),
    }
}

/// The fill that a report tells of.
fn executed(report: &ExecutionReport) -> Result<Executed, Fault> {
    let sound =
        report.side != Side::Unknown && report.last_quantity.is_positive() && report.last_price > Price::ZERO;
    if !sound {
        let text = format!(
            "execution {}: side {}, quantity {} and price {} make no fill",
            report.execution_id, report.side, report.last_quantity, report.last_price
        );
        return Err(Fault::new("bad-execution", text));
    }
    Ok(executed_parts(report))
}

fn say_breaks(cx: &mut Cx<'_>, report: &ExecutionReport, account: &mut Account, breaks: Vec<String>) {
    for text in breaks {
        let text = format!("order {}, execution {}: {text}", report.order_id, report.execution_id);
        say_break(cx, account, &report.account, &report.order_id, text, report.event_time);
    }
}

fn say_break(
    cx: &mut Cx<'_>,
    account: &mut Account,
    scope: &SmolStr,
    about: &str,
    text: String,
    event_time: EventTime,
) {
    let body = AlertBody {
        scope,
        kind: "break",
        severity: Severity::Critical,
        about,
        text,
        values: &[],
        state: AlertState::Raised,
        event_time,
    };
    let alert = alert(cx, &mut account.counts.ids, body);
    cx.emit(alert);
}
