//! A record on its way costs no memory: in steady state nothing is allocated for it, from the durable log through bars and
//! indicators to the commit. What is allocated belongs to epochs, blocks of the log, and outputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use tidewire::files::load_text;
use tidewire_engine::log::{Log, NewRecord, TopicPartition, TopicSpec};
use tidewire_engine::worker::{Worker, WorkerOptions};
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::open_book;
use tidewire_tests::root;
use tidewire_tests::ticks::{Market, record};

/// Records of the shorter run; the longer has twice as many.
const RECORDS: usize = 60_000;
/// So few a record that they can only belong to epochs and blocks.
const MOST_A_RECORD: f64 = 0.02;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread asks for.
struct Counting;

#[allow(unsafe_code, reason = "an allocator is made of unsafe calls")]
// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised us.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised us.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promised us.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() {
    // A thread that ends may allocate when its counter is gone already.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

/// Allocations of a run over so many trades, all of one window, so that none makes an output.
fn allocations(records: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).unwrap();
    let market = Market { per_s: 10_000_000, partitions: 1, symbols: 10, ..Market::default() };
    let book = open_book(&*log).unwrap();
    log.create_topic(&TopicSpec::new("peer.ticks", 1)).unwrap();
    let trades: Vec<NewRecord> =
        market.trades().take(records).map(|(_, trade)| record(&book, trade)).collect();
    for chunk in trades.chunks(4096) {
        log.append(&TopicPartition::new("peer.ticks", 0), chunk.to_vec()).unwrap();
    }
    let text = std::fs::read_to_string(root().join("tests/peers/bars.toml")).unwrap();
    let text = text.replace("partitions = 4", "partitions = 1");
    let loaded = load_text("bars.toml".to_owned(), text, Vec::new()).unwrap();
    let stage = Arc::clone(&loaded.pipeline.stages[0]);
    tidewire_engine::driver::create_topics(&*log, &stage, 3_600_000).unwrap();
    let book = Arc::new(open_book(&*log).unwrap());
    let log: Arc<dyn Log> = log;
    let options = WorkerOptions { member: "test".into(), ..WorkerOptions::default() };
    let mut worker = Worker::new(log, stage, book, options).unwrap();
    let before = COUNT.get();
    let (mut taken, mut idle) = (0, 0);
    while idle < 3 {
        let step = worker.step(1_000).unwrap();
        assert!(step.halted.is_empty() && step.faults.is_empty(), "{step:?}");
        taken += step.records;
        idle = if step.worked { 0 } else { idle + 1 };
    }
    assert_eq!(taken, records as u64);
    COUNT.get() - before
}

#[test]
fn a_record_allocates_nothing() {
    let (short, long) = (allocations(RECORDS), allocations(2 * RECORDS));
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = (long - short) as f64 / RECORDS as f64;
    println!("{short} allocations for {RECORDS} records, {long} for twice as many: {each:.4} a record");
    assert!(each < MOST_A_RECORD, "{each} allocations a record");
}

/// What counts must count: one allocation a record more is found.
#[test]
fn an_allocation_is_counted() {
    let before = COUNT.get();
    let held: Vec<Box<u64>> = (0..100).map(Box::new).collect();
    assert!(COUNT.get() - before >= 100);
    drop(held);
}
