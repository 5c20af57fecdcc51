//! The stages of a cycle: one serial part in which the least (time, stage, task) goes next.

use std::sync::Arc;

use super::{Offsets, Placed, SyncError, SyncTask, deliver, place_output};
use crate::log::Log;
use crate::plan::StageSpec;

/// The stages of a cycle, run as one.
pub struct Serial {
    tasks: Vec<SyncTask>,
}

impl Serial {
    /// All tasks of the stages `group`, each made by `make` from the place of its stage and its number.
    pub fn new(
        stages: &[Arc<StageSpec>],
        group: &[usize],
        make: impl Fn(usize, u32) -> Result<SyncTask, SyncError>,
    ) -> Result<Self, SyncError> {
        let mut tasks = Vec::new();
        for stage in group {
            for number in 0..stages[*stage].tasks() {
                tasks.push(make(*stage, number)?);
            }
        }
        Ok(Self { tasks })
    }

    /// The tasks.
    pub fn tasks_mut(&mut self) -> &mut [SyncTask] {
        &mut self.tasks
    }

    /// Runs everything before the horizon, in the order (time, records before timers, stage, task). What a task
    /// gives out is at hand for the others at once; all of it is returned in the order it was made.
    pub fn run_to(
        &mut self,
        log: &dyn Log,
        offsets: &mut Offsets,
        horizon_ms: i64,
    ) -> Result<Vec<Placed>, SyncError> {
        let mut made = Vec::new();
        loop {
            let next = self.tasks.iter().enumerate().filter_map(|(place, task)| {
                let (at, is_timer) = task.next_event(horizon_ms)?;
                Some((at, is_timer, place))
            });
            let Some((at, is_timer, place)) = next.min() else { return Ok(made) };
            for output in self.tasks[place].do_event(log, at, is_timer)? {
                let placed = place_output(log, offsets, output)?;
                deliver(&mut self.tasks, &placed);
                made.push(placed);
            }
        }
    }
}
