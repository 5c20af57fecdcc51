//! Plots of profit and loss over one or two parameters, as SVG in a page.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::grid::Parameter;
use super::show::{Report, money_of, plain};
use crate::safe::Safe;
use tidewire_schemas::Amount;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 90.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 16.0;
/// Most cells of a heat map on a side.
const MAX_SIDE: usize = 60;
/// Most labels along an axis.
const MAX_LABELS: usize = 12;

/// Writes the plots: of one parameter a line, of two a heat map; of more, one line for each with the best, the middle and the
/// worst of all settings that share its value.
pub fn plots(out: &mut String, report: &Report<'_>) -> fmt::Result {
    let varied: Vec<usize> = (0..report.grid.parameters.len())
        .filter(|place| report.grid.parameters[*place].values.len() > 1)
        .collect();
    if let [x, y] = varied.as_slice() {
        let (across, down) = (&report.grid.parameters[*x], &report.grid.parameters[*y]);
        if across.values.len() <= MAX_SIDE && down.values.len() <= MAX_SIDE {
            heat_map(out, report, (*x, across), (*y, down))?;
        }
    }
    for place in varied {
        line(out, report, place)?;
    }
    Ok(())
}

fn of_values(report: &Report<'_>, place: usize) -> Vec<(String, Vec<Amount>)> {
    let mut by_value: BTreeMap<&str, Vec<Amount>> = BTreeMap::new();
    for outcome in &report.outcomes {
        by_value
            .entry(&outcome.setting.values[place])
            .or_default()
            .push(money_of(outcome, &report.currency).pnl());
    }
    let values = &report.grid.parameters[place].values;
    let found = values.iter().filter_map(|value| {
        let mut amounts = by_value.remove(value.as_str())?;
        amounts.sort();
        Some((value.clone(), amounts))
    });
    let mut found: Vec<_> = found.collect();
    // Numbers stand in their order, words as they were given.
    if found.iter().all(|(value, _)| value.parse::<Amount>().is_ok()) {
        found.sort_by_key(|(value, _)| value.parse::<Amount>().unwrap_or_default());
    }
    found
}

fn line(out: &mut String, report: &Report<'_>, place: usize) -> fmt::Result {
    let points = of_values(report, place);
    let all = points.iter().flat_map(|(_, amounts)| amounts);
    let (Some(least), Some(most)) = (all.clone().min().copied(), all.max().copied()) else { return Ok(()) };
    let (low, high) = (least.min(Amount::ZERO).to_f64(), most.max(Amount::ZERO).to_f64());
    let span = if high > low { high - low } else { 1.0 };
    let step = (WIDTH - LEFT - 30.0) / (points.len().max(2) - 1) as f64;
    let x = |place: usize| LEFT + 10.0 + step * place as f64;
    let y = |amount: f64| TOP + (HEIGHT - TOP - BOTTOM) * (high - amount) / span;
    let name = &report.grid.parameters[place].name;
    let many = points.iter().any(|(_, amounts)| amounts.len() > 1);
    let what = if many { ": best, middle and worst of the settings that share a value" } else { "" };
    write!(
        out,
        "<figure class=\"card\"><figcaption>pnl {} by <code>{}</code>{what}</figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"profit and loss by {}\">",
        Safe(&report.currency),
        Safe(name),
        Safe(name)
    )?;
    for tick in 0..=4 {
        let amount = low + span * f64::from(tick) / 4.0;
        write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - 10.0,
            y(amount),
            y(amount),
            LEFT - 8.0,
            y(amount) + 4.0,
            axis(amount, span)
        )?;
    }
    write!(
        out,
        "<line class=\"zero\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
        WIDTH - 10.0,
        y(0.0),
        y(0.0)
    )?;
    let mut series = |class: &str, pick: &dyn Fn(&[Amount]) -> Amount| -> fmt::Result {
        let places = points.iter().enumerate();
        let path: Vec<String> = places
            .map(|(place, (_, amounts))| format!("{:.1},{:.1}", x(place), y(pick(amounts).to_f64())))
            .collect();
        write!(out, "<polyline class=\"{class}\" points=\"{}\"/>", path.join(" "))?;
        for (place, (value, amounts)) in points.iter().enumerate() {
            let amount = pick(amounts);
            write!(
                out,
                "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{} = {}: {}</title></circle>",
                x(place),
                y(amount.to_f64()),
                Safe(name),
                Safe(value),
                plain(amount)
            )?;
        }
        Ok(())
    };
    let last = |amounts: &[Amount]| amounts.last().copied().unwrap_or_default();
    let first = |amounts: &[Amount]| amounts.first().copied().unwrap_or_default();
    let middle = |amounts: &[Amount]| amounts.get(amounts.len() / 2).copied().unwrap_or_default();
    if many {
        series("least", &first)?;
        series("most", &last)?;
    }
    series("middle", &middle)?;
    let every = points.len().div_ceil(MAX_LABELS).max(1);
    for (place, (value, _)) in points.iter().enumerate().step_by(every) {
        write!(
            out,
            "<text class=\"mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x(place),
            HEIGHT - BOTTOM + 20.0,
            Safe(value)
        )?;
    }
    writeln!(
        out,
        "<text class=\"mid soft\" x=\"{:.1}\" y=\"{:.1}\">{}</text></svg></figure>",
        (LEFT + WIDTH) / 2.0,
        HEIGHT - 8.0,
        Safe(name)
    )
}

fn axis(amount: f64, span: f64) -> String {
    let places = if span >= 20.0 {
        0
    } else if span >= 0.2 {
        2
    } else {
        6
    };
    let shown = format!("{amount:.places$}");
    // Minus nothing is nothing.
    if shown.trim_start_matches(['-', '0', '.']).is_empty() { "0".to_owned() } else { shown }
}

fn heat_map(
    out: &mut String,
    report: &Report<'_>,
    (x, across): (usize, &Parameter),
    (y, down): (usize, &Parameter),
) -> fmt::Result {
    let mut cells: BTreeMap<(&str, &str), Amount> = BTreeMap::new();
    for outcome in &report.outcomes {
        let values = &outcome.setting.values;
        cells.insert((&values[x], &values[y]), money_of(outcome, &report.currency).pnl());
    }
    let greatest = cells.values().map(|amount| amount.abs()).max().unwrap_or_default().to_f64();
    let size = ((WIDTH - LEFT - 20.0) / across.values.len() as f64).min(110.0);
    let tall = (420.0 / down.values.len() as f64).clamp(8.0, 34.0);
    let height = TOP + tall * down.values.len() as f64 + BOTTOM;
    write!(
        out,
        "<figure class=\"card\"><figcaption>pnl {} by <code>{}</code> (across) and <code>{}</code> (down): \
         <span class=\"gain\">gain</span>, <span class=\"loss\">loss</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {height:.1}\" role=\"img\" aria-label=\"heat map of profit and loss\">",
        Safe(&report.currency),
        Safe(&across.name),
        Safe(&down.name)
    )?;
    for (row, below) in down.values.iter().enumerate() {
        let top = TOP + tall * row as f64;
        if tall >= 12.0 || row.is_multiple_of(2) {
            write!(
                out,
                "<text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                top + tall / 2.0 + 4.0,
                Safe(below)
            )?;
        }
        for (column, beside) in across.values.iter().enumerate() {
            let left = LEFT + size * column as f64;
            let Some(amount) = cells.get(&(beside.as_str(), below.as_str())) else { continue };
            let share = if greatest > 0.0 { amount.to_f64().abs() / greatest } else { 0.0 };
            let class = if amount.is_negative() { "loss" } else { "gain" };
            write!(
                out,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill-opacity=\"{:.2}\">\
                 <title>{} = {}, {} = {}: {}</title></rect>",
                left + 1.0,
                top + 1.0,
                size - 2.0,
                tall - 2.0,
                0.08 + 0.72 * share,
                Safe(&across.name),
                Safe(beside),
                Safe(&down.name),
                Safe(below),
                plain(*amount)
            )?;
            if size >= 60.0 && tall >= 16.0 {
                write!(
                    out,
                    "<text class=\"mid cell\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    left + size / 2.0,
                    top + tall / 2.0 + 4.0,
                    plain(*amount)
                )?;
            }
        }
    }
    let every = across.values.len().div_ceil(MAX_LABELS).max(1);
    for (column, value) in across.values.iter().enumerate().step_by(every) {
        write!(
            out,
            "<text class=\"mid\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT + size * (column as f64 + 0.5),
            height - BOTTOM + 18.0,
            Safe(value)
        )?;
    }
    writeln!(out, "</svg></figure>")
}
