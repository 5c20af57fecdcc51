//! Where partitions end, as the brokers just said.
//!
//! That a partition gave nothing for a while does not mean that it is at its end: its broker may be away. So the ends of
//! partitions that were read out are asked for, all in one request, by a thread of its own, and an answer holds for a
//! moment only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tidewire_engine::log::TopicPartition;
use tidewire_engine::memory::Signal;

use super::context::Quiet;
use super::convert::{number, place};
use super::look_again;

/// How long an answer holds, counted from when it was asked for.
const FRESH: Duration = Duration::from_millis(400);
/// An answer this old is asked for again, if somebody still wants it.
const AGES: Duration = Duration::from_millis(100);
/// Least time between two questions.
const PAUSE: Duration = Duration::from_millis(2);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who did not ask for so long no longer wants to know.
const WANTED: Duration = Duration::from_millis(500);
/// Most partitions asked for at once.
const MAX_ASKED: usize = 4096;

/// Where the end lies, seen from a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is this place, or was a moment ago.
    Here,
    /// It lies further on: there is more to come.
    Further,
    /// Not known now.
    Unknown,
}

/// What is known of ends.
pub struct Ends {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    asked: Condvar,
    signal: Arc<Signal>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<TopicPartition, Known>,
    stops: bool,
}

struct Known {
    wanted_at: Instant,
    /// The end, and when it was asked for.
    end: Option<(u64, Instant)>,
    /// The end that somebody was told last, and when.
    told: Option<(u64, Instant)>,
}

impl Ends {
    /// Starts the thread that asks by `consumer`.
    pub fn start(consumer: Arc<BaseConsumer<Quiet>>, signal: Arc<Signal>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), asked: Condvar::new(), signal });
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("kafka-ends".to_owned()).spawn(move || theirs.run(&consumer))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes up an end that somebody was just told: by an older answer there must not be less.
    pub fn learn(&self, at: &TopicPartition, end: u64) {
        if let Some(known) = lock(&self.shared.state).partitions.get_mut(at) {
            known.learn(end);
        }
    }

    /// Whether `next` was the end of `at` a moment ago. If that is not known it will be soon: the signal tells.
    pub fn of(&self, at: &TopicPartition, next: u64) -> End {
        let now = Instant::now();
        let mut state = lock(&self.shared.state);
        if let Some(known) = state.partitions.get_mut(at) {
            known.wanted_at = now;
            // Only the very place that was the end will do: a reader further on has seen more than the answer has.
            let found = match known.end {
                Some((end, asked)) if end == next && asked.elapsed() < FRESH => End::Here,
                Some((end, _)) if end > next => End::Further,
                _ => End::Unknown,
            };
            if known.end.is_none_or(|(end, _)| end < next) {
                known.end = None;
                self.shared.asked.notify_one();
            }
            return found;
        }
        if state.partitions.len() < MAX_ASKED {
            state.partitions.insert(at.clone(), Known::new());
            self.shared.asked.notify_one();
        }
        End::Unknown
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        lock(&self.shared.state).stops = true;
        self.shared.asked.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, consumer: &BaseConsumer<Quiet>) {
        while let Some(due) = self.next_due() {
            while consumer.poll(Duration::ZERO).is_some() {}
            if !due.is_empty() {
                self.ask(consumer, &due);
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Waits until something is to be asked, or a moment has passed. `None` when it is over.
    fn next_due(&self) -> Option<Vec<TopicPartition>> {
        let mut state = lock(&self.state);
        if !state.stops && state.due().is_empty() {
            let waited = self.asked.wait_timeout(state, AGES);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.stops {
            return None;
        }
        state.partitions.retain(|_, known| known.wanted_at.elapsed() < WANTED);
        Some(state.due())
    }

    fn ask(&self, consumer: &BaseConsumer<Quiet>, due: &[TopicPartition]) {
        let mut list = TopicPartitionList::with_capacity(due.len());
        for at in due {
            if let Err(error) = list.add_partition_offset(&at.topic, number(at), Offset::End) {
                tracing::debug!(%at, %error, "a partition can not be asked for");
            }
        }
        let asked = Instant::now();
        let answer = match consumer.offsets_for_times(list, PATIENCE) {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, "the ends of partitions are not known");
                look_again_for_all(consumer, due.iter().map(|at| at.topic.as_str()));
                return;
            }
        };
        let mut unknown = Vec::new();
        let mut state = lock(&self.state);
        for element in answer.elements() {
            let at = place(element.topic(), element.partition());
            let end = match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(end)) => u64::try_from(end).ok(),
                _ => None,
            };
            match (state.partitions.get_mut(&at), end) {
                (Some(known), Some(end)) => known.answer(end, asked),
                (_, None) => unknown.push(at.topic),
                (None, Some(_)) => {}
            }
        }
        drop(state);
        self.signal.notify();
        look_again_for_all(consumer, unknown.iter().map(|topic| topic.as_str()));
    }
}

/// Has the leaders of topics looked up again, each once, unless nobody answers.
fn look_again_for_all<'a>(consumer: &BaseConsumer<Quiet>, topics: impl Iterator<Item = &'a str>) {
    let topics: BTreeSet<&str> = topics.collect();
    let _ = topics.into_iter().all(|topic| look_again(consumer, topic));
}

impl Known {
    fn new() -> Self {
        Self { wanted_at: Instant::now(), end: None, told: None }
    }

    fn learn(&mut self, end: u64) {
        self.told = Some((end, Instant::now()));
        self.end = self.end.filter(|(known, _)| *known >= end);
    }

    /// An answer to what was asked before somebody was told of more is no news.
    fn answer(&mut self, end: u64, asked: Instant) {
        if self.told.is_none_or(|(told, when)| end >= told || asked > when) {
            self.end = Some((end, asked));
        }
    }
}

impl State {
    fn due(&self) -> Vec<TopicPartition> {
        let due = self.partitions.iter().filter(|(_, known)| {
            let old = known.end.is_none_or(|(_, asked)| asked.elapsed() >= AGES);
            old && known.wanted_at.elapsed() < WANTED
        });
        due.map(|(at, _)| at.clone()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_told_of_more_is_not_told_that_there_is_nothing() {
        let mut known = Known::new();
        let asked = Instant::now();
        known.answer(7, asked);
        assert_eq!(known.end, Some((7, asked)));
        // A record came, and somebody was told where it ends now.
        known.learn(8);
        assert_eq!(known.end, None);
        // What was asked before comes late.
        known.answer(7, asked);
        assert_eq!(known.end, None);
        known.answer(8, asked);
        assert_eq!(known.end, Some((8, asked)));
        // A topic that was made anew ends earlier.
        std::thread::sleep(Duration::from_millis(1));
        let later = Instant::now();
        known.answer(0, later);
        assert_eq!(known.end, Some((0, later)));
    }
}
