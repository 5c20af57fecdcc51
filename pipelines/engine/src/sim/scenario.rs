//! What a seed decides before anything runs: the size of the cluster, its bounds, and what may go wrong.

use super::random::Random;
use crate::plan::Caps;

/// Stages at most.
pub const MAX_STAGES: usize = 3;
/// Workers of a stage at most.
pub const MAX_WORKERS: usize = 4;

/// What a step of the simulation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Some worker makes a step.
    Step,
    /// The clock goes on.
    Clock,
    /// The outside appends records.
    Produce,
    /// All invariants are checked, as far as the log can be read.
    Check,
    /// A worker is killed; its session ends later, or at once.
    Crash,
    /// A session of a killed worker ends.
    EndSession,
    /// A worker starts.
    Start,
    /// A worker stops cleanly.
    Stop,
    /// A worker's next commit will fail in one of the ways a commit can.
    FailCommit,
    /// A worker is held up between its poll and its commit until others have its tasks.
    Pause,
    /// A commit that was held up arrives.
    Deliver,
    /// The group changes between a worker's poll and its commit.
    Rebalance,
    /// A member's session ends while it goes on stepping.
    Expire,
    /// Transactions that are held open end.
    Settle,
    /// The log can not be reached from some call on.
    Outage,
    /// Workers that start from now on run a build or pipeline file that changes no output.
    Build,
    /// Compacted topics are compacted.
    Compact,
    /// A worker starts that only recovers and releases.
    RecoverOnly,
}

impl Action {
    /// All actions; what only seeds decide about comes after the first four.
    pub const ALL: [Action; 18] = [
        Action::Step,
        Action::Clock,
        Action::Produce,
        Action::Check,
        Action::Crash,
        Action::EndSession,
        Action::Start,
        Action::Stop,
        Action::FailCommit,
        Action::Pause,
        Action::Deliver,
        Action::Rebalance,
        Action::Expire,
        Action::Settle,
        Action::Outage,
        Action::Build,
        Action::Compact,
        Action::RecoverOnly,
    ];

    /// How often it is drawn in a seed that has it, and whether a seed may do without.
    fn weight(self) -> (u64, bool) {
        match self {
            Action::Step => (300, false),
            Action::Clock => (40, false),
            Action::Produce => (40, false),
            Action::Check => (5, false),
            Action::EndSession => (10, false),
            Action::Settle => (5, false),
            Action::Start => (12, false),
            Action::Deliver => (8, false),
            Action::Crash => (10, true),
            Action::Stop => (8, true),
            Action::FailCommit => (20, true),
            Action::Pause => (6, true),
            Action::Rebalance => (6, true),
            Action::Expire => (5, true),
            Action::Outage => (8, true),
            Action::Build => (3, true),
            Action::Compact => (6, true),
            Action::RecoverOnly => (2, true),
        }
    }
}

/// What a seed decides beforehand.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Whether all inputs are complete before the start, so that the first stage must give what it gives undisturbed.
    pub complete: bool,
    /// Whether transactions take an offset for a marker, as Kafka's do.
    pub control_records: bool,
    /// Whether reads return little at a time.
    pub short_reads: bool,
    /// How many stages there are: 2 or 3.
    pub stages: usize,
    /// Tasks of each stage.
    pub partitions: [u32; MAX_STAGES],
    /// Workers of each stage at the start.
    pub workers: [usize; MAX_STAGES],
    /// Bounds of each stage.
    pub caps: [Caps; MAX_STAGES],
    /// Flush interval of each stage, in milliseconds.
    pub flush_interval_ms: [i64; MAX_STAGES],
    /// How long compacted topics keep every record, in milliseconds.
    pub replay_retention_ms: u64,
    /// Instruments.
    pub instruments: u64,
    /// Accounts.
    pub accounts: u64,
    /// Records of the feed.
    pub records: u64,
    /// Whether some of them can not be processed.
    pub mischief: bool,
    /// Steps of the disturbed part.
    pub steps: u64,
    /// How often each of [`Action::ALL`] is drawn.
    pub weights: Vec<u64>,
    /// How long workers hold an epoch that gave nothing out, in milliseconds.
    pub hold_ms: i64,
}

impl Scenario {
    /// What `seed` decides. Each seed leaves some kinds of trouble out: together they would hide each other.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let weights = Action::ALL.iter().map(|action| match action.weight() {
            (_, true) if random.chance(40) => 0,
            (weight, true) => weight * (1 + random.below(3)),
            (weight, false) => weight,
        });
        let weights = weights.collect();
        let mut each = |least, most| [0; MAX_STAGES].map(|_: u32| random.between(least, most));
        let partitions = each(2, 4).map(|count| u32::try_from(count).unwrap_or(2));
        let workers = each(1, 3).map(|count| usize::try_from(count).unwrap_or(1));
        let mut flush_interval_ms = each(10, 400);
        let max_records = each(1, 24);
        let prefetch_bytes = each(200, 6_000);
        let max_bytes = each(100, 6_000);
        let caps = [0, 1, 2].map(|stage: usize| Caps {
            max_records: usize::try_from(max_records[stage]).unwrap_or(1),
            max_bytes: usize::try_from(max_bytes[stage]).unwrap_or(1),
            prefetch_bytes: usize::try_from(prefetch_bytes[stage]).unwrap_or(200),
            ahead_records: 1,
            max_faults_per_minute: 100_000,
        });
        if random.chance(45) {
            // Rarely a cut: recovery has many epochs to run again.
            flush_interval_ms = flush_interval_ms.map(|interval_ms| interval_ms * 20);
        }
        Self {
            seed,
            complete: random.chance(50),
            control_records: random.chance(50),
            short_reads: random.chance(40),
            stages: if random.chance(25) { 2 } else { 3 },
            partitions,
            workers,
            caps,
            flush_interval_ms,
            replay_retention_ms: random.below(1_500) + 200,
            instruments: random.below(6) + 2,
            accounts: random.below(4) + 1,
            records: random.below(65) + 15,
            mischief: random.chance(60),
            steps: random.below(250) + 60,
            weights,
            hold_ms: if random.chance(50) { i64::try_from(random.below(300)).unwrap_or(0) } else { 0 },
        }
    }
}
