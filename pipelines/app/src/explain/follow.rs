//! From a call to what it took: the record of the log, or the one that another operator gave out.

use tidewire_contract::{Key, TimerChange};
use tidewire_engine::identity::Identity;
use tidewire_engine::log::TopicPartition;
use tidewire_engine::plan::Upstream;
use tidewire_engine::trace::{Call, Took};
use tidewire_schemas::Record;

use super::grow::{Grower, RecordId, Within, brief, of_record, place_text};
use super::session::{Need, Stop};
use super::stretch::{ItemId, upstream};
use super::tree::{Brief, TreeNode};

impl Grower<'_, '_> {
    /// What made the operator act: a record, or a timer with the call that set it.
    pub(super) fn cause(
        &mut self,
        within: Within,
        call: &Call,
        level: usize,
    ) -> Result<(Option<TreeNode>, Vec<TreeNode>), Stop> {
        let Took::Timer(timer) = &call.took else {
            return Ok((self.took(within, call, "cause", level + 1)?, Vec::new()));
        };
        let mut children = Vec::new();
        let stretch = &self.session.stretches[within.stretch].1;
        let sets = |change: &TimerChange| matches!(change, TimerChange::Set { key, at, tag } if *key == timer.key && *at == timer.at && *tag == timer.tag);
        let setter = stretch.earlier(call).find(|earlier| earlier.timers.iter().any(sets));
        if let Some(setter) = setter {
            children.extend(self.took(within, setter, "set the timer", level + 1)?);
        }
        Ok((None, children))
    }

    /// The record that moved time up to a timer: it has nothing else to do with it, so what led to it is left out.
    pub(super) fn moved_time(
        &mut self,
        at: &TopicPartition,
        offset: u64,
        level: usize,
    ) -> Result<TreeNode, Stop> {
        let Ok(stored) = self.session.record(at, offset)? else {
            return self.record(at, offset, "moved time on", level + 1);
        };
        if Identity::of(&stored.record).is_none() {
            return self.record(at, offset, "moved time on", level + 1);
        }
        let mut node = self.leaf(at, &stored);
        "moved time on".clone_into(&mut node.role);
        if let Some(number) = self.seen.get(&RecordId::Place(at.clone(), offset)) {
            (node.number, node.shown_elsewhere) = (*number, true);
        }
        Ok(node)
    }

    /// The record that a call took.
    pub fn took(
        &mut self,
        within: Within,
        call: &Call,
        role: &str,
        level: usize,
    ) -> Result<Option<TreeNode>, Stop> {
        let Took::Record { ordinal, record, .. } = &call.took else {
            return Ok(None);
        };
        match upstream(&self.session.past(within.task), call) {
            Some(Upstream::Node(maker)) => {
                let item = (call.epoch, call.pass, maker, *ordinal);
                if let Some(node) = self.item(within, item, role, level)? {
                    return Ok(Some(node));
                }
                if role == "cause" && self.session.keys_of(within.task, within.sequence).is_none() {
                    let epoch = i64::try_from(call.epoch).unwrap_or(i64::MAX);
                    return Err(Stop::Need(Need::Keys {
                        task: within.task,
                        epoch,
                        sequence: within.sequence,
                    }));
                }
                let mut node = of_record(record, &call.key);
                role.clone_into(&mut node.role);
                node.notes.push("it was made for another key, which was not followed".to_owned());
                Ok(Some(node))
            }
            _ => match self.origin(within, call) {
                Some((at, offset)) => self.record(&at, offset, role, level).map(Some),
                None => Ok(None),
            },
        }
    }

    /// The log record at a call's position.
    pub fn origin(&self, within: Within, call: &Call) -> Option<(TopicPartition, u64)> {
        let (source, offset) = call.origin?;
        let spec = &self.session.stages[within.task.0];
        let sources = tidewire_engine::intake::Source::of_task(spec, within.task.1);
        Some((sources.get(source)?.at.clone(), offset))
    }

    /// What a call took, in short, with its place if it lies in the log.
    pub fn brief_taken(&self, within: Within, call: &Call) -> Result<Brief, Stop> {
        let Took::Record { ordinal, record, .. } = &call.took else { return Ok(Brief::default()) };
        match upstream(&self.session.past(within.task), call) {
            Some(Upstream::Node(maker)) => {
                self.brief_of(within, (call.epoch, call.pass, maker, *ordinal), record, &call.key)
            }
            _ => {
                let place = self.origin(within, call).map(|(at, offset)| place_text(&at, offset));
                Ok(Brief { place, ..brief(record, &call.key) })
            }
        }
    }

    pub(super) fn brief_of(
        &self,
        within: Within,
        item: ItemId,
        record: &Record,
        key: &Key,
    ) -> Result<Brief, Stop> {
        let mut short = brief(record, key);
        let stretch = &self.session.stretches[within.stretch].1;
        if let Some(sequence) = stretch.sequence_of(item)
            && let Some(output) = stretch.output(sequence)
        {
            let stage = self.session.stages[within.task.0].name.clone();
            let id = Identity { stage, task: within.task.1, sequence };
            let offset = self.session.offset_of(&output.at, &id)?;
            short.place = offset.map(|offset| place_text(&output.at, offset));
        }
        Ok(short)
    }
}
