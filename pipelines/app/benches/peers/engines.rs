//! The engines that are measured, as processes of their own.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tidewire_schemas::Kind;
use tidewire_tests::process::Running;
use tidewire_tests::{root, unique};

use crate::bed::Bed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Tidewire,
    /// Kafka Streams with exactly_once_v2 and else its defaults.
    StreamsDefaults,
    /// The same with what its own guides advise for throughput and latency: tests/peers/kafka-streams/tuned.properties.
    StreamsTuned,
}

impl Engine {
    pub fn named(name: &str) -> Self {
        match name {
            "tidewire" => Self::Tidewire,
            "streams-defaults" => Self::StreamsDefaults,
            "streams-tuned" => Self::StreamsTuned,
            other => panic!("ENGINES has {other}: use tidewire, streams-defaults, streams-tuned"),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tidewire => "tidewire",
            Self::StreamsDefaults => "streams-defaults",
            Self::StreamsTuned => "streams-tuned",
        })
    }
}

/// A run of an engine: its output topics are its own.
pub struct Run {
    pub bars: String,
    pub signals: String,
    pub process: Running,
}

impl Run {
    /// Starts an engine on the ticks of a topic.
    pub fn start(bed: &Bed, engine: Engine, workers: u64, ticks: &str) -> Self {
        let name = unique(&engine.to_string());
        let (bars, signals) = (format!("{name}.bars"), format!("{name}.signals"));
        bed.create(&bars);
        bed.create(&signals);
        let mut command = match engine {
            Engine::Tidewire => tidewire(bed, &name, workers, [ticks, &bars, &signals]),
            _ => streams(bed, &name, engine, workers, [ticks, &bars, &signals]),
        };
        let process = Running::start(&mut command, bed.folder(), &name);
        Self { bars, signals, process }
    }
}

fn tidewire(bed: &Bed, name: &str, workers: u64, [ticks, bars, signals]: [&str; 3]) -> Command {
    let text = std::fs::read_to_string(root().join("tests/peers/bars.toml")).unwrap();
    let text = text
        .replace("name = \"bars\"\npartitions", &format!("name = \"{name}\"\npartitions"))
        .replace("peer.ticks", ticks)
        .replace("peer.bars", bars)
        .replace("peer.signals", signals);
    let file = bed.folder().join(format!("{name}.toml"));
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.arg("run").arg(file).args(["--bootstrap", &bed.bootstrap, "--workers", &workers.to_string()]);
    command
}

fn streams(
    bed: &Bed,
    name: &str,
    engine: Engine,
    workers: u64,
    [ticks, bars, signals]: [&str; 3],
) -> Command {
    let folder = root().join("tests/peers/kafka-streams");
    let file = match engine {
        Engine::StreamsTuned => "tuned.properties",
        _ => "defaults.properties",
    };
    let mut text = std::fs::read_to_string(folder.join(file)).unwrap();
    let id = |kind| bed.book.id_of(kind).unwrap().to_string();
    for (key, value) in [
        ("application.id", name),
        ("bootstrap.servers", &bed.bootstrap),
        ("num.stream.threads", &workers.to_string()),
        ("state.dir", &bed.folder().join(name).display().to_string()),
        ("ticks", ticks),
        ("bars", bars),
        ("signals", signals),
        ("bar.schema.id", &id(Kind::Bar)),
        ("signal.schema.id", &id(Kind::Signal)),
    ] {
        writeln!(text, "{key}={value}").unwrap();
    }
    let file = bed.folder().join(format!("{name}.properties"));
    std::fs::write(&file, text).unwrap();
    let java = bed.java.as_ref().unwrap();
    let classes = format!("{}:{}", java.join("peer.jar").display(), java.join("lib/*").display());
    let mut command = Command::new("java");
    command.args(["-Xms512m", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &classes]);
    command.arg("tidewire.peer.Main").arg(file);
    command
}

/// Builds the Kafka Streams implementation; the folder with its classes.
pub fn build_streams() -> PathBuf {
    let source = root().join("tests/peers/kafka-streams");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peer-kafka-streams");
    let mut build = Command::new("mvn");
    build.args(["--batch-mode", "--quiet", "--file"]).arg(source.join("pom.xml"));
    build.arg(format!("-Dfolder={}", target.display())).arg("package");
    let built = build.output().expect("mvn builds the Kafka Streams implementation: install Maven and a JDK");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stdout));
    target
}
