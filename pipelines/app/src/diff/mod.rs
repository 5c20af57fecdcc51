//! Two runs compared record by record, and why they differ where that is known.
//!
//! `walk` pairs the records of each topic, `inputs`, `settings` and `late` gather what may have led to differences, and
//! `causes` follows each difference back to the first cause. `docs/diff.md` describes it for users.

pub mod address;
mod causes;
mod counts;
pub mod fields;
mod graph;
mod ids;
mod inputs;
mod late;
mod matcher;
pub mod page;
pub mod report;
pub mod run;
mod settings;
pub mod show;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

use smol_str::SmolStr;
use tidewire_schemas::EventTime;

use fields::Rules;

/// One of the two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The first: what was.
    A,
    /// The second: what it is compared with.
    B,
}

impl Side {
    /// `A` or `B`.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// What is compared, and how.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Tolerances and fields left out.
    pub rules: Rules,
    /// Only these topics; all that the pipelines write if empty.
    pub topics: Vec<SmolStr>,
    /// Only records of this key.
    pub key: Option<String>,
    /// Only records from this event time on.
    pub from: Option<EventTime>,
    /// Only records before this event time.
    pub to: Option<EventTime>,
    /// Whether timestamps are compared too.
    pub timestamps: bool,
    /// Most differences shown of each topic.
    pub limit: usize,
}

impl Request {
    fn wants(&self, key: Option<&[u8]>, event_time: EventTime) -> bool {
        self.key.as_ref().is_none_or(|wanted| key == Some(wanted.as_bytes()))
            && self.from.is_none_or(|from| event_time >= from)
            && self.to.is_none_or(|to| event_time < to)
    }

    /// Whether every record is wanted.
    fn wants_all(&self) -> bool {
        self.key.is_none() && self.from.is_none() && self.to.is_none()
    }
}

/// What is told of progress: what is being done, and how many records were read.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64);
