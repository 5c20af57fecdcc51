//! What a bench found, as a file that says of which commit, on what machine and with which settings: docs/benchmarks.md
//! describes its fields. Benches write it, and `bench` compares and plots it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use crate::ticks::Market;

/// The number of the schema that is written and read.
pub const SCHEMA: u64 = 1;

/// Stands where something is not known.
pub const UNKNOWN: &str = "unknown";

/// What one run of a bench found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Number of the schema.
    pub schema: u64,
    /// Name of the bench.
    pub bench: String,
    /// Git commit of the tree, with `+changes` where files differ from it.
    pub commit: String,
    /// When it was measured, as of RFC 3339 in UTC.
    pub taken_at: String,
    /// Where it was measured.
    pub machine: Machine,
    /// What was asked for.
    pub settings: BTreeMap<String, String>,
    /// What was found besides figures, such as digests of outputs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
    /// What was measured, in the order in which it is shown.
    pub figures: Vec<Figure>,
}

/// What a bench ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Processors that the bench could use.
    pub cores: usize,
    /// Memory, in millions of bytes.
    pub memory_mb: u64,
    /// Operating system and release.
    pub os: String,
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// What it is, unique in the file. A slash stands between what was measured and what of it.
    pub name: String,
    /// Unit of the value.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// The median of the repeats.
    pub value: f64,
    /// What each repeat gave. Empty where that was not kept.
    pub repeats: Vec<f64>,
    /// Name of the figure that is the most this one could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<String>,
    /// How much of the ceiling was reached: 1 is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// A throughput, say.
    More,
    /// A cost or a latency, say.
    Less,
    /// A count of outputs, say.
    Neither,
}

/// Why a file of results cannot be used.
#[derive(Debug)]
pub struct Unusable {
    file: PathBuf,
    what: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

impl Error for Unusable {}

impl Results {
    /// Of a bench that runs now, here, built from the tree as it is.
    pub fn new(bench: &str) -> Self {
        Self {
            schema: SCHEMA,
            bench: bench.to_owned(),
            commit: commit(&crate::root()),
            taken_at: rfc3339(SystemTime::now()),
            machine: Machine::this(),
            settings: BTreeMap::from([("profile".to_owned(), profile())]),
            notes: BTreeMap::new(),
            figures: Vec::new(),
        }
    }

    /// Says what was asked for.
    pub fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.settings.insert(name.to_owned(), value.to_string());
    }

    /// Says which trades were asked for.
    pub fn set_market(&mut self, market: &Market) {
        self.set("seed", market.seed);
        self.set("symbols", market.symbols);
        self.set("skew", market.skew);
        self.set("partitions", market.partitions);
    }

    /// Says what was found and is no figure.
    pub fn note(&mut self, name: &str, value: impl fmt::Display) {
        self.notes.insert(name.to_owned(), value.to_string());
    }

    /// Adds a figure: the median of what its repeats gave.
    pub fn add(&mut self, name: &str, unit: &str, better: Better, repeats: Vec<f64>) {
        let value = median(repeats.clone());
        self.add_part(name, unit, better, value, repeats);
    }

    /// Adds a figure whose value is worked out from medians of others, so that parts add up to their whole.
    pub fn add_part(&mut self, name: &str, unit: &str, better: Better, value: f64, repeats: Vec<f64>) {
        assert!(self.find(name).is_none(), "two figures are called {name}");
        assert!(value.is_finite() && repeats.iter().all(|value| value.is_finite()), "{name} is no number");
        self.figures.push(Figure {
            name: name.to_owned(),
            unit: unit.to_owned(),
            better,
            value: rounded(value),
            repeats: repeats.into_iter().map(rounded).collect(),
            ceiling: None,
            ratio: None,
        });
    }

    /// Says what a figure's ceiling is, and how much of it was reached. Both were added before, in the same unit.
    pub fn set_ceiling(&mut self, name: &str, ceiling: &str) {
        let of = self.find(ceiling).unwrap_or_else(|| panic!("no figure {ceiling}")).clone();
        let figure = self.figures.iter_mut().find(|figure| figure.name == name);
        let figure = figure.unwrap_or_else(|| panic!("no figure {name}"));
        assert_eq!(figure.unit, of.unit, "{name} and its ceiling");
        let ratio = match figure.better {
            Better::More | Better::Neither => figure.value / of.value,
            Better::Less => of.value / figure.value,
        };
        // A cost too small to be measured has no share.
        figure.ratio = ratio.is_finite().then(|| rounded(ratio));
        figure.ceiling = Some(of.name);
    }

    /// A figure by its name.
    pub fn find(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// Writes the file.
    pub fn write(&self, file: impl AsRef<Path>) -> Result<(), Unusable> {
        let unusable = |what: &dyn fmt::Display| Unusable {
            file: file.as_ref().into(),
            what: format!("not written: {what}"),
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| unusable(&error))?;
        std::fs::write(&file, text + "\n").map_err(|error| unusable(&error))
    }

    /// Reads a file, and refuses what it could misread.
    pub fn read(file: impl AsRef<Path>) -> Result<Self, Unusable> {
        let file = file.as_ref();
        let unusable = |what: String| Unusable { file: file.into(), what };
        let text = std::fs::read_to_string(file).map_err(|error| {
            unusable(format!("not read: {error}; benches write results where JSON=FILE is given"))
        })?;
        Self::parse(&text).map_err(unusable)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
        // First of all: another schema may have other fields.
        match value.get("schema") {
            None => {
                return Err(
                    "no results: it has no field `schema`; write it with JSON=FILE and a bench that \
                            docs/benchmarks.md lists"
                        .to_owned(),
                );
            }
            Some(found) if found.as_u64() == Some(SCHEMA) => {}
            Some(found) => {
                return Err(format!(
                    "schema {found} is not known here, only {SCHEMA}: use `bench` of the commit that wrote it, or measure again"
                ));
            }
        }
        // From the text again, so that an error says its line.
        let results: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        results.check()?;
        Ok(results)
    }

    fn check(&self) -> Result<(), String> {
        if self.taken_at != UNKNOWN && DateTime::parse_from_rfc3339(&self.taken_at).is_err() {
            return Err(format!("`taken_at` is {:?}: use a time as 2026-01-31T12:00:00Z", self.taken_at));
        }
        let names: BTreeSet<&str> = self.figures.iter().map(|figure| figure.name.as_str()).collect();
        if names.len() < self.figures.len() {
            return Err("two figures have the same name".to_owned());
        }
        for Figure { name, ceiling, ratio, .. } in &self.figures {
            match ceiling {
                Some(ceiling) if !names.contains(ceiling.as_str()) => {
                    return Err(format!("the ceiling of figure {name:?} is {ceiling:?}, which is no figure"));
                }
                None if ratio.is_some() => {
                    return Err(format!("figure {name:?} has a ratio, but no ceiling"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Figure {
    /// The least and the greatest repeat, where there are several.
    pub fn range(&self) -> Option<(f64, f64)> {
        let least = self.repeats.iter().copied().min_by(f64::total_cmp)?;
        let greatest = self.repeats.iter().copied().max_by(f64::total_cmp)?;
        (self.repeats.len() > 1).then_some((least, greatest))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} cores, {} MB, {}", self.cpu, self.cores, self.memory_mb, self.os)
    }
}

impl Machine {
    /// The one this runs on. What cannot be found out is unknown, or 0.
    fn this() -> Self {
        let file = |name: &str| std::fs::read_to_string(name).unwrap_or_default();
        let (cpu, memory) = (file("/proc/cpuinfo"), file("/proc/meminfo"));
        let memory_kib =
            field(&memory, "MemTotal").and_then(|text| text.trim_end_matches(" kB").parse().ok());
        let release = file("/proc/sys/kernel/osrelease");
        let os = match std::env::consts::OS {
            // What a builder of kernels adds to the version says little.
            "linux" => format!("Linux {}", release.trim().split('-').next().unwrap_or_default()),
            other => other.to_owned(),
        };
        Self {
            cpu: field(&cpu, "model name").unwrap_or(UNKNOWN).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mb: memory_kib.map_or(0, |kib: u64| kib * 1024 / 1_000_000),
            os,
        }
    }
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// The value in the middle, or between the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    assert!(!values.is_empty(), "nothing has no median");
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// With six digits: more would be noise.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap()
}

/// As of RFC 3339, in UTC, in whole seconds.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let at = DateTime::from_timestamp(i64::try_from(since.as_secs()).unwrap(), 0)
        .expect("a year with four digits");
    format!("{:?}Z", at.naive_utc())
}

/// The profile this was built with, by the folder that Cargo puts it in.
fn profile() -> String {
    let this = std::env::current_exe().unwrap_or_default();
    let mut folders = this.ancestors().skip(1).filter_map(Path::file_name);
    let name = folders.find(|name| *name != "deps");
    name.map_or_else(|| UNKNOWN.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The commit of a folder's tree. Files that git does not know are no change: results themselves lie about as such.
fn commit(folder: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "HEAD"]), git(&["status", "--porcelain", "--untracked-files=no"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), Some(_)) => commit + "+changes",
        _ => UNKNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn some() -> Results {
        let mut results = Results::new("some");
        results.set("ticks", 100);
        results.add("a/throughput", "ticks/s", Better::More, vec![30.0, 10.0, 20.0]);
        results.add("bare/throughput", "ticks/s", Better::More, vec![50.0]);
        results.add("a/cpu", "us/tick", Better::Less, vec![4.0]);
        results.add("bare/cpu", "us/tick", Better::Less, vec![1.0]);
        results.set_ceiling("a/throughput", "bare/throughput");
        results.set_ceiling("a/cpu", "bare/cpu");
        results.note("a/digest", "00ff");
        results
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.json");
        some().write(&file).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.starts_with("{\n  \"schema\": 1,\n  \"bench\": \"some\",\n") && text.ends_with("}\n"),
            "{text}"
        );
        let read = Results::read(&file).unwrap();
        assert_eq!(read, some_at(&read.taken_at));
        assert_eq!(read.settings["ticks"], "100");
        assert!(
            ["debug", "release", "quick"].contains(&read.settings["profile"].as_str()),
            "{:?}",
            read.settings
        );
        assert!(read.machine.cores > 0);
    }

    fn some_at(taken_at: &str) -> Results {
        Results { taken_at: taken_at.to_owned(), ..some() }
    }

    #[test]
    fn values_are_medians_and_ratios_are_shares_of_the_ceiling() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        let results = some();
        let figure = results.find("a/throughput").unwrap();
        assert_eq!((figure.value, figure.ratio, figure.range()), (20.0, Some(0.4), Some((10.0, 30.0))));
        assert_eq!(figure.repeats, [30.0, 10.0, 20.0]);
        assert_eq!(results.find("a/cpu").unwrap().ratio, Some(0.25));
        assert_eq!(results.find("a/cpu").unwrap().range(), None);
    }

    #[test]
    fn times_are_of_rfc_3339() {
        let at = |secs, nanos| rfc3339(UNIX_EPOCH + Duration::new(secs, nanos));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_709_210_096, 999_999_999), "2024-02-29T12:34:56Z");
    }

    #[test]
    fn a_commit_says_whether_files_differ() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(commit(folder.path()), UNKNOWN, "outside of git");
        let git = |args: &[&str]| {
            let mut git = Command::new("git");
            git.arg("-C").arg(folder.path()).args(["-c", "user.name=a", "-c", "user.email=a@b.invalid"]);
            assert!(git.args(args).output().unwrap().status.success(), "{args:?}");
        };
        let write = |name: &str, text| std::fs::write(folder.path().join(name), text).unwrap();
        git(&["init"]);
        write("a", "1");
        git(&["add", "a"]);
        git(&["commit", "-m", "a"]);
        let clean = commit(folder.path());
        assert!(clean.len() >= 40 && clean.chars().all(|c| c.is_ascii_hexdigit()), "{clean}");
        write("results.json", "{}");
        assert_eq!(commit(folder.path()), clean);
        write("a", "2");
        assert_eq!(commit(folder.path()), format!("{clean}+changes"));
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        let text = serde_json::to_string_pretty(&some()).unwrap();
        assert!(Results::parse(&text).is_ok());
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Results::parse(&text.replacen(from, to, 1)).unwrap_err()
        };
        assert!(refused("\"schema\": 1", "\"schema\": 2").starts_with("schema 2 is not known here, only 1"));
        assert!(refused("\"schema\": 1,", "").contains("no field `schema`"));
        assert!(refused("}", "").starts_with("no JSON"));
        assert!(refused("\"better\": \"more\"", "\"better\": \"high\"").contains("`high`"));
        assert!(refused("\"unit\"", "\"units\"").contains("units"));
        assert!(refused("a/cpu", "bare/throughput").contains("same name"));
        assert!(refused("\"ceiling\": \"bare/cpu\"", "\"ceiling\": \"b\"").contains("which is no figure"));
        assert!(refused("\"ceiling\": \"bare/cpu\",", "").contains("no ceiling"));
        assert!(refused("T", " at ").contains("taken_at"));
        let missing = Results::read("no-such-file.json").unwrap_err().to_string();
        assert!(missing.starts_with("no-such-file.json: "), "{missing}");
    }
}
