//! A member of a group in the process that has the log open.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use smol_str::SmolStr;
use tidewire_engine::log::{Assignment, CommitError, LogError, Member, Transaction};

use super::remote::{connect, unexpected, unreachable};
use super::wire::{Outcome, Request, Response, pack, receive, send};

/// A place in a group. The connection is the membership: one that failed is not made again, or two would have it.
pub(super) struct RemoteMember {
    dir: PathBuf,
    group: SmolStr,
    name: SmolStr,
    connection: Option<UnixStream>,
}

impl RemoteMember {
    pub(super) fn join(
        dir: &Path,
        group: &str,
        name: &str,
        driving: &str,
    ) -> Result<Box<dyn Member>, LogError> {
        let doing = format!("joining group {group} as {name}");
        let stream = connect(dir).map_err(|error| unreachable(dir, &doing, &error))?;
        let mut member =
            Self { dir: dir.to_owned(), group: group.into(), name: name.into(), connection: Some(stream) };
        let request = Request::Join { group: group.into(), member: name.into(), driving: driving.into() };
        match member.exchange(&request).map_err(|why| LogError::Store { at: doing.clone(), error: why })? {
            Response::Joined => Ok(Box::new(member)),
            Response::Failed(error) => Err(error),
            other => Err(unexpected(&doing, &other)),
        }
    }

    /// One request and its response; an error tells that the membership is over.
    fn exchange(&mut self, request: &Request) -> Result<Response, String> {
        let gone = |why: String| {
            let dir = self.dir.display();
            format!(
                "member {} of group {} lost the process that has the log in {dir} open ({why})",
                self.name, self.group
            )
        };
        let Some(mut stream) = self.connection.take() else { return Err(gone("before".to_owned())) };
        let response = send(&mut stream, request).and_then(|()| receive(&mut stream));
        let response = response.map_err(|error| gone(error.to_string()))?;
        self.connection = Some(stream);
        Ok(response)
    }

    fn doing(&self, what: &str) -> String {
        format!("member {} of group {} {what}", self.name, self.group)
    }
}

impl Member for RemoteMember {
    fn poll(&mut self) -> Result<Assignment, LogError> {
        match self.exchange(&Request::Poll).map_err(LogError::Fenced)? {
            Response::Assigned { generation, tasks, revoking } => {
                Ok(Assignment { generation, tasks, revoking })
            }
            Response::Failed(error) => Err(error),
            other => Err(unexpected(&self.doing("asking for its tasks"), &other)),
        }
    }

    /// As the trait says, and the records must fit in one frame ([`MAX_FRAME_BYTES`](super::MAX_FRAME_BYTES)).
    fn commit(&mut self, transaction: Transaction) -> Result<(), CommitError> {
        let Transaction { generation, appends, offsets } = transaction;
        let appends = appends.into_iter().map(|(at, records)| (at, pack(0, (0..).zip(&records))));
        let request = Request::Commit { generation, appends: appends.collect(), offsets };
        match self.exchange(&request).map_err(CommitError::Unknown)? {
            Response::Ended(Outcome::Done) => Ok(()),
            Response::Ended(Outcome::Fenced(why)) => Err(CommitError::Fenced(why)),
            Response::Ended(Outcome::Aborted(why)) => Err(CommitError::Aborted(why)),
            Response::Ended(Outcome::Unknown(why)) => Err(CommitError::Unknown(why)),
            Response::Failed(error) => Err(error.into()),
            other => Err(CommitError::Unknown(unexpected(&self.doing("committing"), &other).to_string())),
        }
    }

    fn release(&mut self, tasks: &[u32]) -> Result<(), LogError> {
        match self.exchange(&Request::Release(tasks.to_vec())).map_err(LogError::Fenced)? {
            Response::Released => Ok(()),
            Response::Failed(error) => Err(error),
            other => Err(unexpected(&self.doing("releasing tasks"), &other)),
        }
    }

    fn leave(self: Box<Self>) -> Result<(), LogError> {
        // The other side sees the connection end.
        Ok(())
    }
}
