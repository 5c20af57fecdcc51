//! What a backtest came to: as a table, as JSON, as CSV.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};
use smol_str::SmolStr;
use tidewire_schemas::{Amount, EventTime};

use super::Outcome;
use super::grid::Grid;
use super::tally::Money;
use crate::shell::Words;
use crate::table::{Align, Table, grouped};

/// Names of a setting's figures, in the order of a table, behind its profit and loss.
pub const FIGURES: [&str; 11] = [
    "realised",
    "unrealised",
    "fees",
    "drawdown",
    "turnover",
    "signals",
    "orders",
    "fills",
    "refusals",
    "records/s",
    "digest",
];

/// What a table is sorted by, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// Realised and unrealised profit and loss, less fees.
    #[default]
    Pnl,
    /// Realised profit and loss.
    Realised,
    /// Unrealised profit and loss.
    Unrealised,
    /// The smallest greatest fall of profit and loss.
    Drawdown,
    /// Value of fills.
    Turnover,
    /// The smallest fees.
    Fees,
    /// Signals.
    Signals,
    /// Orders.
    Orders,
    /// Fills.
    Fills,
    /// The fewest refusals.
    Refusals,
    /// Number of the setting.
    Number,
}

impl SortBy {
    /// A number that is less for what is better.
    fn rank(self, outcome: &Outcome, currency: &str) -> i128 {
        let money = money_of(outcome, currency);
        let tally = &outcome.tally;
        match self {
            Self::Pnl => -money.pnl().units(),
            Self::Realised => -money.realised.units(),
            Self::Unrealised => -money.unrealised.units(),
            Self::Drawdown => money.max_drawdown.units(),
            Self::Turnover => -money.turnover.units(),
            Self::Fees => money.fees.units(),
            Self::Signals => -i128::from(tally.signals),
            Self::Orders => -i128::from(tally.orders),
            Self::Fills => -i128::from(tally.fills),
            Self::Refusals => i128::from(tally.refusals),
            Self::Number => i128::from(outcome.setting.number),
        }
    }
}

/// A backtest that is over.
pub struct Report<'a> {
    /// The pipeline.
    pub pipeline: &'a str,
    /// The pipeline file.
    pub file: &'a str,
    /// Order of the inputs.
    pub order: &'a str,
    /// Options of `reprocess` that take the same inputs.
    pub again: String,
    /// The settings.
    pub grid: &'a Grid,
    /// Those that are done, best first.
    pub outcomes: Vec<Outcome>,
    /// The currency that is shown where there is room for one.
    pub currency: SmolStr,
    /// What they are sorted by.
    pub sort: SortBy,
    /// Input records, and the bytes that they take of memory.
    pub inputs: (u64, u64),
    /// Settings that ran at a time.
    pub workers: usize,
    /// How long all of it took.
    pub wall: Duration,
    /// Whether it was told to stop.
    pub stopped: bool,
}

impl Report<'_> {
    /// Sorts the outcomes. Without a currency, the one with the most fills is shown.
    pub fn sorted(mut self, currency: Option<SmolStr>) -> Self {
        let mut counts: BTreeMap<&SmolStr, u64> = BTreeMap::new();
        for (name, money) in self.outcomes.iter().flat_map(|outcome| &outcome.tally.money) {
            *counts.entry(name).or_default() += money.fills;
        }
        let most = counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(name, _)| name.clone());
        self.currency = currency.or(most).unwrap_or_default();
        let (sort, currency) = (self.sort, self.currency.clone());
        self.outcomes.sort_by_key(|outcome| (sort.rank(outcome, &currency), outcome.setting.number));
        self
    }

    /// Virtual time that the settings ran over.
    pub fn span(&self) -> Option<(EventTime, EventTime)> {
        let spans = self.outcomes.iter().filter_map(|outcome| outcome.span_ms);
        let whole = spans.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))?;
        Some((EventTime::from_ms(whole.0), EventTime::from_ms(whole.1)))
    }

    /// What is to be borne in mind.
    pub fn warning(&self) -> Option<String> {
        let tried = self.outcomes.len();
        (tried > 1).then(|| {
            format!(
                "{} settings were tried on one stretch of time. The best of many is good partly by chance: choose on one \
                 stretch, and judge by another that was not used for choosing",
                grouped(tried as u64)
            )
        })
    }

    /// All currencies that came up.
    fn currencies(&self) -> Vec<SmolStr> {
        let mut all: Vec<SmolStr> =
            self.outcomes.iter().flat_map(|outcome| outcome.tally.money.keys().cloned()).collect();
        all.sort();
        all.dedup();
        all
    }
}

/// A setting's money in a currency; nothing where it traded none.
pub fn money_of(outcome: &Outcome, currency: &str) -> Money {
    outcome.tally.money.get(currency).cloned().unwrap_or_default()
}

/// An amount as people read it: to eight places, without what is not needed.
pub fn plain(amount: Amount) -> String {
    let units = amount.units();
    let (whole, rest) = (units.unsigned_abs() / 1_000_000_000_000, units.unsigned_abs() % 1_000_000_000_000);
    let places = if whole >= 1 { 2 } else { 8 };
    let scale = 10_u128.pow(12 - places);
    let mut rounded = whole * 10_u128.pow(places) + (rest + scale / 2) / scale;
    let sign = if units < 0 && rounded > 0 { "-" } else { "" };
    let base = 10_u128.pow(places);
    let fraction = rounded % base;
    rounded /= base;
    let width = places as usize;
    if whole == 0 && fraction == 0 && rounded == 0 {
        return "0.00".to_owned();
    }
    format!("{sign}{rounded}.{fraction:0width$}")
}

/// Writes a table; at most `top` rows.
///
/// # Errors
/// When it can not be written.
pub fn text(out: &mut dyn Write, report: &Report<'_>, top: usize) -> io::Result<()> {
    let span = report.span().map_or(String::new(), |(from, to)| format!(", {from} to {to}"));
    writeln!(
        out,
        "{}: {} of {} settings over {} input records by {}{span}",
        report.pipeline,
        grouped(report.outcomes.len() as u64),
        grouped(report.grid.settings.len() as u64),
        grouped(report.inputs.0),
        report.order,
    )?;
    let names = report.grid.parameters.iter().map(|one| (one.name.as_str(), Align::Right));
    let money = format!("pnl {}", report.currency);
    let figures = [money.as_str()].into_iter().chain(FIGURES);
    let columns: Vec<(&str, Align)> = names.chain(figures.map(|name| (name, Align::Right))).collect();
    let mut table = Table::new(&columns);
    for outcome in report.outcomes.iter().take(top) {
        let (money, tally) = (money_of(outcome, &report.currency), &outcome.tally);
        let amounts =
            [money.pnl(), money.realised, money.unrealised, money.fees, money.max_drawdown, money.turnover];
        let counts = [tally.signals, tally.orders, tally.fills, tally.refusals, per_second(outcome)];
        let digest = tally.digest().to_hex()[..12].to_owned();
        let cells = outcome.setting.values.iter().cloned().chain(amounts.map(plain));
        table.row(cells.chain(counts.map(grouped)).chain([digest]));
    }
    table.write(out, "")?;
    if report.outcomes.len() > top {
        writeln!(out, "and {} more; `--top N` shows them", grouped((report.outcomes.len() - top) as u64))?;
    }
    writeln!(
        out,
        "{:.1} s, {} settings at a time; inputs take {} MiB{}",
        report.wall.as_secs_f64(),
        report.workers,
        report.inputs.1.div_ceil(1 << 20),
        peak_memory()
            .map_or(String::new(), |bytes| format!(", the process took at most {} MiB", bytes >> 20)),
    )?;
    if let Some(best) = report.outcomes.first() {
        let variables = report.grid.as_variables(&best.setting);
        let mut file = Words::default();
        file.word(report.file);
        let words = [&variables, "tidewire reprocess", &file.text(), "--into best", &report.again];
        let words: Vec<&str> = words.into_iter().filter(|words| !words.is_empty()).collect();
        writeln!(out, "keep the first one: {}", words.join(" "))?;
    }
    if let Some(warning) = report.warning() {
        writeln!(out, "warning: {warning}")?;
    }
    if report.stopped {
        writeln!(out, "stopped before the end: settings that were not done are left out")?;
    }
    Ok(())
}

/// Writes one JSON object.
///
/// # Errors
/// When it can not be written.
pub fn json(out: &mut dyn Write, report: &Report<'_>) -> io::Result<()> {
    let settings: Vec<Value> = report.outcomes.iter().map(|outcome| of_outcome(report, outcome)).collect();
    let span = report.span();
    let whole = json!({
        "pipeline": report.pipeline,
        "order": report.order,
        "virtual_from": span.map(|(from, _)| from.to_string()),
        "virtual_to": span.map(|(_, to)| to.to_string()),
        "input_records": report.inputs.0,
        "input_bytes": report.inputs.1,
        "settings_of_grid": report.grid.of,
        "settings_chosen": report.grid.settings.len(),
        "settings_done": report.outcomes.len(),
        "stopped": report.stopped,
        "workers": report.workers,
        "wall_ms": millis(report.wall),
        "peak_memory_bytes": peak_memory(),
        "currency": report.currency.as_str(),
        "warning": report.warning(),
        "settings": settings,
    });
    serde_json::to_writer(&mut *out, &whole)?;
    writeln!(out)
}

fn of_outcome(report: &Report<'_>, outcome: &Outcome) -> Value {
    let tally = &outcome.tally;
    let names = report.grid.parameters.iter().map(|one| one.name.clone());
    let parameters: BTreeMap<String, &String> = names.zip(&outcome.setting.values).collect();
    let money: BTreeMap<&str, Value> = tally
        .money
        .iter()
        .map(|(currency, money)| {
            let figures = json!({
                "pnl": money.pnl().to_string(),
                "realised": money.realised.to_string(),
                "unrealised": money.unrealised.to_string(),
                "fees": money.fees.to_string(),
                "max_drawdown": money.max_drawdown.to_string(),
                "turnover": money.turnover.to_string(),
                "fills": money.fills,
            });
            (currency.as_str(), figures)
        })
        .collect();
    json!({
        "number": outcome.setting.number,
        "parameters": parameters,
        "money": money,
        "signals": tally.signals,
        "orders": tally.orders,
        "fills": tally.fills,
        "refusals": tally.refusals,
        "outputs": tally.outputs,
        "records": outcome.records,
        "faults": outcome.faults,
        "wall_ms": millis(outcome.wall),
        "records_per_second": per_second(outcome),
        "digest": tally.digest().to_hex().as_str(),
    })
}

/// Writes one line for each setting, below a line of names.
///
/// # Errors
/// When it can not be written.
pub fn csv(out: &mut dyn Write, report: &Report<'_>) -> io::Result<()> {
    let currencies = report.currencies();
    let mut heads: Vec<String> = vec!["number".to_owned()];
    heads.extend(report.grid.parameters.iter().map(|one| one.name.clone()));
    for currency in &currencies {
        let figures = ["pnl", "realised", "unrealised", "fees", "max_drawdown", "turnover"];
        heads.extend(figures.map(|figure| format!("{figure}_{currency}")));
    }
    heads.extend(
        ["signals", "orders", "fills", "refusals", "outputs", "records", "faults", "wall_ms", "digest"]
            .map(str::to_owned),
    );
    line(out, &heads)?;
    for outcome in &report.outcomes {
        let tally = &outcome.tally;
        let mut cells = vec![outcome.setting.number.to_string()];
        cells.extend(outcome.setting.values.iter().cloned());
        for currency in &currencies {
            let money = money_of(outcome, currency);
            let figures = [
                money.pnl(),
                money.realised,
                money.unrealised,
                money.fees,
                money.max_drawdown,
                money.turnover,
            ];
            cells.extend(figures.map(|figure| figure.to_string()));
        }
        let counts = [
            tally.signals,
            tally.orders,
            tally.fills,
            tally.refusals,
            tally.outputs,
            outcome.records,
            outcome.faults,
        ];
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(millis(outcome.wall).to_string());
        cells.push(tally.digest().to_hex().to_string());
        line(out, &cells)?;
    }
    Ok(())
}

fn line(out: &mut dyn Write, cells: &[String]) -> io::Result<()> {
    let cell = |cell: &String| {
        if cell.contains([',', '"', '\n']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.clone()
        }
    };
    writeln!(out, "{}", cells.iter().map(cell).collect::<Vec<_>>().join(","))
}

/// Input records a second, over all stages.
pub fn per_second(outcome: &Outcome) -> u64 {
    let micros = outcome.wall.as_micros().max(1);
    u64::try_from(u128::from(outcome.records) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The most memory that the process had at any time, in bytes, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn amounts_are_rounded_for_people() {
        for (exact, shown) in [
            ("0", "0.00"),
            ("-12.345678", "-12.35"),
            ("1999.999", "2000.00"),
            ("0.000123456789", "0.00012346"),
            ("-0.000000000001", "0.00"),
        ] {
            assert_eq!(plain(exact.parse().unwrap()), shown);
        }
    }
}
