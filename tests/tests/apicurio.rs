//! Our client of schema registries against Apicurio Registry, which others wrote. It comes from Maven Central into the
//! target folder, and keeps what it is told in memory. Needs Java 17, maven and tar.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewire_engine::memory::MemoryLog;
use tidewire_runtime::registry::{
    RegistryError, RegistryOptions, RestOptions, RestRegistry, SchemaRegistry as _, Source, open_book_with,
    read_book_with,
};
use tidewire_schemas::{Kind, Record, Trade};

/// The last line of releases that Java 17 runs.
const VERSION: &str = "3.0.9";
/// Later versions of this plugin want a parent's description that was not published with this release.
const GET_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.8:get";
/// How long the start may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(240);

struct Apicurio {
    child: Child,
    address: SocketAddr,
}

impl Apicurio {
    fn start() -> Self {
        let folder = files();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("java")
            .args([
                "-Xmx512m",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-Dquarkus.http.host=127.0.0.1",
            ])
            .arg(format!("-Dquarkus.http.port={}", address.port()))
            .arg("-jar")
            .arg(folder.join(format!("apicurio-registry-app-{VERSION}-runner.jar")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("this test needs Java 17 or newer");
        let mut started = Self { child, address };
        let since = Instant::now();
        while !started.put("/config", r#"{"compatibility":"BACKWARD_TRANSITIVE"}"#).contains("200 OK") {
            assert!(started.child.try_wait().unwrap().is_none(), "it ended; see {}/log", folder.display());
            assert!(since.elapsed() < PATIENCE, "it does not answer; see {}/log", folder.display());
            std::thread::sleep(Duration::from_millis(500));
        }
        started
    }

    fn url(&self) -> String {
        format!("http://{}/apis/ccompat/v7", self.address)
    }

    /// What it answers, or nothing while it does not.
    fn put(&self, path: &str, body: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.address) else { return String::new() };
        let head = format!(
            "PUT /apis/ccompat/v7{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut answer = String::new();
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

impl Drop for Apicurio {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its files, got once.
fn files() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("apicurio-{VERSION}"));
    if folder.join("complete").exists() {
        return folder;
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let run = |command: &mut Command| {
        let output = command.stdin(Stdio::null()).output().expect("this test needs maven and tar");
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Apicurio Registry could not be got from Maven Central: {said}");
    };
    let archive = folder.join("all.tar.gz");
    run(Command::new("mvn")
        .args(["-B", "-q", GET_PLUGIN, "-Dtransitive=false"])
        .arg(format!("-Dartifact=io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"))
        .arg(format!("-Ddest={}", archive.display())));
    run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&folder));
    std::fs::remove_file(archive).unwrap();
    std::fs::write(folder.join("complete"), "").unwrap();
    folder
}

#[test]
fn a_registry_that_others_wrote_is_enough() {
    let apicurio = Apicurio::start();
    let url = apicurio.url();
    let log = MemoryLog::new();
    let options = |auto_register| RegistryOptions {
        source: Source::Rest(RestOptions::new([url.as_str()])),
        auto_register,
    };

    // In production nothing is registered by a run.
    let error = open_book_with(&log, &options(false), &[]).unwrap_err();
    assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
    let registry = RestRegistry::new(&RestOptions::new([url.as_str()])).unwrap();
    assert_eq!(registry.subjects().unwrap(), Vec::<String>::new());

    let book = open_book_with(&log, &options(true), &[]).unwrap();
    let trade = Record::from(Trade { instrument: "A.B".into(), ..Trade::default() });
    let mut bytes = Vec::new();
    book.encode(&trade, &mut bytes).unwrap();
    for again in
        [open_book_with(&log, &options(false), &[]).unwrap(), read_book_with(&log, &options(true)).unwrap()]
    {
        assert_eq!(again.decode(&bytes), Ok(trade.clone()));
        for &kind in Kind::ALL {
            assert_eq!(again.id_of(kind), book.id_of(kind), "{kind}");
        }
    }

    const SUBJECT: &str = "market.ticks.v1-tidewire.Trade";
    let id = book.id_of(Kind::Trade).unwrap();
    assert_eq!(registry.lookup(SUBJECT, Kind::Trade.schema_json()).unwrap(), Some(id));
    let schema: Value = serde_json::from_str(&registry.schema(id).unwrap().unwrap()).unwrap();
    assert_eq!(schema, serde_json::from_str::<Value>(Kind::Trade.schema_json()).unwrap());
    assert_eq!(registry.schema(2_000_000_000).unwrap(), None);
    assert_eq!(registry.lookup("nobody-tidewire.Trade", Kind::Trade.schema_json()).unwrap(), None);
    assert_eq!(registry.versions("nobody-tidewire.Trade").unwrap(), Vec::new());

    // A newer writer is registered and read; one that leaves out what is needed is refused, with the field.
    let mut newer = schema.clone();
    let note = serde_json::json!({"name": "note", "type": ["null", "string"], "default": null});
    newer["fields"].as_array_mut().unwrap().push(note);
    let second = registry.register(SUBJECT, &newer.to_string()).unwrap();
    assert_ne!(second, id);
    assert_eq!(registry.versions(SUBJECT).unwrap().len(), 2);
    let book = open_book_with(&log, &options(false), &[]).unwrap();
    let mut new = [&[0], &second.to_be_bytes()[..], &bytes[5..]].concat();
    new.push(0);
    assert_eq!(book.decode(&new), Ok(trade));

    let mut needing = schema;
    let rate = serde_json::json!({"name": "rate", "type": "double"});
    needing["fields"].as_array_mut().unwrap().push(rate);
    let error = registry.register(SUBJECT, &needing.to_string()).unwrap_err();
    assert!(matches!(error, RegistryError::Incompatible { .. }), "{error}");
    let reasons = registry.check(SUBJECT, &needing.to_string()).unwrap().join("\n");
    assert!(reasons.contains("rate"), "{reasons}");
    assert_eq!(registry.check("nobody-tidewire.Trade", &needing.to_string()).unwrap(), Vec::<String>::new());
}
