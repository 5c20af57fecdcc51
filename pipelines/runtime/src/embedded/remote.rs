//! A log that another process has open, reached through that process.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use tidewire_engine::log::{
    Bounds, CommittedOffset, Fetched, Log, LogError, Member, NewRecord, TopicPartition, TopicSpec,
};
use tidewire_engine::log_limits;

use super::lock;
use super::remote_member::RemoteMember;
use super::server::ENDPOINT;
use super::wire::{Hello, Request, Response, pack, receive, send, unpack};

/// Longest silence of the other process before it counts as gone.
const TIMEOUT: Duration = Duration::from_secs(30);
/// One wait at the other process, so that its end is noticed.
const WAIT_STEP: Duration = Duration::from_millis(400);
/// Most threads whose place is remembered; beyond that the oldest is forgotten and one wait returns early.
const MAX_PLACES: usize = 64;

/// A log in a folder that another process has open. Groups live in that process: a member is a connection of its own
/// and leaves its group when this process, that one, or the connection ends.
#[derive(Debug)]
pub struct RemoteLog {
    dir: PathBuf,
    requests: Mutex<Option<UnixStream>>,
    /// Waits have a connection of their own, so that they hold nothing up.
    waits: Mutex<Option<UnixStream>>,
    /// How many changes each thread has seen.
    places: Mutex<Vec<(ThreadId, u64)>>,
}

impl RemoteLog {
    /// Connects to the process that has the log in `dir` open.
    pub fn connect(dir: impl AsRef<Path>) -> Result<Self, LogError> {
        let dir = dir.as_ref().to_owned();
        let stream = connect(&dir).map_err(|e| unreachable(&dir, "connecting", &e))?;
        Ok(Self {
            dir,
            requests: Mutex::new(Some(stream)),
            waits: Mutex::default(),
            places: Mutex::default(),
        })
    }

    fn ask(&self, request: &Request, doing: impl Fn() -> String) -> Result<Response, LogError> {
        let mut connection = lock(&self.requests);
        match exchange(&self.dir, &mut connection, request) {
            Ok(Response::Failed(error)) => Err(error),
            Ok(response) => Ok(response),
            Err(error) => Err(unreachable(&self.dir, &doing(), &error)),
        }
    }
}

impl Log for RemoteLog {
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        let doing = || format!("creating topic {}", spec.name);
        match self.ask(&Request::CreateTopic(spec.clone()), doing)? {
            Response::Created => Ok(()),
            other => Err(unexpected(&doing(), &other)),
        }
    }

    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        let doing = || "listing topics".to_owned();
        match self.ask(&Request::Topics, doing)? {
            Response::Topics(specs) => Ok(specs),
            other => Err(unexpected(&doing(), &other)),
        }
    }

    fn topic(&self, name: &str) -> Result<Option<TopicSpec>, LogError> {
        let doing = || format!("looking up topic {name}");
        match self.ask(&Request::Topic(name.into()), doing)? {
            Response::Topic(spec) => Ok(spec),
            other => Err(unexpected(&doing(), &other)),
        }
    }

    fn fetch(&self, at: &TopicPartition, from: u64, max_bytes: usize) -> Result<Fetched, LogError> {
        let doing = || format!("reading {at} at offset {from}");
        let request = Request::Fetch { at: at.clone(), from, max_bytes: max_bytes as u64 };
        match self.ask(&request, doing)? {
            Response::Fetched { records, next_offset, at_end } => {
                let damaged =
                    || LogError::Store { at: doing(), error: "the answer does not decode".to_owned() };
                Ok(Fetched { records: unpack(from, &records).ok_or_else(damaged)?, next_offset, at_end })
            }
            other => Err(unexpected(&doing(), &other)),
        }
    }

    fn bounds(&self, at: &TopicPartition) -> Result<Bounds, LogError> {
        let doing = || format!("asking for the bounds of {at}");
        match self.ask(&Request::Bounds(at.clone()), doing)? {
            Response::Bounds(bounds) => Ok(bounds),
            other => Err(unexpected(&doing(), &other)),
        }
    }

    fn committed(&self, group: &str, at: &TopicPartition) -> Result<Option<CommittedOffset>, LogError> {
        let doing = || format!("asking where group {group} stands in {at}");
        match self.ask(&Request::Committed { group: group.into(), at: at.clone() }, doing)? {
            Response::Committed(position) => Ok(position),
            other => Err(unexpected(&doing(), &other)),
        }
    }

    /// As the trait says, and the records must fit in one frame
    /// ([`MAX_FRAME_BYTES`](super::MAX_FRAME_BYTES)). When the other process goes away meanwhile, the error says
    /// that the outcome is not known.
    fn append(&self, at: &TopicPartition, records: Vec<NewRecord>) -> Result<u64, LogError> {
        let doing = || {
            format!("appending to {at} (whether it was written is not known: read the end of the partition)")
        };
        log_limits::check_records(at, false, &records)?;
        let packed = pack(0, (0..).zip(&records));
        match self.ask(&Request::Append { at: at.clone(), records: packed }, doing)? {
            Response::Appended(first) => Ok(first),
            other => Err(unexpected(&doing(), &other)),
        }
    }

    fn join(&self, group: &str, member: &str, driving: &str) -> Result<Box<dyn Member>, LogError> {
        RemoteMember::join(&self.dir, group, member, driving)
    }

    fn wait(&self, timeout: Duration) {
        let start = Instant::now();
        let me = std::thread::current().id();
        let seen = lock(&self.places).iter().find(|place| place.0 == me).map_or(0, |place| place.1);
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            let step = left.min(WAIT_STEP);
            let request =
                Request::Wait { seen, timeout_ms: u64::try_from(step.as_millis()).unwrap_or_default() };
            let answer = exchange(&self.dir, &mut lock(&self.waits), &request);
            match answer {
                Ok(Response::Changes(changes)) if changes != seen => {
                    let mut places = lock(&self.places);
                    places.retain(|place| place.0 != me);
                    if places.len() >= MAX_PLACES {
                        places.remove(0);
                    }
                    places.push((me, changes));
                    return;
                }
                Ok(Response::Changes(_)) if start.elapsed() < timeout => {}
                Ok(Response::Changes(_)) => return,
                // The next read tells what is wrong; here it must only not spin.
                _ => return std::thread::sleep(left.min(WAIT_STEP)),
            }
        }
    }
}

/// One request and its response. A connection that failed is not used again: the next call makes a new one.
fn exchange(dir: &Path, connection: &mut Option<UnixStream>, request: &Request) -> io::Result<Response> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => connect(dir)?,
    };
    if let Err(error) = send(&mut stream, request) {
        if error.kind() == io::ErrorKind::InvalidInput {
            // Nothing was sent.
            *connection = Some(stream);
        }
        return Err(error);
    }
    let response = receive(&mut stream)?;
    *connection = Some(stream);
    Ok(response)
}

pub(super) fn connect(dir: &Path) -> io::Result<UnixStream> {
    let socket = fs::read_to_string(dir.join(ENDPOINT))?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    send(&mut stream, &Hello::new())?;
    let hello: Hello = receive(&mut stream)?;
    hello.check().map_err(io::Error::other)?;
    Ok(stream)
}

pub(super) fn unreachable(dir: &Path, doing: &str, error: &io::Error) -> LogError {
    let error = match error.kind() {
        io::ErrorKind::InvalidInput => error.to_string(),
        _ => format!(
            "the process that has the log in {} open does not answer ({error}); try again",
            dir.display()
        ),
    };
    LogError::Store { at: doing.to_owned(), error }
}

pub(super) fn unexpected(doing: &str, response: &Response) -> LogError {
    let kind = format!("{response:?}");
    let kind = kind.split([' ', '(']).next().unwrap_or_default();
    LogError::Store { at: doing.to_owned(), error: format!("the other process gave another answer ({kind})") }
}
