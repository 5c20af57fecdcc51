//! How to import a file.

use crate::binance::Venue;
use smol_str::SmolStr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use tidewire_schemas::EventTime;

/// How to import a file. The default finds out by itself what it can.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Format of the file; without it the first line tells.
    pub format: Option<Format>,
    /// Binance market of a capture; without it the messages tell.
    pub venue: Option<Venue>,
    /// Instrument of a file that does not name it: a CSV file without that column, a capture of snapshots only.
    /// For a capture it names the venue too.
    pub instrument: Option<SmolStr>,
    /// CSV file of instruments beyond those that ship; see `docs/import.md`.
    pub instruments: Option<PathBuf>,
    /// Venue's clock less the recorder's, in microseconds; without it, it is estimated where a message has no time.
    pub venue_offset_us: Option<i64>,
    /// Length of the bars of a CSV file that does not tell it, in milliseconds. More than 0.
    pub bar_interval_ms: Option<i64>,
    /// First and last time to which the published times of a news file are mapped, in a straight line.
    pub news_span: Option<(EventTime, EventTime)>,
    /// From publication of news to its receipt, in milliseconds. 0 or more.
    pub news_delay_ms: i64,
}

/// Formats of recorded feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `<receive time> <json>` lines of Binance's websocket streams and REST snapshots.
    BinanceCapture,
    /// CSV of news, with or without sentiment.
    News,
    /// CSV of trades.
    Trades,
    /// CSV of bars.
    Bars,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::BinanceCapture, Format::News, Format::Trades, Format::Bars];

    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Format::BinanceCapture => "binance",
            Format::News => "news",
            Format::Trades => "trades",
            Format::Bars => "bars",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        Format::ALL
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| format!("`{text}` is no format; use one of binance, news, trades, bars"))
    }
}
