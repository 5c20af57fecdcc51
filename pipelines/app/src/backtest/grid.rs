//! Parameters with lists of values, and the settings that they make.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use tidewire_schemas::Amount;

use crate::files::{Loaded, load_text};
use crate::pipeline::{OVERRIDE_PREFIX, PipelineError, Place};
use crate::shell::Words;

/// Most settings of a backtest.
pub const MAX_SETTINGS: usize = 10_000;
/// Most values of a parameter.
pub const MAX_VALUES: usize = 10_000;
/// Most parameters.
pub const MAX_PARAMETERS: usize = 16;
/// Most problems that are told.
const MAX_PROBLEMS: usize = 40;

/// A parameter, and the values that are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// As it was written.
    pub name: String,
    /// Values as they would stand in the pipeline file.
    pub values: Vec<String>,
}

impl FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text
            .split_once('=')
            .ok_or("written STAGE.OPERATOR.KEY=VALUE,VALUE, such as signals.ema_fast.period=3,5,8")?;
        if name.split('.').count() < 2 || name.split('.').any(str::is_empty) {
            return Err(format!("`{name}` does not name a key: write STAGE.OPERATOR.KEY"));
        }
        let mut all: Vec<String> = Vec::new();
        for part in values.split(',').map(str::trim) {
            let more = match part.split_once("..") {
                Some((from, rest)) => range(from, rest)?,
                None if part.is_empty() => return Err(format!("`{values}` holds an empty value")),
                None => vec![part.to_owned()],
            };
            for value in more {
                if all.contains(&value) {
                    return Err(format!("the value {value} comes twice"));
                }
                all.push(value);
            }
            if all.len() > MAX_VALUES {
                return Err(format!("a parameter may have {MAX_VALUES} values"));
            }
        }
        Ok(Self { name: name.to_owned(), values: all })
    }
}

/// `FROM..TO:STEP`, both ends among them; in decimals, so that 0.1 is 0.1.
fn range(from: &str, rest: &str) -> Result<Vec<String>, String> {
    let (to, step) = rest.split_once(':').unwrap_or((rest, "1"));
    let number = |text: &str| {
        text.parse::<Amount>()
            .map_err(|_| format!("`{text}` is no number; a range is written 1000..10000:1000"))
    };
    let (mut at, to, step) = (number(from)?, number(to)?, number(step)?);
    if !step.is_positive() || at > to {
        return Err(format!("the range {from}..{to}:{step} does not go upwards"));
    }
    let mut values = Vec::new();
    while at <= to {
        values.push(at.to_string());
        if values.len() > MAX_VALUES {
            return Err(format!("a parameter may have {MAX_VALUES} values"));
        }
        at = at.checked_add(step).map_err(|error| error.to_string())?;
    }
    Ok(values)
}

/// One setting: a value of each parameter, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its number, from 0, in the product of all lists.
    pub number: u64,
    /// The values.
    pub values: Vec<String>,
}

/// The parameters, and which of their settings are run.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// The settings, by number.
    pub settings: Vec<Setting>,
    /// How many settings the product of all lists has.
    pub of: u64,
    variables: Vec<String>,
}

/// A draw from the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// How many settings.
    pub count: usize,
    /// Another seed draws others.
    pub seed: u64,
}

impl Grid {
    /// All settings, or those drawn. `stages` are the names of the pipeline's stages.
    ///
    /// # Errors
    /// When there are too many.
    pub fn new(parameters: Vec<Parameter>, draw: Option<Draw>, stages: &[String]) -> anyhow::Result<Self> {
        if parameters.len() > MAX_PARAMETERS {
            bail!("{} parameters; there may be {MAX_PARAMETERS}", parameters.len());
        }
        let variables: Vec<String> = parameters.iter().map(|one| variable(&one.name, stages)).collect();
        for (place, variable) in variables.iter().enumerate() {
            if variables[..place].contains(variable) {
                bail!("--grid {} is given twice: put all its values into one list", parameters[place].name);
            }
        }
        let sizes = parameters.iter().map(|one| one.values.len() as u64);
        let Some(of) = sizes.clone().try_fold(1_u64, u64::checked_mul) else {
            bail!("the grid has more settings than can be counted: take fewer values");
        };
        let numbers: Vec<u64> = match draw {
            Some(draw) if draw.count > MAX_SETTINGS => {
                bail!("--random {}: at most {MAX_SETTINGS} settings are run", draw.count)
            }
            Some(draw) => drawn(draw, of),
            None if of > MAX_SETTINGS as u64 => bail!(
                "the grid has {of} settings; at most {MAX_SETTINGS} are run: take fewer values, or draw some with \
                 `--random N`"
            ),
            None => (0..of).collect(),
        };
        let settings =
            numbers.into_iter().map(|number| Setting { number, values: values_of(&parameters, number) });
        let settings = settings.collect();
        Ok(Self { parameters, settings, of, variables })
    }

    /// A setting's overrides, besides those of the environment.
    pub fn overrides(&self, setting: &Setting, environment: &[(String, String)]) -> Vec<(String, String)> {
        let others = environment
            .iter()
            .filter(|(name, _)| !self.variables.iter().any(|own| own.eq_ignore_ascii_case(name)));
        let own = self.variables.iter().cloned().zip(setting.values.iter().cloned());
        others.cloned().chain(own).collect()
    }

    /// A setting as people write it.
    pub fn describe(&self, setting: &Setting) -> String {
        let pairs = self.parameters.iter().zip(&setting.values);
        pairs.map(|(one, value)| format!("{}={value}", one.name)).collect::<Vec<_>>().join(" ")
    }

    /// A setting as variables before a command line.
    pub fn as_variables(&self, setting: &Setting) -> String {
        let mut words = Words::default();
        for (name, value) in self.variables.iter().zip(&setting.values) {
            words.variable(name, value);
        }
        words.text()
    }

    /// The pipeline of a setting.
    pub fn load(&self, setting: &Setting, base: &Loaded) -> anyhow::Result<Loaded> {
        load_text(base.file.clone(), base.text.clone(), self.overrides(setting, &base.overrides))
    }

    /// Whether some parameter is a risk limit of the file.
    pub fn has_limits(&self) -> bool {
        self.variables.iter().any(|name| name.starts_with(&format!("{OVERRIDE_PREFIX}RISK__LIMIT__")))
    }

    /// Loads every setting, and tells all that is wrong with any of them at once.
    ///
    /// # Errors
    /// [`GridError`] with all problems.
    pub fn check(&self, base: &Loaded, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut problems: BTreeSet<String> = BTreeSet::new();
        let mut bad = 0;
        for setting in &self.settings {
            if stop.load(Ordering::SeqCst) {
                bail!("stopped before anything ran");
            }
            let Err(error) = self.load(setting, base) else { continue };
            let Some(error) = error.downcast_ref::<PipelineError>() else { return Err(error) };
            bad += 1;
            for problem in &error.problems {
                problems.insert(self.tell(setting, problem, error));
            }
        }
        if bad == 0 {
            return Ok(());
        }
        Err(GridError { problems: problems.into_iter().collect(), bad, of: self.settings.len() }.into())
    }

    fn tell(&self, setting: &Setting, problem: &crate::pipeline::Problem, error: &PipelineError) -> String {
        let own = match &problem.place {
            Place::Environment(name) => self.variables.iter().position(|own| own == name.as_str()),
            Place::File(_) => None,
        };
        // Names of variables are in capitals; the file's are not.
        let plain =
            |text: &str| if text.starts_with("unknown ") { text.to_lowercase() } else { text.to_owned() };
        let help = problem
            .help
            .as_deref()
            .map(|help| format!(" ({})", if own.is_some() { help.to_lowercase() } else { help.to_owned() }));
        let help = help.unwrap_or_default();
        match own {
            Some(place) => {
                let (name, value) = (&self.parameters[place].name, &setting.values[place]);
                format!("--grid {name}={value}: {}{help}", plain(&problem.text))
            }
            None => {
                let line =
                    error.position(problem).map_or(String::new(), |(line, _)| format!("line {line}: "));
                format!("{}: {line}{}{help}", self.describe(setting), problem.text)
            }
        }
    }
}

/// All that is wrong with the settings of a grid.
#[derive(Debug)]
pub struct GridError {
    problems: Vec<String>,
    bad: usize,
    of: usize,
}

impl fmt::Display for GridError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.problems.iter().take(MAX_PROBLEMS) {
            writeln!(f, "{problem}")?;
        }
        if self.problems.len() > MAX_PROBLEMS {
            writeln!(f, "and {} more", self.problems.len() - MAX_PROBLEMS)?;
        }
        write!(f, "{} of {} settings can not be run; nothing was started", self.bad, self.of)
    }
}

impl std::error::Error for GridError {}

/// The variable that overrides a parameter: `STAGE.OPERATOR.KEY` is short for the path in the file.
fn variable(name: &str, stages: &[String]) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let sections = ["topics", "stage", "pipeline", "engine", "http", "run", "kafka"];
    let is_section = sections.contains(&parts[0]) && !stages.iter().any(|stage| stage == parts[0]);
    let path: Vec<&str> = match parts.as_slice() {
        [stage, operator, key] if !is_section => vec!["stage", stage, "operator", operator, key],
        _ => parts,
    };
    let part = |part: &&str| -> String {
        part.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
    };
    format!("{OVERRIDE_PREFIX}{}", path.iter().map(part).collect::<Vec<_>>().join("__"))
}

/// The values of a setting: the last parameter changes first.
fn values_of(parameters: &[Parameter], number: u64) -> Vec<String> {
    let mut rest = number;
    let mut values: Vec<String> = Vec::new();
    for one in parameters.iter().rev() {
        let size = one.values.len().max(1) as u64;
        let place = usize::try_from(rest % size).unwrap_or_default();
        values.push(one.values.get(place).cloned().unwrap_or_default());
        rest /= size;
    }
    values.reverse();
    values
}

/// Draws settings, each at most once: those whose hash with the seed comes first. The same seed draws the same.
fn drawn(Draw { count, seed }: Draw, of: u64) -> Vec<u64> {
    let hash = |number: u64| -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    };
    let count = (count as u64).min(of);
    if of <= 2 * MAX_SETTINGS as u64 {
        let mut all: Vec<u64> = (0..of).collect();
        all.sort_by_key(|number| (hash(*number), *number));
        all.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        all.sort_unstable();
        return all;
    }
    // At most half of them are drawn, so that few draws hit what is drawn already.
    let mut all = BTreeSet::new();
    let mut tries = 0;
    while (all.len() as u64) < count {
        all.insert(hash(tries) % of);
        tries += 1;
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn parameter(text: &str) -> Parameter {
        text.parse().unwrap()
    }

    #[test]
    fn lists_and_ranges_are_read_in_decimals() {
        assert_eq!(parameter("a.b.c=3,5,8").values, ["3", "5", "8"]);
        assert_eq!(parameter("a.b.c=1000..3000:1000,9").values, ["1000", "2000", "3000", "9"]);
        assert_eq!(parameter("a.b.c=0.1..0.35:0.1").values, ["0.1", "0.2", "0.3"]);
        assert_eq!(parameter("a.b.c=2..4").values, ["2", "3", "4"]);
        for (text, words) in [
            ("a.b.c", "written STAGE"),
            ("a=1", "does not name a key"),
            ("a..c=1", "does not name a key"),
            ("a.b.c=1,,2", "empty value"),
            ("a.b.c=1,2,1", "comes twice"),
            ("a.b.c=5..1:1", "upwards"),
            ("a.b.c=1..5:0", "upwards"),
            ("a.b.c=x..5", "no number"),
            ("a.b.c=0..1:0.00001", "10000 values"),
        ] {
            let error = text.parse::<Parameter>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_product_of_all_lists_is_run_and_a_greater_one_refused() {
        let grid = Grid::new(vec![parameter("s.a.x=1,2"), parameter("s.b.y=3,4,5")], None, &[]).unwrap();
        let values: Vec<String> = grid.settings.iter().map(|setting| setting.values.join(" ")).collect();
        assert_eq!(values, ["1 3", "1 4", "1 5", "2 3", "2 4", "2 5"]);
        assert_eq!(
            grid.as_variables(&grid.settings[1]),
            "TIDEWIRE__STAGE__S__OPERATOR__A__X=1 TIDEWIRE__STAGE__S__OPERATOR__B__Y=4"
        );
        let wide = vec![parameter("s.a.x=1..200"), parameter("s.b.y=1..200")];
        let error = Grid::new(wide.clone(), None, &[]).unwrap_err().to_string();
        assert!(error.contains("40000 settings") && error.contains("--random"), "{error}");
        let draw = |seed| Grid::new(wide.clone(), Some(Draw { count: 50, seed }), &[]).unwrap().settings;
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(1).len(), 50);
        let few = vec![parameter("s.a.x=1,2,3")];
        assert_eq!(Grid::new(few.clone(), Some(Draw { count: 9, seed: 0 }), &[]).unwrap().settings.len(), 3);
        assert_eq!(Grid::new(few, Some(Draw { count: 2, seed: 0 }), &[]).unwrap().settings.len(), 2);
    }

    #[test]
    fn a_name_of_three_parts_is_an_operators_unless_it_is_a_section() {
        let stages = ["signals".to_owned(), "risk".to_owned()];
        let variable = |name| variable(name, &stages);
        assert_eq!(
            variable("risk.orders.pnl_interval_ms"),
            "TIDEWIRE__STAGE__RISK__OPERATOR__ORDERS__PNL_INTERVAL_MS"
        );
        assert_eq!(variable("risk.limit.0.max_order_value"), "TIDEWIRE__RISK__LIMIT__0__MAX_ORDER_VALUE");
        assert_eq!(variable("engine.max_records"), "TIDEWIRE__ENGINE__MAX_RECORDS");
        assert_eq!(variable("topics.marks_v1.partitions"), "TIDEWIRE__TOPICS__MARKS_V1__PARTITIONS");
    }
}
