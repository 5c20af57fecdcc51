//! Reading partitions ahead, each from wherever its readers stand.
//!
//! A consumer of the library has one position a partition, but tasks that read the same broadcast topic stand at
//! different places. So there are a few *lanes*, consumers without a group, and a *cursor* is one partition on one
//! lane. What a cursor gave out is kept a while, so that tasks which go abreast share one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use smol_str::SmolStr;
use tidewire_engine::log::{Fetched, LogError, StoredRecord, TopicPartition};
use tidewire_engine::memory::Signal;

use super::client;
use super::context::Quiet;
use super::convert::{log_error, number, stored};
use super::ends::{End, Ends};
use super::foreign::{Event, PartitionQueue};
use super::options::KafkaOptions;

/// Most consumers of one process that read; beyond that a cursor is taken from whoever used it least recently.
const MAX_LANES: usize = 8;
/// Bytes of a partition that wait to be given out.
const AHEAD_BYTES: usize = 2 << 20;
/// Bytes of a partition kept after they were given out.
const KEPT_BYTES: usize = 1 << 20;
/// A cursor that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Nothing comes for so long though the brokers say that there is more: the lane is given up for a new one.
const STUCK: Duration = Duration::from_secs(10);
/// How long to wait for an answer to where a topic's leaders are.
const LOOK_UP: Duration = Duration::from_secs(2);
/// How often the library's own events are served.
const SERVED: Duration = Duration::from_millis(500);
/// Under this group name nothing is ever joined or committed.
const READER_GROUP: &str = "tidewire.reader";

/// All cursors of a process.
pub struct Readers {
    options: KafkaOptions,
    signal: Arc<Signal>,
    ends: Ends,
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    lanes: Vec<Lane>,
    served: Option<Instant>,
}

struct Lane {
    consumer: Arc<BaseConsumer<Quiet>>,
    cursors: BTreeMap<TopicPartition, Arc<Mutex<Cursor>>>,
    /// Topics whose leaders it was made to look up.
    topics: BTreeSet<SmolStr>,
}

impl Readers {
    /// No cursor yet.
    pub fn new(options: KafkaOptions, signal: Arc<Signal>, ends: Ends) -> Self {
        Self { options, signal, ends, lanes: Mutex::default() }
    }

    /// What is at hand of `at` from `from` on. The first call for a place returns nothing: reading begins there.
    ///
    /// # Errors
    /// `Err(None)` when `from` lies outside of what the partition holds, which the caller names.
    pub fn fetch(
        &self,
        at: &TopicPartition,
        from: u64,
        max_bytes: usize,
    ) -> Result<Fetched, Option<LogError>> {
        let cursor = self.cursor(at, from).map_err(Some)?;
        let mut cursor = lock(&cursor);
        cursor.pump();
        if let Some((code, words)) = cursor.failed.take() {
            // Reading begins anew at the next call.
            cursor.lost = true;
            return Err(match code {
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => None,
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition => Some(LogError::UnknownTopic(at.topic.clone())),
                RDKafkaErrorCode::TopicAuthorizationFailed => {
                    Some(LogError::Store { at: format!("reading {at}"), error: words })
                }
                _ => Some(LogError::Unavailable { at: format!("reading {at}"), error: words }),
            });
        }
        let mut fetched = cursor.give(from, max_bytes);
        if fetched.next_offset == cursor.next {
            match self.ends.of(at, cursor.next) {
                End::Here => (fetched.at_end, cursor.waits_since) = (true, Instant::now()),
                End::Further if cursor.waits_since.elapsed() > STUCK => {
                    tracing::warn!(%at, offset = cursor.next, "there is more to read, but nothing comes: reading begins anew");
                    cursor.stuck = true;
                }
                End::Further => {}
                // While the brokers do not answer, nobody is late.
                End::Unknown => cursor.waits_since = Instant::now(),
            }
        }
        Ok(fetched)
    }

    /// Takes up where a partition ends, as somebody was just told.
    pub fn learn_end(&self, at: &TopicPartition, end: u64) {
        self.ends.learn(at, end);
    }

    /// The cursor that holds or comes to `from`; a new one if there is none.
    fn cursor(&self, at: &TopicPartition, from: u64) -> Result<Arc<Mutex<Cursor>>, LogError> {
        let mut guard = lock(&self.lanes);
        guard.serve();
        let lanes = &mut guard.lanes;
        give_up_stuck(lanes, at);
        // One that failed is taken first, then one that nobody used for long.
        let (mut lost, mut oldest): (Option<usize>, Option<(Instant, usize)>) = (None, None);
        for (place, lane) in lanes.iter().enumerate() {
            let Some(found) = lane.cursors.get(at) else { continue };
            let mut cursor = lock(found);
            if !cursor.lost && cursor.covers(from) {
                cursor.used = Instant::now();
                return Ok(Arc::clone(found));
            }
            if cursor.lost {
                lost = Some(place);
            } else if oldest.is_none_or(|(least, _)| cursor.used < least) {
                oldest = Some((cursor.used, place));
            }
        }
        close_idle(lanes);
        let free = lanes.iter().position(|lane| !lane.cursors.contains_key(at));
        let stale = lost.or(oldest.filter(|(used, _)| used.elapsed() >= IDLE).map(|(_, place)| place));
        let place = match (stale, free, oldest) {
            (Some(place), _, _) | (None, Some(place), _) => place,
            (None, None, Some((_, place))) if lanes.len() >= MAX_LANES => place,
            _ => {
                lanes.push(self.new_lane()?);
                lanes.len() - 1
            }
        };
        let lane = &mut lanes[place];
        lane.close(at);
        let cursor = Arc::new(Mutex::new(lane.open(at, from, &self.signal)?));
        lane.cursors.insert(at.clone(), Arc::clone(&cursor));
        Ok(cursor)
    }

    fn new_lane(&self) -> Result<Lane, LogError> {
        let config = self.options.reader(READER_GROUP, "read_committed");
        let quiet = Quiet::of(&self.options);
        let consumer: BaseConsumer<Quiet> =
            client::make(&config, quiet, &self.options, "making a consumer", Consumer::client)?;
        Ok(Lane { consumer: Arc::new(consumer), cursors: BTreeMap::new(), topics: BTreeSet::new() })
    }
}

impl Lanes {
    /// Now and then, serves what the library wants to tell.
    fn serve(&mut self) {
        if self.served.is_some_and(|served| served.elapsed() < SERVED) {
            return;
        }
        self.served = Some(Instant::now());
        for lane in &self.lanes {
            while lane.consumer.poll(Duration::ZERO).is_some() {}
        }
    }
}

impl Lane {
    fn open(&mut self, at: &TopicPartition, from: u64, signal: &Arc<Signal>) -> Result<Cursor, LogError> {
        let doing = || format!("reading {at} from offset {from}");
        let queue = PartitionQueue::split(&self.consumer, at, signal)
            .ok_or_else(|| LogError::Unavailable { at: doing(), error: "no queue".to_owned() })?;
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        list.add_partition_offset(&at.topic, number(at), offset)
            .and_then(|()| self.consumer.incremental_assign(&list))
            .map_err(|error| log_error(doing(), &error))?;
        if self.topics.insert(at.topic.clone()) {
            self.look_up(&at.topic);
        }
        Ok(Cursor::new(queue, from))
    }

    /// Has the leaders of a topic looked up at once. By itself the library looks once a second for those of topics that
    /// were added to a consumer, and until then nothing is read of them. It is asked in a thread, as the call waits for an
    /// answer; if there is none, the library's own look comes.
    fn look_up(&self, topic: &SmolStr) {
        let (consumer, topic) = (Arc::clone(&self.consumer), topic.clone());
        let ask = move || match consumer.fetch_metadata(Some(&topic), LOOK_UP) {
            Ok(_) => {}
            Err(error) => tracing::debug!(%topic, %error, "the leaders were not told"),
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-look-up".to_owned()).spawn(ask) {
            tracing::debug!(%error, "a thread could not be started");
        }
    }

    fn close(&mut self, at: &TopicPartition) {
        if self.cursors.remove(at).is_none() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&at.topic, number(at));
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::debug!(%at, %error, "a partition could not be given up");
        }
    }
}

/// Gives lanes up on which nothing comes of a partition. What else was read on them is read on others.
fn give_up_stuck(lanes: &mut Vec<Lane>, at: &TopicPartition) {
    let is_stuck = |lane: &Lane| lane.cursors.get(at).is_some_and(|cursor| lock(cursor).stuck);
    while let Some(place) = lanes.iter().position(is_stuck) {
        let lane = lanes.remove(place);
        // A client that is stuck may take its time to end: nobody waits for it.
        let dropped = std::thread::Builder::new().name("kafka-closing".to_owned()).spawn(move || drop(lane));
        if let Err(error) = dropped {
            tracing::warn!(%error, "a thread could not be started");
        }
    }
}

/// Closes cursors that nobody used for long, and lanes without any.
fn close_idle(lanes: &mut Vec<Lane>) {
    for lane in lanes.iter_mut() {
        let idle = lane.cursors.iter().filter(|(_, cursor)| lock(cursor).used.elapsed() >= IDLE);
        let idle: Vec<TopicPartition> = idle.map(|(at, _)| at.clone()).collect();
        idle.iter().for_each(|at| lane.close(at));
    }
    lanes.retain(|lane| !lane.cursors.is_empty());
}

/// One partition on one lane.
struct Cursor {
    queue: PartitionQueue,
    /// Everything committed from `start` to `next`, in order.
    records: VecDeque<(StoredRecord, usize)>,
    start: u64,
    next: u64,
    /// Up to here it was given out to somebody.
    given: u64,
    bytes: usize,
    given_bytes: usize,
    used: Instant,
    /// Since when nothing came.
    waits_since: Instant,
    failed: Option<(RDKafkaErrorCode, String)>,
    lost: bool,
    stuck: bool,
}

impl Cursor {
    fn new(queue: PartitionQueue, from: u64) -> Self {
        Self {
            queue,
            records: VecDeque::new(),
            start: from,
            next: from,
            given: from,
            bytes: 0,
            given_bytes: 0,
            used: Instant::now(),
            waits_since: Instant::now(),
            failed: None,
            lost: false,
            stuck: false,
        }
    }

    fn covers(&self, from: u64) -> bool {
        (self.start..=self.next).contains(&from)
    }

    /// Takes over what has come, up to the bound.
    fn pump(&mut self) {
        while self.failed.is_none() && self.bytes - self.given_bytes < AHEAD_BYTES {
            let Self { queue, records, next, bytes, failed, .. } = self;
            let went_on = queue.take(|event| match event {
                // What was on its way before reading began anew here is not wanted.
                Event::Record(raw) if raw.offset < *next => {}
                Event::Record(raw) => {
                    let stored = stored(raw);
                    let size = stored.record.size();
                    *next = stored.offset + 1;
                    *bytes += size;
                    records.push_back((stored, size));
                }
                Event::End(offset) => *next = offset.max(*next),
                Event::Error(code, words) => *failed = Some((code, words)),
            });
            if !went_on {
                return;
            }
            self.waits_since = Instant::now();
        }
    }

    fn give(&mut self, from: u64, max_bytes: usize) -> Fetched {
        let first = self.records.partition_point(|(stored, _)| stored.offset < from);
        let (mut given, mut size) = (Vec::new(), 0);
        for (stored, bytes) in self.records.range(first..) {
            if size > 0 && size + bytes > max_bytes {
                break;
            }
            size += bytes;
            given.push(stored.clone());
        }
        let all = first + given.len() == self.records.len();
        let next_offset = match given.last() {
            _ if all => self.next,
            Some(last) => last.offset + 1,
            None => from,
        };
        if next_offset > self.given {
            let before = self.records.partition_point(|(stored, _)| stored.offset < self.given);
            let after = self.records.partition_point(|(stored, _)| stored.offset < next_offset);
            self.given_bytes += self.records.range(before..after).map(|(_, bytes)| bytes).sum::<usize>();
            self.given = next_offset;
        }
        self.forget();
        Fetched { records: given, next_offset, at_end: false }
    }

    /// Drops the oldest of what was given out, beyond the bound.
    fn forget(&mut self) {
        while self.given_bytes > KEPT_BYTES {
            let Some((stored, bytes)) = self.records.pop_front() else { return };
            self.given_bytes = self.given_bytes.saturating_sub(bytes);
            self.bytes = self.bytes.saturating_sub(bytes);
            self.start = stored.offset + 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
