//! Every topic of a run is read by a stock Confluent AvroDeserializer through the registry, as it is read by us.
//!
//! Once from the embedded log, and once from a real Kafka, from where the examples of the documentation read too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tidewire_engine::log::{Log, TopicPartition};
use tidewire_runtime::embedded::{EmbeddedOptions, open_any};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_runtime::registry::read_book;
use tidewire_schemas::{EventTime, JsonReader, ReceivedTime, SchemaBook, wire};
use tidewire_tests::clients::{self, Isolation};
use tidewire_tests::cluster::Cluster;
use tidewire_tests::root;

/// Records of a partition that are compared.
const MOST: usize = 400;
/// Topics that a run of the shipped pipeline on the shipped recordings writes to or reads from.
const TOPICS: [&str; 16] = [
    "alerts.v1",
    "cash.v1",
    "executions.v1",
    "features.bars.v1",
    "features.values.v1",
    "intents.v1",
    "market-intel.epochs",
    "market.news.v1",
    "market.ticks.v1",
    "marks.v1",
    "orders.v1",
    "positions.v1",
    "reference.instruments.v1",
    "risk.decisions.v1",
    "signals.v1",
    "venue.commands.v1",
];

/// The target folder, where the environment of the clients and the cluster's parts are kept.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

fn tidewire(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(args).stdin(Stdio::null());
    for name in
        ["TIDEWIRE_DATA", "TIDEWIRE_LOG", "TIDEWIRE_BOOTSTRAP", "TIDEWIRE_CONFIG", "TIDEWIRE_REGISTRY"]
    {
        command.env_remove(name);
    }
    command
}

/// What a command prints, which must do well.
fn output(command: &mut Command) -> String {
    let output = command.env("CARGO_TARGET_DIR", target()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

fn python(script: &Path) -> Command {
    let mut command = Command::new(root().join("tests/clients/python"));
    command.arg(script);
    command
}

/// `tidewire schemas serve`, until it is dropped.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(args: &[&str]) -> Self {
        let all = [&["schemas", "serve", "--listen", "127.0.0.1:0"], args].concat();
        let mut child = tidewire(&all).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{line:?}");
        Self { child, url }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Values of all topics but those that are no records of a schema, the first ones of each partition.
fn values(log: &dyn Log) -> Vec<(String, Vec<u8>)> {
    let mut values = Vec::new();
    for topic in log.topics().unwrap() {
        if topic.name.starts_with('_') || topic.name.ends_with(".changelog") {
            continue;
        }
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(topic.name.clone(), partition);
            let mut from = log.bounds(&at).unwrap().start;
            let mut taken = 0;
            while taken < MOST {
                let fetched = log.read(&at, from, 1 << 20).unwrap();
                for stored in fetched.records.iter().take(MOST - taken) {
                    values.push((topic.name.to_string(), stored.record.value.as_ref().unwrap().to_vec()));
                    taken += 1;
                }
                from = fetched.next_offset;
                if fetched.at_end {
                    break;
                }
            }
        }
    }
    values
}

/// The same by a client that is not ours, of the topics that must be there.
fn values_seen(bootstrap: &str) -> Vec<(String, Vec<u8>)> {
    let mut taken: BTreeMap<(String, u32), usize> = BTreeMap::new();
    let mut values = Vec::new();
    for seen in clients::read(bootstrap, &TOPICS, Isolation::Settled) {
        let taken = taken.entry((seen.topic.clone(), seen.partition)).or_default();
        *taken += 1;
        if *taken <= MOST {
            values.push((seen.topic, seen.value.unwrap()));
        }
    }
    values
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lets the stock deserializer read the values, and compares what it read with what we read.
fn compare(values: &[(String, Vec<u8>)], book: &SchemaBook, url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("values");
    let lines =
        values.iter().map(|(topic, bytes)| json!({ "topic": topic, "value": hex(bytes) }).to_string());
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let theirs = output(python(&root().join("tests/clients/decode_topics.py")).arg(url).arg(&file));
    let theirs: Vec<Value> = theirs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(theirs.len(), values.len());

    let mut readers: BTreeMap<u32, JsonReader> = BTreeMap::new();
    let mut count = Count::default();
    for ((topic, bytes), their) in values.iter().zip(&theirs) {
        let (id, body) = wire::split_prefix(bytes).unwrap();
        let reader = readers.entry(id).or_insert_with(|| JsonReader::new(book.json_of(id).unwrap()).unwrap());
        assert_eq!(reader.record_name(), their["record"].as_str(), "{topic}");
        same(&reader.read(body).unwrap(), &their["value"], topic, &mut count);
        count.topics.insert(topic.clone());
    }
    let missing: Vec<&&str> = TOPICS.iter().filter(|topic| !count.topics.contains(**topic)).collect();
    assert!(missing.is_empty(), "no records of {missing:?}: {:?}", count.topics);
    assert!(count.decimals > 1_000 && count.times > 1_000, "{count:?}");
    println!("{} records of {} topics, {} decimals", values.len(), count.topics.len(), count.decimals);
}

#[derive(Debug, Default)]
struct Count {
    topics: BTreeSet<String>,
    decimals: usize,
    times: usize,
}

fn same(ours: &Value, theirs: &Value, at: &str, count: &mut Count) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            assert!(ours.keys().eq(theirs.keys()), "{at}: {ours:?} and {theirs:?}");
            for (name, value) in ours {
                same(value, &theirs[name], &format!("{at}.{name}"), count);
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{at}");
            for (ours, theirs) in ours.iter().zip(theirs) {
                same(ours, theirs, at, count);
            }
        }
        (Value::String(ours), Value::Object(tagged)) if tagged.contains_key("decimal") => {
            count.decimals += 1;
            assert_eq!(digits(ours), digits(tagged["decimal"].as_str().unwrap()), "{at}");
        }
        (Value::String(ours), Value::Object(tagged)) if tagged.contains_key("micros") => {
            count.times += 1;
            let time: EventTime = ours.parse().unwrap_or_else(|why| panic!("{at}: {ours}: {why}"));
            assert_eq!(Some(time.as_micros()), tagged["micros"].as_i64(), "{at}");
        }
        (Value::String(ours), Value::Object(tagged)) if tagged.contains_key("hex") => {
            assert_eq!(Some(ours.as_str()), tagged["hex"].as_str(), "{at}");
        }
        // Python has no times of nanoseconds: the deserializer gives the number.
        (Value::String(ours), Value::Number(nanos)) => {
            let time = ReceivedTime::from_nanos(nanos.as_i64().unwrap());
            assert_eq!(*ours, time.to_string(), "{at}");
        }
        (Value::Number(ours), Value::Object(tagged)) if tagged.contains_key("double") => {
            let double: f64 = tagged["double"].as_str().unwrap().parse().unwrap();
            assert_eq!(ours.as_f64().map(f64::to_bits), Some(double.to_bits()), "{at}: {ours} and {double}");
        }
        (ours, theirs) => assert_eq!(ours, theirs, "{at}"),
    }
}

/// A decimal without the zeros at its end: both sides are exact, one writes the whole scale.
fn digits(decimal: &str) -> &str {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }
}

#[test]
fn a_stock_deserializer_reads_every_topic_of_the_embedded_log() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    output(&mut tidewire(&["demo", "--data", data]));
    let serving = Serving::start(&["--data", data]);
    // The process that serves has the log open: this one goes through it.
    let opened = open_any(Path::new(data), EmbeddedOptions::default()).unwrap();
    let log = opened.log();
    compare(&values(&*log), &read_book(&*log).unwrap(), &serving.url);

    // And everything the pipeline needs is there, by both ways to look.
    let listed = output(&mut tidewire(&["schemas", "list", "--json", "--data", data]));
    let by_url = output(&mut tidewire(&["schemas", "list", "--json", "--registry", &serving.url]));
    assert_eq!(listed, by_url);
    let check = ["schemas", "check", "market-intel", "--json", "--registry", &serving.url];
    let states: Vec<Value> = serde_json::from_str(&output(&mut tidewire(&check))).unwrap();
    let missing: Vec<&Value> = states.iter().filter(|state| state["state"] != "registered").collect();
    assert_eq!(missing, Vec::<&Value>::new());
}

#[test]
fn schemas_are_checked_and_registered() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let production = folder.path().join("production.toml");
    std::fs::write(&production, "[schema_registry]\nprofile = \"production\"\n").unwrap();
    let config = ["--config", production.to_str().unwrap(), "--data", data];
    let with = |args: &[&str]| tidewire(&[args, &config].concat()).output().unwrap();

    // A registry that holds another Trade, which this build can not read.
    let serving = Serving::start(&["--data", data]);
    let other = r#"{"type":"record","name":"Trade","namespace":"tidewire","fields":[{"name":"price","type":"string"}]}"#;
    register(&serving.url, "market.ticks.v1-tidewire.Trade", other);
    let checked = with(&["schemas", "check", "market-intel"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    for part in ["incompatible", "Trade.price", "are missing: `tidewire schemas register market-intel`"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let refused = with(&["schemas", "register", "market-intel"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing was registered"));
    drop(serving);
    std::fs::remove_dir_all(data).unwrap();

    // In production a run does not register: it says what to do.
    let stopped = with(&["import", root().join("samples/news/crypto_news_20220704.csv").to_str().unwrap()]);
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(!stopped.status.success() && said.contains("`tidewire schemas register FILE`"), "{said}");
    let missing = with(&["schemas", "check", "market-intel"]);
    assert_eq!(missing.status.code(), Some(1));
    let registered = output(&mut tidewire(&[&["schemas", "register", "market-intel"][..], &config].concat()));
    assert!(registered.contains("registered market-intel.epochs-tidewire.EpochRecord as id"), "{registered}");
    output(&mut tidewire(&[&["schemas", "check", "market-intel"][..], &config].concat()));
    let again = output(&mut tidewire(&[&["schemas", "register", "market-intel"][..], &config].concat()));
    assert!(again.starts_with("0 registered"), "{again}");
    let shown = output(&mut tidewire(&["schemas", "show", "signals.v1-tidewire.Signal", "--data", data]));
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["name"], "Signal");
}

/// Registers a schema by hand, as other teams do.
fn register(url: &str, subject: &str, schema: &str) {
    let address = url.trim_start_matches("http://");
    let body = json!({ "schema": schema }).to_string();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /subjects/{subject}/versions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_stock_deserializer_reads_every_topic_of_kafka_as_the_examples_do() {
    let cluster = Cluster::of_nodes(1);
    let bootstrap = ["--bootstrap", cluster.bootstrap()];
    let samples = root().join("samples");
    let ticks = ["usdm_btcusdt_20240808.gz", "usdm_ethusdt_20240808.gz", "spot_btcusdt_20240808.gz"];
    let mut import = tidewire(&bootstrap);
    import.args(["import", "--pipeline", "market-intel"]);
    output(import.args(ticks.map(|file| samples.join("binance").join(file))));
    let mut import = tidewire(&bootstrap);
    import.args(["import", "--pipeline", "market-intel"]).arg(samples.join("news/crypto_news_20220704.csv"));
    // The news is of another day than the ticks.
    output(import.args(["--news-from", "2024-08-08T23:54:15Z", "--news-to", "2024-08-08T23:55:45Z"]));
    let mut run = tidewire(&bootstrap);
    output(run.args(["run", "market-intel", "--synchronised"]));

    let serving = Serving::start(&bootstrap);
    let log = KafkaLog::connect(KafkaOptions::new(cluster.bootstrap())).unwrap();
    compare(&values_seen(cluster.bootstrap()), &read_book(&log).unwrap(), &serving.url);

    let docs = std::fs::read_to_string(root().join("docs/schema-registry.md")).unwrap();
    let here = |code: String| {
        assert!(code.contains("localhost:9092"), "{code}");
        code.replace("localhost:9092", cluster.bootstrap()).replace("http://localhost:8081", &serving.url)
    };
    let folder = tempfile::tempdir().unwrap();
    let example = folder.path().join("example.py");
    std::fs::write(&example, here(block(&docs, "python"))).unwrap();
    let said = output(&mut python(&example));
    assert!(said.lines().count() > 10 && said.contains("BTCUSDT.BINANCE_USDM"), "{said}");
    let kcat = here(block(&docs, "sh kcat"));
    let said = output(Command::new("sh").args(["-euc", &kcat]));
    assert!(said.lines().count() > 10 && said.contains("BTCUSDT.BINANCE_USDM"), "{said}");
}

/// The one block of a kind in a page.
fn block(page: &str, kind: &str) -> String {
    let fence = format!("```{kind}\n");
    let mut parts = page.split(&fence);
    let (_, code) = (parts.next(), parts.next().expect("the page has such a block"));
    assert!(parts.next().is_none(), "{kind}: which one?");
    code.split("```").next().unwrap().to_owned()
}
