//! Where a re-run begins: the latest cut before an epoch of which all state is there.

use tidewire_schemas::{CutMarker, SchemaBook};

use crate::cut::Changelog;
use crate::log::Log;
use crate::plan::StageSpec;
use crate::rerun::unsigned;
use crate::verify::{CutReader, Journal, VerifyError, changelog_to};

/// A place to begin from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begin {
    /// The epoch of the cut; 0 is the very beginning.
    pub after: u64,
    /// The offset of the cut's marker in the changelog; none for the very beginning.
    pub marker_offset: Option<u64>,
    /// The marker.
    pub marker: Option<CutMarker>,
}

impl Begin {
    /// The sequence number of the last output before.
    pub fn sequence(&self) -> u64 {
        self.marker.as_ref().map_or(0, |marker| unsigned(marker.closing_sequence))
    }

    /// The changelog up to the cut.
    pub fn changelog(
        &self,
        log: &dyn Log,
        spec: &StageSpec,
        book: &SchemaBook,
        task: u32,
    ) -> Result<Changelog, VerifyError> {
        let nothing = || Ok(Changelog::default());
        self.marker_offset.map_or_else(nothing, |offset| changelog_to(log, spec, book, task, offset))
    }
}

/// Where to begin so that epoch `from` is run: the latest cut before it that is whole, or the very beginning; if there is
/// neither, the first whole cut after it from which the epochs kept go on. `is_partial`: the state of other keys was
/// taken out, so that no sum tells whether a cut is whole.
///
/// # Errors
/// When there is no place to begin.
pub fn begin_before(
    log: &dyn Log,
    spec: &StageSpec,
    book: &SchemaBook,
    task: u32,
    from: u64,
    is_partial: bool,
) -> Result<Begin, VerifyError> {
    let Some(kept) = Journal::new(log, spec, book, task)?.next_record()?.map(|record| record.epoch) else {
        return Ok(Begin::default());
    };
    let first = unsigned(kept);
    let mut reader = CutReader::new(log, spec, task)?;
    let mut best = (first == 1).then(Begin::default);
    while let Some(offset) = reader.next(spec, book, task)? {
        let Some(marker) = reader.changelog.marker() else { continue };
        let after = unsigned(marker.epoch);
        let is_later = after >= from.max(1);
        if is_later && best.is_some() {
            break;
        }
        if (is_partial || reader.changelog.is_whole()) && after + 1 >= first {
            best = Some(Begin { after, marker_offset: Some(offset), marker: Some(marker.clone()) });
        }
    }
    best.ok_or_else(|| VerifyError::NoStart { stage: spec.name.clone(), task, first: kept, earliest: None })
}
