//! CSV of news, with or without sentiment: `published_at,source,subject,title,text` and
//! `sentiment_polarity,sentiment_subjectivity`.
//!
//! The published times may be mapped to another span in a straight line, so that old news can be shown beside ticks of
//! another day; the summary says so.

use crate::columns::{Columns, Row};
use crate::csv_record::{NextRecord, next_record};
use crate::error::ImportError;
use crate::feed::{CsvFeed, TakeRow};
use crate::lines::{Expected, Line, Lines};
use crate::options::ImportOptions;
use crate::output::Output;
use crate::reject::RejectReason;
use crate::summary::NewsShift;
use crate::times;
use smol_str::SmolStr;
use tidewire_schemas::{EventTime, NewsItem, ReceivedTime, SentimentScore, topics};

/// Model named in scores that come with the news.
const MODEL: &str = "dataset";
/// Subject of what is about the whole market.
const EVERYTHING: &str = "*";

/// Assets by the subject that a data set gives. A subject that is not here, and is no symbol in capitals, is about
/// the whole market.
const SUBJECTS: &[(&str, &str)] = &[
    ("bitcoin", "BTC"),
    ("ethereum", "ETH"),
    ("altcoin", EVERYTHING),
    ("nft", EVERYTHING),
    ("blockchain", EVERYTHING),
    ("defi", EVERYTHING),
];

/// Reader of one file of news.
pub(crate) struct News {
    layout: Layout,
    shift: Option<NewsShift>,
    delay_ms: i64,
}

struct Layout {
    published_at: usize,
    source: usize,
    subject: usize,
    title: usize,
    text: Option<usize>,
    polarity: Option<usize>,
    subjectivity: Option<usize>,
    confidence: Option<usize>,
}

impl News {
    /// Reads the header and, where times are to be mapped, the span of the file's own times.
    pub fn open(
        lines: &mut Lines,
        options: &ImportOptions,
        out: &mut Output,
    ) -> Result<CsvFeed<News>, ImportError> {
        let mut columns = Columns::read(lines)?;
        let layout = Layout {
            published_at: columns.need(&["published_at"])?,
            source: columns.need(&["source"])?,
            subject: columns.need(&["subject"])?,
            title: columns.need(&["title"])?,
            text: columns.find(&["text"]),
            polarity: columns.find(&["sentiment_polarity"]),
            subjectivity: columns.find(&["sentiment_subjectivity"]),
            confidence: columns.find(&["sentiment_confidence"]),
        };
        let shift = match options.news_span {
            Some(mapped) => published_span(lines)?.map(|original| NewsShift { original, mapped }),
            None => None,
        };
        out.summary.news_shift = shift;
        Ok(CsvFeed::new(lines, columns, News { layout, shift, delay_ms: options.news_delay_ms }, out))
    }
}

impl News {
    /// The score that comes with the item. Without a confidence of its own it counts in full: 1.
    fn score(&self, row: &Row<'_>) -> Result<Option<Score>, RejectReason> {
        let Some(score) = number(row, self.layout.polarity, -1.0)? else {
            return Ok(None);
        };
        Ok(Some(Score {
            score,
            confidence: number(row, self.layout.confidence, 0.0)?.unwrap_or(1.0),
            subjectivity: number(row, self.layout.subjectivity, 0.0)?,
        }))
    }
}

impl TakeRow for News {
    fn take(&self, line: u64, row: &Row<'_>, out: &mut Output) -> Result<(), RejectReason> {
        let layout = &self.layout;
        let nanos = row.nanos(layout.published_at)?;
        let original = EventTime::from_micros(nanos.div_euclid(1_000));
        let published_time = self.shift.map_or(original, |shift| shift.apply(original));
        let event_time = published_time.plus_ms(self.delay_ms);
        let received_ns = event_time
            .as_micros()
            .checked_mul(1_000)
            .ok_or_else(|| row.bad(layout.published_at, "moved out of the range of times"))?;
        let (title, source) = (row.text(layout.title), SmolStr::new(row.text(layout.source)));
        for column in [layout.title, layout.source] {
            if row.text(column).is_empty() {
                return Err(row.bad(column, "must not be empty"));
            }
        }
        let subject = asset_of(row.text(layout.subject));
        let received_time = ReceivedTime::from_nanos(received_ns);
        let id = id_of(&source, original, title);
        let score = self.score(row)?;
        let item = NewsItem {
            id: id.clone(),
            event_time,
            published_time,
            received_time,
            source: source.clone(),
            subject: subject.clone(),
            assets: if subject == EVERYTHING { Vec::new() } else { vec![subject.clone()] },
            title: SmolStr::new(title),
            text: SmolStr::new(row.text_of(layout.text).unwrap_or_default()),
        };
        out.summary.note_received(line, received_ns);
        out.record(line, topics::NEWS, subject.clone(), received_ns, item);
        if let Some(Score { score, confidence, subjectivity }) = score {
            let score = SentimentScore {
                asset: subject.clone(),
                event_time,
                published_time,
                received_time,
                news_id: Some(id),
                score,
                confidence,
                subjectivity,
                model: SmolStr::new_static(MODEL),
                source,
            };
            out.record(line, topics::SENTIMENT, subject, received_ns, score);
        }
        Ok(())
    }
}

struct Score {
    score: f64,
    confidence: f64,
    subjectivity: Option<f64>,
}

impl NewsShift {
    /// The time on the straight line through the spans' ends. Outside of the span it goes on.
    fn apply(self, time: EventTime) -> EventTime {
        let micros = |time: EventTime| i128::from(time.as_micros());
        let (from, to) = self.original;
        let length = micros(to) - micros(from);
        let target = micros(self.mapped.1) - micros(self.mapped.0);
        if length == 0 {
            return self.mapped.0;
        }
        // Published times are below 2^54 microseconds, the span given below 2^64: the product is below 2^119.
        let moved = micros(self.mapped.0) + (micros(time) - micros(from)) * target / length;
        EventTime::from_micros(i64::try_from(moved).unwrap_or(i64::MAX))
    }
}

/// First and last published time of the file, read in a pass of its own; lines that are no news are left to the
/// import itself.
fn published_span(lines: &Lines) -> Result<Option<(EventTime, EventTime)>, ImportError> {
    let mut lines = Lines::open(lines.path(), Expected::Table)?;
    let mut columns = Columns::read(&mut lines)?;
    let published_at = columns.need(&["published_at"])?;
    lines.read_only(columns.used());
    let mut line = Line::default();
    let mut span = None;
    loop {
        match next_record(&mut lines, &mut line)? {
            NextRecord::End => return Ok(span),
            NextRecord::Rejected(_) => continue,
            NextRecord::Record => {}
        }
        let Ok(row) = columns.row(&line) else { continue };
        let Ok(nanos) = times::parse_nanos(row.text(published_at)) else { continue };
        let time = EventTime::from_micros(nanos.div_euclid(1_000));
        let (first, last) = span.unwrap_or((time, time));
        span = Some((time.min(first), time.max(last)));
    }
}

/// The asset of a subject: by the table, a symbol in capitals as it is, everything else the whole market.
fn asset_of(subject: &str) -> SmolStr {
    let known = SUBJECTS.iter().find(|(name, _)| subject.eq_ignore_ascii_case(name));
    let is_symbol = (2..=10).contains(&subject.len())
        && subject.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    match known {
        Some((_, asset)) => SmolStr::new_static(asset),
        None if is_symbol => SmolStr::new(subject),
        None => SmolStr::new_static(EVERYTHING),
    }
}

/// An id that the same item has in every import: a digest of source, published time and title.
fn id_of(source: &str, published: EventTime, title: &str) -> SmolStr {
    let mut hasher = blake3::Hasher::new();
    for part in [source, &published.to_string(), title] {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    SmolStr::new(&hasher.finalize().to_hex()[..16])
}

/// A number from `least` to 1, or none where the column is missing or empty.
fn number(row: &Row<'_>, column: Option<usize>, least: f64) -> Result<Option<f64>, RejectReason> {
    let Some(column) = column.filter(|&column| !row.text(column).is_empty()) else {
        return Ok(None);
    };
    let value = row.parse::<f64>(column)?;
    if value >= least && value <= 1.0 {
        return Ok(Some(value));
    }
    Err(row.bad(column, format!("must be from {least} to 1")))
}
