//! What a run came to, counted as it is written.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use smol_str::SmolStr;
use tidewire_runtime::synchronised::Progress;
use tidewire_schemas::{Alert, Amount, Order, Position, Record, RiskDecision, SchemaBook, Signal};

/// Longest round that is told apart, in microseconds: a minute.
const MAX_LATENCY_US: u64 = 60_000_000;

/// Profit and loss of an account in one currency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Realised by closing.
    pub realised: Amount,
    /// At the last marks.
    pub unrealised: Amount,
    /// Paid to the venue.
    pub fees: Amount,
}

/// Counts of a run.
#[derive(Default)]
pub struct Tally {
    /// Records by topic, those imported among them.
    pub by_topic: BTreeMap<SmolStr, u64>,
    /// Input records taken, over all stages.
    pub records: u64,
    /// Signals by direction.
    pub signals: BTreeMap<&'static str, u64>,
    /// The newest signal, for the live table.
    pub last_signal: Option<Signal>,
    /// Last status of each order.
    orders: BTreeMap<SmolStr, Order>,
    /// Decisions: approved, and refused by reason.
    pub approved: u64,
    /// Refused intents by reason.
    pub refused: BTreeMap<SmolStr, u64>,
    /// Fills.
    pub fills: u64,
    /// Alerts by kind and state.
    pub alerts: BTreeMap<(SmolStr, &'static str), u64>,
    positions: BTreeMap<(SmolStr, SmolStr), Position>,
    /// Last marks by instrument, for the live table.
    pub marks: BTreeMap<SmolStr, tidewire_schemas::Price>,
    /// What is to be said of the inputs.
    pub notes: Vec<String>,
    /// Virtual time at which the inputs end, in milliseconds.
    pub ends_ms: i64,
    /// Wall time of the run.
    pub wall: Duration,
    latency: Option<Histogram<u64>>,
}

impl Tally {
    /// Counts what a round wrote.
    pub fn take(&mut self, progress: &Progress<'_>, book: &SchemaBook) {
        self.records += progress.records;
        let latency = self.latency.get_or_insert_with(histogram);
        // Values beyond the bound count as the bound.
        latency.saturating_record(progress.round_us + progress.commit_us);
        for (at, records) in progress.written {
            *self.by_topic.entry(at.topic.clone()).or_default() += records.len() as u64;
            if at.topic.ends_with(".changelog") || at.topic.ends_with(".epochs") {
                continue;
            }
            for record in records {
                if let Some(Ok(record)) = record.value.as_deref().map(|value| book.decode(value)) {
                    self.count(record);
                }
            }
        }
    }

    fn count(&mut self, record: Record) {
        match record {
            Record::Signal(signal) => {
                *self.signals.entry(signal.direction.name()).or_default() += 1;
                self.last_signal = Some(take(signal));
            }
            Record::RiskDecision(decision) => self.decided(&decision),
            Record::Order(order) => {
                self.orders.insert(order.order_id.clone(), take(order));
            }
            Record::ExecutionReport(report) => self.fills += u64::from(report.exec_type.name() == "TRADE"),
            Record::Alert(alert) => self.alerted(&alert),
            Record::Position(position) => {
                let key = (position.account.clone(), position.instrument.clone());
                self.positions.insert(key, take(position));
            }
            Record::MarkPrice(mark) => {
                self.marks.insert(mark.instrument.clone(), mark.mark);
            }
            _ => {}
        }
    }

    fn decided(&mut self, decision: &RiskDecision) {
        if decision.approved {
            self.approved += 1;
        } else {
            let reason = decision.checks.iter().find(|check| check.verdict.name() == "FAIL");
            let reason = reason.map(|check| check.check.clone()).or_else(|| decision.reason.clone());
            *self.refused.entry(reason.unwrap_or_else(|| "no reason given".into())).or_default() += 1;
        }
    }

    fn alerted(&mut self, alert: &Alert) {
        *self.alerts.entry((alert.kind.clone(), alert.state.name())).or_default() += 1;
    }

    /// Orders by their last status.
    pub fn orders_by_status(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for order in self.orders.values() {
            *counts.entry(order.status.name()).or_default() += 1;
        }
        counts
    }

    /// Profit and loss by account and currency.
    pub fn books(&self) -> BTreeMap<(SmolStr, SmolStr), Books> {
        let mut books: BTreeMap<_, Books> = BTreeMap::new();
        for position in self.positions.values() {
            let entry = books.entry((position.account.clone(), position.currency.clone())).or_default();
            // Sums beyond the range of money can not come of a sample.
            let add = |sum: &mut Amount, part: Amount| *sum = sum.checked_add(part).unwrap_or(*sum);
            add(&mut entry.realised, position.realised_pnl);
            add(&mut entry.unrealised, position.unrealised_pnl);
            add(&mut entry.fees, position.fees);
        }
        books
    }

    /// Wall time of a round from read to commit, in microseconds, at a share of all rounds (0 to 1).
    pub fn latency_us(&self, share: f64) -> u64 {
        self.latency.as_ref().map_or(0, |latency| latency.value_at_quantile(share))
    }
}

/// Records may be boxed: either way this is the record.
fn take<T, R: Into<Unboxed<T>>>(record: R) -> T {
    record.into().0
}

struct Unboxed<T>(T);

impl<T> From<T> for Unboxed<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> From<Box<T>> for Unboxed<T> {
    fn from(value: Box<T>) -> Self {
        Self(*value)
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(MAX_LATENCY_US, 3).unwrap_or_else(|_| Histogram::new_from(&default_histogram()))
}

fn default_histogram() -> Histogram<u64> {
    // Three digits are within what the library takes: this is for the type only.
    #[expect(clippy::expect_used, reason = "constants, not input")]
    Histogram::new(3).expect("three significant digits are allowed")
}
