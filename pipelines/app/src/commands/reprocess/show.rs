//! What is shown while inputs are run again, and what it came to.

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_engine::sync::Ranges;
use tidewire_runtime::reprocess::{InputOrder, externals, time_of};
use tidewire_runtime::synchronised::{Progress, RunState, SyncSummary};
use tidewire_schemas::{EventTime, topics};

use crate::logging;
use crate::open::Place;
use crate::reprocess::{Job, Ready, Told, order_name};
use crate::table::grouped;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How many offsets before the end of a range its last record is looked for.
const TAIL_OFFSETS: u64 = 64;

/// A line for people; in JSON an event.
pub fn say(text: &str) {
    if logging::is_json() {
        tracing::info!("{text}");
    } else {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// What is shown meanwhile: a bar on a terminal, elsewhere a line now and then.
pub struct Live {
    bar: ProgressBar,
    started: Instant,
    told: Instant,
    ends_ms: Option<i64>,
    records: u64,
    began_ms: Option<i64>,
}

impl Live {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        let bar = if io::stderr().is_terminal() && !logging::is_json() {
            let style = ProgressStyle::with_template("{bar:30} {percent}%  {msg}");
            ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        let now = Instant::now();
        Self { bar, started: now, told: now, ends_ms: None, records: 0, began_ms: None }
    }

    /// Inputs are put in their places.
    pub fn preparing(&mut self, told: Told) {
        let text = match told {
            Told::Reading(bytes, total) => {
                self.bar.set_length(total.max(1));
                self.bar.set_position(bytes);
                format!("reading files: {} of {} bytes", grouped(bytes), grouped(total))
            }
            Told::Copying(records) => format!("copying inputs: {} records", grouped(records)),
            Told::Sorting(records) => format!("putting inputs in order: {} records", grouped(records)),
        };
        self.show(text);
    }

    /// The run begins: finds out where it is to end.
    pub fn begin(&mut self, log: &dyn Log, ready: &Ready, job: &Job<'_>) -> anyhow::Result<()> {
        self.started = Instant::now();
        for external in externals(&job.loaded.pipeline.stages).into_iter().filter(|external| external.is_data)
        {
            for partition in 0..external.partitions {
                let at = TopicPartition::new(external.topic.clone(), partition);
                let range = ready.ranges.of(&at);
                let from = range.until.saturating_sub(TAIL_OFFSETS).max(range.from);
                if from >= range.until || log.topic(&at.topic)?.is_none() {
                    continue;
                }
                let tail = log.read(&at, from, 1 << 20)?.records;
                let times = tail.iter().filter(|stored| stored.offset < range.until);
                self.ends_ms =
                    self.ends_ms.max(times.map(|stored| time_of(job.options.order, &stored.record)).max());
            }
        }
        self.ends_ms = self.ends_ms.map(|ends_ms| ends_ms + job.options.drain_ms);
        Ok(())
    }

    /// A round is done.
    pub fn running(&mut self, progress: &Progress<'_>) {
        self.records += progress.records;
        let began_ms = *self.began_ms.get_or_insert(progress.resumed_ms.unwrap_or(progress.began_ms));
        let since = self.started.elapsed().as_secs_f64().max(1e-3);
        let (passed_ms, span_ms) = (
            progress.virtual_ms - progress.began_ms,
            self.ends_ms.unwrap_or(progress.virtual_ms) - progress.began_ms,
        );
        self.bar.set_length(span_ms.max(1).unsigned_abs());
        self.bar.set_position(passed_ms.clamp(0, span_ms.max(1)).unsigned_abs());
        let due = self.bar.is_hidden() && self.told.elapsed() < LINE_EVERY;
        if due {
            return;
        }
        let faster = seconds(progress.virtual_ms - began_ms) / since;
        let left = seconds((span_ms - passed_ms).max(0)) / faster.max(1e-9);
        let time = EventTime::from_ms(progress.virtual_ms);
        let rate = per_second(self.records, since);
        self.show(format!(
            "{time}: {} records, {} records/s, {faster:.0}x real time, {left:.0} s left",
            grouped(self.records),
            grouped(rate),
        ));
    }

    fn show(&mut self, text: String) {
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            say(&text);
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| say(text));
    }

    /// Wall time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A run that is over.
pub struct Done<'a> {
    /// Its prefix.
    pub prefix: &'a str,
    /// The pipeline.
    pub pipeline: &'a str,
    /// Order of its inputs.
    pub order: InputOrder,
    /// What it came to.
    pub summary: &'a SyncSummary,
    /// Where it went on from.
    pub began: Option<&'a RunState>,
    /// Wall time of the command.
    pub wall: Duration,
    /// Wall time of the run alone.
    pub run: Duration,
    /// Where the log is.
    pub place: &'a Place,
    /// The other log that the inputs came from.
    pub inputs: Option<String>,
    /// What was read of the inputs.
    pub ranges: &'a Ranges,
}

impl Done<'_> {
    fn count(&self, topic: &str) -> u64 {
        self.summary.by_topic.get(topic).copied().unwrap_or(0)
    }

    /// Records taken by this process.
    fn records_now(&self) -> u64 {
        self.summary.records.saturating_sub(self.began.map_or(0, |state| state.records))
    }

    /// Virtual time that this process went through, in seconds.
    fn span_now(&self) -> f64 {
        let Some((from_ms, to_ms)) = self.summary.span_ms else { return 0.0 };
        seconds((to_ms - self.began.map_or(from_ms, |state| state.horizon_ms)).max(0))
    }

    fn times_real_time(&self) -> f64 {
        self.span_now() / self.run.as_secs_f64().max(1e-3)
    }
}

/// The summary for people.
pub fn text(out: &mut dyn Write, done: &Done<'_>) -> io::Result<()> {
    let summary = done.summary;
    let what = if summary.stopped { "stopped" } else { "done" };
    writeln!(out, "{what}: {} into {} on {}", done.pipeline, done.prefix, done.place)?;
    if let Some(inputs) = &done.inputs {
        writeln!(out, "inputs            from {inputs}")?;
    }
    if let Some(state) = done.began {
        writeln!(out, "went on from      {}", EventTime::from_ms(state.horizon_ms))?;
    }
    if let Some((from_ms, to_ms)) = summary.span_ms {
        let (from, to) = (EventTime::from_ms(from_ms), EventTime::from_ms(to_ms));
        writeln!(out, "virtual time      {from} to {to}, by {}", order_name(done.order))?;
    }
    let run = done.run.as_secs_f64();
    writeln!(
        out,
        "records           {} in, {} out, in {} rounds",
        grouped(summary.records),
        grouped(summary.outputs),
        grouped(summary.rounds)
    )?;
    writeln!(
        out,
        "speed             {} records/s, {:.0}x real time, {run:.1} s ({:.1} s with all)",
        grouped(per_second(done.records_now(), run)),
        done.times_real_time(),
        done.wall.as_secs_f64()
    )?;
    writeln!(
        out,
        "passed over       {} late, {} dead letters, {} faults",
        grouped(done.count(topics::LATE)),
        grouped(done.count(topics::DEAD_LETTERS)),
        grouped(summary.faults)
    )?;
    for (topic, count) in summary.by_topic.iter().filter(|(topic, _)| !topic.starts_with('_')) {
        writeln!(out, "  {:<32} {:>12}", format!("{}.{topic}", done.prefix), grouped(*count))?;
    }
    if summary.stopped {
        writeln!(out, "the same command goes on from here")
    } else {
        writeln!(out, "other commands look at it with `--prefix {}`", done.prefix)
    }
}

/// The summary as JSON.
pub fn json(out: &mut dyn Write, done: &Done<'_>) -> anyhow::Result<()> {
    let summary = done.summary;
    let time = |ms: i64| EventTime::from_ms(ms).to_string();
    let ranges = done.ranges.iter().map(|(at, range)| {
        json!({ "topic": at.topic, "partition": at.partition, "from": range.from, "until": range.until })
    });
    let value = json!({
        "prefix": done.prefix,
        "pipeline": done.pipeline,
        "data": done.place.to_string(),
        "inputs": done.inputs,
        "order": order_name(done.order),
        "complete": !summary.stopped,
        "resumed_from": summary.resumed_ms.map(time),
        "virtual_from": summary.span_ms.map(|(from_ms, _)| time(from_ms)),
        "virtual_to": summary.span_ms.map(|(_, to_ms)| time(to_ms)),
        "span_ms": summary.span_ms.map(|(from_ms, to_ms)| to_ms - from_ms),
        "records": summary.records,
        "outputs": summary.outputs,
        "rounds": summary.rounds,
        "late": done.count(topics::LATE),
        "dead_letters": done.count(topics::DEAD_LETTERS),
        "faults": summary.faults,
        "by_topic": summary.by_topic,
        "wall_ms": u64::try_from(done.wall.as_millis()).unwrap_or(u64::MAX),
        "run_ms": u64::try_from(done.run.as_millis()).unwrap_or(u64::MAX),
        "times_real_time": done.times_real_time(),
        "records_per_s": per_second(done.records_now(), done.run.as_secs_f64()),
        "ranges": ranges.collect::<Vec<_>>(),
    });
    serde_json::to_writer(&mut *out, &value)?;
    writeln!(out)?;
    Ok(())
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}

fn per_second(records: u64, seconds: f64) -> u64 {
    (records as f64 / seconds.max(1e-3)) as u64
}
