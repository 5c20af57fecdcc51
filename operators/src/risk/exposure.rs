//! Checks over all positions of an account: gross, net, long and short exposure, and concentration.
//!
//! Each instrument counts with its position were this order and all working orders filled, at its mark, in the quote
//! currency. Exposures in several quote currencies are not added up: such a check fails, as it can not be decided.

use std::collections::BTreeSet;

use smol_str::SmolStr;
use tidewire_schemas::{Amount, DecimalError, Quantity};

use super::checks::{Case, Found};
use crate::instruments::quote_value;

/// Values of all positions, each side at its worst.
#[derive(Debug, Default)]
struct Exposure {
    long: Amount,
    short: Amount,
    gross: Amount,
    net_if_bought: Amount,
    net_if_sold: Amount,
    largest: Amount,
}

/// Every check of this kind with its result.
pub(super) fn checks(case: &Case<'_>) -> [(&'static str, Found); 5] {
    let gross = case.least(|limits| limits.max_gross_exposure);
    let net = case.least(|limits| limits.max_net_exposure);
    let long = case.least(|limits| limits.max_long_exposure);
    let short = case.least(|limits| limits.max_short_exposure);
    let concentration_bps = case.least(|limits| limits.max_concentration_bps);
    let names =
        ["gross_exposure", "net_exposure", "long_exposure", "short_exposure", "maximum_concentration"];
    if [gross, net, long, short].iter().all(Option::is_none) && concentration_bps.is_none() {
        return names.map(|name| (name, Found::Skipped));
    }
    let exposure = reckon(case);
    let found = |limit: Option<Amount>, value: fn(&Exposure) -> Amount| match (&exposure, limit) {
        (_, None) => Found::Skipped,
        (Err(why), Some(_)) => Found::Undecidable(why.clone()),
        (Ok(exposure), Some(limit)) => Found::Within { limit, value: value(exposure) },
    };
    let concentration = match (&exposure, concentration_bps) {
        (_, None) => Found::Skipped,
        (Err(why), Some(_)) => Found::Undecidable(why.clone()),
        (Ok(exposure), Some(limit_bps)) => Found::of(share_bps(exposure, limit_bps)),
    };
    let net_found = found(net, |e| e.net_if_bought.max(e.net_if_sold));
    let [a, b, c, d, e] = names;
    [
        (a, found(gross, |e| e.gross)),
        (b, net_found),
        (c, found(long, |e| e.long)),
        (d, found(short, |e| e.short)),
        (e, concentration),
    ]
}

fn share_bps(exposure: &Exposure, limit_bps: i64) -> Result<Found, DecimalError> {
    let limit = Amount::from_int(limit_bps)?;
    if exposure.gross.is_zero() {
        return Ok(Found::Within { limit, value: Amount::ZERO });
    }
    let whole = Quantity::from_units(exposure.gross.units())?;
    let part = Quantity::from_units(exposure.largest.units())?;
    Ok(Found::Within { limit, value: Amount::from_int(10_000)?.checked_share(part, whole)? })
}

fn reckon(case: &Case<'_>) -> Result<Exposure, String> {
    let intent = case.intent;
    let quote = &case.instrument.ok_or("the instrument is not known")?.quote;
    let mut instruments: BTreeSet<&SmolStr> = BTreeSet::from([&intent.instrument]);
    instruments
        .extend(case.account.holdings.iter().filter(|(_, h)| !h.quantity.is_zero()).map(|(name, _)| name));
    instruments.extend(case.account.working.iter().map(|(_, tracked)| &tracked.order.instrument));
    let mut exposure = Exposure::default();
    let (mut bought, mut sold) = (Amount::ZERO, Amount::ZERO);
    for name in instruments {
        let instrument = case.known.instruments.get(name).ok_or_else(|| format!("{name} is not known"))?;
        if instrument.quote != *quote {
            return Err(format!("exposures in {quote} and {} can not be added", instrument.quote));
        }
        let price = if *name == intent.instrument {
            case.price()
        } else {
            case.known.marks.get(name).map(|mark| mark.mark).filter(|mark| mark.is_positive())
        };
        let price = price.ok_or_else(|| format!("no mark is known for {name}"))?;
        let (if_bought, if_sold) = extremes(case, name);
        let value = |units: i128| {
            let value = quote_value(instrument, Quantity::from_units(units)?, price)?;
            Ok(if units < 0 { value.negated() } else { value })
        };
        let add = || -> Result<_, DecimalError> {
            let (up, down) = (value(if_bought)?, value(if_sold)?);
            let (long, short) = (up.max(Amount::ZERO), down.negated().max(Amount::ZERO));
            let larger = long.max(short);
            let next = Exposure {
                long: exposure.long.checked_add(long)?,
                short: exposure.short.checked_add(short)?,
                gross: exposure.gross.checked_add(larger)?,
                // Concentration is of the instrument that the order is about.
                largest: if *name == intent.instrument { larger } else { exposure.largest },
                ..Exposure::default()
            };
            Ok((next, bought.checked_add(up)?, sold.checked_add(down)?))
        };
        (exposure, bought, sold) =
            add().map_err(|error| format!("the exposure can not be reckoned: {error}"))?;
    }
    // Long less short value, either way, were all working orders of one side filled.
    exposure.net_if_bought = bought;
    exposure.net_if_sold = sold.negated();
    Ok(exposure)
}

/// The position were all buys filled, and were all sells, in units; this order counts among its side.
fn extremes(case: &Case<'_>, instrument: &SmolStr) -> (i128, i128) {
    let held = case.account.holdings.get(instrument).map_or(0, |holding| holding.quantity.units());
    let (mut buying, mut selling) = case.account.working_quantity(instrument);
    if *instrument == case.intent.instrument {
        let ordered = case.intent.quantity.units();
        if case.buys() { buying += ordered } else { selling += ordered }
    }
    (held + buying, held - selling)
}
