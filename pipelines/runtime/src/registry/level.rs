//! How a new schema of a subject must go with those before it.

use std::fmt;

use tidewire_schemas::resolve::Comparable;

/// The rule of a subject, as the Confluent registry names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Anything goes.
    None,
    /// The new schema reads what the last one wrote.
    Backward,
    /// The new schema reads what any before it wrote: the default, because topics here are replayed from their start.
    #[default]
    BackwardTransitive,
    /// The last schema reads what the new one writes.
    Forward,
    /// All before it read what the new one writes.
    ForwardTransitive,
    /// Backward and forward.
    Full,
    /// Both, with all before it.
    FullTransitive,
}

const NAMES: [(Level, &str); 7] = [
    (Level::None, "NONE"),
    (Level::Backward, "BACKWARD"),
    (Level::BackwardTransitive, "BACKWARD_TRANSITIVE"),
    (Level::Forward, "FORWARD"),
    (Level::ForwardTransitive, "FORWARD_TRANSITIVE"),
    (Level::Full, "FULL"),
    (Level::FullTransitive, "FULL_TRANSITIVE"),
];

impl Level {
    /// The level of that name, as in `BACKWARD`.
    pub fn parse(name: &str) -> Option<Level> {
        NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(level, _)| *level)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(level, _)| *level == self).map_or("NONE", |(_, name)| name)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }

    /// Whether all schemas before count, not the last one alone.
    pub(super) fn is_transitive(self) -> bool {
        matches!(self, Level::BackwardTransitive | Level::ForwardTransitive | Level::FullTransitive)
    }

    /// Why `new` does not go with `old`, a schema before it.
    pub(super) fn problems(self, new: &Comparable, old: &Comparable) -> Vec<String> {
        let back =
            matches!(self, Level::Backward | Level::BackwardTransitive | Level::Full | Level::FullTransitive);
        let forth =
            matches!(self, Level::Forward | Level::ForwardTransitive | Level::Full | Level::FullTransitive);
        let mut found = Vec::new();
        if back {
            let problems = new.problems_reading(old);
            found.extend(problems.iter().map(|problem| format!("reading the old with the new: {problem}")));
        }
        if forth {
            let problems = old.problems_reading(new);
            found.extend(problems.iter().map(|problem| format!("reading the new with the old: {problem}")));
        }
        found
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
