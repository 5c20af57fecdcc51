//! A capture, line by line.

use super::head::Head;
use super::message::Message;
use super::normalize::{self, Received};
use super::offset::{VenueOffset, difference_us};
use super::venue::{Venue, possible};
use crate::error::ImportError;
use crate::feed::Feed;
use crate::instruments::split_id;
use crate::lines::{Line, Lines};
use crate::options::ImportOptions;
use crate::output::Output;
use crate::reject::{RejectReason, excerpt};
use crate::times;
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;
use tidewire_schemas::{EventTime, Record, topics};

/// Reader of one capture. All its messages are of one market.
pub(crate) struct Capture {
    venue: Venue,
    offset: VenueOffset,
    /// Symbol of snapshots that name none: the one that was named, or the only one at the head of the file.
    snapshot_symbol: Option<SmolStr>,
    head_symbols: usize,
    ids: Ids,
    line: Line,
}

impl Capture {
    /// Looks at the head of the file for what the options do not say.
    pub fn open(
        lines: &mut Lines,
        options: &ImportOptions,
        out: &mut Output,
    ) -> Result<Capture, ImportError> {
        let head = Head::read(lines)?;
        let named = options.instrument.as_deref().and_then(split_id);
        let named_venue = match named {
            Some((_, venue)) => Some(venue.parse::<Venue>().map_err(ImportError::Options)?),
            None => None,
        };
        if let (Some(venue), Some(other)) = (options.venue, named_venue)
            && venue != other
        {
            return Err(ImportError::Options(format!(
                "the instrument is of {other}, but the venue is {venue}"
            )));
        }
        let venue =
            options.venue.or(named_venue).or_else(|| head.venue()).ok_or_else(|| {
                ImportError::VenueUnknown { path: lines.path().to_owned(), lines: head.lines }
            })?;
        let only = head.symbols.first().filter(|_| head.symbols.len() == 1);
        out.summary.venue = Some(venue);
        let offset = VenueOffset::new(options.venue_offset_us, head.first_difference_us);
        out.summary.venue_offset = Some(offset.summary());
        Ok(Capture {
            venue,
            offset,
            snapshot_symbol: named.map(|(symbol, _)| SmolStr::new(symbol)).or_else(|| only.cloned()),
            head_symbols: head.symbols.len(),
            ids: Ids { venue, by_symbol: BTreeMap::new() },
            line: Line::default(),
        })
    }

    fn take(&mut self, line: &Line, out: &mut Output) -> Result<(), RejectReason> {
        if line.is_cut() {
            return Err(RejectReason::TooLong { bytes: line.length });
        }
        let (received_ns, json, offset) = split_received(&line.bytes)?;
        let wrapper = Message::parse(json, offset)?;
        let stream = wrapper.stream;
        let mut message = match wrapper.data {
            Some(inner) => *inner,
            None => wrapper,
        };
        let event = event_of(&message, stream)?;
        self.check_venue(&message, event)?;
        let of_snapshots = self
            .snapshot_symbol
            .as_deref()
            .ok_or(RejectReason::SnapshotWithoutSymbol { symbols: self.head_symbols });
        let symbol = symbol_of(&message, event, stream, of_snapshots)?;
        let instrument = self.ids.of(symbol, out)?;
        let received = Received {
            instrument,
            nanos: received_ns,
            venue: self.venue,
            estimated: self.estimate(received_ns),
        };
        let (record, time): (Record, EventTime) = match event {
            TRADE => {
                let trade = normalize::trade(&message, &received)?;
                let time = trade.event_time;
                (trade.into(), time)
            }
            DELTA => {
                let delta = normalize::delta(&mut message, &received)?;
                let time = delta.event_time;
                (delta.into(), time)
            }
            QUOTE => {
                let quote = normalize::quote(&message, &received)?;
                out.summary.estimated_event_times += u64::from(quote.event_time_estimated);
                let time = quote.event_time;
                (quote.into(), time)
            }
            _ => {
                let snapshot = normalize::snapshot(&mut message, &received)?;
                out.summary.estimated_event_times += u64::from(message.time_ms.is_none());
                let time = snapshot.event_time;
                (snapshot.into(), time)
            }
        };
        if let (Some(sent), true) = (message.sent_ms, event != SNAPSHOT) {
            self.offset.observe(difference_us(sent, received_ns));
            out.summary.venue_offset = Some(self.offset.summary());
        }
        out.summary.note_received(line.number, received_ns);
        out.announce(line.number, &received.instrument, time, received_ns)?;
        out.record(line.number, topics::TICKS, received.instrument, received_ns, record);
        Ok(())
    }

    /// When the venue sent what was received then, by its clock.
    fn estimate(&self, received_ns: i64) -> EventTime {
        EventTime::from_micros(received_ns.div_euclid(1_000)).plus_micros(self.offset.estimate_us())
    }

    fn check_venue(&self, message: &Message<'_>, event: &'static str) -> Result<(), RejectReason> {
        let venues = possible(message);
        if venues.contains(&self.venue) {
            return Ok(());
        }
        let found = venues.iter().map(|venue| venue.name()).collect::<Vec<_>>().join(" or ");
        Err(RejectReason::OtherVenue { event, expected: self.venue, found })
    }
}

/// The symbol of a message; of a snapshot that names none the one given.
fn symbol_of<'a>(
    message: &Message<'a>,
    event: &'static str,
    stream: Option<&str>,
    of_snapshots: Result<&'a str, RejectReason>,
) -> Result<&'a str, RejectReason> {
    let Some(symbol) = message.symbol else {
        return if event == SNAPSHOT {
            of_snapshots
        } else {
            Err(RejectReason::MissingField { event, field: "s" })
        };
    };
    if stream_fits(stream, symbol) {
        return Ok(symbol);
    }
    let (stream, symbol) = (excerpt(stream.unwrap_or_default()), excerpt(symbol));
    Err(RejectReason::OtherSymbol { stream, symbol })
}

/// Instrument ids by symbol, of those that are described: a lookup instead of a new text for each message.
struct Ids {
    venue: Venue,
    by_symbol: BTreeMap<SmolStr, SmolStr>,
}

impl Ids {
    fn of(&mut self, symbol: &str, out: &Output) -> Result<SmolStr, RejectReason> {
        if let Some(id) = self.by_symbol.get(symbol) {
            return Ok(id.clone());
        }
        let id = format_smolstr!("{symbol}.{}", self.venue);
        if !out.instruments.contains(&id) {
            return Err(RejectReason::UnknownInstrument { instrument: excerpt(&id) });
        }
        self.by_symbol.insert(SmolStr::new(symbol), id.clone());
        Ok(id)
    }
}

impl Feed for Capture {
    fn advance(&mut self, lines: &mut Lines, out: &mut Output) -> Result<bool, ImportError> {
        let mut line = std::mem::take(&mut self.line);
        let more = lines.next(&mut line)?;
        if more && let Err(reason) = self.take(&line, out) {
            out.reject(&line, reason);
        }
        self.line = line;
        Ok(more)
    }
}

const TRADE: &str = "trade";
const DELTA: &str = "depthUpdate";
const QUOTE: &str = "bookTicker";
const SNAPSHOT: &str = "depth snapshot";

/// Which of the known messages it is.
fn event_of(message: &Message<'_>, stream: Option<&str>) -> Result<&'static str, RejectReason> {
    match message.event {
        Some("trade") => Ok(TRADE),
        Some("depthUpdate") => Ok(DELTA),
        Some("bookTicker") => Ok(QUOTE),
        Some(other) => Err(RejectReason::OtherEvent { event: excerpt(other) }),
        None if message.snapshot_update_id.is_some() => match stream {
            None => Ok(SNAPSHOT),
            // A stream of the best few levels: no basis for a book.
            Some(stream) => Err(RejectReason::OtherEvent { event: excerpt(stream) }),
        },
        None if message.bid_quantity.is_some() => Ok(QUOTE),
        None => Err(RejectReason::OtherEvent { event: "a message without event type".to_owned() }),
    }
}

/// Whether a message of this symbol can be of this stream: `<symbol>@<what>`, or one of all symbols.
pub(super) fn stream_fits(stream: Option<&str>, symbol: &str) -> bool {
    match stream.and_then(|stream| stream.split_once('@')) {
        Some((of_stream, _)) => of_stream.starts_with('!') || of_stream.eq_ignore_ascii_case(symbol),
        None => true,
    }
}

/// Time of receipt in nanoseconds, the JSON after it, and where that begins.
pub(super) fn split_received(line: &[u8]) -> Result<(i64, &[u8], usize), RejectReason> {
    let fault = |problem| RejectReason::NoReceiveTime { problem };
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut count = 0u64;
    for digit in &line[..digits] {
        count = count
            .checked_mul(10)
            .and_then(|count| count.checked_add(u64::from(digit - b'0')))
            .ok_or_else(|| fault("its number is too great"))?;
    }
    if digits == 0 {
        return Err(fault("it does not begin with a number"));
    }
    let blanks = line[digits..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    if blanks == 0 {
        return Err(fault("no blank follows its number"));
    }
    let nanos =
        times::nanos_by_magnitude(count).ok_or_else(|| fault("its number is not between 1970 and 2262"))?;
    let start = digits + blanks;
    Ok((nanos, &line[start..], start))
}
