//! Processes under test, and what befalls processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process that was asked to end may take.
const ENDING: Duration = Duration::from_secs(60);

/// Lines of stderr that a failure shows.
const LAST_LINES: usize = 30;

/// A running process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    errors: PathBuf,
}

impl Running {
    /// Starts it; what it says goes to files in `folder`, named after `name`: a pipe that nobody reads would fill.
    pub fn start(command: &mut Command, folder: &Path, name: &str) -> Self {
        let errors = folder.join(format!("{name}.stderr"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(folder.join(format!("{name}.stdout"))).unwrap())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        Self { child, errors }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the process must end in order and in time.
    pub fn terminate(self) {
        self.end("TERM");
    }

    /// SIGINT, as by Ctrl-C; likewise.
    pub fn interrupt(self) {
        self.end("INT");
    }

    /// SIGSTOP: it stands still and does not know it.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Fails with what it said if it has ended.
    pub fn check_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("a process ended by itself: {status}: {}", self.said());
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// The last of what it wrote to stderr.
    pub fn said(&self) -> String {
        let all = std::fs::read_to_string(&self.errors).unwrap_or_default();
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    fn end(mut self, signal: &str) {
        self.signal(signal);
        let (started, status) = (Instant::now(), self.wait(ENDING));
        let status = status.unwrap_or_else(|| panic!("still there after {:?}", started.elapsed()));
        assert!(status.success(), "{status}: {}", self.said());
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Seconds of processor that a process has used, all its threads together.
pub fn cpu_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; the fields after it are counted from 3. Units are hundredths.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Greatest resident memory of a process so far.
pub fn peak_bytes(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

/// Resident memory of a process now.
pub fn resident_bytes(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
