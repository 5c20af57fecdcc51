//! The ceiling: librdkafka alone reads the same ticks in batches, decodes each, and writes as many records of as many bytes as
//! the engines did, spread evenly, in transactions. One thread, as one worker; no state, no journal, no positions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::{BaseRecord, Producer as _};
use tidewire_tests::process::{cpu_s, peak_bytes};
use tidewire_tests::unique;

use crate::backlog::Through;
use crate::bed::Bed;
use crate::consume_batch::Batches;
use crate::produce::{self, PATIENCE};

/// Ticks in a transaction: the most that an epoch of a task has by default, times the tasks.
const EPOCH_TICKS: u64 = 16_384;

pub fn through(bed: &Bed, ticks: u64, outputs: u64, bytes: usize) -> Through {
    let topic = unique("bare");
    bed.create(&topic);
    let reader: Arc<BaseConsumer> = Arc::new(bed.consumer(&[&bed.ticks]));
    let mut batches = Batches::split(&reader, &bed.ticks, bed.market.partitions);
    let producer = produce::transactional(&bed.bootstrap, &topic);
    let each = bytes / usize::try_from(outputs.max(1)).unwrap();
    // Varied bytes, so that compression does not make them vanish.
    let noise: Vec<u8> = (0..each + 4096).map(|n| u8::try_from((n * n / 7 + n) % 251).unwrap()).collect();
    let most = EPOCH_TICKS * u64::from(bed.market.partitions);
    let (mut seen, mut open, mut sent) = (0_u64, 0_u64, 0_u64);
    let (mut from, mut to) = (None, None);
    let pid = std::process::id();
    let mut last = Instant::now();
    while seen < ticks {
        assert!(last.elapsed() < PATIENCE, "the ticks do not come");
        let before = seen;
        for partition in 0..bed.market.partitions {
            batches.take(partition, |value| {
                if open == 0 {
                    producer.begin_transaction().unwrap();
                }
                // Decoded, and not thrown away by the compiler.
                std::hint::black_box(bed.book.decode(value).unwrap());
                seen += 1;
                open += 1;
                while sent * ticks < seen * outputs && sent < outputs {
                    let at = usize::try_from(sent % 4096).unwrap();
                    let record = BaseRecord::to(&topic)
                        .partition(i32::try_from(partition).unwrap())
                        .key("key")
                        .payload(&noise[at..at + each]);
                    produce::send(&producer, record);
                    sent += 1;
                }
            });
            if open >= most {
                break;
            }
        }
        if seen > before {
            last = Instant::now();
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
        if open >= most || (seen == before && open > 0) || seen >= ticks {
            produce::commit(&producer);
            open = 0;
            let mark = || (seen, Instant::now(), cpu_s(pid));
            if from.is_none() && seen >= ticks / 10 {
                from = Some(mark());
            }
            if to.is_none() && seen >= ticks / 10 * 9 {
                to = Some(mark());
            }
        }
    }
    let ((first, begun, cpu_from), (end, ended, cpu_to)) = (from.unwrap(), to.unwrap());
    let done = (end - first) as f64;
    Through {
        per_s: done / ended.duration_since(begun).as_secs_f64(),
        cpu_us: (cpu_to - cpu_from) * 1e6 / done,
        peak_bytes: peak_bytes(pid),
    }
}
