//! CSV of time bars: `window_start,open,high,low,close,volume` and, where they are there, `instrument`,
//! `window_end` or `interval_ms`, `received_time`, `buy_volume`, `notional`, `vwap`, `trade_count`. The layout is in
//! `docs/import.md`.

use crate::columns::{Columns, Row};
use crate::error::ImportError;
use crate::feed::{CsvFeed, TakeRow};
use crate::importer::instrument_column;
use crate::lines::Lines;
use crate::options::ImportOptions;
use crate::output::Output;
use crate::reject::RejectReason;
use smol_str::SmolStr;
use tidewire_schemas::{Amount, Bar, BarKind, EventTime, Price, Quantity, topics};

/// What is known of a file of bars.
pub(crate) struct Bars {
    layout: Layout,
    instrument: SmolStr,
    interval_ms: Option<i64>,
}

struct Layout {
    instrument: Option<usize>,
    window_start: usize,
    window_end: Option<usize>,
    interval_ms: Option<usize>,
    received_time: Option<usize>,
    open: usize,
    high: usize,
    low: usize,
    close: usize,
    volume: usize,
    buy_volume: Option<usize>,
    notional: Option<usize>,
    vwap: Option<usize>,
    trade_count: Option<usize>,
}

impl Bars {
    /// Reads the header.
    pub fn open(
        lines: &mut Lines,
        options: &ImportOptions,
        out: &mut Output,
    ) -> Result<CsvFeed<Bars>, ImportError> {
        let mut columns = Columns::read(lines)?;
        let layout = Layout {
            instrument: instrument_column(&mut columns, options)?,
            window_start: columns.need(&["window_start", "open_time", "time", "timestamp"])?,
            window_end: columns.find(&["window_end"]),
            interval_ms: columns.find(&["interval_ms"]),
            received_time: columns.find(&["received_time"]),
            open: columns.need(&["open"])?,
            high: columns.need(&["high"])?,
            low: columns.need(&["low"])?,
            close: columns.need(&["close"])?,
            volume: columns.need(&["volume"])?,
            buy_volume: columns.find(&["buy_volume"]),
            notional: columns.find(&["notional"]),
            vwap: columns.find(&["vwap"]),
            trade_count: columns.find(&["trade_count"]),
        };
        if layout.window_end.is_none() && layout.interval_ms.is_none() && options.bar_interval_ms.is_none() {
            let problem = "no column `window_end` or `interval_ms`: name the length of the bars";
            return Err(columns.error(problem.to_owned()));
        }
        let instrument = options.instrument.clone().unwrap_or_default();
        let bars = Bars { layout, instrument, interval_ms: options.bar_interval_ms };
        Ok(CsvFeed::new(lines, columns, bars, out))
    }

    fn window(&self, row: &Row<'_>) -> Result<(EventTime, EventTime), RejectReason> {
        let micros = |nanos: i64| EventTime::from_micros(nanos.div_euclid(1_000));
        let start = micros(row.nanos(self.layout.window_start)?);
        let interval_ms = row.parse_of::<i64>(self.layout.interval_ms)?;
        let end = match (row.nanos_of(self.layout.window_end)?, interval_ms.or(self.interval_ms)) {
            (Some(nanos), _) => micros(nanos),
            (None, Some(ms)) => start.plus_ms(ms),
            (None, None) => {
                return Err(row.bad(self.layout.window_start, "neither its end nor its length is there"));
            }
        };
        if end <= start {
            return Err(
                row.bad(self.layout.window_start, format!("the window ends at {end}, not after it begins"))
            );
        }
        if let Some(ms) = interval_ms
            && start.plus_ms(ms) != end
        {
            let problem = format!("from {start} to {end} are not {ms} ms");
            return Err(row.bad(self.layout.window_start, problem));
        }
        Ok((start, end))
    }

    fn volume(&self, row: &Row<'_>, column: usize) -> Result<Quantity, RejectReason> {
        let volume = row.parse::<Quantity>(column)?;
        if volume.is_negative() {
            return Err(row.bad(column, "must not be negative"));
        }
        Ok(volume)
    }

    /// Notional and VWAP; the one from the other where only one is there; none where neither is.
    fn notional(&self, row: &Row<'_>, volume: Quantity) -> Result<Option<(Amount, Price)>, RejectReason> {
        let notional = row.parse_of::<Amount>(self.layout.notional)?;
        let vwap = row.parse_of::<Price>(self.layout.vwap)?;
        let overflow = |e| RejectReason::Contradiction(format!("notional or VWAP: {e}"));
        Ok(match (notional, vwap) {
            (Some(notional), Some(vwap)) => Some((notional, vwap)),
            (Some(notional), None) if volume.is_zero() => Some((notional, Price::ZERO)),
            (Some(notional), None) => Some((notional, notional.checked_div(volume).map_err(overflow)?)),
            (None, Some(vwap)) => Some((vwap.checked_mul(volume).map_err(overflow)?, vwap)),
            (None, None) => None,
        })
    }
}

impl TakeRow for Bars {
    fn take(&self, line: u64, row: &Row<'_>, out: &mut Output) -> Result<(), RejectReason> {
        let layout = &self.layout;
        let (window_start, window_end) = self.window(row)?;
        let mut prices = [Price::ZERO; 4];
        for (price, column) in prices.iter_mut().zip([layout.open, layout.high, layout.low, layout.close]) {
            *price = row.parse::<Price>(column)?;
            if !price.is_positive() {
                return Err(row.bad(column, "must be positive"));
            }
        }
        let [open, high, low, close] = prices;
        if high < open.max(close).max(low) {
            return Err(row.bad(layout.high, "is not the highest price of the bar"));
        }
        if low > open.min(close) {
            return Err(row.bad(layout.low, "is not the lowest price of the bar"));
        }
        let volume = self.volume(row, layout.volume)?;
        let buy_volume = match layout.buy_volume.filter(|&column| !row.text(column).is_empty()) {
            Some(column) => self.volume(row, column)?,
            None => Quantity::ZERO,
        };
        if buy_volume > volume {
            return Err(RejectReason::Contradiction(format!(
                "buy volume {buy_volume} is greater than volume {volume}"
            )));
        }
        let known = self.notional(row, volume)?;
        let (notional, vwap) = known.unwrap_or_default();
        let received_ns = match row.nanos_of(layout.received_time)? {
            Some(nanos) => nanos,
            None => window_end
                .as_micros()
                .checked_mul(1_000)
                .ok_or_else(|| row.bad(layout.window_start, "the window ends after the year 2262"))?,
        };
        let instrument = match row.text_of(layout.instrument) {
            Some(text) => SmolStr::new(text),
            None => self.instrument.clone(),
        };
        let bar = Bar {
            instrument: instrument.clone(),
            event_time: window_end,
            bar_kind: BarKind::Time,
            window_start,
            window_end,
            interval_ms: window_end.micros_since(window_start) / 1_000,
            open,
            high,
            low,
            close,
            volume,
            buy_volume,
            notional,
            vwap,
            trade_count: row.parse_of(layout.trade_count)?.unwrap_or(0),
            revision: 0,
            is_final: true,
        };
        out.announce(line, &instrument, bar.event_time, received_ns)?;
        out.summary.note_received(line, received_ns);
        out.summary.bars_without_notional += u64::from(known.is_none());
        out.record(line, topics::BARS, instrument, received_ns, bar);
        Ok(())
    }
}
