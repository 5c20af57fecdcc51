//! What is wrong with a pipeline file, and where.

use std::fmt;
use std::ops::Range;

use smol_str::SmolStr;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes of the file.
    File(Range<usize>),
    /// An environment variable that overrides the file.
    Environment(SmolStr),
}

impl Place {
    /// Order in which problems are shown: the file from top to bottom, then the environment.
    fn order(&self) -> (usize, usize, &str) {
        match self {
            Self::File(span) => (0, span.start, ""),
            Self::Environment(name) => (1, 0, name),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, in a sentence.
    pub text: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Problems as they are found; all of them are shown at once.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Notes a problem.
    pub fn add(&mut self, place: &Place, text: impl Into<String>) {
        self.list.push(Problem { place: place.clone(), text: text.into(), help: None });
    }

    /// Notes a problem and what to do about it.
    pub fn add_with_help(&mut self, place: &Place, text: impl Into<String>, help: impl Into<String>) {
        self.list.push(Problem { place: place.clone(), text: text.into(), help: Some(help.into()) });
    }

    /// Notes a name that is not known, with the nearest one that is.
    pub fn add_unknown<'a>(
        &mut self,
        place: &Place,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) {
        let known: Vec<&str> = known.into_iter().collect();
        let text = format!("unknown {what} `{name}`");
        match nearest(name, &known) {
            Some(near) => self.add_with_help(place, text, format!("the nearest name is `{near}`")),
            None if known.is_empty() => self.add(place, text),
            None => self.add_with_help(place, text, format!("use one of {}", known.join(", "))),
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many were found.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Makes an error of them, in the order of the file.
    pub fn into_error(mut self, file: &str, text: &str) -> PipelineError {
        self.list.sort_by(|a, b| a.place.order().cmp(&b.place.order()));
        self.list.dedup();
        PipelineError { file: file.to_owned(), text: text.to_owned(), problems: self.list }
    }
}

/// All that is wrong with a pipeline file.
#[derive(Debug, PartialEq, Eq)]
pub struct PipelineError {
    file: String,
    text: String,
    /// The problems, in the order of the file.
    pub problems: Vec<Problem>,
}

impl PipelineError {
    /// Line and column of a problem, from 1; absent for one that is not in the file.
    pub fn position(&self, problem: &Problem) -> Option<(usize, usize)> {
        match &problem.place {
            Place::File(span) => Some(position(&self.text, span.start)),
            Place::Environment(_) => None,
        }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        let Place::File(span) = &problem.place else {
            let Place::Environment(name) = &problem.place else { return Ok(()) };
            writeln!(f, "environment variable {name}: {}", problem.text)?;
            return show_help(f, "", problem);
        };
        let (line, column) = position(&self.text, span.start);
        writeln!(f, "{}:{line}:{column}: {}", self.file, problem.text)?;
        let source = self.text.lines().nth(line - 1).unwrap_or_default();
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let shown: String = source.chars().take(MAX_SHOWN).collect();
        writeln!(f, " {number} | {shown}")?;
        let width = self
            .text
            .get(span.clone())
            .map_or(1, |text| text.lines().next().unwrap_or_default().chars().count());
        let left = MAX_SHOWN.saturating_sub(column);
        let pad = " ".repeat((column - 1).min(MAX_SHOWN));
        writeln!(f, " {margin} | {pad}{}", "^".repeat(width.min(left).max(1)))?;
        show_help(f, &format!(" {margin} = "), problem)
    }
}

/// Most characters of a line that are shown.
const MAX_SHOWN: usize = 160;

fn show_help(f: &mut fmt::Formatter<'_>, indent: &str, problem: &Problem) -> fmt::Result {
    match &problem.help {
        Some(help) => writeln!(f, "{indent}{help}"),
        None => Ok(()),
    }
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            self.show(f, problem)?;
        }
        let count = self.problems.len();
        write!(f, "{}: {count} {}; nothing was started", self.file, plural(count, "problem", "problems"))
    }
}

impl std::error::Error for PipelineError {}

/// The singular or the plural of a word.
pub fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// Line and column, from 1, of a byte of `text`. Columns count characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let mut byte = byte.min(text.len());
    while !text.is_char_boundary(byte) {
        byte -= 1;
    }
    let before = &text[..byte];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before[start..].chars().count() + 1)
}

/// The known name most like `name`, if one is like enough to be meant.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let distance = |other: &str| strsim::damerau_levenshtein(&lower, &other.to_lowercase());
    let within = known.iter().copied().filter(|other| {
        let contained = lower.len() >= 3 && other.to_lowercase().contains(&lower);
        contained || distance(other) <= 1 + lower.chars().count() / 3
    });
    within.min_by_key(|other| (distance(other), *other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_may_be_meant() {
        let known = ["time_bars", "ema", "rsi", "market.ticks.v1"];
        assert_eq!(nearest("tme_bars", &known), Some("time_bars"));
        assert_eq!(nearest("EMA", &known), Some("ema"));
        assert_eq!(nearest("ticks", &known), Some("market.ticks.v1"));
        assert_eq!(nearest("order_book", &known), None);
    }

    #[test]
    fn positions_count_characters() {
        assert_eq!(position("a\nbc", 3), (2, 2));
        assert_eq!(position("é = 1", 3), (1, 3));
        assert_eq!(position("", 9), (1, 1));
    }
}
