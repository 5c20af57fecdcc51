//! One topic on its way into a store.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use tidewire_engine::log::{
    CommitError, CommittedOffset, Log, LogError, Member, NewRecord, Scope, StoredRecord, TopicPartition,
    Transaction,
};
use tidewire_schemas::{DecodeError, SchemaBook, topics};
use tidewire_sinks::{Sink, SinkError, SinkRecord, Written};

use super::counters::{Counters, add, set};
use super::letters;
use super::{OnTruncated, Schemas, SinkEvent, SinkNews, SinkSpec};

/// How long a reader with nothing to do waits for the log.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// One step of a longer wait, so that a stop is noticed and the group is not kept waiting.
const PAUSE_STEP: Duration = Duration::from_millis(50);
/// A failure that lasts is told this often.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How often the lag is looked at.
const LAG_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    log: Arc<dyn Log>,
    schemas: Schemas,
    spec: SinkSpec,
    topic: SmolStr,
    group: SmolStr,
    counters: Arc<Counters>,
    member_name: SmolStr,
    stop: Arc<AtomicBool>,
    events: SyncSender<SinkEvent>,
    sink: Box<dyn Sink>,
    book: Option<SchemaBook>,
    /// Which partition comes first in the next batch.
    turn: usize,
}

/// A partition that is held.
struct Held {
    /// The next offset to read from the log.
    next: u64,
    /// Read ahead, not handed to the store yet.
    ready: VecDeque<StoredRecord>,
}

/// A batch on its way to the store.
#[derive(Default)]
struct Batch {
    records: Vec<(TopicPartition, StoredRecord)>,
    /// Where each partition stands once the batch is written.
    positions: BTreeMap<u32, u64>,
}

/// Why a pass through the loop ended early.
enum Broken {
    /// Told to stop.
    Stop,
    /// Out of the group: join again.
    Rejoin(String),
    /// The log or the registry does not answer: try again.
    Later(String),
    /// Somebody must change something.
    Halt(String),
}

impl From<LogError> for Broken {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Fenced(why) => Self::Rejoin(why),
            // A topic that is not there may be made by a pipeline that is just being started.
            LogError::Store { .. }
            | LogError::Unavailable { .. }
            | LogError::Unstable { .. }
            | LogError::UnknownTopic(_) => Self::Later(error.to_string()),
            other => Self::Halt(other.to_string()),
        }
    }
}

/// A failure that lasts: how long to wait, and when to tell of it.
struct Trouble {
    attempts: u64,
    told: Option<Instant>,
}

impl Reader {
    #[expect(clippy::too_many_arguments, reason = "made in one place, from what that place has")]
    pub fn new(
        log: Arc<dyn Log>,
        schemas: Schemas,
        spec: SinkSpec,
        topic: SmolStr,
        counters: Arc<Counters>,
        member_name: SmolStr,
        stop: Arc<AtomicBool>,
        events: SyncSender<SinkEvent>,
    ) -> Self {
        let (group, sink) = (spec.group(&topic), (spec.make)());
        Self {
            log,
            schemas,
            spec,
            topic,
            group,
            counters,
            member_name,
            stop,
            events,
            sink,
            book: None,
            turn: 0,
        }
    }

    /// Reads until told to stop. An error says what must be changed before it can go on; then all others stop too.
    pub fn run(mut self) -> Result<(), String> {
        let mut trouble = Trouble { attempts: 0, told: None };
        let ended = loop {
            match self.serve(&mut trouble) {
                Broken::Stop => break Ok(()),
                Broken::Rejoin(why) => {
                    self.tell(SinkNews::Rejoining { why });
                    self.pause(self.spec.retry_first);
                }
                Broken::Later(why) => self.wait_after(&mut trouble, &why),
                Broken::Halt(why) => {
                    self.tell(SinkNews::Stopped { why: why.clone() });
                    self.stop.store(true, Ordering::SeqCst);
                    break Err(why);
                }
            }
        };
        let _ = self.sink.close();
        ended
    }

    /// One membership: from joining the group until it is lost or left. Who can not reach the store takes no partitions
    /// from those who can; and a wrong password shows at once, whoever holds the partitions.
    fn serve(&mut self, trouble: &mut Trouble) -> Broken {
        match self.sink.open() {
            Ok(()) => {}
            Err(error @ SinkError::Retriable { .. }) => return Broken::Later(error.to_string()),
            Err(error @ SinkError::Fatal { .. }) => return Broken::Halt(error.to_string()),
        }
        let joined = self.log.join(&self.group, &self.member_name, &self.topic);
        let mut member = match joined.map_err(Broken::from) {
            Ok(member) => member,
            Err(broken) => return broken,
        };
        let mut held = BTreeMap::new();
        let mut looked = None;
        loop {
            if self.stopping() {
                let _ = member.leave();
                return Broken::Stop;
            }
            match self.pass(&mut *member, &mut held) {
                Ok(worked) => {
                    self.recovered(trouble);
                    if looked.is_none_or(|at: Instant| at.elapsed() >= LAG_EVERY) {
                        self.look_at_lag(&held);
                        looked = Some(Instant::now());
                    }
                    if !worked {
                        self.log.wait(IDLE_WAIT);
                    }
                }
                // Membership and what was read stay: only the log is asked again.
                Err(Broken::Later(why)) => self.wait_after(trouble, &why),
                Err(Broken::Stop) => {}
                Err(broken) => return broken,
            }
        }
    }

    /// Takes a batch to the store, if there is one.
    fn pass(&mut self, member: &mut dyn Member, held: &mut BTreeMap<u32, Held>) -> Result<bool, Broken> {
        self.follow_group(member, held)?;
        for (task, held) in held.iter_mut().filter(|(_, held)| held.ready.is_empty()) {
            self.refill(&self.at(*task), held)?;
        }
        let batch = self.gather(held);
        if batch.records.is_empty() {
            return Ok(false);
        }
        let delivered = self.deliver(member, batch);
        if !matches!(delivered, Ok(true)) {
            // What was taken from the read-ahead is not committed: it is read again, by whoever holds it then.
            held.clear();
        }
        delivered
    }

    /// Takes over what the group gives and gives back what it asks for: nothing is under way between batches.
    fn follow_group(&self, member: &mut dyn Member, held: &mut BTreeMap<u32, Held>) -> Result<(), Broken> {
        let assignment = member.poll()?;
        held.retain(|task, _| assignment.tasks.contains(task) && !assignment.revoking.contains(task));
        if !assignment.revoking.is_empty() {
            member.release(&assignment.revoking)?;
        }
        for task in assignment.tasks {
            if held.contains_key(&task) || assignment.revoking.contains(&task) {
                continue;
            }
            let at = self.at(task);
            let next = match self.log.committed(&self.group, &at) {
                Ok(Some(committed)) => committed.offset,
                Ok(None) => self.log.bounds(&at)?.start,
                Err(error @ LogError::Unstable { .. }) => {
                    self.fence_last_writer(&at)?;
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            };
            held.insert(task, Held { next, ready: VecDeque::new() });
        }
        Ok(())
    }

    /// Whoever held a partition before and left a transaction open there is most likely the one who committed last. The
    /// partition is ours now, so its transaction is ended rather than waited for.
    fn fence_last_writer(&self, at: &TopicPartition) -> Result<(), Broken> {
        match self.log.committed_unstable(&self.group, at)? {
            Some(last) if !last.metadata.is_empty() && last.metadata != self.member_name => {
                let (group, driving) = (self.group.to_string(), self.topic.clone());
                Ok(self.log.fence(&last.metadata, &Scope { group, driving, partitions: Vec::new() })?)
            }
            _ => Ok(()),
        }
    }

    /// A batch of what is at hand. Partitions take turns in being first, so that none of them waits for ever.
    fn gather(&mut self, held: &mut BTreeMap<u32, Held>) -> Batch {
        let mut batch = Batch::default();
        let tasks: Vec<u32> = held.keys().copied().collect();
        self.turn = (self.turn + 1) % tasks.len().max(1);
        for task in tasks[self.turn..].iter().chain(&tasks[..self.turn]) {
            let Some(held) = held.get_mut(task) else { continue };
            let room = self.spec.batch_max_records.saturating_sub(batch.records.len()).min(held.ready.len());
            if room > 0 {
                let at = self.at(*task);
                batch.records.extend(held.ready.drain(..room).map(|stored| (at.clone(), stored)));
                // What lies between here and the next record holds nothing for us.
                let position = held.ready.front().map_or(held.next, |stored| stored.offset);
                batch.positions.insert(*task, position);
            }
        }
        batch
    }

    fn refill(&self, at: &TopicPartition, held: &mut Held) -> Result<(), Broken> {
        match self.log.fetch(at, held.next, self.spec.prefetch_bytes) {
            Ok(fetched) => {
                add(&self.counters.read, fetched.records.len() as u64);
                held.ready.extend(fetched.records);
                held.next = fetched.next_offset;
                Ok(())
            }
            Err(LogError::Truncated { at, asked, start }) if self.spec.on_truncated == OnTruncated::Skip => {
                add(&self.counters.skipped, start.saturating_sub(asked));
                self.tell(SinkNews::Skipped { at, from: asked, to: start });
                held.next = start;
                Ok(())
            }
            Err(error @ LogError::Truncated { .. }) => Err(Broken::Halt(format!(
                "{error}, and this sink has not read it. Set `on_truncated = \"skip\"` to go on with what is left; \
                 keys whose last record is gone keep their older value in the store"
            ))),
            Err(error @ LogError::BeyondEnd { .. }) => Err(Broken::Halt(format!(
                "{error} If the topic was made anew, set `generation = {}` for this sink: it reads its topics from \
                 the start and writes every key anew",
                self.spec.generation.saturating_add(1)
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a batch and commits where it ends. False: the group changed while the store was down, and whoever holds
    /// the partitions now reads the batch again.
    fn deliver(&mut self, member: &mut dyn Member, mut batch: Batch) -> Result<bool, Broken> {
        let (records, places, mut failed) = self.decode(member, &batch)?;
        let Some(written) = self.write(member, &records)? else { return Ok(false) };
        add(&self.counters.applied, written.applied);
        add(&self.counters.stale, written.stale);
        failed.extend(
            written.refused.into_iter().map(|refused| (places[refused.index], refused.reason, refused.error)),
        );
        failed.sort_by_key(|(place, ..)| *place);
        let letters = self.letters(&batch, &failed)?;
        self.commit(member, &mut batch, &letters)?;
        set(&self.counters.waiting, 0);
        add(&self.counters.batches, 1);
        add(&self.counters.dead_letters, letters.len() as u64);
        for (place, reason, error) in failed {
            let (at, stored) = &batch.records[place];
            let place = format!("{at}, offset {}", stored.offset);
            self.tell(SinkNews::DeadLetter { place, reason, error });
        }
        Ok(true)
    }

    /// The records of a batch that can be read, their places in it, and those that can not be read.
    #[expect(clippy::type_complexity, reason = "used once, right above")]
    fn decode(
        &mut self,
        member: &mut dyn Member,
        batch: &Batch,
    ) -> Result<(Vec<SinkRecord>, Vec<usize>, Vec<(usize, SmolStr, String)>), Broken> {
        let mut refreshed = false;
        loop {
            let book = match self.book.take() {
                Some(book) => book,
                None => {
                    refreshed = true;
                    self.read_schemas(member)?
                }
            };
            let (mut records, mut places, mut failed) = (Vec::new(), Vec::new(), Vec::new());
            let mut unknown = false;
            for (place, (at, stored)) in batch.records.iter().enumerate() {
                match letters::decode(&book, at, stored) {
                    Ok(record) => {
                        records.push(record);
                        places.push(place);
                    }
                    Err(error) => {
                        unknown |= matches!(error, DecodeError::UnknownSchema { .. });
                        failed.push((place, SmolStr::new_static("undecodable"), error.to_string()));
                    }
                }
            }
            if !unknown || refreshed {
                self.book = Some(book);
                return Ok((records, places, failed));
            }
            // A writer newer than this process: its schema is registered by now.
        }
    }

    fn read_schemas(&self, member: &mut dyn Member) -> Result<SchemaBook, Broken> {
        let mut trouble = Trouble { attempts: 0, told: None };
        loop {
            match (self.schemas)() {
                Ok(book) => {
                    self.recovered(&mut trouble);
                    return Ok(book);
                }
                Err(error) => {
                    self.wait_after(&mut trouble, &format!("reading the schemas: {error}"));
                    if self.stopping() {
                        return Err(Broken::Stop);
                    }
                    member.poll()?;
                }
            }
        }
    }

    /// Writes until it is done. `None`: the group asks partitions back, or took some.
    fn write(&mut self, member: &mut dyn Member, records: &[SinkRecord]) -> Result<Option<Written>, Broken> {
        let before = member.poll()?;
        let mut trouble = Trouble { attempts: 0, told: None };
        loop {
            let done = match records.is_empty() {
                true => Ok(Written::default()),
                false => self.sink.open().and_then(|()| {
                    let written = self.sink.write(records)?;
                    self.sink.flush()?;
                    Ok(written)
                }),
            };
            match done {
                Ok(written) => {
                    self.recovered(&mut trouble);
                    return Ok(Some(written));
                }
                Err(error @ SinkError::Fatal { .. }) => return Err(Broken::Halt(error.to_string())),
                Err(error @ SinkError::Retriable { .. }) => {
                    self.wait_after(&mut trouble, &error.to_string());
                    if self.stopping() {
                        return Err(Broken::Stop);
                    }
                    let now = member.poll()?;
                    if now.tasks != before.tasks || now.revoking != before.revoking {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// The dead letters of what failed, by partition.
    fn letters(
        &self,
        batch: &Batch,
        failed: &[(usize, SmolStr, String)],
    ) -> Result<Vec<(u32, TopicPartition, NewRecord)>, Broken> {
        if failed.is_empty() {
            return Ok(Vec::new());
        }
        let Some(book) = &self.book else { return Ok(Vec::new()) };
        let topic = self.log.topic(topics::DEAD_LETTERS)?;
        let topic = topic.ok_or_else(|| LogError::UnknownTopic(topics::DEAD_LETTERS.into()))?;
        let letters = failed.iter().map(|(place, reason, error)| {
            let (at, stored) = &batch.records[*place];
            let (to, letter) =
                letters::letter(book, &self.spec.name, (at, stored), (reason, error), topic.partitions)
                    .map_err(Broken::Halt)?;
            Ok((at.partition, to, letter))
        });
        letters.collect()
    }

    /// Commits positions and dead letters in one step. What the group has given to others meanwhile is left out.
    fn commit(
        &self,
        member: &mut dyn Member,
        batch: &mut Batch,
        letters: &[(u32, TopicPartition, NewRecord)],
    ) -> Result<(), Broken> {
        loop {
            let assignment = member.poll()?;
            batch.positions.retain(|task, _| assignment.tasks.contains(task));
            let mut appends: BTreeMap<TopicPartition, Vec<NewRecord>> = BTreeMap::new();
            for (_, to, letter) in letters.iter().filter(|(task, ..)| batch.positions.contains_key(task)) {
                appends.entry(to.clone()).or_default().push(letter.clone());
            }
            let offsets = batch.positions.iter().map(|(task, offset)| {
                (self.at(*task), CommittedOffset { offset: *offset, metadata: self.member_name.to_string() })
            });
            let transaction = Transaction {
                generation: assignment.generation,
                appends: appends.into_iter().collect(),
                offsets: offsets.collect(),
            };
            if transaction.offsets.is_empty() {
                return Ok(());
            }
            match member.commit(transaction) {
                Ok(()) => return Ok(()),
                Err(CommitError::Aborted(_)) if self.stopping() => return Err(Broken::Stop),
                Err(CommitError::Aborted(_)) => self.pause(PAUSE_STEP),
                // Whether it counts is in the log: joining again reads it there, and a second writing changes nothing.
                Err(CommitError::Fenced(why) | CommitError::Unknown(why)) => return Err(Broken::Rejoin(why)),
                Err(CommitError::Log(error)) => return Err(error.into()),
            }
        }
    }

    fn look_at_lag(&self, held: &BTreeMap<u32, Held>) {
        let behind = held.iter().map(|(task, held)| {
            let end = self.log.bounds(&self.at(*task)).map_or(held.next, |bounds| bounds.stable_end);
            end.saturating_sub(held.ready.front().map_or(held.next, |stored| stored.offset))
        });
        set(&self.counters.lag, behind.sum());
    }

    fn at(&self, partition: u32) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), partition)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits before the next attempt, longer each time, and tells of it now and then.
    fn wait_after(&self, trouble: &mut Trouble, error: &str) {
        let doubled = self.spec.retry_first.saturating_mul(1 << trouble.attempts.min(20));
        let wait = doubled.min(self.spec.retry_most);
        trouble.attempts += 1;
        add(&self.counters.retries, 1);
        set(&self.counters.waiting, 1);
        if trouble.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            trouble.told = Some(Instant::now());
            self.tell(SinkNews::Retrying { attempts: trouble.attempts, wait, error: error.to_owned() });
        }
        self.pause(wait);
    }

    fn recovered(&self, trouble: &mut Trouble) {
        if trouble.attempts > 0 {
            self.tell(SinkNews::Recovered { attempts: trouble.attempts });
            set(&self.counters.waiting, 0);
            *trouble = Trouble { attempts: 0, told: None };
        }
    }

    fn pause(&self, wait: Duration) {
        let begun = Instant::now();
        while !self.stopping() {
            let left = wait.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(PAUSE_STEP));
        }
    }

    fn tell(&self, what: SinkNews) {
        // Nobody listens any more only when the run is over.
        let event = SinkEvent { sink: self.spec.name.clone(), topic: self.topic.clone(), what };
        let _ = self.events.send(event);
    }
}
