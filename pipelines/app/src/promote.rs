//! Where a reader of a live topic goes on in the same topic of a run under a prefix.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use smol_str::{SmolStr, format_smolstr};
use tidewire_engine::identity::Identity;
use tidewire_engine::log::{
    CommittedOffset, Log, LogError, NewRecord, StoredRecord, TopicPartition, Transaction,
};
use tidewire_runtime::prefixed::PrefixedLog;
use tidewire_schemas::EventTime;

/// Bytes read in one piece.
const READ_BYTES: usize = 4 << 20;
/// How far before a position the record ahead of it is looked for: offsets may be missing.
const LOOK_BACK: u64 = 1_024;
/// How long a group may take to take us in.
const JOINING: Duration = Duration::from_secs(60);
/// How often it is looked whether it has.
const JOINING_WAIT: Duration = Duration::from_millis(20);

/// How a position in the run's topic was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Nothing was read of the live partition: nothing is left out.
    Start,
    /// The record read last is there too: the next one follows.
    Record(Identity),
    /// It is not, so it is the first record of a later time than the record read last.
    Time(EventTime),
    /// No record there is of a later time.
    End(EventTime),
}

/// A position of a group, and where it is in the run's topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The partition.
    pub partition: u32,
    /// Where the group stands in the live topic.
    pub live: Option<u64>,
    /// Where it is to stand in the run's.
    pub to: u64,
    /// Where that one ends.
    pub end: u64,
    /// How it was found.
    pub by: Match,
}

/// What is to be done for one group and one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The topic, without the prefix.
    pub topic: SmolStr,
    /// The topic of the run.
    pub topic_there: SmolStr,
    /// The group that reads the live topic.
    pub group: SmolStr,
    /// The group that is to read the run's.
    pub group_there: SmolStr,
    /// By partition.
    pub moved: Vec<Moved>,
}

/// Finds where `group` goes on in the run's topic. `None` if it never read the live one.
pub fn plan(view: &PrefixedLog, topic: &str, group: &str, group_there: &str) -> anyhow::Result<Option<Plan>> {
    let live = &**view.below();
    let there = format_smolstr!("{}.{topic}", view.prefix());
    let Some(found) = live.topic(topic)? else { return Ok(None) };
    let Some(own) = live.topic(&there)? else {
        bail!("the run of prefix {} wrote no topic {topic}", view.prefix())
    };
    let mut positions = BTreeMap::new();
    for partition in 0..found.partitions {
        let at = TopicPartition::new(topic, partition);
        if let Some(committed) = live.committed(group, &at)? {
            positions.insert(partition, committed.offset);
        }
    }
    if positions.is_empty() {
        return Ok(None);
    }
    if own.partitions != found.partitions {
        bail!(
            "{topic} has {} partitions and {there} has {}: positions can not be carried over; let {group} read {there} \
             from its start",
            found.partitions,
            own.partitions
        );
    }
    let mut moved = Vec::new();
    for partition in 0..found.partitions {
        moved.push(of_partition(live, topic, &there, partition, positions.get(&partition).copied())?);
    }
    let (group, group_there) = (SmolStr::new(group), SmolStr::new(group_there));
    Ok(Some(Plan { topic: topic.into(), topic_there: there, group, group_there, moved }))
}

fn of_partition(
    log: &dyn Log,
    topic: &str,
    there: &str,
    partition: u32,
    position: Option<u64>,
) -> anyhow::Result<Moved> {
    let at = TopicPartition::new(there, partition);
    let bounds = log.bounds(&at)?;
    let (start, end) = (bounds.start, bounds.stable_end);
    let read = |to, by| Ok(Moved { partition, live: position, to, end, by });
    let Some(position) = position else { return read(start, Match::Start) };
    let live_at = TopicPartition::new(topic, partition);
    let Some(last) = record_before(log, &live_at, position)? else { return read(start, Match::Start) };
    let identity = Identity::of(&last.record);
    let mut later = None;
    let mut from = start;
    while from < end {
        let fetched = log.read(&at, from, READ_BYTES)?;
        for stored in &fetched.records {
            if let Some(identity) = &identity
                && is_same(&last.record, &stored.record)
            {
                return read(stored.offset + 1, Match::Record(identity.clone()));
            }
            if later.is_none() && stored.record.timestamp_ms > last.record.timestamp_ms {
                later = Some(stored.offset);
            }
        }
        if fetched.next_offset <= from {
            break;
        }
        from = fetched.next_offset;
    }
    let time = EventTime::from_ms(last.record.timestamp_ms);
    match later {
        Some(offset) => read(offset, Match::Time(time)),
        None => read(end, Match::End(time)),
    }
}

/// Whether two records are the same one: identities alone are counts, which another pipeline gives to other records.
fn is_same(one: &NewRecord, other: &NewRecord) -> bool {
    one.timestamp_ms == other.timestamp_ms
        && one.key == other.key
        && one.value == other.value
        && Identity::of(one) == Identity::of(other)
}

/// The last record before an offset.
fn record_before(log: &dyn Log, at: &TopicPartition, offset: u64) -> anyhow::Result<Option<StoredRecord>> {
    let bounds = log.bounds(at)?;
    if offset > bounds.high_watermark {
        bail!(
            "{at} ends at offset {}, before the position {offset}: the topic was made anew",
            bounds.high_watermark
        );
    }
    let mut until = offset;
    while until > bounds.start {
        let from = until.saturating_sub(LOOK_BACK).max(bounds.start);
        let (mut next, mut last) = (from, None);
        while next < until {
            let fetched = log.read(at, next, READ_BYTES)?;
            last = fetched.records.into_iter().rfind(|stored| stored.offset < until).or(last);
            if fetched.next_offset <= next {
                break;
            }
            next = fetched.next_offset;
        }
        if last.is_some() {
            return Ok(last);
        }
        until = from;
    }
    if offset > bounds.start || bounds.start == 0 {
        return Ok(None);
    }
    bail!(
        "{at} begins at offset {}: the record before the position {offset} was deleted by retention, so there is nothing \
         to look for in the run; set the position by hand",
        bounds.start
    )
}

/// Refuses groups that somebody reads with, or of which a transaction is open.
pub fn check_idle(log: &dyn Log, plan: &Plan) -> anyhow::Result<()> {
    for group in [&plan.group, &plan.group_there] {
        if let Some(members) = log.group_members(group)?.filter(|members| *members > 0) {
            bail!("group {group} has {members} members: stop its readers first");
        }
    }
    let topics = [(&plan.group, &plan.topic), (&plan.group_there, &plan.topic_there)];
    for (group, topic) in topics {
        for moved in &plan.moved {
            match log.committed(group, &TopicPartition::new(topic.clone(), moved.partition)) {
                Err(LogError::Unstable { .. }) => {
                    bail!("a transaction of group {group} is open in {topic}-{}: try again", moved.partition)
                }
                other => drop(other?),
            }
        }
    }
    Ok(())
}

/// Commits the positions for the group that is to read the run's topic.
pub fn commit(log: &dyn Log, plan: &Plan) -> anyhow::Result<()> {
    check_idle(log, plan)?;
    let group = plan.group_there.as_str();
    let member = format!("{group}.promote");
    let mut member = log
        .join(group, &member, &plan.topic_there)
        .with_context(|| format!("joining group {group}: its readers are to be stopped first"))?;
    let begun = Instant::now();
    let generation = loop {
        let assignment = member.poll()?;
        if assignment.tasks.len() == plan.moved.len() {
            break assignment.generation;
        }
        if begun.elapsed() > JOINING {
            member.leave()?;
            bail!("group {group} did not give all partitions of {}: it has other readers", plan.topic_there);
        }
        log.wait(JOINING_WAIT);
    };
    let position = |moved: &Moved| {
        let at = TopicPartition::new(plan.topic_there.clone(), moved.partition);
        (at, CommittedOffset { offset: moved.to, metadata: String::new() })
    };
    let offsets = plan.moved.iter().map(position).collect();
    let transaction = Transaction { generation, appends: Vec::new(), offsets };
    let committed = member.commit(transaction).with_context(|| format!("committing for group {group}"));
    member.leave()?;
    committed
}
