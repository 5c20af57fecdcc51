//! A day of ticks at speed on Kafka: memory stays flat, and no file handles or threads are added.
//!
//! The day is event time: ticks of every second for a few instruments, given to the shipped pipeline as fast as it takes
//! them. The process is looked at from outside, in /proc. `SOAK_MINUTES` is how much event time is run: 20 minutes by
//! default, 1440 for the day; `SOAK_REPORT` names a file for the samples, as CSV.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stdout, dead_code, reason = "shared with a bench")]

#[path = "../benches/kafka/cluster.rs"]
mod cluster;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster::Cluster;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::{Aggressor, EventTime, Quote, ReceivedTime, Record, SchemaBook, Trade, topics};

const INSTRUMENTS: [&str; 4] =
    ["BTCUSDT.BINANCE_USDM", "ETHUSDT.BINANCE_USDM", "BTCUSDT.BINANCE_SPOT", "BTCUSD_PERP.BINANCE_COINM"];
/// Records of a second of event time.
const RECORDS_PER_SECOND: u64 = 2 * INSTRUMENTS.len() as u64;
/// The first event: a day of 2024.
const FROM_MS: i64 = 1_723_075_200_000;
/// The load is ahead of the pipeline by this share at most, so that there are as many looks at it, and the broker's
/// memory is no part of this.
const AHEAD: u64 = 100;
/// But by so many records, so that the pipeline is not kept waiting.
const LEAST_AHEAD: u64 = 200;
/// How long nothing may move.
const PATIENCE: Duration = Duration::from_secs(180);
/// Growth of memory that is no leak: allocators keep what they once had.
const SLACK_KIB: u64 = 32 << 10;

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Ticks that were committed.
    done: u64,
    rss_kib: u64,
    handles: u64,
    threads: u64,
}

/// The process as the system sees it.
fn sample(pid: u32, done: u64) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc tells of processes");
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let handles = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
    Sample { done, rss_kib: number("VmRSS:"), handles, threads: number("Threads:") }
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn memory_handles_and_threads_stay_as_they_are() {
    let minutes: u64 = std::env::var("SOAK_MINUTES").map_or(20, |text| text.parse().expect("SOAK_MINUTES"));
    let total = minutes * 60 * RECORDS_PER_SECOND;
    // The shipped pipeline's topics have one name each, so this cluster is nobody else's.
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../market-intel.toml");
    let (said, file) = (folder.path().join("said"), folder.path().join("market-intel.toml"));
    std::fs::copy(shipped, &file).unwrap();
    let err = std::fs::File::create(&said).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .arg("run")
        .arg(&file)
        .args(["--bootstrap", &cluster.bootstrap])
        // Many flushes in a short run.
        .env("TIDEWIRE__ENGINE__FLUSH_INTERVAL_MS", "1000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(err)
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut running = Running(child);
    let log = KafkaLog::connect(KafkaOptions::new(&cluster.bootstrap)).unwrap();
    let book = open_book(&log).unwrap();
    let partitions = wait_for_topics(&log, &mut running, &said);
    let (mut samples, mut moved, mut next_sample) = (Vec::new(), Instant::now(), 0);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (done, book, bootstrap) = (&done, &book, &cluster.bootstrap);
        scope.spawn(move || feed(bootstrap, book, partitions, total, done));
        loop {
            let now = committed(&log, partitions);
            if now > done.load(Ordering::SeqCst) {
                moved = Instant::now();
                done.store(now, Ordering::SeqCst);
            }
            // By progress and not by time, so that a slow machine takes as many.
            if now >= next_sample {
                samples.push(sample(pid, now));
                next_sample = now + total / 200;
            }
            if now >= total {
                break;
            }
            let ended = running.0.try_wait().unwrap();
            if ended.is_some() || moved.elapsed() > PATIENCE {
                // Lets the load end too.
                done.store(u64::MAX / 2, Ordering::SeqCst);
                panic!("{ended:?} after {now} of {total}: {}", std::fs::read_to_string(&said).unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    samples.push(sample(pid, total));
    report(&samples);
    check(&samples);
    assert!(Command::new("kill").args(["-TERM", &pid.to_string()]).status().unwrap().success());
    assert!(running.0.wait().unwrap().success(), "{}", std::fs::read_to_string(&said).unwrap());
}

/// What was there after a third is there at the end.
fn check(samples: &[Sample]) {
    let (warm, rest) = samples.split_at(samples.len() / 3);
    assert!(warm.len() > 20, "{} samples", samples.len());
    let most = |of: &[Sample], what: fn(&Sample) -> u64| of.iter().map(what).max().unwrap();
    for (name, what) in [("file handles", (|s| s.handles) as fn(&Sample) -> u64), ("threads", |s| s.threads)]
    {
        let (before, after) = (most(warm, what), most(rest, what));
        assert!(after <= before, "{name} grew from {before} to {after}");
    }
    let (middle, last) = rest.split_at(rest.len() / 2);
    let (before, after) = (most(middle, |s| s.rss_kib), most(last, |s| s.rss_kib));
    let allowed = before + before / 10 + SLACK_KIB;
    assert!(after <= allowed, "memory grew from {before} KiB to {after} KiB; {allowed} would be no leak");
}

/// A leak of each kind must be found.
#[test]
fn growth_is_found() {
    let flat = |n: u64| Sample { done: n, rss_kib: 200_000, handles: 60, threads: 20 };
    let run = |grows: fn(Sample, u64) -> Sample| (0..200).map(|n| grows(flat(n), n)).collect::<Vec<_>>();
    check(&run(|sample, _| sample));
    let leaks: [fn(Sample, u64) -> Sample; 3] = [
        |sample, n| Sample { rss_kib: sample.rss_kib + n * 1_000, ..sample },
        |sample, n| Sample { handles: sample.handles + n / 50, ..sample },
        |sample, n| Sample { threads: sample.threads + n / 100, ..sample },
    ];
    for grows in leaks {
        assert!(std::panic::catch_unwind(|| check(&run(grows))).is_err());
    }
}

fn report(samples: &[Sample]) {
    let first = samples[samples.len() / 3];
    let last = samples[samples.len() - 1];
    for (name, sample) in [("a third", first), ("the end", last)] {
        println!(
            "at {name}: {} ticks, {} KiB, {} handles, {} threads",
            sample.done, sample.rss_kib, sample.handles, sample.threads
        );
    }
    if let Ok(file) = std::env::var("SOAK_REPORT") {
        let mut text = String::from("ticks,rss_kib,handles,threads\n");
        for sample in samples {
            let Sample { done, rss_kib, handles, threads } = sample;
            writeln!(text, "{done},{rss_kib},{handles},{threads}").unwrap();
        }
        std::fs::write(file, text).unwrap();
    }
}

fn wait_for_topics(log: &dyn Log, running: &mut Running, said: &Path) -> u32 {
    let begun = Instant::now();
    loop {
        if let Some(topic) = log.topic(topics::TICKS).unwrap() {
            return topic.partitions;
        }
        let ended = running.0.try_wait().unwrap();
        assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{}", std::fs::read_to_string(said).unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ticks that the first stage has committed. The producer writes no control records, so offsets count ticks.
fn committed(log: &dyn Log, partitions: u32) -> u64 {
    let of = |p| log.committed_unstable("market-intel.signals", &TopicPartition::new(topics::TICKS, p));
    (0..partitions).filter_map(|p| of(p).ok().flatten()).map(|committed| committed.offset).sum()
}

fn feed(bootstrap: &str, book: &SchemaBook, partitions: u32, total: u64, done: &AtomicU64) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("linger.ms", "5");
    let producer: BaseProducer = config.create().unwrap();
    let (mut random, mut value) = (20_240_808_u64, Vec::new());
    let mut prices = [6_100_000_i64, 260_000, 6_101_000, 6_102_000];
    for number in 0..total {
        while number > done.load(Ordering::SeqCst) + (total / AHEAD).max(LEAST_AHEAD) {
            producer.poll(Duration::from_millis(5));
        }
        let which = usize::try_from(number / 2).unwrap() % INSTRUMENTS.len();
        let second = i64::try_from(number / RECORDS_PER_SECOND).unwrap();
        let at = EventTime::from_ms(
            FROM_MS + second * 1_000 + i64::try_from(number % RECORDS_PER_SECOND).unwrap(),
        );
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // A walk in cents, a tenth of a cent and more each way, that does not run off.
        let step = i64::try_from(random >> 33).unwrap() % 2_001 - 1_000;
        prices[which] = (prices[which] + step).clamp(100_000, 10_000_000);
        let record = tick(number, INSTRUMENTS[which], at, prices[which]);
        value.clear();
        book.encode(&record, &mut value).unwrap();
        let partition = tidewire_engine::partition::partition_of_compound(INSTRUMENTS[which], partitions);
        loop {
            let record = BaseRecord::to(topics::TICKS)
                .partition(i32::try_from(partition).unwrap())
                .key(INSTRUMENTS[which])
                .payload(value.as_slice())
                .timestamp(at.as_ms());
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
    }
    producer.flush(PATIENCE).unwrap();
}

/// A trade and a quote in turn.
fn tick(number: u64, instrument: &str, at: EventTime, cents: i64) -> Record {
    let price = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap();
    let received_time = ReceivedTime::from_nanos(at.as_micros() * 1_000 + 1_000_000);
    let id = i64::try_from(number).unwrap();
    if number.is_multiple_of(2) {
        let trade = Trade {
            instrument: instrument.into(),
            event_time: at,
            received_time,
            trade_id: id,
            price: price(cents),
            quantity: "0.5".parse().unwrap(),
            market: true,
            aggressor: if number.is_multiple_of(4) { Aggressor::Buyer } else { Aggressor::Seller },
        };
        return trade.into();
    }
    let quote = Quote {
        instrument: instrument.into(),
        event_time: at,
        received_time,
        update_id: id,
        bid_price: price(cents - 5),
        bid_quantity: "2".parse().unwrap(),
        ask_price: price(cents + 5),
        ask_quantity: "1.5".parse().unwrap(),
        event_time_estimated: false,
    };
    quote.into()
}
