//! Memory: at rest, of each key's features, and over many records.

use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidewire_engine::log::{Log as _, TopicPartition, TopicSpec};
use tidewire_engine::plan::StageSpec;
use tidewire_engine::worker::{Worker, WorkerOptions};
use tidewire_runtime::embedded::{Durability, EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::{SchemaBook, Trade};
use tidewire_tests::process::resident_bytes;
use tidewire_tests::results::{Better, Results};
use tidewire_tests::root;
use tidewire_tests::ticks::{Market, record};

use crate::bars;

/// Features of each key in the second of two runs; one in the first.
const FEATURES: u64 = 11;
/// Looks at the memory over the whole run.
const LOOKS: u64 = 20;
/// Records that lie in the log before they are taken.
const AHEAD: u64 = 200_000;
/// Bytes of a partition of ticks that the log keeps: the disk must not hold them all.
const KEPT_BYTES: u64 = 64 << 20;

pub fn print(results: &mut Results, market: Market, keys: u64, records: u64) {
    let rest_mb = at_rest();
    println!("at rest: {rest_mb:.0} MB");
    results.add("at rest/memory", "MB", Better::Less, vec![rest_mb]);

    let [one, many] = [1, FEATURES].map(|features| of_keys(keys, features));
    let each = (many - one) / (keys * (FEATURES - 1)) as f64;
    println!(
        "{keys} keys: {each:.0} bytes a key and feature; {:.0} a key with bars and one",
        one / keys as f64
    );
    results.set("keys", keys);
    results.add("key and feature/memory", "bytes", Better::Less, vec![each]);
    results.add("key with bars and one feature/memory", "bytes", Better::Less, vec![one / keys as f64]);

    results.set("records", records);
    results.set_market(&market);
    let looks = over(market, records);
    let rest: Vec<String> = looks.iter().map(|mb| format!("{mb:.0}")).collect();
    println!("over {records} records, in MB: {}", rest.join(" "));
    for (look, mb) in (1..).zip(&looks) {
        results.add(
            &format!("after {} records/memory", records / LOOKS * look),
            "MB",
            Better::Less,
            vec![*mb],
        );
    }
}

/// `tidewire run` on an empty log.
fn at_rest() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    run.arg("--data").arg(folder.path().join("log")).arg("run").arg(root().join("tests/peers/bars.toml"));
    let mut child = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    let bytes = resident_bytes(child.id());
    assert!(child.try_wait().unwrap().is_none(), "it ended");
    child.kill().unwrap();
    child.wait().unwrap();
    bytes as f64 / 1e6
}

/// What state takes, in a process of its own: memory that one run gave back would be taken again by the next.
fn of_keys(keys: u64, features: u64) -> f64 {
    let mut run = Command::new(std::env::current_exe().unwrap());
    run.arg("--bench").env("MODE", "keys").env("KEYS", keys.to_string());
    let output = run.env("FEATURES", features.to_string()).env_remove("JSON").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Prints the bytes that state of so many instruments takes, with so many averages of each one's bars.
pub fn print_of_keys(keys: u64, features: u64) {
    let market = Market { symbols: usize::try_from(keys).unwrap(), ..Market::default() };
    let stage = bars(|text| averages(&text, features));
    let mut bed = Bed::new(market, stage);
    // A bar is open of each instrument after the first; the second closes them, and so begins the averages.
    bed.append(market.each(market.from_us));
    bed.take_all();
    let before = resident_bytes(std::process::id());
    bed.append(market.each(market.from_us + 1_000_000));
    bed.append(market.last(market.per_s));
    bed.take_all();
    println!("{}", resident_bytes(std::process::id()).saturating_sub(before));
}

/// Resident memory in megabytes, at each of some looks on the way through so many records.
fn over(market: Market, records: u64) -> Vec<f64> {
    // Windows close seldom enough that the disk holds all outputs.
    let market = Market { per_s: 20_000, ..market };
    let mut bed = Bed::new(market, bars(|text| text));
    let mut trades = market.trades();
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        let mut left = records / LOOKS;
        while left > 0 {
            let now = left.min(AHEAD);
            bed.append(trades.by_ref().take(usize::try_from(now).unwrap()));
            bed.take_all();
            bed.log.maintain(bed.now_ms.unsigned_abs(), u64::MAX).unwrap();
            left -= now;
        }
        looks.push(resident_bytes(std::process::id()) as f64 / 1e6);
        eprintln!("{} of {LOOKS}: {:.0} MB", looks.len(), looks[looks.len() - 1]);
    }
    looks
}

/// A log and a worker of one stage on it.
struct Bed {
    log: Arc<EmbeddedLog>,
    book: Arc<SchemaBook>,
    worker: Worker,
    partitions: u32,
    now_ms: i64,
    _folder: TempDir,
}

impl Bed {
    fn new(market: Market, stage: StageSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { durability: Durability::Buffered, ..EmbeddedOptions::default() };
        let log = EmbeddedLog::open(folder.path().join("log"), options).unwrap();
        let ticks = TopicSpec::new("peer.ticks", market.partitions);
        log.create_topic(&TopicSpec { retention_bytes: Some(KEPT_BYTES), ..ticks }).unwrap();
        tidewire_engine::driver::create_topics(&*log, &stage, 3_600_000).unwrap();
        let book = Arc::new(open_book(&*log).unwrap());
        let options = WorkerOptions { member: "bench".into(), ..WorkerOptions::default() };
        let worker = Worker::new(Arc::clone(&log) as _, Arc::new(stage), Arc::clone(&book), options).unwrap();
        Self { log, book, worker, partitions: market.partitions, now_ms: 0, _folder: folder }
    }

    fn append(&self, trades: impl IntoIterator<Item = (u32, Trade)>) {
        let mut waiting = vec![Vec::new(); self.partitions as usize];
        for (partition, trade) in trades {
            waiting[partition as usize].push(record(&self.book, trade));
        }
        for (partition, records) in (0..).zip(waiting) {
            if !records.is_empty() {
                self.log.append(&TopicPartition::new("peer.ticks", partition), records).unwrap();
            }
        }
    }

    /// Steps until nothing is left to do. The clock goes on a little each time, so that state is flushed as it would be.
    fn take_all(&mut self) {
        loop {
            self.now_ms += 10;
            let step = self.worker.step(self.now_ms).unwrap();
            assert!(step.halted.is_empty() && step.faults.is_empty(), "{step:?}");
            if !step.worked {
                return;
            }
        }
    }
}

/// The bars workload with so many averages in place of what follows the bars.
fn averages(text: &str, features: u64) -> String {
    let from = text.find("# An average over one bar").unwrap();
    let to = text.find("[[stage.output]]").unwrap();
    let mut changed = text[..from].to_owned();
    for number in 0..features {
        let (id, period) = (format!("ema_{number}"), number + 2);
        write!(
            changed,
            "[[stage.operator]]\nid = \"{id}\"\ntype = \"ema\"\nfrom = [\"bars_1s\"]\nperiod = {period}\n\n"
        )
        .unwrap();
    }
    // Values go nowhere: what counts is the state.
    let bars_alone = &text[to..text.rfind("[[stage.output]]").unwrap()];
    changed + bars_alone
}
