//! A real redis-server of the test's own, read back by redis-cli.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What it wants of whoever connects. In an address the slash must be written otherwise.
pub const PASSWORD: &str = "correct-horse/battery";
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// One redis-server on a free port of the loopback, with a folder of its own. It ends with the test.
pub struct RedisServer {
    dir: TempDir,
    port: u16,
    child: Mutex<Option<Child>>,
}

impl RedisServer {
    pub fn start() -> Self {
        let begun = Instant::now();
        loop {
            // Another process may take the port between our letting go and the server's taking it: then another one.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let server = Self { dir: tempfile::tempdir().unwrap(), port, child: Mutex::new(None) };
            if server.try_start() {
                return server;
            }
            assert!(begun.elapsed() < PATIENCE, "redis-server does not start");
        }
    }

    /// Its address with a password in it.
    pub fn url(&self, password: &str) -> String {
        format!("redis://:{}@127.0.0.1:{}", password.replace('/', "%2F"), self.port)
    }

    /// Its address with the right password.
    pub fn right_url(&self) -> String {
        self.url(PASSWORD)
    }

    fn try_start(&self) -> bool {
        let port = self.port.to_string();
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--requirepass", PASSWORD, "--dir"])
            .arg(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let mut child = child.expect("redis-server is missing: apt-get install redis-server");
        let begun = Instant::now();
        loop {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if self.try_cli(&["PING"]).is_ok_and(|said| said.contains("PONG")) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        *self.child.lock().unwrap() = Some(child);
        true
    }

    /// Kill -9.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap().take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn start_again(&self) {
        assert!(self.try_start(), "{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap());
    }

    /// What redis-cli answers.
    pub fn cli(&self, words: &[&str]) -> String {
        let said = self.try_cli(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        assert!(!said.starts_with("ERR") && !said.starts_with("WRONGTYPE"), "{words:?}: {said}");
        said
    }

    fn try_cli(&self, words: &[&str]) -> Result<String, String> {
        let output = Command::new("redis-cli")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "--no-auth-warning",
                "-a",
                PASSWORD,
                "--json",
            ])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli is missing: apt-get install redis-server");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// All hashes under a prefix but the guards, as redis-cli reads them.
    pub fn contents(&self, prefix: &str) -> BTreeMap<String, BTreeMap<String, String>> {
        const ALL: &str = "local all = {} \
            for _, key in ipairs(redis.call('KEYS', ARGV[1] .. ':*')) do \
              if redis.call('TYPE', key).ok == 'hash' then all[#all + 1] = {key, redis.call('HGETALL', key)} end \
            end return all";
        let said = self.cli(&["EVAL", ALL, "0", prefix]);
        let all: Vec<(String, Vec<String>)> =
            serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        let mut contents = BTreeMap::new();
        for (key, fields) in all {
            let name = key.strip_prefix(&format!("{prefix}:")).unwrap();
            if name.starts_with("guard:") {
                continue;
            }
            let fields: BTreeMap<String, String> =
                fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            contents.insert(name.to_owned(), fields);
        }
        contents
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
