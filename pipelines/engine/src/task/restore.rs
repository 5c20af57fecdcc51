//! A task from the cut in its changelog.

use std::sync::Arc;

use tidewire_contract::{Persist as _, PersistError};
use tidewire_schemas::SchemaBook;

use super::{EngineState, Task};
use crate::cut::{Changelog, CutError};
use crate::intake::Intake;
use crate::only::KeyScope;
use crate::plan::StageSpec;

/// Why a task can not be restored from its changelog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// An operator can not be made.
    #[error("{0}")]
    Settings(String),
    /// The changelog is not usable.
    #[error(transparent)]
    Cut(#[from] CutError),
    /// The engine's part of the cut is not usable.
    #[error("the engine's part of the cut is not readable by this build ({0}): reprocess into fresh topics")]
    Engine(PersistError),
    /// The stage reads other partitions than it did.
    #[error(
        "the stage's inputs or their partitions are not those of its changelog: put them back, \
         or reprocess into fresh topics"
    )]
    OtherInputs,
}

impl Task {
    /// A task as it stood at the cut that `changelog` was read up to.
    pub fn restored(
        spec: Arc<StageSpec>,
        number: u32,
        book: Arc<SchemaBook>,
        changelog: &Changelog,
    ) -> Result<Self, RestoreError> {
        Self::restored_in(spec, number, book, changelog, KeyScope::All)
    }

    /// The same with the entries of some keys alone, where the scope says so.
    pub fn restored_in(
        spec: Arc<StageSpec>,
        number: u32,
        book: Arc<SchemaBook>,
        changelog: &Changelog,
        scope: KeyScope,
    ) -> Result<Self, RestoreError> {
        let mut task = Self::new(spec, number, book).map_err(RestoreError::Settings)?;
        task.only = scope;
        let Some(marker) = changelog.marker() else { return Ok(task) };
        (task.state_sum, task.orphans) = changelog.restore(&task.graph, &task.spec.nodes, &task.only)?;
        let same = marker.positions.iter().zip(task.intake.sources()).all(|(position, source)| {
            position.topic == source.at.topic && u32::try_from(position.partition) == Ok(source.at.partition)
        });
        if !same || marker.positions.len() != task.intake.sources().len() {
            return Err(RestoreError::OtherInputs);
        }
        let mut bytes = &*marker.engine;
        let read = EngineState::load(&mut bytes).and_then(|engine| {
            task.tide.load(&mut bytes)?;
            Ok(engine)
        });
        task.engine = read.map_err(RestoreError::Engine)?;
        let positions = &task.engine.positions;
        task.intake = Intake::new(task.intake.sources().to_vec(), positions);
        task.sequence = u64::try_from(marker.closing_sequence).unwrap_or(0);
        task.epoch = u64::try_from(marker.epoch).unwrap_or(0);
        task.cut_epoch = task.epoch;
        Ok(task)
    }
}
