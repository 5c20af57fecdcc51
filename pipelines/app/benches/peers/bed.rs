//! Topics, schemas and clients that all engines of a run share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tidewire_engine::log::{Log as _, TopicSpec};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::registry::open_book;
use tidewire_schemas::{SchemaBook, Trade};
use tidewire_tests::ticks::Market;
use tidewire_tests::unique;

use crate::cluster::Cluster;
use crate::produce::{self, PATIENCE};

pub struct Bed {
    pub bootstrap: String,
    pub market: Market,
    pub book: Arc<SchemaBook>,
    pub log: KafkaLog,
    /// The ticks of the backlog.
    pub ticks: String,
    /// Classes of the Kafka Streams implementation.
    pub java: Option<PathBuf>,
    folder: TempDir,
}

impl Bed {
    pub fn new(cluster: &Cluster, market: Market, java: Option<PathBuf>) -> Self {
        let log = KafkaLog::connect(KafkaOptions::new(&cluster.bootstrap)).unwrap();
        let book = Arc::new(open_book(&log).unwrap());
        let bootstrap = cluster.bootstrap.clone();
        let folder = tempfile::tempdir().unwrap();
        let bed = Self { bootstrap, market, book, log, ticks: unique("ticks"), java, folder };
        bed.create(&bed.ticks);
        bed
    }

    /// For files of processes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn create(&self, topic: &str) {
        self.log.create_topic(&TopicSpec::new(topic, self.market.partitions)).unwrap();
    }

    /// Writes ticks before anything reads them, and those that close their windows.
    pub fn write_backlog(&self, ticks: u64) {
        let all = self.market.trades().take(usize::try_from(ticks).unwrap());
        self.write(all.chain(self.market.last(ticks)));
    }

    /// Writes the ticks that close the last windows again.
    pub fn write_last(&self, ticks: u64) {
        self.write(self.market.last(ticks).into_iter());
    }

    fn write(&self, trades: impl Iterator<Item = (u32, Trade)>) {
        let (producer, mut value) = (produce::of_ticks(&self.bootstrap), Vec::with_capacity(128));
        for (partition, trade) in trades {
            self.send(&producer, &self.ticks, partition, &trade, &mut value);
        }
        producer.flush(PATIENCE).unwrap();
    }

    pub fn send(&self, to: &BaseProducer, topic: &str, partition: u32, trade: &Trade, value: &mut Vec<u8>) {
        value.clear();
        self.book.encode_body(trade, value).unwrap();
        let record = BaseRecord::to(topic)
            .partition(i32::try_from(partition).unwrap())
            .key(trade.instrument.as_str())
            .payload(value.as_slice())
            .timestamp(trade.event_time.as_ms());
        produce::send(to, record);
    }

    /// Reads committed records of topics from their beginning, in no group.
    pub fn consumer(&self, topics: &[&str]) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", "bench");
        config.set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        config.set("fetch.wait.max.ms", "20").set("fetch.queue.backoff.ms", "5");
        config.set("socket.nagle.disable", "true");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut list = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..self.market.partitions {
                let partition = i32::try_from(partition).unwrap();
                list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            }
        }
        consumer.assign(&list).unwrap();
        consumer
    }
}
