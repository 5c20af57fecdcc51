//! The ceiling: librdkafka alone reads the same ticks in batches, decodes them, and writes as many bytes as the
//! pipeline did in transactions of as many records as an epoch may have. One thread, as one worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use tidewire_engine::log::{Log as _, TopicSpec};
use tidewire_tests::process::cpu_s;

use crate::backlog::{Bytes, Pace};
use crate::consume_batch::Batches;
use crate::pipeline::Bed;
use crate::produce::{self, PATIENCE};
use crate::readers::consumer;

/// Records in a transaction: the most that an epoch of a task has by default, times the tasks.
const EPOCH_RECORDS: u64 = 16_384;

/// Ticks a second, and processor time a tick in microseconds.
pub fn through(bed: &Bed, ticks: u64, bytes: &Bytes) -> (f64, f64) {
    let before_s = cpu_s(std::process::id());
    let topic = format!("bare.{}", bed.signals);
    bed.log.create_topic(&TopicSpec::new(topic.as_str(), bed.partitions)).unwrap();
    let reader: Arc<BaseConsumer> =
        Arc::new(consumer(bed, "read_committed", &[&bed.ticks], Offset::Beginning));
    let mut batches = Batches::split(&reader, &bed.ticks, bed.partitions);
    let producer = produce::transactional(&bed.bootstrap, &topic);
    // Varied bytes, so that compression does not make them vanish.
    let noise: Vec<u8> =
        (0..bytes.value + 4096).map(|n| u8::try_from((n * n / 7 + n) % 251).unwrap()).collect();
    let key = vec![b'k'; bytes.key];
    let header = vec![b'h'; bytes.headers.saturating_sub(2)];
    let most = EPOCH_RECORDS * u64::from(bed.partitions);
    let (mut pace, mut open, mut last) = (Pace::new(ticks), 0_u64, Instant::now());
    let mut total = 0_usize;
    loop {
        assert!(last.elapsed() < PATIENCE, "the ticks do not come");
        let mut taken = 0;
        for partition in 0..bed.partitions {
            batches.take(partition, |value| {
                if open == 0 {
                    producer.begin_transaction().unwrap();
                }
                // Decoded, and not thrown away by the compiler.
                std::hint::black_box(bed.book.decode(value).unwrap());
                let from = total % 4096;
                total += 1;
                let headers = OwnedHeaders::new().insert(Header { key: "tw", value: Some(&header) });
                let record = BaseRecord::to(&topic)
                    .partition(i32::try_from(partition).unwrap())
                    .key(&key)
                    .payload(&noise[from..from + bytes.value])
                    .headers(headers);
                produce::send(&producer, record);
                taken += 1;
                open += 1;
            });
            if open >= most {
                break;
            }
        }
        if taken > 0 {
            last = Instant::now();
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
        if open >= most || (taken == 0 && open > 0) {
            produce::commit(&producer);
            let done = pace.add(open);
            open = 0;
            if done {
                let used_s = cpu_s(std::process::id()) - before_s;
                return (pace.per_s(), used_s * 1e6 / ticks as f64);
            }
        }
    }
}
