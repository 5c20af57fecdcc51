//! What instruments are: the table that ships, and tables of users.

use crate::columns::{Columns, Row};
use crate::csv_record::{NextRecord, next_record};
use crate::error::ImportError;
use crate::limits::MAX_INSTRUMENTS;
use crate::lines::{Expected, Line, Lines};
use crate::reject::RejectReason;
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::path::Path;
use tidewire_schemas::{Amount, AssetClass, EventTime, Instrument, Price, Quantity};

/// The table that ships: the instruments of the sample.
const SHIPPED: &str = include_str!("../data/instruments.csv");

/// Instruments by id. A record of an instrument that is not in it is rejected: sizes and money would be guesses.
#[derive(Clone, Debug, Default)]
pub struct InstrumentTable {
    by_id: BTreeMap<SmolStr, Described>,
}

#[derive(Clone, Debug)]
struct Described {
    instrument: Instrument,
    valid_from: Option<EventTime>,
}

impl InstrumentTable {
    /// The instruments that ship.
    pub fn shipped() -> Result<InstrumentTable, ImportError> {
        let mut table = InstrumentTable::default();
        table.read_lines(&mut Lines::of_text("instruments that ship", SHIPPED))?;
        Ok(table)
    }

    /// Adds the instruments of a CSV or Parquet file; one that is known already is described anew.
    pub fn read(&mut self, path: &Path) -> Result<(), ImportError> {
        self.read_lines(&mut Lines::open(path, Expected::Table)?)
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &SmolStr> {
        self.by_id.keys()
    }

    /// Whether the instrument is known.
    pub fn contains(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    /// The description of an instrument, made at `time`. Where the table does not say from when it holds, it holds
    /// from then on.
    pub fn describe(&self, id: &str, time: EventTime) -> Option<Instrument> {
        let described = self.by_id.get(id)?;
        let valid_from = described.valid_from.unwrap_or(time);
        Some(Instrument { valid_from, event_time: time, ..described.instrument.clone() })
    }

    fn read_lines(&mut self, lines: &mut Lines) -> Result<(), ImportError> {
        let path = lines.path().to_owned();
        let mut columns = Columns::read(lines)?;
        let layout = Layout::of(&mut columns)?;
        let mut unused = columns.unused();
        unused.extend_from_slice(lines.unread_columns());
        if !unused.is_empty() {
            return Err(columns.error(format!("column `{}` is not known", unused.join("`, `"))));
        }
        let mut line = Line::default();
        loop {
            let described = match next_record(lines, &mut line)? {
                NextRecord::End => return Ok(()),
                _ if line.bytes.starts_with(b"#") => continue,
                NextRecord::Rejected(reason) => Err(reason),
                NextRecord::Record => columns.row(&line).and_then(|row| layout.describe(&row)),
            };
            let place = lines.place(line.number);
            let error = |problem| ImportError::Instruments { path: path.clone(), place, problem };
            let described = described.map_err(|reason| error(reason.to_string()))?;
            self.by_id.insert(described.instrument.instrument.clone(), described);
            if self.by_id.len() > MAX_INSTRUMENTS {
                return Err(error(format!("more than {MAX_INSTRUMENTS} instruments")));
            }
        }
    }
}

/// Symbol and venue of an instrument id, split at the last dot.
pub(crate) fn split_id(id: &str) -> Option<(&str, &str)> {
    id.rsplit_once('.').filter(|(symbol, venue)| !symbol.is_empty() && !venue.is_empty())
}

/// Where the fields of an instrument stand.
struct Layout {
    instrument: usize,
    asset_class: usize,
    base: usize,
    quote: usize,
    settle: usize,
    contract_multiplier: usize,
    inverse: usize,
    expiry: Option<usize>,
    tick_size: usize,
    lot_size: usize,
    min_notional: Option<usize>,
    valid_from: Option<usize>,
    valid_to: Option<usize>,
}

impl Layout {
    fn of(columns: &mut Columns) -> Result<Layout, ImportError> {
        Ok(Layout {
            instrument: columns.need(&["instrument"])?,
            asset_class: columns.need(&["asset_class"])?,
            base: columns.need(&["base"])?,
            quote: columns.need(&["quote"])?,
            settle: columns.need(&["settle"])?,
            contract_multiplier: columns.need(&["contract_multiplier"])?,
            inverse: columns.need(&["inverse"])?,
            expiry: columns.find(&["expiry"]),
            tick_size: columns.need(&["tick_size"])?,
            lot_size: columns.need(&["lot_size"])?,
            min_notional: columns.find(&["min_notional"]),
            valid_from: columns.find(&["valid_from"]),
            valid_to: columns.find(&["valid_to"]),
        })
    }

    fn describe(&self, row: &Row<'_>) -> Result<Described, RejectReason> {
        let Some((symbol, venue)) = split_id(row.text(self.instrument)) else {
            return Err(row.bad(self.instrument, "an instrument is `<symbol>.<venue>`"));
        };
        for column in [self.base, self.quote, self.settle] {
            if row.text(column).is_empty() {
                return Err(row.bad(column, "must not be empty"));
            }
        }
        let instrument = Instrument {
            instrument: SmolStr::new(row.text(self.instrument)),
            symbol: SmolStr::new(symbol),
            venue: SmolStr::new(venue),
            asset_class: row.parse::<AssetClass>(self.asset_class)?,
            base: SmolStr::new(row.text(self.base)),
            quote: SmolStr::new(row.text(self.quote)),
            settle: SmolStr::new(row.text(self.settle)),
            contract_multiplier: row.parse::<Quantity>(self.contract_multiplier)?,
            inverse: row.parse::<bool>(self.inverse)?,
            expiry: row.time_of(self.expiry)?,
            tick_size: row.parse::<Price>(self.tick_size)?,
            lot_size: row.parse::<Quantity>(self.lot_size)?,
            min_notional: row.parse_of::<Amount>(self.min_notional)?.unwrap_or(Amount::ZERO),
            valid_from: EventTime::EPOCH,
            valid_to: row.time_of(self.valid_to)?,
            event_time: EventTime::EPOCH,
        };
        if !instrument.contract_multiplier.is_positive() {
            return Err(row.bad(self.contract_multiplier, "must be greater than 0"));
        }
        if instrument.tick_size.is_negative() {
            return Err(row.bad(self.tick_size, "must not be less than 0; 0 means not known"));
        }
        if instrument.lot_size.is_negative() {
            return Err(row.bad(self.lot_size, "must not be less than 0; 0 means not known"));
        }
        Ok(Described { instrument, valid_from: row.time_of(self.valid_from)? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const TIME: EventTime = EventTime::from_ms(1_723_161_255_000);

    #[test]
    fn the_shipped_table_has_the_six_instruments_of_the_sample_feeds() {
        let table = InstrumentTable::shipped().unwrap();
        let ids: Vec<_> = table.ids().map(SmolStr::as_str).collect();
        assert_eq!(
            ids,
            [
                "BTCUSDT.BINANCE_SPOT",
                "BTCUSDT.BINANCE_USDM",
                "BTCUSD_PERP.BINANCE_COINM",
                "ETHUSDT.BINANCE_SPOT",
                "ETHUSDT.BINANCE_USDM",
                "ETHUSD_PERP.BINANCE_COINM",
            ]
        );
        let bitcoin = table.describe("BTCUSD_PERP.BINANCE_COINM", TIME).unwrap();
        assert_eq!((bitcoin.contract_multiplier.to_string(), bitcoin.inverse), ("100".into(), true));
        assert_eq!((bitcoin.settle.as_str(), bitcoin.quote.as_str()), ("BTC", "USD"));
        let ether = table.describe("ETHUSD_PERP.BINANCE_COINM", TIME).unwrap();
        assert_eq!((ether.contract_multiplier.to_string(), ether.inverse), ("10".into(), true));
        assert_eq!(ether.event_time, TIME);
    }

    fn read(text: &'static str) -> Result<InstrumentTable, ImportError> {
        let mut table = InstrumentTable::default();
        table.read_lines(&mut Lines::of_text("my.csv", text)).map(|()| table)
    }

    const HEADER: &str =
        "instrument,asset_class,base,quote,settle,contract_multiplier,inverse,tick_size,lot_size";

    #[test]
    fn a_users_table_may_leave_out_what_has_a_default() {
        let text = format!("# mine\n{HEADER}\nBRK.B.NYSE,EQUITY,BRK.B,USD,USD,1,false,0.01,1\n");
        let table = read(text.leak()).unwrap();
        let share = table.describe("BRK.B.NYSE", TIME).unwrap();
        assert_eq!((share.symbol.as_str(), share.venue.as_str()), ("BRK.B", "NYSE"));
        assert_eq!((share.valid_from, share.valid_to, share.min_notional), (TIME, None, Amount::ZERO));
    }

    #[test]
    fn faults_name_file_line_and_column() {
        for (row, expected) in [
            ("BTC,SPOT,B,Q,S,1,false,0,0", "my.csv, line 2: column 1 (instrument): `BTC`: an instrument is"),
            ("A.B,STOCK,B,Q,S,1,false,0,0", "my.csv, line 2: column 2 (asset_class): `STOCK`"),
            ("A.B,SPOT,B,Q,S,0,false,0,0", "my.csv, line 2: column 6 (contract_multiplier): `0`: must be"),
            ("A.B,SPOT,B,Q,S,1,perhaps,0,0", "my.csv, line 2: column 7 (inverse)"),
            ("A.B,SPOT,B,Q,S,1,false,-1,0", "my.csv, line 2: column 8 (tick_size)"),
            ("A.B,SPOT,B,Q,S,1,false,0", "my.csv, line 2: 8 fields where the header has 9"),
        ] {
            let error = read(format!("{HEADER}\n{row}\n").leak()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = read("instrument,base\n").unwrap_err().to_string();
        assert!(error.contains("no column `asset_class`"), "{error}");
        let error = read(format!("{HEADER},ticksize\n").leak()).unwrap_err().to_string();
        assert!(error.contains("column `ticksize` is not known"), "{error}");
    }
}
