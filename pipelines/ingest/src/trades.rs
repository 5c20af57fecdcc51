//! CSV of trades: `time,price,quantity` and, where they are there, `instrument`, `received_time`, `trade_id`,
//! `aggressor`, `market`. The layout is in `docs/import.md`.

use crate::columns::{Columns, Row};
use crate::error::ImportError;
use crate::feed::{CsvFeed, TakeRow};
use crate::importer::instrument_column;
use crate::lines::Lines;
use crate::options::ImportOptions;
use crate::output::Output;
use crate::reject::RejectReason;
use smol_str::SmolStr;
use tidewire_schemas::{Aggressor, EventTime, Price, Quantity, ReceivedTime, Trade, topics};

/// Reader of one file of trades.
pub(crate) struct Trades {
    layout: Layout,
    instrument: SmolStr,
}

struct Layout {
    instrument: Option<usize>,
    time: usize,
    received_time: Option<usize>,
    trade_id: Option<usize>,
    price: usize,
    quantity: usize,
    aggressor: Option<usize>,
    market: Option<usize>,
}

impl Trades {
    /// Reads the header.
    pub fn open(
        lines: &mut Lines,
        options: &ImportOptions,
        out: &mut Output,
    ) -> Result<CsvFeed<Trades>, ImportError> {
        let mut columns = Columns::read(lines)?;
        let layout = Layout {
            instrument: instrument_column(&mut columns, options)?,
            time: columns.need(&["time", "event_time", "timestamp"])?,
            received_time: columns.find(&["received_time"]),
            trade_id: columns.find(&["trade_id", "id"]),
            price: columns.need(&["price"])?,
            quantity: columns.need(&["quantity", "qty"])?,
            aggressor: columns.find(&["aggressor", "side"]),
            market: columns.find(&["market"]),
        };
        let instrument = options.instrument.clone().unwrap_or_default();
        Ok(CsvFeed::new(lines, columns, Trades { layout, instrument }, out))
    }
}

impl TakeRow for Trades {
    fn take(&self, line: u64, row: &Row<'_>, out: &mut Output) -> Result<(), RejectReason> {
        let layout = &self.layout;
        let event_ns = row.nanos(layout.time)?;
        let received_ns = row.nanos_of(layout.received_time)?.unwrap_or(event_ns);
        let price = row.parse::<Price>(layout.price)?;
        let quantity = row.parse::<Quantity>(layout.quantity)?;
        if !price.is_positive() {
            return Err(row.bad(layout.price, "must be positive"));
        }
        if !quantity.is_positive() {
            return Err(row.bad(layout.quantity, "must be positive"));
        }
        let instrument = match row.text_of(layout.instrument) {
            Some(text) => SmolStr::new(text),
            None => self.instrument.clone(),
        };
        let trade = Trade {
            instrument: instrument.clone(),
            event_time: EventTime::from_micros(event_ns.div_euclid(1_000)),
            received_time: ReceivedTime::from_nanos(received_ns),
            trade_id: row.parse_of(layout.trade_id)?.unwrap_or(i64::try_from(line).unwrap_or(i64::MAX)),
            price,
            quantity,
            aggressor: aggressor(row, layout.aggressor)?,
            market: row.parse_of::<bool>(layout.market)?.unwrap_or(true),
        };
        out.summary.note_received(line, received_ns);
        out.announce(line, &instrument, trade.event_time, received_ns)?;
        out.record(line, topics::TICKS, instrument, received_ns, trade);
        Ok(())
    }
}

fn aggressor(row: &Row<'_>, column: Option<usize>) -> Result<Aggressor, RejectReason> {
    let Some(column) = column else {
        return Ok(Aggressor::Unknown);
    };
    match row.text(column).to_ascii_lowercase().as_str() {
        "buyer" | "buy" => Ok(Aggressor::Buyer),
        "seller" | "sell" => Ok(Aggressor::Seller),
        "" | "unknown" => Ok(Aggressor::Unknown),
        _ => Err(row.bad(column, "use buy, sell or unknown: whose order took liquidity")),
    }
}
