//! How recorded inputs are taken: the options that `reprocess` and `backtest` have in common.

use std::path::PathBuf;

use clap::ValueEnum;
use tidewire_runtime::reprocess::{Asked, DRAIN_MS, InputOrder, MAX_DISORDER_MS, ReprocessOptions};
use tidewire_schemas::EventTime;

use super::import::Reading;
use crate::reprocess::Limits;
use crate::shell::Words;

/// What of the inputs is taken, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Taking {
    /// Data from the first record of this time on, such as 2024-08-08T23:54:00Z [default: the first that is kept].
    #[arg(long, value_name = "TIME")]
    pub from: Option<EventTime>,
    /// Records up to the first of this time [default: all that are there now].
    #[arg(long, value_name = "TIME")]
    pub to: Option<EventTime>,
    /// The order in which inputs are taken. Only by availability nothing is known before it could be.
    #[arg(long, value_enum, default_value_t = Order::Availability)]
    pub order: Order,
    /// With `--order event`, how far out of order records may come, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = MAX_DISORDER_MS / 1_000,
          value_parser = clap::value_parser!(i64).range(0..=31_536_000))]
    pub max_disorder: i64,
    /// Seconds of virtual time after the last record, in which windows close.
    #[arg(long, value_name = "SECONDS", default_value_t = DRAIN_MS / 1_000,
          value_parser = clap::value_parser!(i64).range(0..=31_536_000))]
    pub drain: i64,
    /// Whose risk limits hold.
    #[arg(long, value_enum, default_value_t = Limits::Log)]
    pub limits: Limits,
    /// Recorded files (text, gzip or Parquet) that are the inputs instead of what the log holds: all that `import` reads.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub reading: Reading,
}

/// The order in which inputs are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// By the time each record was received: what was late is late, and nothing is known before it could be.
    Availability,
    /// By event time, each partition sorted first: nothing is late.
    Event,
    /// By timestamp, each partition as it lies: as `demo` and `run --synchronised` do.
    Recorded,
}

impl From<Order> for InputOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Availability => Self::Availability,
            Order::Event => Self::Event,
            Order::Recorded => Self::Recorded,
        }
    }
}

impl Taking {
    /// As the runtime takes it, with so many threads.
    pub fn options(&self, workers: usize) -> ReprocessOptions {
        ReprocessOptions {
            workers,
            drain_ms: self.drain * 1_000,
            order: self.order.into(),
            asked: Asked {
                from_ms: self.from.map(EventTime::as_ms),
                to_ms: self.to.map(EventTime::as_ms),
                ..Asked::default()
            },
            max_disorder_ms: self.max_disorder * 1_000,
        }
    }

    /// The options as they are written on a command line, but for those that have their defaults.
    pub fn words(&self) -> String {
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned())
        };
        let mut words = Words::default();
        words.option("--from", self.from);
        words.option("--to", self.to);
        let order = (self.order != Order::Availability).then(|| name(&|| self.order.to_possible_value()));
        words.option("--order", order.flatten());
        words.option("--max-disorder", Some(self.max_disorder).filter(|own| *own != MAX_DISORDER_MS / 1_000));
        words.option("--drain", Some(self.drain).filter(|own| *own != DRAIN_MS / 1_000));
        let limits = (self.limits != Limits::Log).then(|| name(&|| self.limits.to_possible_value()));
        words.option("--limits", limits.flatten());
        if !self.files.is_empty() {
            words.option("--files", self.files.first().map(|file| file.display()));
            self.files.iter().skip(1).for_each(|file| words.word(&file.display().to_string()));
            self.reading.words(&mut words);
        }
        words.text()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        taking: Taking,
    }

    fn again(words: &[&str]) -> String {
        Line::try_parse_from([&["x"], words].concat()).unwrap().taking.words()
    }

    #[test]
    fn defaults_need_no_words() {
        assert_eq!(again(&[]), "");
        assert_eq!(again(&["--order", "availability", "--limits", "log"]), "");
    }

    #[test]
    fn what_was_asked_for_is_written_again() {
        let asked = [
            "--from 2024-08-08T23:54:00Z --to 2024-08-09T00:00:00Z --order event --max-disorder 5 --drain 9 --limits file",
            "--files a.gz b.parquet --format bars --instrument BTCUSDT.BINANCE_SPOT --bar-interval-ms 60000",
            "--files news.csv --instruments mine.csv --venue BINANCE_SPOT --venue-offset-us -5 --news-from 2024-08-08T23:54:00Z \
             --news-to 2024-08-09T00:00:00Z --news-delay-ms 7",
        ];
        for line in asked {
            let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            assert_eq!(again(&again(&words).split(' ').collect::<Vec<_>>()), again(&words));
            let (mut found, mut expected): (Vec<_>, Vec<_>) =
                (again(&words).split(' ').map(str::to_owned).collect(), words);
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
    }
}
