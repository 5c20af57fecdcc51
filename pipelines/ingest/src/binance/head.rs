//! What the first lines of a capture tell of the whole: its market, its symbol and the venue's clock.

use super::capture::{split_received, stream_fits};
use super::message::Message;
use super::offset::difference_us;
use super::venue::{Venue, possible};
use crate::error::ImportError;
use crate::limits::{HEAD_BYTES, HEAD_LINES};
use crate::lines::{Line, Lines};
use smol_str::{SmolStr, StrExt};
use std::collections::BTreeSet;

/// What was found at the head of a file.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// Lines looked at.
    pub lines: usize,
    /// Messages that can only be of one market, for each of them.
    pub votes: [usize; Venue::ALL.len()],
    /// Symbols named, in upper case.
    pub symbols: BTreeSet<SmolStr>,
    /// First difference of the venue's clock, in microseconds.
    pub first_difference_us: Option<i64>,
}

impl Head {
    /// Looks at the first lines, and gives them back. Faulty lines tell nothing here; they are rejected in their turn.
    pub fn read(lines: &mut Lines) -> Result<Head, ImportError> {
        let mut head = Head::default();
        let (mut seen, mut bytes) = (Vec::new(), 0);
        while seen.len() < HEAD_LINES && bytes < HEAD_BYTES {
            let mut line = Line::default();
            match lines.next(&mut line) {
                Ok(true) => {}
                Ok(false) => break,
                // What can be read is imported; the error comes where it belongs.
                Err(error) => {
                    lines.defer(error);
                    break;
                }
            }
            bytes += line.bytes.len();
            head.look_at(&line);
            seen.push(line);
        }
        head.lines = seen.len();
        lines.give_back(seen);
        Ok(head)
    }

    /// The market that most messages are of.
    pub fn venue(&self) -> Option<Venue> {
        let most = *self.votes.iter().max()?;
        let mut found =
            Venue::ALL.into_iter().zip(self.votes).filter(|&(_, votes)| votes == most && most > 0);
        match (found.next(), found.next()) {
            (Some((venue, _)), None) => Some(venue),
            _ => None,
        }
    }

    fn look_at(&mut self, line: &Line) {
        let Ok((received_ns, json, offset)) = split_received(&line.bytes) else {
            return;
        };
        let Ok(wrapper) = Message::parse(json, offset) else {
            return;
        };
        let stream = wrapper.stream;
        let message = match wrapper.data {
            Some(inner) => *inner,
            None => wrapper,
        };
        if message.symbol.is_some_and(|symbol| !stream_fits(stream, symbol)) {
            return;
        }
        if let [only] = possible(&message)
            && let Some(index) = Venue::ALL.iter().position(|venue| venue == only)
        {
            self.votes[index] += 1;
        }
        if let Some(symbol) = message.symbol {
            self.symbols.insert(symbol.to_uppercase_smolstr());
        }
        if let (Some(sent), None) = (message.sent_ms, message.snapshot_update_id) {
            self.first_difference_us.get_or_insert(difference_us(sent, received_ns));
        }
    }
}
