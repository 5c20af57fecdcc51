//! What one explanation looked up and ran again, so that nothing is done twice.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use smol_str::SmolStr;
use tidewire_contract::Key;
use tidewire_engine::identity::Identity;
use tidewire_engine::log::{Log, LogError, StoredRecord, TopicPartition};
use tidewire_engine::only::OnlyKeys;
use tidewire_engine::plan::StageSpec;
use tidewire_engine::reader::PartitionReader;
use tidewire_schemas::{EpochRecord, SchemaBook, topics};

use super::past::{Cuts, Past};
use super::seek::{by_identity, by_offset};
use super::stretch::{Stretch, Wanted, keys_of};

/// Most records of a broadcast topic that are looked through, backwards.
const MAX_BROADCAST_RECORDS: u64 = 50_000;
/// Most records that a stretch may have to take again before no earlier cut is tried.
pub const MAX_RERUN_RECORDS: i64 = 5_000_000;
/// Most cuts that a stretch begins earlier than the nearest.
pub const MAX_CUTS_BACK: usize = 64;

/// A task: the stage by its place, and the number.
pub type TaskId = (usize, u32);

/// What must be run again before the tree can go on.
#[derive(Debug)]
pub enum Need {
    /// The calls of an epoch for some keys.
    Calls { task: TaskId, epoch: i64, keys: BTreeSet<Key> },
    /// The keys that led to an output.
    Keys { task: TaskId, epoch: i64, sequence: u64 },
    /// An earlier cut.
    Earlier { stretch: usize },
}

/// Why growing stopped.
#[derive(Debug)]
pub enum Stop {
    /// Something must be run again first.
    Need(Need),
    /// It can not go on.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A record found, or why it was not.
pub type Found = Result<StoredRecord, String>;
/// The epoch that made an output, if its record is kept.
type MaybeEpoch = Option<Rc<EpochRecord>>;
/// The last record of each key in a partition before some offset.
pub type LastByKey = Rc<BTreeMap<String, u64>>;

/// See the module.
pub struct Session<'a> {
    /// The log.
    pub log: &'a dyn Log,
    /// Its schemas.
    pub book: &'a Arc<SchemaBook>,
    /// All stages that ran on it.
    pub stages: Vec<Arc<StageSpec>>,
    /// The keys that the log is restricted to.
    only: Option<Arc<OnlyKeys>>,
    /// What was run again.
    pub stretches: Vec<(TaskId, Stretch)>,
    /// Keys that led to outputs.
    keys: BTreeMap<(TaskId, u64), BTreeSet<Key>>,
    /// What can not be run again, and why.
    refused: BTreeMap<(TaskId, i64), String>,
    cuts: BTreeMap<TaskId, Rc<Cuts>>,
    places: RefCell<BTreeMap<(TopicPartition, u64), Found>>,
    identities: RefCell<BTreeMap<(TopicPartition, String), Option<u64>>>,
    epochs: RefCell<BTreeMap<(TaskId, u64), MaybeEpoch>>,
    broadcasts: RefCell<BTreeMap<(TopicPartition, u64), LastByKey>>,
    /// Epochs run again, all together.
    pub epochs_run: usize,
}

impl<'a> Session<'a> {
    /// Nothing done yet.
    pub fn new(
        log: &'a dyn Log,
        book: &'a Arc<SchemaBook>,
        stages: Vec<Arc<StageSpec>>,
        only: Option<Arc<OnlyKeys>>,
    ) -> Self {
        Self {
            log,
            book,
            stages,
            only,
            stretches: Vec::new(),
            keys: BTreeMap::new(),
            refused: BTreeMap::new(),
            cuts: BTreeMap::new(),
            places: RefCell::default(),
            identities: RefCell::default(),
            epochs: RefCell::default(),
            broadcasts: RefCell::default(),
            epochs_run: 0,
        }
    }

    /// The stage of that name that has such a task.
    pub fn task_of(&self, id: &Identity) -> Option<TaskId> {
        let place = self.stages.iter().position(|stage| stage.name == id.stage && id.task < stage.tasks())?;
        Some((place, id.task))
    }

    /// The past of a task.
    pub fn past(&self, task: TaskId) -> Past<'a> {
        Past {
            log: self.log,
            book: self.book,
            spec: Arc::clone(&self.stages[task.0]),
            task: task.1,
            only: self.only.clone(),
        }
    }

    /// A record by its place; in words why it is not there.
    pub fn record(&self, at: &TopicPartition, offset: u64) -> Result<Found, LogError> {
        let key = (at.clone(), offset);
        if let Some(found) = self.places.borrow().get(&key) {
            return Ok(found.clone());
        }
        let found = match by_offset(self.log, at, offset) {
            Ok(Some(stored)) => Ok(stored),
            Ok(None) => Err(format!(
                "{}/{}@{offset} is gone: the topic is compacted, and a later record has its key",
                at.topic, at.partition
            )),
            Err(error @ (LogError::Truncated { .. } | LogError::BeyondEnd { .. })) => Err(error.to_string()),
            Err(error @ (LogError::UnknownTopic(_) | LogError::UnknownPartition { .. })) => {
                Err(error.to_string())
            }
            Err(error) => return Err(error),
        };
        self.places.borrow_mut().insert(key, found.clone());
        Ok(found)
    }

    /// The offset of an output in the partition that it went to.
    pub fn offset_of(&self, at: &TopicPartition, id: &Identity) -> Result<Option<u64>, LogError> {
        let key = (at.clone(), id.to_string());
        if let Some(found) = self.identities.borrow().get(&key) {
            return Ok(*found);
        }
        let found = by_identity(self.log, at, id)?;
        let offset = found.as_ref().map(|stored| stored.offset);
        if let Some(stored) = found {
            self.places.borrow_mut().insert((at.clone(), stored.offset), Ok(stored));
        }
        self.identities.borrow_mut().insert(key, offset);
        Ok(offset)
    }

    /// Where a record of ours lies, looked for in all partitions that its stage writes to.
    pub fn place_of(&self, id: &Identity) -> Result<Option<(TopicPartition, u64)>, LogError> {
        let Some((stage, _)) = self.task_of(id) else { return Ok(None) };
        let outputs = self.stages[stage].outputs.iter().map(|output| output.topic.clone());
        let side = [topics::LATE, topics::DEAD_LETTERS].map(SmolStr::from);
        let names: BTreeSet<SmolStr> = outputs.chain(side).collect();
        for name in names {
            let Some(topic) = self.log.topic(&name)? else { continue };
            for partition in 0..topic.partitions {
                let at = TopicPartition::new(name.clone(), partition);
                if let Some(offset) = self.offset_of(&at, id)? {
                    return Ok(Some((at, offset)));
                }
            }
        }
        Ok(None)
    }

    /// The epoch that made an output.
    pub fn epoch_of(&self, task: TaskId, sequence: u64) -> anyhow::Result<Option<Rc<EpochRecord>>> {
        if let Some(found) = self.epochs.borrow().get(&(task, sequence)) {
            return Ok(found.clone());
        }
        let wanted = i64::try_from(sequence).unwrap_or(i64::MAX);
        let found = self.past(task).first_epoch(wanted, |record| record.closing_sequence)?;
        // The first epoch kept may have made it, or one before that is gone.
        let made = |record: &EpochRecord| wanted > record.closing_sequence - record.output_count;
        let found = found.filter(made).map(Rc::new);
        self.epochs.borrow_mut().insert((task, sequence), found.clone());
        Ok(found)
    }

    /// The stretch that has an epoch's calls for these keys, or the need for one; in words why there is none.
    pub fn stretch(
        &self,
        task: TaskId,
        epoch: i64,
        keys: &BTreeSet<Key>,
    ) -> Result<Result<usize, String>, Stop> {
        if let Some(why) = self.refused.get(&(task, epoch)) {
            return Ok(Err(why.clone()));
        }
        let found = self.stretches.iter().position(|(of, stretch)| *of == task && stretch.has(epoch, keys));
        match found {
            Some(found) => Ok(Ok(found)),
            None => Err(Stop::Need(Need::Calls { task, epoch, keys: keys.clone() })),
        }
    }

    /// The keys that led to an output, once they were asked for.
    pub fn keys_of(&self, task: TaskId, sequence: u64) -> Option<&BTreeSet<Key>> {
        self.keys.get(&(task, sequence))
    }

    /// Whether a stretch can begin earlier.
    pub fn can_go_back(&self, stretch: usize) -> bool {
        let (_, stretch) = &self.stretches[stretch];
        let inputs = stretch.epochs.values().flat_map(|epoch| &epoch.inputs);
        let records: i64 = inputs.map(|input| input.records).sum();
        stretch.began_after > 0 && stretch.wanted.back < MAX_CUTS_BACK && records < MAX_RERUN_RECORDS
    }

    /// Runs again what is needed.
    pub fn supply(&mut self, need: Need) -> anyhow::Result<()> {
        match need {
            Need::Keys { task, epoch, sequence } => {
                let cuts = self.cuts(task)?;
                let keys = keys_of(&self.past(task), &cuts, epoch, sequence)?;
                self.keys.insert((task, sequence), keys);
            }
            Need::Earlier { stretch } => {
                let (task, old) = &self.stretches[stretch];
                let mut wanted = old.wanted.clone();
                wanted.back = (wanted.back * 2).max(1);
                let (task, before) = (*task, old.began_after);
                let new = self.run(task, wanted)?;
                // A cut of which only a part is left brings nothing: it must not be tried for ever.
                let mut new = new;
                if new.began_after >= before {
                    new.wanted.back = MAX_CUTS_BACK;
                }
                self.stretches[stretch] = (task, new);
            }
            Need::Calls { task, epoch, keys } => {
                let wanted = Wanted { first: epoch, last: epoch, back: 0, keys };
                if let Err(error) = self.add(task, wanted) {
                    self.refused.insert((task, epoch), format!("{error:#}"));
                }
            }
        }
        Ok(())
    }

    /// Adds a stretch, or makes one that lies at the same cut longer.
    fn add(&mut self, task: TaskId, mut wanted: Wanted) -> anyhow::Result<()> {
        let cuts = self.cuts(task)?;
        let cut_before =
            |epoch: i64| cuts.list.iter().rev().find(|cut| cut.epoch < epoch).map_or(0, |cut| cut.epoch);
        let near = self.stretches.iter().position(|(of, stretch)| {
            *of == task
                && (stretch.epochs.contains_key(&wanted.first)
                    || cut_before(stretch.wanted.first) == cut_before(wanted.first))
        });
        if let Some(near) = near {
            let old = &self.stretches[near].1.wanted;
            wanted.first = wanted.first.min(old.first);
            wanted.last = wanted.last.max(old.last);
            wanted.back = old.back;
            wanted.keys.extend(old.keys.iter().cloned());
            let new = self.run(task, wanted)?;
            self.stretches[near].1 = new;
        } else {
            let new = self.run(task, wanted)?;
            self.stretches.push((task, new));
        }
        Ok(())
    }

    fn run(&mut self, task: TaskId, wanted: Wanted) -> anyhow::Result<Stretch> {
        let cuts = self.cuts(task)?;
        let stretch = Stretch::run(&self.past(task), &cuts, wanted)?;
        self.epochs_run += stretch.epochs.len();
        Ok(stretch)
    }

    /// Runs stretches once more for the states of these calls.
    pub fn add_states(&mut self, numbers: BTreeMap<usize, BTreeSet<u64>>) -> anyhow::Result<()> {
        for (place, numbers) in numbers {
            let task = self.stretches[place].0;
            let (past, cuts) = (self.past(task), self.cuts(task)?);
            self.stretches[place].1.add_states(&past, &cuts, numbers)?;
        }
        Ok(())
    }

    /// The cuts of a task.
    pub fn cuts(&mut self, task: TaskId) -> anyhow::Result<Rc<Cuts>> {
        if let Some(cuts) = self.cuts.get(&task) {
            return Ok(Rc::clone(cuts));
        }
        let cuts = Rc::new(self.past(task).cuts()?);
        self.cuts.insert(task, Rc::clone(&cuts));
        Ok(cuts)
    }

    /// The last record of each key in a partition before `until`, among the last so many.
    pub fn last_by_key(&self, at: &TopicPartition, until: u64) -> Result<LastByKey, LogError> {
        let key = (at.clone(), until);
        if let Some(found) = self.broadcasts.borrow().get(&key) {
            return Ok(Rc::clone(found));
        }
        let from = self.log.bounds(at)?.start.max(until.saturating_sub(MAX_BROADCAST_RECORDS));
        let mut last = BTreeMap::new();
        let mut reader = PartitionReader::new(self.log, at.clone(), from, until);
        while let Some(stored) = reader.next_record()? {
            let Some(key) = stored.record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()) else {
                continue;
            };
            last.insert(key.to_owned(), stored.offset);
        }
        let last = Rc::new(last);
        self.broadcasts.borrow_mut().insert(key, Rc::clone(&last));
        Ok(last)
    }
}
