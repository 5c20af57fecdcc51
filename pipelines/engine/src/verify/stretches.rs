//! A task's epochs stretch by stretch, each from one cut to the next, so that a part of them can be verified by itself.

use std::sync::Arc;

use bytes::Bytes;
use tidewire_schemas::{CutMarker, SchemaBook};

use super::cuts::{Begin, CutReader, start};
use super::journal::Journal;
use super::written::Written;
use super::{EpochName, Run, VerifyError, VerifyReport, is_outage, rerun, restore_error};
use crate::cut::is_marker;
use crate::log::{Log, LogError, StoredRecord};
use crate::plan::StageSpec;
use crate::rerun::{Inputs, difference, unsigned};
use crate::task::{RestoreError, Task};

/// A million: what a share is counted in.
const MILLION: u32 = 1_000_000;

/// Which stretches are verified: a share of them, drawn by a hash of what names a stretch. The same seed draws the same
/// ones, and a larger share draws those of a smaller one and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// How many of a million.
    pub share_ppm: u32,
    /// Another seed draws others.
    pub seed: u64,
}

impl Sample {
    /// All of them.
    pub const ALL: Self = Self { share_ppm: MILLION, seed: 0 };

    /// Whether the stretch of a task that begins after `cut` is drawn.
    pub fn takes(&self, stage: &str, task: u32, cut: u64) -> bool {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&task.to_le_bytes());
        hasher.update(&cut.to_le_bytes());
        hasher.update(stage.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        // The place of the hash among all that there are, in millionths.
        let place = (u128::from(u64::from_le_bytes(first)) * u128::from(MILLION)) >> 64;
        place < u128::from(self.share_ppm)
    }
}

/// A stretch of epochs, from a cut to the next, and what was done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stretch {
    /// The epoch of the cut that it begins from; 0 is the very beginning.
    pub after: u64,
    /// The epoch of the cut that ends it; none for what follows the last cut.
    pub to: Option<u64>,
    /// What was found, if it was drawn.
    pub report: Option<VerifyReport>,
}

/// The stretches of one task, in order. It goes forward only, so none is verified twice.
pub struct Stretches<'a> {
    log: &'a dyn Log,
    spec: Arc<StageSpec>,
    book: &'a Arc<SchemaBook>,
    number: u32,
    sample: Sample,
    /// Stretches of epochs before this one are left out.
    from: u64,
    to: u64,
    /// The changelog up to the cut that the next stretch begins from.
    cuts: CutReader<'a>,
    /// What follows there, up to and with the next marker as far as it is written.
    pending: Vec<StoredRecord>,
    next_cut: Option<u64>,
    journal: Journal<'a>,
    first: Option<u64>,
    written: Option<Written<'a>>,
    /// Whether the task goes on: then what follows the last cut is left until the next cut ends it.
    follow: bool,
    is_done: bool,
}

impl<'a> Stretches<'a> {
    /// The stretches of a task within `from..=to`. With `follow` there is no end: each call of [`Stretches::next`] looks
    /// for more.
    pub fn new(
        log: &'a dyn Log,
        spec: &Arc<StageSpec>,
        book: &'a Arc<SchemaBook>,
        number: u32,
        sample: Sample,
        epochs: std::ops::RangeInclusive<u64>,
        follow: bool,
    ) -> Result<Self, LogError> {
        Ok(Self {
            log,
            spec: Arc::clone(spec),
            book,
            number,
            sample,
            from: *epochs.start(),
            to: *epochs.end(),
            cuts: CutReader::new(log, spec, number)?,
            pending: Vec::new(),
            next_cut: None,
            journal: Journal::new(log, spec, book, number)?,
            first: None,
            written: None,
            follow,
            is_done: false,
        })
    }

    /// The stage.
    pub fn spec(&self) -> &Arc<StageSpec> {
        &self.spec
    }

    /// The task's number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Verifies the next stretch, if it is drawn; `None` when there is none, with `follow` for now. Stretches whose state
    /// or epochs are not kept any more are passed over.
    ///
    /// # Errors
    /// While the log is away the same stretch is tried again; after any other error the next call goes on behind it.
    pub fn next(
        &mut self,
        on_epoch: &mut dyn FnMut(&VerifyReport) -> bool,
    ) -> Result<Option<Stretch>, VerifyError> {
        while !self.is_done {
            self.look_ahead()?;
            let (after, to) = (self.stands_at(), self.next_cut);
            if after >= self.to || (to.is_none() && self.follow) {
                self.is_done = after >= self.to;
                return Ok(None);
            }
            self.is_done = to.is_none();
            if !self.is_kept()? || after + 1 < self.from {
                self.pass()?;
                continue;
            }
            if !self.sample.takes(&self.spec.name, self.number, after) {
                self.pass()?;
                return Ok(Some(Stretch { after, to, report: None }));
            }
            let report = match self.verify(to, on_epoch) {
                Ok(report) => report,
                Err(VerifyError::Log(error)) if is_outage(&error) => return Err(error.into()),
                Err(error) => {
                    self.pass()?;
                    return Err(error);
                }
            };
            if report.stopped {
                return Ok(Some(Stretch { after, to, report: Some(report) }));
            }
            let reached = report.last.map_or(after, |last: EpochName| last.epoch);
            if report.difference.is_none() && to.is_some_and(|to| reached < to.min(self.to)) {
                // The cut can be read already, its epoch not yet: it can in a moment.
                return Ok(None);
            }
            self.pass()?;
            if reached > after {
                return Ok(Some(Stretch { after, to, report: Some(report) }));
            }
        }
        Ok(None)
    }

    /// The epoch of the cut that the next stretch begins from.
    fn stands_at(&self) -> u64 {
        self.cuts.changelog.marker().map_or(0, |marker| unsigned(marker.epoch))
    }

    /// Reads up to the next marker.
    fn look_ahead(&mut self) -> Result<(), LogError> {
        if self.next_cut.is_some() {
            return Ok(());
        }
        self.cuts.extend()?;
        self.journal.extend()?;
        while let Some(stored) = self.cuts.record()? {
            let ends = is_marker(&stored).then(|| stored.record.value.clone()).flatten();
            self.pending.push(stored);
            if let Some(value) = ends {
                let marker =
                    self.book.decode(&value).ok().and_then(|record| CutMarker::try_from(record).ok());
                self.next_cut = Some(marker.map_or(0, |marker| unsigned(marker.epoch)));
                break;
            }
        }
        Ok(())
    }

    /// Whether all of the state at the cut and the epochs after it are there.
    fn is_kept(&mut self) -> Result<bool, LogError> {
        if self.first.is_none() {
            self.first = self.journal.peek()?.map(|record| unsigned(record.epoch));
        }
        let after = self.stands_at();
        Ok(self.cuts.changelog.is_whole() && self.first.is_some_and(|first| first <= after + 1))
    }

    /// Goes on to the next cut.
    fn pass(&mut self) -> Result<(), VerifyError> {
        for stored in self.pending.drain(..) {
            let taken = self.cuts.changelog.take(stored, self.book);
            taken.map_err(|error| restore_error(&self.spec, self.number, RestoreError::Cut(error)))?;
        }
        self.next_cut = None;
        Ok(())
    }

    fn verify(
        &mut self,
        to: Option<u64>,
        on_epoch: &mut dyn FnMut(&VerifyReport) -> bool,
    ) -> Result<VerifyReport, VerifyError> {
        let task =
            Task::restored(Arc::clone(&self.spec), self.number, Arc::clone(self.book), &self.cuts.changelog);
        let mut task = task.map_err(|error| restore_error(&self.spec, self.number, error))?;
        let mut journal = self.journal.fork();
        journal.skip_past(task.epoch())?;
        match &mut self.written {
            Some(written) => written.pass(task.sequence())?,
            None => self.written = Some(Written::new(self.log, &self.spec, self.number, task.sequence())?),
        }
        let mut run = Run {
            log: self.log,
            journal: &mut journal,
            written: self.written.take(),
            from: 0,
            to: to.unwrap_or(u64::MAX).min(self.to),
        };
        let report = run.run(&mut task, on_epoch);
        // A record that was taken to be compared is gone from it, so after a stretch that broke off it is opened anew.
        if report.as_ref().is_ok_and(|report| report.difference.is_none() && !report.stopped) {
            self.written = run.written.take();
        }
        let report = report?;
        self.journal = journal;
        Ok(report)
    }
}

/// An epoch that was run again, without a look at the outputs in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rerun {
    /// Its number.
    pub epoch: u64,
    /// Digest of what came out.
    pub output_digest: Bytes,
    /// Digest of the state, where a flush is in the epoch.
    pub state_digest: Option<Bytes>,
    /// How it differs from its record.
    pub difference: Option<String>,
}

/// Runs the epochs `from..=to` of a task again, and returns digests of each.
pub fn rerun_epochs(
    log: &dyn Log,
    spec: &Arc<StageSpec>,
    book: &Arc<SchemaBook>,
    number: u32,
    from: u64,
    to: u64,
) -> Result<Vec<Rerun>, VerifyError> {
    let mut journal = Journal::new(log, spec, book, number)?;
    let Some(first) = journal.peek()?.map(|record| unsigned(record.epoch)) else { return Ok(Vec::new()) };
    let (mut task, epochs_from) = start(log, spec, book, number, first, Begin::Before(from))?;
    journal.skip_to_offset(epochs_from);
    journal.skip_past(task.epoch())?;
    let (mut inputs, mut done) = (Inputs::of(&task), Vec::new());
    while let Some(record) = journal.next_record()? {
        if unsigned(record.epoch) > to {
            break;
        }
        let closed = rerun(log, &mut task, &mut inputs, &record)?;
        if unsigned(record.epoch) >= from {
            done.push(Rerun {
                epoch: unsigned(record.epoch),
                output_digest: closed.record.output_digest.clone(),
                state_digest: closed.record.state_digest.clone(),
                difference: difference(&record, &closed, true),
            });
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_as_large_as_it_says_and_a_larger_one_holds_it() {
        let drawn = |share_ppm, seed| {
            let sample = Sample { share_ppm, seed };
            (0..10_000).filter(|cut| sample.takes("signals", 3, *cut)).collect::<Vec<u64>>()
        };
        let tenth = drawn(100_000, 0);
        assert!((900..1_100).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(tenth, drawn(100_000, 0), "the same seed draws the same ones");
        assert_ne!(tenth, drawn(100_000, 1));
        let half = drawn(500_000, 0);
        assert!(tenth.iter().all(|cut| half.contains(cut)));
        assert_eq!((drawn(0, 0).len(), drawn(MILLION, 0).len()), (0, 10_000));
        assert!(Sample::ALL.takes("x", 0, 0));
    }
}
