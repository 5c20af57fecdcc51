//! The topics: names, keys, and the records that may be on them.

use crate::generated::Kind;

/// Trades, quotes and order books.
pub const TICKS: &str = "market.ticks.v1";
/// News.
pub const NEWS: &str = "market.news.v1";
/// Sentiment scores.
pub const SENTIMENT: &str = "market.sentiment.v1";
/// Descriptions of instruments.
pub const INSTRUMENTS: &str = "reference.instruments.v1";
/// Bars.
pub const BARS: &str = "features.bars.v1";
/// Feature vectors.
pub const FEATURES: &str = "features.values.v1";
/// Signals.
pub const SIGNALS: &str = "signals.v1";
/// Mark prices.
pub const MARKS: &str = "marks.v1";
/// Order intents.
pub const INTENTS: &str = "intents.v1";
/// States of orders.
pub const ORDERS: &str = "orders.v1";
/// Commands to a venue.
pub const VENUE_COMMANDS: &str = "venue.commands.v1";
/// Execution reports.
pub const EXECUTIONS: &str = "executions.v1";
/// Positions.
pub const POSITIONS: &str = "positions.v1";
/// Cash balances.
pub const CASH: &str = "cash.v1";
/// Risk limits.
pub const RISK_LIMITS: &str = "risk.limits.v1";
/// Control commands.
pub const CONTROL: &str = "control.v1";
/// Decisions of the pre-trade checks.
pub const RISK_DECISIONS: &str = "risk.decisions.v1";
/// Portfolio risk.
pub const RISK_METRICS: &str = "risk.metrics.v1";
/// Alerts.
pub const ALERTS: &str = "alerts.v1";
/// Records that missed their window.
pub const LATE: &str = "late.v1";
/// Records that could not be processed.
pub const DEAD_LETTERS: &str = "dead-letters.v1";

/// What is known of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: &'static str,
    /// Parts of the key, joined by `/`; partitioned by the first. Empty: as the source's.
    pub key: &'static [&'static str],
    /// Records that may be on it.
    pub kinds: &'static [Kind],
    /// Whether only the last record of a key is kept in the end.
    pub compacted: bool,
    /// Whether every task reads it whole.
    pub broadcast: bool,
    /// Whether it is taken before any data at hand.
    pub control: bool,
}

const KEYED: Topic =
    Topic { name: "", key: &["instrument"], kinds: &[], compacted: false, broadcast: false, control: false };
const BY_ACCOUNT: Topic = Topic { key: &["account"], ..KEYED };

/// Every topic whose name does not depend on a pipeline.
pub const ALL: &[Topic] = &[
    Topic { name: TICKS, kinds: &[Kind::Trade, Kind::Quote, Kind::BookSnapshot, Kind::BookDelta], ..KEYED },
    Topic { name: NEWS, key: &["subject"], kinds: &[Kind::NewsItem], broadcast: true, ..KEYED },
    Topic { name: SENTIMENT, key: &["asset"], kinds: &[Kind::SentimentScore], broadcast: true, ..KEYED },
    Topic { name: INSTRUMENTS, kinds: &[Kind::Instrument], compacted: true, broadcast: true, ..KEYED },
    Topic { name: BARS, kinds: &[Kind::Bar], ..KEYED },
    Topic { name: FEATURES, kinds: &[Kind::FeatureVector], ..KEYED },
    Topic { name: SIGNALS, kinds: &[Kind::Signal], ..KEYED },
    Topic { name: MARKS, kinds: &[Kind::MarkPrice], compacted: true, broadcast: true, ..KEYED },
    Topic { name: INTENTS, kinds: &[Kind::OrderIntent], ..BY_ACCOUNT },
    Topic { name: ORDERS, kinds: &[Kind::Order], ..BY_ACCOUNT },
    Topic { name: VENUE_COMMANDS, kinds: &[Kind::NewOrder, Kind::CancelOrder, Kind::ReplaceOrder], ..KEYED },
    Topic { name: EXECUTIONS, kinds: &[Kind::ExecutionReport, Kind::OrderCancelReject], ..BY_ACCOUNT },
    Topic {
        name: POSITIONS,
        key: &["account", "instrument"],
        kinds: &[Kind::Position],
        compacted: true,
        ..KEYED
    },
    Topic {
        name: CASH,
        key: &["account", "currency"],
        kinds: &[Kind::CashBalance],
        compacted: true,
        ..KEYED
    },
    Topic {
        name: RISK_LIMITS,
        key: &["account", "strategy", "instrument"],
        kinds: &[Kind::RiskLimits],
        compacted: true,
        control: true,
        ..KEYED
    },
    Topic { name: CONTROL, key: &["scope"], kinds: &[Kind::ControlCommand], control: true, ..KEYED },
    Topic { name: RISK_DECISIONS, kinds: &[Kind::RiskDecision], ..BY_ACCOUNT },
    Topic { name: RISK_METRICS, kinds: &[Kind::RiskMetrics], ..BY_ACCOUNT },
    Topic { name: ALERTS, key: &["scope"], kinds: &[Kind::Alert], ..KEYED },
    Topic { name: LATE, key: &[], kinds: &[Kind::LateRecord], ..KEYED },
    Topic { name: DEAD_LETTERS, key: &[], kinds: &[Kind::DeadLetter], ..KEYED },
];

/// The topic of that name.
pub fn find(name: &str) -> Option<&'static Topic> {
    ALL.iter().find(|topic| topic.name == name)
}

/// Name of a pipeline's journal of epochs.
pub fn epochs(pipeline: &str) -> String {
    format!("{pipeline}.epochs")
}

/// Name of a stage's changelog.
pub fn changelog(pipeline: &str, stage: &str) -> String {
    format!("{pipeline}.{stage}.changelog")
}

/// Subject of a record's schema in a registry, by TopicRecordNameStrategy: `<topic>-<full record name>`.
pub fn subject(topic: &str, kind: Kind) -> String {
    format!("{topic}-{}", kind.full_name())
}
