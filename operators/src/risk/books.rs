//! An independent reckoning of positions and cash from execution reports alone, to hold against what was published.
//!
//! It shares no code with [`super::positions`]: flows are summed as integers, and profit and loss is never split
//! into realised and not. What must agree is
//!
//! * each position's quantity, exactly;
//! * realised plus unrealised profit and loss, with all flows and the value of closing at the mark;
//! * for each currency, cash (with the unrealised of what is not paid in full) with all flows and fees.
//!
//! A fill's flow is rounded to 12 places on its way, so sums may differ by 2 units of 10^-12 a fill.

use std::collections::BTreeMap;

use smol_str::SmolStr;
use tidewire_schemas::{AssetClass, CashBalance, ExecType, ExecutionReport, Instrument, Position, Side};

const ONE: i128 = 1_000_000_000_000;

#[derive(Clone, Debug)]
struct Fill {
    account: SmolStr,
    instrument: SmolStr,
    signed: i128,
    price: i128,
    fee: i128,
    fee_currency: SmolStr,
}

/// All executions of all accounts.
#[derive(Debug, Default)]
pub struct Books {
    instruments: BTreeMap<SmolStr, Instrument>,
    fills: BTreeMap<SmolStr, Fill>,
}

impl Books {
    /// Takes the description of an instrument; needed before [`Books::differences`].
    pub fn add_instrument(&mut self, instrument: &Instrument) {
        self.instruments.insert(instrument.instrument.clone(), instrument.clone());
    }

    /// Takes a report; what is no fill, bust or correction changes nothing, nor does one that came before.
    pub fn add(&mut self, report: &ExecutionReport) {
        let fill = Fill {
            account: report.account.clone(),
            instrument: report.instrument.clone(),
            signed: if report.side == Side::Buy { 1 } else { -1 } * report.last_quantity.units(),
            price: report.last_price.units(),
            fee: report.fee.units(),
            fee_currency: report.fee_currency.clone(),
        };
        if self.fills.contains_key(&report.execution_id) {
            return;
        }
        match report.exec_type {
            ExecType::Trade => _ = self.fills.insert(report.execution_id.clone(), fill),
            ExecType::TradeCorrect => {
                self.bust(report);
                self.fills.insert(report.execution_id.clone(), fill);
            }
            ExecType::TradeCancel => self.bust(report),
            _ => {}
        }
    }

    /// Number of fills in the books.
    pub fn fills(&self) -> usize {
        self.fills.len()
    }

    fn bust(&mut self, report: &ExecutionReport) {
        if let Some(reference) = &report.execution_ref_id {
            self.fills.remove(reference);
        }
    }

    /// What the published positions and balances (all, in their order; the last of a key counts) differ in.
    pub fn differences(&self, positions: &[Position], cash: &[CashBalance]) -> Vec<String> {
        let last: BTreeMap<_, _> =
            positions.iter().map(|p| ((p.account.clone(), p.instrument.clone()), p)).collect();
        let balances: BTreeMap<_, _> =
            cash.iter().map(|c| ((c.account.clone(), c.currency.clone()), c.balance.units())).collect();
        let mut wrong = Vec::new();
        let mut quantities: BTreeMap<(SmolStr, SmolStr), i128> = BTreeMap::new();
        let mut flows: BTreeMap<(SmolStr, SmolStr), i128> = BTreeMap::new();
        // What cash, and the unrealised of margined positions, must come to.
        let mut money: BTreeMap<(SmolStr, SmolStr), i128> = BTreeMap::new();
        for (id, fill) in &self.fills {
            let Some(instrument) = self.instruments.get(&fill.instrument) else {
                wrong.push(format!("execution {id}: {} is not known", fill.instrument));
                continue;
            };
            let place = (fill.account.clone(), fill.instrument.clone());
            let flow = flow(instrument, fill.signed, fill.price);
            *quantities.entry(place.clone()).or_default() += fill.signed;
            *flows.entry(place).or_default() += flow;
            *money.entry((fill.account.clone(), instrument.settle.clone())).or_default() += flow;
            if fill.fee != 0 {
                let named = !fill.fee_currency.is_empty();
                let currency = if named { &fill.fee_currency } else { &instrument.settle };
                *money.entry((fill.account.clone(), currency.clone())).or_default() -= fill.fee;
            }
        }
        let tolerance = 2 * i128::try_from(self.fills.len() + 1).unwrap_or(i128::MAX / 2);
        let mut held = balances;
        for (place, quantity) in &quantities {
            let Some(position) = last.get(place) else {
                if *quantity != 0 {
                    wrong.push(format!("{place:?}: no position was published"));
                }
                continue;
            };
            if position.quantity.units() != *quantity {
                wrong.push(format!(
                    "{place:?}: quantity {} published, {quantity} units executed",
                    position.quantity
                ));
            }
            let instrument = &self.instruments[&place.1];
            let Some(mark) = position.mark.filter(|mark| mark.is_positive()) else {
                if *quantity != 0 {
                    wrong.push(format!("{place:?}: no mark, so profit and loss can not be compared"));
                }
                continue;
            };
            let closing = if *quantity == 0 { 0 } else { flow(instrument, -quantity, mark.units()) };
            let published = position.realised_pnl.units() + position.unrealised_pnl.units();
            if (published - flows[place] - closing).abs() > tolerance {
                wrong.push(format!(
                    "{place:?}: profit and loss {published} published, {} executed, in units",
                    flows[place] + closing
                ));
            }
            if matches!(instrument.asset_class, AssetClass::Perpetual | AssetClass::Future) {
                let currency = (place.0.clone(), instrument.settle.clone());
                *held.entry(currency.clone()).or_default() += position.unrealised_pnl.units();
                *money.entry(currency).or_default() += closing;
            }
        }
        for (place, due) in &money {
            let has = held.get(place).copied().unwrap_or_default();
            if (has - due).abs() > tolerance {
                wrong.push(format!("{place:?}: cash {has} published, {due} executed, in units"));
            }
        }
        wrong
    }
}

/// Value that a fill moves, in units, towards the account; rounded towards zero.
fn flow(instrument: &Instrument, signed: i128, price: i128) -> i128 {
    let multiplier = instrument.contract_multiplier.units();
    if instrument.inverse {
        // One factor of ONE is in each of the three; the quotient needs one.
        return signed * multiplier / price;
    }
    -(signed * price / ONE * multiplier / ONE)
}
