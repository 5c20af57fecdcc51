//! Lets other processes reach a log that this one has open, by a Unix domain socket in the log's folder.
//!
//! The socket's path stands in the folder's file `endpoint`: where the folder's own path is too long for a socket, the
//! socket lies in a private folder under the system's temporary one. Only the same user can connect.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Scope};
use std::time::Duration;

use bytes::Bytes;
use tidewire_engine::log::{
    Assignment, CommitError, Log, LogError, Member, NewRecord, TopicPartition, Transaction,
};

use super::folder::write_whole;
use super::wire::{Hello, Outcome, Request, Response, pack, receive, send, unpack};
use super::{EmbeddedLog, lock};

/// Most processes that can go through this one at once.
pub const MAX_CONNECTIONS: usize = 64;
/// The name of the file that says where to connect.
pub(super) const ENDPOINT: &str = "endpoint";
/// Most bytes of a socket's path that all systems take, with its end.
const MAX_SOCKET_PATH_BYTES: usize = 100;
/// Most bytes of records in one response; a frame holds it with room to spare.
const MAX_FETCH_BYTES: u64 = 16 * 1024 * 1024;
/// Longest wait inside one request, so that a closing log is not held up.
const MAX_WAIT_MS: u64 = 500;

/// Answers other processes until it is dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    socket: PathBuf,
    /// Made for the socket, and removed with it.
    private_dir: Option<PathBuf>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    log: Arc<EmbeddedLog>,
    stop: AtomicBool,
    connections: Mutex<BTreeMap<u64, UnixStream>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("dir", &self.log.dir()).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens. What a killed process left behind is removed first.
    pub fn start(log: Arc<EmbeddedLog>) -> Result<Self, LogError> {
        let dir = log.dir().to_owned();
        Self::listen(log).map_err(|e| LogError::Store {
            at: format!("letting other processes reach the log in {}", dir.display()),
            error: e.to_string(),
        })
    }

    fn listen(log: Arc<EmbeddedLog>) -> io::Result<Self> {
        let dir = std::path::absolute(log.dir())?;
        let (socket, private_dir) = choose_socket(&dir)?;
        // The folder's lock is ours, so nobody listens there any more.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
        write_whole(&dir, ENDPOINT, &socket.to_string_lossy())?;
        let shared = Arc::new(Shared { log, stop: AtomicBool::new(false), connections: Mutex::default() });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log-server".to_owned())
            .spawn(move || std::thread::scope(|scope| accept(scope, &accepting, &listener)))?;
        Ok(Self { shared, socket, private_dir, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for stream in lock(&self.shared.connections).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // A last connection wakes the accepting thread. Where that fails it is left behind rather than waited for.
        let woken = UnixStream::connect(&self.socket).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
        let _ = fs::remove_file(self.shared.log.dir().join(ENDPOINT));
        let _ = fs::remove_file(&self.socket);
        if let Some(dir) = &self.private_dir {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// The socket's path, and the folder made for it.
fn choose_socket(dir: &Path) -> io::Result<(PathBuf, Option<PathBuf>)> {
    let socket = dir.join("socket");
    if socket.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
        return Ok((socket, None));
    }
    for n in 0..1000 {
        let private = std::env::temp_dir().join(format!("tidewire-{}-{n}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&private) {
            Ok(()) => return Ok((private.join("socket"), Some(private))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a socket in the temporary folder"))
}

fn accept<'scope>(scope: &'scope Scope<'scope, '_>, shared: &'scope Shared, listener: &UnixListener) {
    for number in 0.. {
        let accepted = listener.accept();
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let Ok((mut stream, _)) = accepted else {
            // Out of file handles, most likely: others may give some back.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        let Ok(handle) = stream.try_clone() else { continue };
        {
            let mut connections = lock(&shared.connections);
            if connections.len() >= MAX_CONNECTIONS {
                let full =
                    format!("{MAX_CONNECTIONS} processes go through this log already; end one of them");
                let _ = send(&mut stream, &Hello::new());
                let _ = send(&mut stream, &Response::Failed(LogError::Invalid(full)));
                continue;
            }
            connections.insert(number, handle);
        }
        let serving = move || {
            if let Err(error) = serve(shared, &mut stream) {
                tracing::debug!(%error, "a process that went through the log is gone");
            }
            lock(&shared.connections).remove(&number);
        };
        if std::thread::Builder::new().name("log-client".to_owned()).spawn_scoped(scope, serving).is_err() {
            lock(&shared.connections).remove(&number);
        }
    }
}

fn serve(shared: &Shared, stream: &mut UnixStream) -> io::Result<()> {
    send(stream, &Hello::new())?;
    let hello: Hello = receive(stream)?;
    hello.check().map_err(io::Error::other)?;
    // Leaves its group when the connection ends, however it does.
    let mut member: Option<Box<dyn Member>> = None;
    while !shared.stop.load(Ordering::Acquire) {
        let request = match receive::<Request>(stream) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            request => request?,
        };
        let response = match request {
            Request::Join { group, member: name, driving } => {
                // One of the same name would be fenced by its successor; another name leaves first.
                member = None;
                shared.log.join(&group, &name, &driving).map(|joined| {
                    member = Some(joined);
                    Response::Joined
                })
            }
            Request::Poll | Request::Commit { .. } | Request::Release(_) => match &mut member {
                Some(member) => answer_member(&mut **member, request),
                None => Err(LogError::Invalid("this connection has not joined a group".to_owned())),
            },
            request => answer(&shared.log, request),
        };
        let response = response.unwrap_or_else(Response::Failed);
        send(stream, &response)?;
    }
    Ok(())
}

fn answer(log: &EmbeddedLog, request: Request) -> Result<Response, LogError> {
    Ok(match request {
        Request::CreateTopic(spec) => {
            log.create_topic(&spec)?;
            Response::Created
        }
        Request::Topics => Response::Topics(log.topics()?),
        Request::Topic(name) => Response::Topic(log.topic(&name)?),
        Request::Fetch { at, from, max_bytes } => {
            let max_bytes = usize::try_from(max_bytes.min(MAX_FETCH_BYTES)).unwrap_or_default();
            let fetched = log.fetch(&at, from, max_bytes)?;
            let records = fetched.records.iter().map(|stored| (stored.offset, &stored.record));
            Response::Fetched {
                records: pack(from, records),
                next_offset: fetched.next_offset,
                at_end: fetched.at_end,
            }
        }
        Request::Bounds(at) => Response::Bounds(log.bounds(&at)?),
        Request::Committed { group, at } => Response::Committed(log.committed(&group, &at)?),
        Request::Append { at, records } => {
            let records = records_of(&at, &records)?;
            Response::Appended(log.append(&at, records)?)
        }
        Request::Wait { seen, timeout_ms } => {
            Response::Changes(log.signal.wait_past(seen, Duration::from_millis(timeout_ms.min(MAX_WAIT_MS))))
        }
        Request::Join { .. } | Request::Poll | Request::Commit { .. } | Request::Release(_) => {
            return Err(LogError::Invalid("a member's request came to the log".to_owned()));
        }
    })
}

fn answer_member(member: &mut dyn Member, request: Request) -> Result<Response, LogError> {
    Ok(match request {
        Request::Commit { generation, appends, offsets } => {
            let records = appends.into_iter().map(|(at, records)| {
                let records = records_of(&at, &records)?;
                Ok((at, records))
            });
            let appends = records.collect::<Result<_, LogError>>()?;
            Response::Ended(match member.commit(Transaction { generation, appends, offsets }) {
                Ok(()) => Outcome::Done,
                Err(CommitError::Fenced(why)) => Outcome::Fenced(why),
                Err(CommitError::Aborted(why)) => Outcome::Aborted(why),
                Err(CommitError::Unknown(why)) => Outcome::Unknown(why),
                Err(CommitError::Log(error)) => return Err(error),
            })
        }
        Request::Release(tasks) => {
            member.release(&tasks)?;
            Response::Released
        }
        _ => {
            let Assignment { generation, tasks, revoking } = member.poll()?;
            Response::Assigned { generation, tasks, revoking }
        }
    })
}

fn records_of(at: &TopicPartition, packed: &Bytes) -> Result<Vec<NewRecord>, LogError> {
    let damaged = || LogError::Invalid(format!("records for {at} do not decode"));
    Ok(unpack(0, packed).ok_or_else(damaged)?.into_iter().map(|stored| stored.record).collect())
}
