//! The demo's live lines and its summary.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use tidewire_runtime::synchronised::SyncSummary;
use tidewire_schemas::{Amount, EventTime, Rounding};

use super::tally::Tally;
use crate::table::{Align, Table, grouped};

/// Lines that are redrawn while the run goes on.
pub fn live(virtual_ms: i64, tally: &Tally) -> String {
    let mut lines = vec![format!(
        "{}  {} records  {} signals  {} orders approved  {} refused  {} fills",
        EventTime::from_ms(virtual_ms),
        grouped(tally.records),
        tally.signals.values().sum::<u64>(),
        tally.approved,
        tally.refused.values().sum::<u64>(),
        tally.fills
    )];
    for (instrument, mark) in &tally.marks {
        lines.push(format!("  {instrument:<26} {mark}"));
    }
    if let Some(signal) = &tally.last_signal {
        let (direction, instrument) = (signal.direction, &signal.instrument);
        lines.push(format!("  last signal: {direction} {instrument}, strength {:.2}", signal.strength));
    }
    lines.join("\n")
}

/// The summary for people.
pub fn summary(out: &mut dyn Write, tally: &Tally, summary: &SyncSummary, dir: &Path) -> io::Result<()> {
    writeln!(out, "Records by topic")?;
    let mut table = Table::new(&[("topic", Align::Left), ("records", Align::Right)]);
    for (topic, count) in &tally.by_topic {
        table.row([topic.to_string(), grouped(*count)]);
    }
    table.write(out, "  ")?;

    writeln!(out, "\nSignals: {}", counts(tally.signals.iter().map(|(name, count)| (*name, *count))))?;
    let orders = tally.orders_by_status();
    writeln!(
        out,
        "Orders:  {}; {} fills",
        counts(orders.iter().map(|(name, count)| (*name, *count))),
        tally.fills
    )?;
    writeln!(out, "Refused: {}", counts(tally.refused.iter().map(|(name, count)| (name.as_str(), *count))))?;
    let alerts = tally
        .alerts
        .iter()
        .map(|((kind, state), count)| (format!("{kind} {}", state.to_lowercase()), *count));
    let alerts: Vec<(String, u64)> = alerts.collect();
    writeln!(out, "Alerts:  {}", counts(alerts.iter().map(|(name, count)| (name.as_str(), *count))))?;

    writeln!(out, "\nProfit and loss at the last marks")?;
    let right = Align::Right;
    let columns = [
        ("account", Align::Left),
        ("realised", right),
        ("unrealised", right),
        ("fees", right),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for ((account, currency), books) in tally.books() {
        let amounts = [books.realised, books.unrealised, books.fees].map(shown);
        table.row([account.to_string()].into_iter().chain(amounts).chain([currency.to_string()]));
    }
    table.write(out, "  ")?;

    let seconds = tally.wall.as_secs_f64().max(1e-9);
    writeln!(
        out,
        "\n{} records over all stages in {seconds:.1} s: {} a second; rounds of 1 s of virtual time take p50 {:.1} ms, \
         p99 {:.1} ms from read to commit",
        grouped(summary.records),
        grouped(per_second(summary.records, seconds)),
        ms(tally.latency_us(0.5)),
        ms(tally.latency_us(0.99)),
    )?;
    if let Some((from_ms, to_ms)) = summary.span_ms {
        writeln!(out, "Virtual time {} to {}", EventTime::from_ms(from_ms), EventTime::from_ms(to_ms))?;
    }
    for note in &tally.notes {
        writeln!(out, "Note: {note}")?;
    }
    if summary.stopped {
        writeln!(out, "Stopped before the end of the recordings.")?;
    }
    next_steps(out, dir)
}

fn next_steps(out: &mut dyn Write, dir: &Path) -> io::Result<()> {
    let dir = dir.display();
    writeln!(out, "\nThe log is in {dir}. What to try next:")?;
    writeln!(out, "  tidewire --data {dir} tail signals.v1")?;
    writeln!(out, "  tidewire --data {dir} tail risk.decisions.v1 --json --limit 3")?;
    writeln!(out, "  tidewire --data {dir} status            shows where each task stands")?;
    writeln!(out, "  tidewire --data {dir} verify            runs every epoch again and compares each byte")?;
    writeln!(out, "  tidewire check market-intel             draws the pipeline that ran")
}

/// The summary for scripts.
pub fn json(tally: &Tally, summary: &SyncSummary, dir: &Path) -> Value {
    let books = tally.books();
    let books = books.iter().map(|((account, currency), books)| {
        json!({
            "account": account,
            "currency": currency,
            "realised": books.realised.to_string(),
            "unrealised": books.unrealised.to_string(),
            "fees": books.fees.to_string(),
        })
    });
    let alerts = tally
        .alerts
        .iter()
        .map(|((kind, state), count)| json!({ "kind": kind, "state": state, "count": count }));
    json!({
        "data": dir.display().to_string(),
        "by_topic": tally.by_topic,
        "signals": tally.signals,
        "orders": tally.orders_by_status(),
        "approved": tally.approved,
        "refused": tally.refused,
        "fills": tally.fills,
        "alerts": alerts.collect::<Vec<_>>(),
        "profit_and_loss": books.collect::<Vec<_>>(),
        "records": summary.records,
        "outputs": summary.outputs,
        "faults": summary.faults,
        "wall_s": tally.wall.as_secs_f64(),
        "round_p50_us": tally.latency_us(0.5),
        "round_p99_us": tally.latency_us(0.99),
        "span_ms": summary.span_ms,
        "notes": tally.notes,
        "stopped": summary.stopped,
    })
}

fn counts<'a>(parts: impl Iterator<Item = (&'a str, u64)>) -> String {
    let parts: Vec<(&str, u64)> = parts.collect();
    if parts.is_empty() {
        return "none".to_owned();
    }
    let total: u64 = parts.iter().map(|(_, count)| count).sum();
    let list: Vec<String> = parts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!("{total} ({})", list.join(", "))
}

/// An amount to four places: enough to read, the log has all of them.
fn shown(amount: Amount) -> String {
    let step = "0.0001".parse::<Amount>();
    let rounded = step.ok().and_then(|step| amount.round_to(step, Rounding::HalfEven).ok());
    rounded.unwrap_or(amount).to_string()
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a figure for people"
)]
fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds) as u64
}
