//! What is known of the workers and tasks of this process: the answers of `/healthz` and `/readyz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use smol_str::SmolStr;
use tidewire_engine::log::TopicPartition;
use tidewire_runtime::watch::Who;

/// A task: its stage and its number.
pub type TaskName = (SmolStr, u32);

/// Workers, tasks and the log, as they were last heard of.
#[derive(Debug, Default)]
pub struct Board {
    /// The workers of this process.
    pub workers: BTreeMap<Arc<Who>, WorkerBoard>,
    /// The tasks that they hold.
    pub tasks: BTreeMap<TaskName, TaskBoard>,
    /// What the log answered last.
    pub log: LogBoard,
    /// Whether the process was asked to stop.
    pub stops: bool,
}

/// A worker.
#[derive(Debug)]
pub struct WorkerBoard {
    /// When it last showed that it turns.
    pub seen: Instant,
    /// Whether it is through, and the error if there was one.
    pub ended: Option<Option<String>>,
    /// Why it is out of its group, until it is back.
    pub rejoins: Option<String>,
    /// Whether it made a step since it joined.
    pub steps: bool,
}

impl WorkerBoard {
    /// One that is about to join.
    pub fn new() -> Self {
        Self { seen: Instant::now(), ended: None, rejoins: None, steps: false }
    }
}

/// A task.
#[derive(Debug)]
pub struct TaskBoard {
    /// Who holds it.
    pub holder: Arc<Who>,
    /// Where it stands.
    pub status: Status,
    /// Since when.
    pub since: Instant,
    /// Why it halted.
    pub why: Option<String>,
    /// Next offset of each input partition.
    pub positions: BTreeMap<TopicPartition, u64>,
    /// Its watermark, in milliseconds.
    pub watermark_ms: Option<i64>,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// On its way back.
    Recovering,
    /// It takes records.
    Running,
    /// It stopped for good.
    Halted,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Recovering, Self::Running, Self::Halted];

    /// A short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Running => "running",
            Self::Halted => "halted",
        }
    }
}

/// The log, asked every few seconds.
#[derive(Debug, Default)]
pub struct LogBoard {
    /// When it was last asked, and has not answered yet.
    pub asked: Option<Instant>,
    /// What it answered: nothing yet, that it is there, or an error.
    pub answer: Option<Result<(), String>>,
}

/// The answer of a probe, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `ok`, or what is wrong in a word.
    pub status: &'static str,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
}

impl Verdict {
    fn of(bad: &'static str, problems: Vec<String>) -> Self {
        Self { status: if problems.is_empty() { "ok" } else { bad }, problems }
    }

    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Board {
    /// Whether the process turns: every worker made a step within `stall`, and none failed.
    pub fn health(&self, now: Instant, stall: Duration) -> Verdict {
        let mut problems = Vec::new();
        for (who, worker) in &self.workers {
            match &worker.ended {
                Some(Some(error)) => problems.push(format!("worker {} failed: {error}", who.member)),
                Some(None) => {}
                None => {
                    let quiet = now.saturating_duration_since(worker.seen);
                    if quiet > stall {
                        problems.push(format!(
                            "worker {} made no step for {} s, more than the {} s allowed",
                            who.member,
                            quiet.as_secs(),
                            stall.as_secs()
                        ));
                    }
                }
            }
        }
        Verdict::of("failing", problems)
    }

    /// Whether the process does all of its work: it turns, the log answers, and every task that it holds runs.
    pub fn readiness(&self, now: Instant, stall: Duration) -> Verdict {
        let mut problems = self.health(now, stall).problems;
        if self.stops {
            problems.push("the process was asked to stop".to_owned());
        }
        if self.workers.is_empty() {
            problems.push("no worker has begun".to_owned());
        }
        problems.extend(self.log_problem(now, stall));
        for (who, worker) in self.workers.iter().filter(|(_, worker)| worker.ended.is_none()) {
            if let Some(why) = &worker.rejoins {
                problems.push(format!("worker {} joins again: {why}", who.member));
            } else if !worker.steps {
                problems.push(format!("worker {} has not joined its group yet", who.member));
            }
        }
        for ((stage, task), board) in &self.tasks {
            let for_s = now.saturating_duration_since(board.since).as_secs();
            match board.status {
                Status::Running => {}
                Status::Recovering => {
                    problems.push(format!("{stage}/{task} has been recovering for {for_s} s"))
                }
                Status::Halted => {
                    let why = board.why.as_deref().unwrap_or("no reason is known");
                    problems.push(format!("{stage}/{task} halted {for_s} s ago: {why}"));
                }
            }
        }
        Verdict::of("not ready", problems)
    }

    /// Where a task stands, since when it does if that changed.
    pub fn set_status(&mut self, who: &Arc<Who>, task: u32, status: Status, why: Option<String>) {
        let name = (who.stage.clone(), task);
        let board = self.tasks.entry(name).or_insert_with(|| TaskBoard {
            holder: Arc::clone(who),
            status,
            since: Instant::now(),
            why: None,
            positions: BTreeMap::new(),
            watermark_ms: None,
        });
        board.holder = Arc::clone(who);
        if board.status != status {
            (board.status, board.since) = (status, Instant::now());
        }
        board.why = why;
    }

    /// Forgets a task that `who` held; one that another worker took up meanwhile stays.
    pub fn drop_task(&mut self, who: &Arc<Who>, task: u32) -> bool {
        let name = (who.stage.clone(), task);
        let held = self.tasks.get(&name).is_some_and(|board| board.holder == *who);
        if held {
            self.tasks.remove(&name);
        }
        held
    }

    fn log_problem(&self, now: Instant, stall: Duration) -> Option<String> {
        if let Some(asked) = self.log.asked {
            let waited = now.saturating_duration_since(asked);
            if waited > stall {
                return Some(format!("the log has not answered for {} s", waited.as_secs()));
            }
        }
        match &self.log.answer {
            None => Some("the log has not answered yet".to_owned()),
            Some(Ok(())) => None,
            Some(Err(error)) => Some(format!("the log does not answer: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What is said, and what leads to it.
    type Case = (&'static str, fn(&mut Board));

    const STALL: Duration = Duration::from_secs(60);

    fn who(worker: usize) -> Arc<Who> {
        Arc::new(Who { stage: "features".into(), worker, member: format!("w-{worker}").into() })
    }

    fn board() -> Board {
        let mut board = Board::default();
        board.workers.insert(who(0), WorkerBoard { steps: true, ..WorkerBoard::new() });
        board.set_status(&who(0), 3, Status::Running, None);
        board.log.answer = Some(Ok(()));
        board
    }

    fn problems(board: &Board) -> (Vec<String>, Vec<String>) {
        let now = Instant::now();
        (board.health(now, STALL).problems, board.readiness(now, STALL).problems)
    }

    #[test]
    fn a_process_that_does_its_work_is_ready() {
        assert_eq!(problems(&board()), (Vec::new(), Vec::new()));
    }

    #[test]
    fn a_worker_that_does_not_turn_is_neither_healthy_nor_ready() {
        let board = board();
        let later = Instant::now() + Duration::from_secs(61);
        let wanted = ["worker w-0 made no step for 61 s, more than the 60 s allowed"];
        assert_eq!(board.health(later, STALL).problems, wanted);
        assert_eq!(board.readiness(later, STALL).problems, wanted);
        assert_eq!(board.health(later, STALL).status, "failing");
    }

    #[test]
    fn a_failed_worker_is_named_with_its_error() {
        let mut board = board();
        board.workers.get_mut(&who(0)).unwrap().ended = Some(Some("no space".to_owned()));
        assert_eq!(problems(&board).0, ["worker w-0 failed: no space"]);
        board.workers.get_mut(&who(0)).unwrap().ended = Some(None);
        assert_eq!(problems(&board).0, [""; 0], "one that stopped as it was told is no problem");
    }

    #[test]
    fn each_reason_not_to_be_ready_is_said_and_none_of_them_is_unhealthy() {
        let cases: [Case; 7] = [
            ("the process was asked to stop", |board| board.stops = true),
            ("the log has not answered yet", |board| board.log.answer = None),
            ("the log does not answer: gone", |board| board.log.answer = Some(Err("gone".to_owned()))),
            ("worker w-0 joins again: fenced", |board| {
                board.workers.get_mut(&who(0)).unwrap().rejoins = Some("fenced".to_owned());
            }),
            ("worker w-0 has not joined its group yet", |board| {
                board.workers.get_mut(&who(0)).unwrap().steps = false;
            }),
            ("features/3 has been recovering for 0 s", |board| {
                board.set_status(&who(0), 3, Status::Recovering, None);
            }),
            ("features/3 halted 0 s ago: bad state", |board| {
                board.set_status(&who(0), 3, Status::Halted, Some("bad state".to_owned()));
            }),
        ];
        for (wanted, spoil) in cases {
            let mut board = board();
            spoil(&mut board);
            assert_eq!(problems(&board), (Vec::new(), vec![wanted.to_owned()]));
        }
        assert!(!Board::default().readiness(Instant::now(), STALL).is_ok(), "nothing has begun");
    }

    #[test]
    fn a_log_that_hangs_is_no_answer() {
        let mut board = board();
        board.log.asked = Some(Instant::now());
        assert!(board.readiness(Instant::now(), STALL).is_ok(), "it was only just asked");
        let seen = Instant::now() + Duration::from_secs(61);
        board.workers.get_mut(&who(0)).unwrap().seen = seen;
        assert_eq!(board.readiness(seen, STALL).problems, ["the log has not answered for 61 s"]);
    }

    #[test]
    fn a_task_that_another_worker_took_up_stays() {
        let mut board = board();
        board.set_status(&who(1), 3, Status::Recovering, None);
        assert!(!board.drop_task(&who(0), 3));
        assert_eq!(board.tasks.len(), 1);
        assert!(board.drop_task(&who(1), 3));
        assert!(board.tasks.is_empty());
    }
}
