//! What a commit writes beside the driving position: which epoch it was, by whom, and whether the task was given up.

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;

/// Said last when the writer gave the task up in this commit.
const RELEASED: &str = "released";

/// The metadata of a committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The epoch that was committed.
    pub epoch: u64,
    /// Who wrote it: its transactional.id. `None` where nobody goes on writing live.
    pub writer: Option<SmolStr>,
    /// Whether nothing more will come of that writer for this task.
    pub released: bool,
}

impl Mark {
    /// The writer that may still have a transaction open, if it is not `own`.
    pub fn writer_to_fence(&self, own: &str) -> Option<&SmolStr> {
        self.writer.as_ref().filter(|writer| !self.released && writer.as_str() != own)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.epoch)?;
        if let Some(writer) = &self.writer {
            write!(f, " {writer}")?;
            if self.released {
                write!(f, " {RELEASED}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let epoch = words.next().and_then(|word| word.parse().ok()).ok_or(())?;
        let writer = words.next().map(SmolStr::new);
        let released = match words.next() {
            None => false,
            Some(RELEASED) => true,
            Some(_) => return Err(()),
        };
        Ok(Self { epoch, writer, released })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn marks_read_as_they_were_written() {
        let writer = || Some(SmolStr::new("p-1-a-0"));
        for (mark, text) in [
            (Mark { epoch: 7, writer: None, released: false }, "7"),
            (Mark { epoch: 7, writer: writer(), released: false }, "7 p-1-a-0"),
            (Mark { epoch: 7, writer: writer(), released: true }, "7 p-1-a-0 released"),
        ] {
            assert_eq!(mark.to_string(), text);
            assert_eq!(text.parse::<Mark>().unwrap(), mark);
        }
        assert!(
            "".parse::<Mark>().is_err() && "x".parse::<Mark>().is_err() && "1 a b".parse::<Mark>().is_err()
        );
    }

    #[test]
    fn only_another_writer_that_did_not_let_go_is_fenced() {
        let mark = Mark { epoch: 1, writer: Some("a".into()), released: false };
        assert_eq!(mark.writer_to_fence("b").map(SmolStr::as_str), Some("a"));
        assert_eq!(mark.writer_to_fence("a"), None);
        assert_eq!(Mark { released: true, ..mark }.writer_to_fence("b"), None);
    }
}
