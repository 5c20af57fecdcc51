//! A backtest as one page for the browser: nothing is loaded from elsewhere, and its size has a bound.

use std::fmt::{self, Write as _};

use super::plot;
use super::show::{FIGURES, Report, money_of, per_second, plain};
use crate::safe::Safe;
use crate::table::grouped;

/// Most settings in the table of a page.
const MAX_ROWS: usize = 2_000;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
///
/// # Errors
/// Never: text in memory takes all that is written.
pub fn page(report: &Report<'_>) -> Result<String, fmt::Error> {
    let mut out = String::new();
    let done = grouped(report.outcomes.len() as u64);
    write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
         script-src 'unsafe-inline'\">\n<title>tidewire backtest {name}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>Backtest of {name}: {done} settings</h1>\n",
        name = Safe(report.pipeline),
    )?;
    write!(out, "<p class=\"soft\">{} input records by {}", grouped(report.inputs.0), Safe(report.order))?;
    if let Some((from, to)) = report.span() {
        write!(out, ", {from} to {to}")?;
    }
    if (report.outcomes.len() as u64) < report.grid.of {
        write!(out, "; {done} of the {} settings of the whole grid", grouped(report.grid.of))?;
    }
    out.push_str("</p>\n");
    if let Some(warning) = report.warning() {
        writeln!(out, "<p class=\"warning\">{}.</p>", Safe(&warning))?;
    }
    if report.stopped {
        out.push_str("<p class=\"warning\">It was stopped before its end: settings that were not done are left out.</p>\n");
    }
    plot::plots(&mut out, report)?;
    table(&mut out, report)?;
    write!(out, "</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n")?;
    Ok(out)
}

fn table(out: &mut String, report: &Report<'_>) -> fmt::Result {
    out.push_str("<div class=\"card scroll\"><table>\n<thead><tr>");
    for one in &report.grid.parameters {
        write!(out, "<th><button>{}</button></th>", Safe(&one.name))?;
    }
    write!(out, "<th><button>pnl {}</button></th>", Safe(&report.currency))?;
    for name in FIGURES {
        write!(out, "<th><button>{name}</button></th>")?;
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for outcome in report.outcomes.iter().take(MAX_ROWS) {
        let (money, tally) = (money_of(outcome, &report.currency), &outcome.tally);
        out.push_str("<tr>");
        for value in &outcome.setting.values {
            write!(out, "<td data-value=\"{0}\">{0}</td>", Safe(value))?;
        }
        let amounts =
            [money.pnl(), money.realised, money.unrealised, money.fees, money.max_drawdown, money.turnover];
        for (place, amount) in amounts.into_iter().enumerate() {
            let class = match place {
                0 if amount.is_negative() => " class=\"loss\"",
                0 if amount.is_positive() => " class=\"gain\"",
                _ => "",
            };
            write!(out, "<td{class} data-value=\"{amount}\">{}</td>", plain(amount))?;
        }
        for count in [tally.signals, tally.orders, tally.fills, tally.refusals, per_second(outcome)] {
            write!(out, "<td data-value=\"{count}\">{}</td>", grouped(count))?;
        }
        let digest = tally.digest().to_hex();
        writeln!(
            out,
            "<td data-value=\"{digest}\" title=\"{digest}\"><code>{}</code></td></tr>",
            &digest[..12]
        )?;
    }
    out.push_str("</tbody></table></div>\n");
    if report.outcomes.len() > MAX_ROWS {
        writeln!(
            out,
            "<p class=\"soft\">The first {} of {}.</p>",
            grouped(MAX_ROWS as u64),
            grouped(report.outcomes.len() as u64)
        )?;
    }
    Ok(())
}
