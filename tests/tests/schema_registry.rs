//! The registry that is served, with a stock Confluent client from PyPI; and our client of such registries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tidewire_engine::log::Log;
use tidewire_engine::memory::MemoryLog;
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_runtime::registry::server::RegistryServer;
use tidewire_runtime::registry::{
    Credentials, LogRegistry, Placement, RegistryError, RegistryOptions, RestOptions, RestRegistry,
    SchemaRegistry as _, SecretFrom, Source, Tls, open_book, open_book_with, read_book_with,
};
use tidewire_schemas::{Kind, Record, Trade};

const LOOPBACK: &str = "127.0.0.1:0";

fn memory() -> Arc<dyn Log> {
    Arc::new(MemoryLog::new())
}

fn serve(log: &Arc<dyn Log>) -> RegistryServer {
    RegistryServer::start(Arc::clone(log), LOOPBACK.parse().unwrap()).unwrap()
}

fn url(server: &RegistryServer) -> String {
    format!("http://{}", server.address())
}

fn client(url: &str) -> RestRegistry {
    RestRegistry::new(&RestOptions::new([url])).unwrap()
}

fn rest(url: &str, auto_register: bool) -> RegistryOptions {
    RegistryOptions { source: Source::Rest(RestOptions::new([url])), auto_register }
}

fn record(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
}

const A: &str = r#"{"name":"a","type":"int"}"#;
const B: &str = r#"{"name":"b","type":"int"}"#;

#[test]
fn a_stock_client_is_answered_as_by_its_own_registry() {
    let log = memory();
    let server = serve(&log);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let output = Command::new(folder.join("python"))
        .arg(folder.join("registry_calls.py"))
        .arg(url(&server))
        .env("CARGO_TARGET_DIR", target())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("every call was answered"), "{said}");
}

/// The target folder, which the environment of the clients is kept in.
fn target() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap().to_owned()
}

#[test]
fn a_book_by_the_rest_api_is_that_of_the_log() {
    let log = memory();
    let server = serve(&log);
    let more = [Placement::on("my.trades", Kind::Trade)];
    let by_rest = open_book_with(&*memory(), &rest(&url(&server), true), &more).unwrap();
    let by_log = open_book(&*log).unwrap();
    let trade = Record::from(Trade { instrument: "A.B".into(), ..Trade::default() });
    let mut bytes = Vec::new();
    by_rest.encode(&trade, &mut bytes).unwrap();
    assert_eq!(by_log.decode(&bytes), Ok(trade.clone()));
    for &kind in Kind::ALL {
        assert_eq!(by_rest.id_of(kind), by_log.id_of(kind), "{kind}");
    }
    let reading = read_book_with(&*memory(), &rest(&url(&server), false)).unwrap();
    assert_eq!(reading.decode(&bytes), Ok(trade));
    assert_eq!(reading.id_of(Kind::Quote), by_log.id_of(Kind::Quote));
    let subjects = client(&url(&server)).subjects().unwrap();
    assert!(subjects.contains(&"my.trades-tidewire.Trade".to_owned()), "{subjects:?}");
}

/// Producers with another version of a schema, under the names that other strategies give it.
#[test]
fn old_and_new_writers_of_a_topic_are_both_read() {
    let log = memory();
    let server = serve(&log);
    let mut newer: Value = serde_json::from_str(Kind::Trade.schema_json()).unwrap();
    newer["fields"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({"name": "note", "type": ["null", "string"], "default": null}));
    open_book_with(&*memory(), &rest(&url(&server), true), &[]).unwrap();
    let registry = client(&url(&server));
    let id = registry.register("market.ticks.v1-tidewire.Trade", &newer.to_string()).unwrap();
    let other = registry.register("market.ticks.v1-value", &{
        newer["doc"] = "of another team".into();
        newer.to_string()
    });
    let book = open_book_with(&*memory(), &rest(&url(&server), true), &[]).unwrap();
    let trade = Trade { instrument: "A.B".into(), trade_id: 7, ..Trade::default() };
    let mut old = Vec::new();
    book.encode_body(&trade, &mut old).unwrap();
    for id in [id, other.unwrap()] {
        // The body of the newer version: the same, and a note that is null.
        let mut new = [&[0], &id.to_be_bytes()[..], &old[5..]].concat();
        new.push(0);
        assert_eq!(book.decode(&new).unwrap().as_trade(), Some(&trade));
    }
    assert_eq!(book.decode(&old).unwrap().as_trade(), Some(&trade));
    // A producer that left out a field which readers need is refused, with the reason.
    let mut narrow: Value = serde_json::from_str(Kind::Trade.schema_json()).unwrap();
    narrow["fields"].as_array_mut().unwrap()[4]["type"]["scale"] = 8.into();
    let error = registry.register("market.ticks.v1-tidewire.Trade", &narrow.to_string()).unwrap_err();
    assert!(matches!(error, RegistryError::Incompatible { .. }), "{error}");
    assert!(error.to_string().contains("Trade.price") && error.to_string().contains("scale"), "{error}");
    let why = registry.check("market.ticks.v1-tidewire.Trade", &narrow.to_string()).unwrap();
    assert!(why.iter().any(|why| why.contains("Trade.price")), "{why:?}");
    assert_eq!(registry.check("no-such-subject", &narrow.to_string()).unwrap(), Vec::<String>::new());
}

#[test]
fn in_production_what_is_missing_is_an_error() {
    let log = memory();
    let server = serve(&log);
    let error = open_book_with(&*memory(), &rest(&url(&server), false), &[]).unwrap_err();
    assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
    assert!(error.to_string().contains(&url(&server)), "{error}");
    assert_eq!(client(&url(&server)).subjects().unwrap(), Vec::<String>::new());
    open_book_with(&*memory(), &rest(&url(&server), true), &[]).unwrap();
    open_book_with(&*memory(), &rest(&url(&server), false), &[]).unwrap();
}

#[test]
fn ids_outlive_the_server_and_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut ids = BTreeSet::new();
    for round in 0..3 {
        let log: Arc<dyn Log> = EmbeddedLog::open(folder.path(), EmbeddedOptions::default()).unwrap();
        let server = serve(&log);
        let registry = client(&url(&server));
        ids.insert(registry.register("s", &record(A)).unwrap());
        assert_eq!(registry.versions("s").unwrap().len(), 1);
        registry.register(&format!("s{round}"), &record("")).unwrap();
        server.stop();
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
}

/// Two servers over one log stand for two processes.
#[test]
fn two_that_register_at_once_give_the_same_ids() {
    let log = memory();
    let servers = [serve(&log), serve(&log)];
    let schema = |n: usize| record(&format!(r#"{{"name":"f{n}","type":"int"}}"#));
    let given: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|worker| {
                let registry = client(&url(&servers[worker % 2]));
                scope.spawn(move || {
                    (0..12).map(|n| registry.register(&format!("s{n}"), &schema(n)).unwrap()).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(given.iter().all(|ids| *ids == given[0]), "{given:?}");
    assert_eq!(given[0].iter().collect::<BTreeSet<_>>().len(), 12);
    let own = LogRegistry::new(log);
    for n in 0..12 {
        assert_eq!(own.versions(&format!("s{n}")).unwrap().len(), 1);
    }
}

fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that has seen enough may close while we still write.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn http(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn no_request_ends_the_server() {
    let log = memory();
    let server = serve(&log);
    let deep = format!(r#"{{"schema": "{}"}}"#, r#"{\"type\":\"array\",\"items\":"#.repeat(5_000));
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"\x16\x03\x01\x02\x00\x01\x00".to_vec(), "400"),
        (http("GET", "/nothing", b""), r#""error_code":404"#),
        (http("PATCH", "/subjects", b""), r#""error_code":405"#),
        (http("POST", "/subjects/s/versions", b""), r#""error_code":422"#),
        (http("POST", "/subjects/s/versions", b"\xff\xfe{"), r#""error_code":422"#),
        (http("POST", "/subjects/s/versions", b"[1]"), r#""error_code":422"#),
        (http("POST", "/subjects/s/versions", br#"{"schema": 7}"#), r#""error_code":422"#),
        (http("POST", "/subjects/s/versions", b"{}"), r#""error_code":42201"#),
        (http("POST", "/subjects/s/versions", deep.as_bytes()), r#""error_code":42201"#),
        (http("POST", "/subjects/%ff/versions", br#"{"schema": "\"int\""}"#), "400"),
        (http("POST", "/subjects/%0a/versions", br#"{"schema": "\"int\""}"#), r#""error_code":42201"#),
        (http("PUT", "/config", br#"{"compatibility": "x"}"#), r#""error_code":42203"#),
        (http("GET", "/schemas/ids/99999999999999999999", b""), r#""error_code":40403"#),
        (http("GET", "/schemas/ids/-1", b""), r#""error_code":40403"#),
        (http("POST", "/subjects/s/versions", &vec![b' '; 5 << 20]), "413"),
    ];
    for (request, expected) in cases {
        let answer = raw(server.address(), &request);
        let shown: String = String::from_utf8_lossy(&request).chars().take(80).collect();
        assert!(answer.contains(expected), "{shown:?}: {answer}");
        if expected.starts_with('"') {
            assert!(answer.contains("content-type: application/vnd.schemaregistry.v1+json"), "{answer}");
        }
    }
    // One that sends half a request and waits does not keep others waiting.
    let mut slow = TcpStream::connect(server.address()).unwrap();
    slow.write_all(b"POST /subjects/s/versions HTTP/1.1\r\nContent-Le").unwrap();
    assert_eq!(client(&url(&server)).subjects().unwrap(), Vec::<String>::new());
    drop(slow);
    server.stop();
}

/// A registry of our own making, that answers each request as it is told and keeps what it was asked.
struct Scripted {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

fn scripted(answer: impl Fn(usize) -> (u16, &'static str) + Send + 'static) -> Scripted {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&asked);
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 8192];
            let length = stream.read(&mut bytes).unwrap_or(0);
            keep.lock().unwrap().push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            let (status, body) = answer(count);
            let head =
                format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(body.as_bytes());
        }
    });
    Scripted { address, asked }
}

#[test]
fn an_address_that_does_not_answer_is_passed_over() {
    let log = memory();
    let server = serve(&log);
    let gone = TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let options = RestOptions::new([format!("http://{gone}"), url(&server)]);
    let registry = RestRegistry::new(&options).unwrap();
    let id = registry.register("s", &record(A)).unwrap();
    assert_eq!(registry.schema(id).unwrap().as_deref(), Some(record(A).as_str()));
    assert_eq!(registry.schema(id + 1).unwrap(), None);

    let options = RestOptions { rounds: 2, ..RestOptions::new([format!("http://{gone}")]) };
    let error = RestRegistry::new(&options).unwrap().subjects().unwrap_err().to_string();
    assert!(error.contains("2 tries") && error.contains(&gone.to_string()), "{error}");
}

#[test]
fn a_registry_that_fails_for_a_moment_is_asked_again() {
    let registry = scripted(|count| if count < 2 { (503, "later") } else { (200, "[\"s\"]") });
    let options = RestOptions::new([format!("http://{}", registry.address)]);
    assert_eq!(RestRegistry::new(&options).unwrap().subjects().unwrap(), ["s"]);
    assert_eq!(registry.asked.lock().unwrap().len(), 3);
}

#[test]
fn one_that_never_answers_is_given_up() {
    let listener = TcpListener::bind(LOOPBACK).unwrap();
    let address = listener.local_addr().unwrap();
    let options = RestOptions {
        timeout: Duration::from_millis(100),
        rounds: 1,
        ..RestOptions::new([format!("http://{address}")])
    };
    let error = RestRegistry::new(&options).unwrap().subjects().unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { tries: 1, .. }), "{error}");
}

#[test]
fn schemas_of_ids_are_asked_for_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let registry = scripted(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        (200, r#"{"schema":"\"int\""}"#)
    });
    let client = client(&format!("http://{}", registry.address));
    for _ in 0..3 {
        assert_eq!(client.schema(4_000_000_000).unwrap().as_deref(), Some("\"int\""));
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn who_asks_is_said_and_never_shown() {
    const SECRET: &str = "open sesame";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let basic =
        Credentials::Basic { username: SecretFrom::value("Aladdin"), password: SecretFrom::value(SECRET) };
    for (credentials, header) in [
        // The example of RFC 7617.
        (basic, "authorization: basic qwxhzgrpbjpvcgvuihnlc2ftzq=="),
        (Credentials::Bearer(SecretFrom::File(file.clone())), "authorization: bearer open sesame"),
    ] {
        let registry = scripted(|_| (401, r#"{"error_code":401,"message":"who are you"}"#));
        let url = format!("http://{}", registry.address);
        let options = RestOptions { credentials, ..RestOptions::new([url.clone()]) };
        let error = RestRegistry::new(&options).unwrap().subjects().unwrap_err();
        let asked = registry.asked.lock().unwrap().join("\n").to_lowercase();
        assert!(asked.contains(header), "{asked}");
        for shown in [error.to_string(), format!("{error:?}"), format!("{options:?}")] {
            assert!(!shown.contains(SECRET) && !shown.contains("Aladdin"), "{shown}");
        }
        assert!(error.to_string().contains("password_env") && error.to_string().contains(&url), "{error}");
    }
    std::fs::remove_file(&file).unwrap();
    let options = RestOptions {
        credentials: Credentials::Bearer(SecretFrom::File(file)),
        ..RestOptions::new(["http://a"])
    };
    let error = RestRegistry::new(&options).unwrap().subjects().unwrap_err();
    assert!(matches!(error, RegistryError::Settings(_)), "{error}");
}

#[test]
fn what_is_no_registry_is_called_so() {
    let registry = scripted(|_| (200, "<html>hello</html>"));
    let error = client(&format!("http://{}", registry.address)).subjects().unwrap_err().to_string();
    assert!(
        error.contains("GET http://") && error.contains("is this the address of a schema registry"),
        "{error}"
    );
}

#[test]
fn rules_hold_for_those_who_register_by_the_log_too() {
    let log = memory();
    let server = serve(&log);
    let registry = client(&url(&server));
    registry.register("s", &record(A)).unwrap();
    let own = LogRegistry::new(Arc::clone(&log));
    assert!(own.register("s", &record(&[A, B].join(","))).is_err());
    let answer = raw(server.address(), &http("PUT", "/config/s", br#"{"compatibility":"NONE"}"#));
    assert!(answer.contains("NONE"), "{answer}");
    assert_eq!(own.register("s", &record(&[A, B].join(","))).unwrap(), 2);
    assert_eq!(registry.versions("s").unwrap().len(), 2);
}

/// A server in Python behind https, until it is dropped.
struct OverTls {
    child: Child,
    url: String,
}

impl OverTls {
    fn start(files: &[&Path]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/tls_registry.py");
        let mut child =
            Command::new("python3").arg(script).args(files).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, url: format!("https://127.0.0.1:{}", port.trim()) }
    }
}

impl Drop for OverTls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate of its own making for 127.0.0.1, and its key.
fn certificate(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("this test needs openssl (Debian: apt-get install openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (certificate, key)
}

#[test]
fn certificates_are_checked_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let (server, server_key) = certificate(folder.path(), "server");
    let (ours, our_key) = certificate(folder.path(), "client");
    let ask = |url: &str, tls: Tls| {
        let options = RestOptions { tls, rounds: 1, ..RestOptions::new([url]) };
        RestRegistry::new(&options).unwrap().subjects().map_err(|error| error.to_string())
    };
    let trusting = Tls { ca_file: Some(server.clone()), ..Tls::default() };
    let known =
        Tls { certificate_file: Some(ours.clone()), key_file: Some(our_key.clone()), ..trusting.clone() };

    let open = OverTls::start(&[&server, &server_key]);
    let error = ask(&open.url, Tls::default()).unwrap_err();
    assert!(error.contains("certificate") && error.contains(&open.url), "{error}");
    assert_eq!(ask(&open.url, trusting.clone()).unwrap(), ["over-tls"]);
    // Nobody vouches for another name.
    let elsewhere = open.url.replace("127.0.0.1", "localhost");
    assert!(ask(&elsewhere, trusting.clone()).is_err());

    let mutual = OverTls::start(&[&server, &server_key, &ours]);
    assert!(ask(&mutual.url, trusting).is_err());
    assert_eq!(ask(&mutual.url, known).unwrap(), ["over-tls"]);

    let missing = Tls { ca_file: Some(folder.path().join("none.pem")), ..Tls::default() };
    let options = RestOptions { tls: missing, ..RestOptions::new(["https://a"]) };
    let error = RestRegistry::new(&options).err().unwrap().to_string();
    assert!(error.contains("[schema_registry]") && error.contains("none.pem"), "{error}");
}
