//! Every way into a secured Kafka, a real one: it works, what is wrong is said once, and no secret shows anywhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewire_engine::log::{Log as _, TopicPartition};
use tidewire_runtime::kafka::{KafkaLog, KafkaOptions};
use tidewire_tests::cluster::Cluster;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
const TRADES: &str = "time,price,quantity,side\n\
    2024-08-08T23:54:15.100Z,61800.30,0.006,buy\n\
    2024-08-08T23:54:15.900Z,61801.10,0.010,sell\n\
    2024-08-08T23:54:17.500Z,61799.00,0.500,buy\n";

const BARS: &str = r#"
[pipeline]
name = "bars"
partitions = 1
[[stage]]
name = "features"
[[stage.input]]
id = "ticks"
topic = "market.ticks.v1"
role = "driving"
[[stage.operator]]
id = "bars"
type = "time_bars"
from = ["ticks"]
interval_ms = 1_000
[[stage.output]]
topic = "features.bars.v1"
from = ["bars"]
"#;

/// A broker with listeners for each way in, and the files of those who come; gone with the test.
struct Secured {
    kafka: Cluster,
    folder: TempDir,
}

impl Secured {
    fn start() -> Self {
        let (kafka, folder) = (Cluster::secure(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("trades.csv"), TRADES).unwrap();
        std::fs::write(folder.path().join("bars.toml"), BARS).unwrap();
        Self { kafka, folder }
    }

    fn get(&self, name: &str) -> &str {
        self.kafka.variable(name)
    }

    fn password(&self) -> &str {
        self.get("KAFKA_PASSWORD")
    }

    /// Writes a file that may hold a secret; returns its path.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The binary with a configuration of these lines under `[kafka]`.
    fn command(&self, args: &[&str], listener: &str, lines: &str) -> Command {
        let text = format!("[kafka]\nbootstrap = \"{}\"\n{lines}\n", self.get(listener));
        let config = self.file("config.toml", &text);
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        let ours = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("TIDEWIRE"));
        for name in ours {
            command.env_remove(name);
        }
        command.args(args).args(["--config", &config]).current_dir(self.folder.path());
        command.env("KAFKA_SECRET", self.password());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn import(&self, listener: &str, lines: &str) -> Output {
        let args = [
            "import",
            "trades.csv",
            "--instrument",
            "BTCUSDT.BINANCE_USDM",
            "--topic-partitions",
            "1",
            "--again",
        ];
        in_time(self.command(&args, listener, lines))
    }

    /// Every way in, by name: the listener and the lines of the configuration.
    fn ways(&self) -> Vec<(&'static str, &'static str, String)> {
        let ca = format!("ca_file = {:?}\n", self.get("KAFKA_CA"));
        let user = format!("username = {:?}\n", self.get("KAFKA_USER"));
        let certificate = format!(
            "certificate_file = {:?}\nkey_file = {:?}\n",
            self.get("KAFKA_CLIENT_CERTIFICATE"),
            self.get("KAFKA_CLIENT_KEY")
        );
        let in_variable = "password_env = \"KAFKA_SECRET\"\n";
        let in_file = format!("password_file = {:?}\n", self.file("password", self.password()));
        let sasl = |mechanism: &str| format!("sasl_mechanism = {mechanism:?}\n");
        let token = format!("token_file = {:?}\n", self.file("token", &token(self.get("KAFKA_USER"))));
        vec![
            ("TLS", "KAFKA_SSL", ca.clone()),
            ("mutual TLS", "KAFKA_MTLS", ca.clone() + &certificate),
            ("PLAIN", "KAFKA_SASL_PLAINTEXT", sasl("PLAIN") + &user + in_variable),
            ("PLAIN over TLS", "KAFKA_SASL_SSL", ca.clone() + &sasl("PLAIN") + &user + &in_file),
            ("SCRAM-SHA-256", "KAFKA_SASL_PLAINTEXT", sasl("SCRAM-SHA-256") + &user + &in_file),
            (
                "SCRAM-SHA-256 over TLS",
                "KAFKA_SASL_SSL",
                ca.clone() + &sasl("SCRAM-SHA-256") + &user + in_variable,
            ),
            ("SCRAM-SHA-512", "KAFKA_SASL_PLAINTEXT", sasl("SCRAM-SHA-512") + &user + in_variable),
            (
                "SCRAM-SHA-512 over TLS",
                "KAFKA_SASL_SSL",
                ca.clone() + &sasl("SCRAM-SHA-512") + &user + in_variable,
            ),
            ("OAUTHBEARER with a token file over TLS", "KAFKA_SASL_SSL", ca + &sasl("OAUTHBEARER") + &token),
            (
                "OAUTHBEARER with a token of its own",
                "KAFKA_SASL_PLAINTEXT",
                sasl("OAUTHBEARER") + "unsecured_token = \"principal=tester\"\n",
            ),
        ]
    }
}

/// A token that nobody signed; a broker for tests takes it. Its middle part is what must not show.
fn token(user: &str) -> String {
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!("{{\"sub\":\"{user}\",\"iat\":{now_s},\"exp\":{}}}", now_s + 3_600);
    format!("{}.{}.", base64url(b"{\"alg\":\"none\"}"), base64url(claims.as_bytes()))
}

fn base64url(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(digits[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

/// Runs it to its end, which must come in time.
fn in_time(mut command: Command) -> Output {
    let mut child = Ended(command.spawn().unwrap());
    let readers = [
        std::thread::spawn({
            let mut out = child.0.stdout.take().unwrap();
            move || read_all(&mut out)
        }),
        std::thread::spawn({
            let mut err = child.0.stderr.take().unwrap();
            move || read_all(&mut err)
        }),
    ];
    let begun = Instant::now();
    let status = loop {
        match child.0.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > PATIENCE => panic!("it does not end: {command:?}"),
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let [stdout, stderr] = readers.map(|reader| reader.join().unwrap());
    Output { status, stdout, stderr }
}

fn read_all(from: &mut impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The secrets that a text shows.
fn shown<'a>(text: &[u8], secrets: &'a [(String, Vec<u8>)]) -> Vec<&'a str> {
    let holds = |secret: &[u8]| text.windows(secret.len()).any(|window| window == secret);
    secrets.iter().filter(|(_, secret)| holds(secret)).map(|(name, _)| name.as_str()).collect()
}

/// All that a cluster holds: keys, values and headers of every topic.
fn everything_in(cluster: &Secured) -> Vec<u8> {
    let log = KafkaLog::connect(KafkaOptions::new(cluster.get("KAFKA_BOOTSTRAP"))).unwrap();
    let mut all = Vec::new();
    for topic in log.topics().unwrap() {
        all.extend_from_slice(topic.name.as_bytes());
        for partition in 0..topic.partitions {
            let at = TopicPartition::new(topic.name.clone(), partition);
            let (mut from, end) = (log.bounds(&at).unwrap().start, log.bounds(&at).unwrap().stable_end);
            while from < end {
                let read = log.read(&at, from, 1 << 20).unwrap();
                for stored in &read.records {
                    let record = &stored.record;
                    let parts = [record.key.as_ref(), record.value.as_ref()].into_iter().flatten();
                    parts.for_each(|part| all.extend_from_slice(part));
                    record.headers.iter().for_each(|(_, value)| all.extend_from_slice(value));
                }
                from = read.next_offset;
            }
        }
    }
    all
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One cluster for all of it: it takes a while to start.
#[test]
fn every_way_in_works_what_is_wrong_is_said_once_and_no_secret_shows() {
    let cluster = Secured::start();
    let mut said = Vec::new();
    each_way_writes_and_reads(&cluster, &mut said);
    what_is_wrong_is_said_once(&cluster, &mut said);
    a_run_shows_nothing(&cluster, &mut said);

    let key = std::fs::read_to_string(cluster.get("KAFKA_CLIENT_KEY")).unwrap();
    let key_line = key.lines().find(|line| !line.starts_with('-')).unwrap();
    let token = std::fs::read_to_string(cluster.folder.path().join("token")).unwrap();
    let middle = token.split('.').nth(1).unwrap();
    let secrets = [
        ("password", cluster.password()),
        ("key", key_line),
        ("token", middle),
        ("wrong", "not-the-password"),
    ];
    let secrets = secrets.map(|(name, secret)| (name.to_owned(), secret.as_bytes().to_vec()));
    for (doing, bytes) in &said {
        assert_eq!(shown(bytes, &secrets), [""; 0], "{doing}: {}", text(bytes));
    }
    let held = everything_in(&cluster);
    assert!(text(&held).contains("name = \\\"bars\\\""), "the note of the pipeline is among what was read");
    assert_eq!(shown(&held, &secrets), [""; 0], "in the log");
    // What looks for them finds them.
    let planted = [b"x".as_slice(), cluster.password().as_bytes(), b"y"].concat();
    assert_eq!(shown(&planted, &secrets), ["password"]);
}

fn each_way_writes_and_reads(cluster: &Secured, said: &mut Vec<(String, Vec<u8>)>) {
    let mut wanted = 0;
    for (name, listener, lines) in cluster.ways() {
        // The library's own log, too, at its most talkative.
        let lines = lines + "[kafka.properties]\ndebug = \"all\"\n";
        let mut command = cluster.command(
            &[
                "import",
                "trades.csv",
                "--instrument",
                "BTCUSDT.BINANCE_USDM",
                "--topic-partitions",
                "1",
                "--again",
            ],
            listener,
            &lines,
        );
        command.args(["--log-level", "trace"]);
        let done = in_time(command);
        assert!(done.status.success(), "{name}: {}", last_lines(&done.stderr));
        wanted += 3;
        let read = in_time(cluster.command(&["tail", "market.ticks.v1", "--json"], listener, &lines));
        assert!(read.status.success(), "{name}: {}", last_lines(&read.stderr));
        assert_eq!(text(&read.stdout).lines().count(), wanted, "{name}");
        for output in [done, read] {
            said.push((name.to_owned(), [output.stdout, output.stderr].concat()));
        }
    }
}

fn what_is_wrong_is_said_once(cluster: &Secured, said: &mut Vec<(String, Vec<u8>)>) {
    let ca = format!("ca_file = {:?}\n", cluster.get("KAFKA_CA"));
    let other_ca = format!("ca_file = {:?}\n", cluster.get("KAFKA_OTHER_CA"));
    let wrong = cluster.file("wrong", "not-the-password");
    let user = format!("username = {:?}\npassword_file = {wrong:?}\n", cluster.get("KAFKA_USER"));
    let sasl = |mechanism: &str| format!("sasl_mechanism = {mechanism:?}\n{user}");
    let cases = [
        ("wrong password, PLAIN", "KAFKA_SASL_SSL", ca.clone() + &sasl("PLAIN"), "uthentication"),
        ("wrong password, SCRAM-SHA-256", "KAFKA_SASL_PLAINTEXT", sasl("SCRAM-SHA-256"), "uthentication"),
        (
            "wrong password, SCRAM-SHA-512",
            "KAFKA_SASL_SSL",
            ca.clone() + &sasl("SCRAM-SHA-512"),
            "uthentication",
        ),
        ("an authority that signed nothing here", "KAFKA_SSL", other_ca, "certificate"),
        ("no certificate of its own", "KAFKA_MTLS", ca.clone(), "certificate"),
        ("no TLS where it is wanted", "KAFKA_SSL", String::new(), "brokers are down"),
        (
            "a file that is not there",
            "KAFKA_SSL",
            "ca_file = \"/no/such/ca.pem\"\n".to_owned(),
            "/no/such/ca.pem",
        ),
        (
            "a variable that is not set",
            "KAFKA_SASL_SSL",
            ca + "sasl_mechanism = \"PLAIN\"\nusername = \"a\"\npassword_env = \"NO_SUCH_VARIABLE\"\n",
            "NO_SUCH_VARIABLE",
        ),
    ];
    for (name, listener, lines, wanted) in cases {
        let done = cluster.import(listener, &lines);
        let error = text(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: one error, said once: {error}");
        assert!(error.starts_with("error: "), "{name}: {error}");
        assert!(error.contains(wanted), "{name}: {error}");
        said.push((name.to_owned(), [done.stdout, done.stderr].concat()));
    }
}

/// The pipeline on the secured cluster: its log, its pages and what it leaves behind.
fn a_run_shows_nothing(cluster: &Secured, said: &mut Vec<(String, Vec<u8>)>) {
    let (_, listener, lines) =
        cluster.ways().into_iter().find(|way| way.0 == "SCRAM-SHA-512 over TLS").unwrap();
    let http = free_address();
    let args = [
        "run",
        "bars.toml",
        "--http",
        &http,
        "--log-format",
        "json",
        "--log-level",
        "trace",
        "--stop-timeout",
        "60",
    ];
    let mut child = Ended(cluster.command(&args, listener, &lines).spawn().unwrap());
    let mut err = child.0.stderr.take().unwrap();
    let reader = std::thread::spawn(move || read_all(&mut err));
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "it never gets ready");
        let page = agent.get(format!("http://{http}/readyz")).call();
        if page.is_ok_and(|page| page.status().as_u16() == 200) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut pages = Vec::new();
    for page in ["/healthz", "/readyz", "/metrics"] {
        let mut answer = agent.get(format!("http://{http}{page}")).call().unwrap();
        pages.extend(answer.body_mut().read_to_string().unwrap().into_bytes());
    }
    let id = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let status = child.0.wait().unwrap();
    let log = reader.join().unwrap();
    assert_eq!(status.code(), Some(0), "{}", last_lines(&log));
    said.push(("pages".to_owned(), pages));
    said.push(("log".to_owned(), log));
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn last_lines(bytes: &[u8]) -> String {
    let all = text(bytes);
    let lines: Vec<&str> = all.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
