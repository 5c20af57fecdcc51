//! One log, several processes: one has it open, others go through it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod logs;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use logs::{at, create, noise, numbered, open, options, read, record, texts};
use tidewire_engine::log::{CommitError, CommittedOffset, Log, LogError, NewRecord, Transaction};
use tidewire_runtime::embedded::{EmbeddedLog, MAX_CONNECTIONS, Opened, RemoteLog, Server, open_any};

const FOLDER: &str = "TIDEWIRE_TEST_REMOTE_FOLDER";

/// Runs only as a child of the tests below: opens the log as it can, and does what it is told line by line.
#[test]
fn child() {
    let Ok(dir) = std::env::var(FOLDER) else { return };
    let opened = open_any(&dir, options(0).1).unwrap();
    let log = opened.log();
    match opened {
        Opened::Here { .. } => println!("answer here"),
        Opened::Through(_) => println!("answer through"),
    }
    let mut member = None;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let answer = match line.as_str() {
            "read" => texts(&read(&*log, &at("t", 0))).join(","),
            "append" => format!("{:?}", log.append(&at("t", 0), vec![record("child", "1")])),
            "topics" => {
                format!("{:?}", log.topics().unwrap().iter().map(|t| t.name.as_str()).collect::<Vec<_>>())
            }
            "wait" => {
                log.wait(Duration::ZERO);
                println!("answer waiting");
                log.wait(Duration::from_secs(30));
                "woken".to_owned()
            }
            "join" => {
                let mut joined = log.join("g", "child", "t").unwrap();
                let tasks = joined.poll().unwrap().tasks;
                member = Some(joined);
                format!("{tasks:?}")
            }
            "commit" => {
                let joined = member.as_mut().unwrap();
                let generation = joined.poll().unwrap().generation;
                let position = CommittedOffset { offset: 1, metadata: "by the child".to_owned() };
                let transaction = Transaction {
                    generation,
                    appends: vec![(at("t", 0), vec![record("committed", "1")])],
                    offsets: vec![(at("t", 0), position)],
                };
                format!("{:?}", joined.commit(transaction))
            }
            _ => return,
        };
        println!("answer {answer}");
    }
}

struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--nocapture", "--test-threads=1"]).env(FOLDER, dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the child is gone");
            if let Some((_, answer)) = line.split_once("answer ") {
                return answer.trim_end().to_owned();
            }
        }
    }

    fn ask(&mut self, what: &str) -> String {
        writeln!(self.stdin, "{what}").unwrap();
        self.answer()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_member_in_another_process_leaves_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_any(dir.path(), options(1 << 20).1).unwrap();
    let log = opened.log();
    create(&*log, "t", 2);
    let mut other = Process::start(dir.path());
    assert_eq!(other.answer(), "through");
    assert_eq!(other.ask("join"), "[0, 1]");
    assert_eq!(other.ask("commit"), "Ok(())");
    assert_eq!(texts(&read(&*log, &at("t", 0))), ["committed=1"]);
    assert_eq!(log.committed("g", &at("t", 0)).unwrap().unwrap().metadata, "by the child");
    let mut here = log.join("g", "here", "t").unwrap();
    assert_eq!(here.poll().unwrap().tasks, Vec::<u32>::new(), "the child holds them until it lets go");
    // Kill -9: nothing is sent any more, but the connection ends.
    other.kill();
    let begun = Instant::now();
    while here.poll().unwrap().tasks != [0, 1] {
        assert!(begun.elapsed() < Duration::from_secs(60), "the dead member's tasks are still its own");
        log.wait(Duration::from_millis(50));
    }
}

/// The process that has the log open goes away and another one takes it: the member must join again.
#[test]
fn a_member_is_out_when_the_process_with_the_log_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_any(dir.path(), options(1 << 20).1).unwrap();
    create(&*opened.log(), "t", 1);
    let remote = RemoteLog::connect(dir.path()).unwrap();
    let mut member = remote.join("g", "m", "t").unwrap();
    assert_eq!(member.poll().unwrap().tasks, [0]);
    drop(opened);
    assert!(matches!(member.poll(), Err(LogError::Fenced(_))));
    let opened = open_any(dir.path(), options(1 << 20).1).unwrap();
    assert!(opened.embedded().is_some());
    let stale = member.poll();
    assert!(matches!(stale, Err(LogError::Fenced(_))), "{stale:?}");
    let generation = remote.join("g", "m", "t").unwrap().poll().unwrap().generation;
    let late = member.commit(Transaction { generation, ..Transaction::default() });
    assert!(matches!(late, Err(CommitError::Unknown(_))), "{late:?}");
}

#[test]
fn a_second_process_goes_through_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_any(dir.path(), options(1 << 20).1).unwrap();
    assert!(opened.embedded().is_some());
    let log = opened.log();
    create(&*log, "t", 1);
    log.append(&at("t", 0), numbered(0, 2)).unwrap();
    let mut other = Process::start(dir.path());
    assert_eq!(other.answer(), "through");
    assert_eq!(other.ask("topics"), "[\"t\"]");
    assert_eq!(other.ask("read"), "k0=v0,k1=v1");
    assert_eq!(other.ask("append"), "Ok(2)");
    assert_eq!(texts(&read(&*log, &at("t", 0))), ["k0=v0", "k1=v1", "child=1"]);
    // It wakes when this process appends.
    assert_eq!(other.ask("wait"), "waiting");
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    log.append(&at("t", 0), numbered(3, 1)).unwrap();
    assert_eq!(other.answer(), "woken");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(other.ask("read"), "k0=v0,k1=v1,child=1,k3=v3");
}

#[test]
fn what_a_killed_process_left_behind_is_no_hindrance() {
    let dir = tempfile::tempdir().unwrap();
    create(&*open(dir.path()), "t", 1);
    for round in 0..3 {
        let mut other = Process::start(dir.path());
        assert_eq!(other.answer(), "here");
        assert_eq!(other.ask("append"), format!("Ok({round})"));
        // While it lives, this process goes through it.
        let through = open_any(dir.path(), options(0).1).unwrap();
        assert!(through.embedded().is_none());
        assert_eq!(read(&*through.log(), &at("t", 0)).len(), round + 1);
        other.kill();
        let error = through.log().fetch(&at("t", 0), 0, 1).unwrap_err().to_string();
        assert!(
            error.contains("does not answer") && error.contains(&dir.path().display().to_string()),
            "{error}"
        );
        assert!(dir.path().join("socket").exists(), "a killed process removes nothing");
        let opened = open_any(dir.path(), options(0).1).unwrap();
        assert!(opened.embedded().is_some());
        assert_eq!(read(&*opened.log(), &at("t", 0)).len(), round + 1);
    }
}

#[test]
fn a_clean_end_leaves_no_socket_and_a_new_start_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open_any(dir.path(), options(0).1).unwrap();
    create(&*opened.log(), "t", 1);
    let mode = fs::metadata(dir.path().join("socket")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only this user may connect");
    let remote = RemoteLog::connect(dir.path()).unwrap();
    assert_eq!(remote.topics().unwrap().len(), 1);
    let start = Instant::now();
    drop(opened);
    assert!(start.elapsed() < Duration::from_secs(5), "a connection held up the end");
    assert!(!dir.path().join("socket").exists() && !dir.path().join("endpoint").exists());
    assert!(remote.topics().is_err());
    let error = RemoteLog::connect(dir.path()).unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
    let _opened = open_any(dir.path(), options(0).1).unwrap();
    assert_eq!(remote.topics().unwrap().len(), 1, "the same handle connects anew");
}

#[test]
fn a_folder_with_a_long_path_has_its_socket_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a".repeat(90)).join("b".repeat(90));
    let opened = open_any(&deep, options(0).1).unwrap();
    create(&*opened.log(), "t", 1);
    let socket = fs::read_to_string(deep.join("endpoint")).unwrap();
    assert!(!socket.starts_with(deep.to_str().unwrap()), "{socket}");
    let private = Path::new(&socket).parent().unwrap().to_owned();
    assert_eq!(fs::metadata(&private).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(RemoteLog::connect(&deep).unwrap().topics().unwrap().len(), 1);
    drop(opened);
    assert!(!private.exists());
}

#[test]
fn connections_are_bounded_and_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let _server = Server::start(Arc::clone(&log)).unwrap();
    let mut connections: Vec<RemoteLog> =
        (0..MAX_CONNECTIONS).map(|_| RemoteLog::connect(dir.path()).unwrap()).collect();
    connections.iter().for_each(|remote| assert!(remote.topics().unwrap().is_empty()));
    let refused = RemoteLog::connect(dir.path()).and_then(|remote| remote.topics()).unwrap_err();
    assert!(
        refused.to_string().contains("64 processes") || refused.to_string().contains("does not answer"),
        "{refused}"
    );
    connections.pop();
    let start = Instant::now();
    while RemoteLog::connect(dir.path()).and_then(|remote| remote.topics()).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "the place was not given back");
    }
}

#[test]
fn nonsense_on_the_socket_harms_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let _server = Server::start(Arc::clone(&log)).unwrap();
    create(&*log, "t", 1);
    let remote = RemoteLog::connect(dir.path()).unwrap();
    let mut random = 1_u64;
    for _ in 0..50 {
        let mut stream = UnixStream::connect(dir.path().join("socket")).unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // It may be cut off before all is sent.
        let _ = stream.write_all(&noise(random, (random >> 50) as usize));
    }
    // A greeting, then a frame that claims four gigabytes.
    let mut stream = UnixStream::connect(dir.path().join("socket")).unwrap();
    let mut greeting = vec![13, 0, 0, 0, 12];
    greeting.extend_from_slice(b"tidewire-log");
    greeting.extend_from_slice(&[1, 0xff, 0xff, 0xff, 0xff]);
    greeting[0] = 14;
    stream.write_all(&greeting).unwrap();
    assert_eq!(remote.append(&at("t", 0), numbered(0, 1)).unwrap(), 0);
    assert_eq!(log.bounds(&at("t", 0)).unwrap().stable_end, 1);
}

#[test]
fn an_append_that_does_not_fit_a_frame_is_refused_and_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let _server = Server::start(Arc::clone(&log)).unwrap();
    create(&*log, "t", 1);
    let remote = RemoteLog::connect(dir.path()).unwrap();
    let value = noise(1, 1_000_000);
    let large: Vec<NewRecord> =
        (0..70).map(|_| NewRecord { value: Some(value.clone()), ..record("k", "") }).collect();
    let error = remote.append(&at("t", 0), large.clone()).unwrap_err();
    assert!(error.to_string().contains("between processes"), "{error}");
    assert_eq!(remote.append(&at("t", 0), large[..20].to_vec()).unwrap(), 0);
    // More than one answer can hold comes in several.
    assert_eq!(logs::read_from(&remote, &at("t", 0), 0, usize::MAX).len(), 20);
    log.append(&at("t", 0), large).unwrap();
    assert!(matches!(remote.fetch(&at("t", 0), 91, 1), Err(LogError::BeyondEnd { .. })));
}

#[test]
fn two_processes_that_start_together_both_get_the_log() {
    let dir = tempfile::tempdir().unwrap();
    create(&*open(dir.path()), "t", 1);
    for _ in 0..4 {
        let mut both = [Process::start(dir.path()), Process::start(dir.path())];
        let mut answers = both.each_mut().map(Process::answer);
        answers.sort();
        assert_eq!(answers, ["here", "through"]);
        both.iter_mut().for_each(|process| assert!(process.ask("append").starts_with("Ok")));
    }
    assert_eq!(
        EmbeddedLog::open(dir.path(), options(0).1).unwrap().bounds(&at("t", 0)).unwrap().stable_end,
        8
    );
}
