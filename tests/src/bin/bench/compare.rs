//! What changed between two files.

use std::collections::BTreeSet;
use std::fmt;

use tidewire_tests::results::{Better, Figure, Results};

use crate::numbers::shown;

/// With fewer than two repeats a change below this is none, in percent.
const NOISE: f64 = 3.0;

/// What changed, figure by figure.
pub struct Comparison {
    /// What makes the comparison doubtful.
    pub warnings: Vec<String>,
    heads: [String; 2],
    rows: Vec<Row>,
}

struct Row {
    name: String,
    unit: String,
    values: [Option<f64>; 2],
    /// In percent of A.
    change: Option<f64>,
    verdict: Verdict,
    /// Whether it is a figure, and not the share of a ceiling.
    is_figure: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    Same,
    Differs,
    OnlyInA,
    OnlyInB,
    OtherUnit,
}

impl Comparison {
    /// Compares results of one bench.
    pub fn of(a: &Results, b: &Results) -> Result<Self, String> {
        if a.bench != b.bench {
            return Err(format!("results of {} and of {}: compare results of one bench", a.bench, b.bench));
        }
        let mut rows = Vec::new();
        for figure in &a.figures {
            match b.find(&figure.name) {
                Some(other) => rows.extend(compared(figure, other)),
                None => rows.push(alone(figure, [Some(figure.value), None], Verdict::OnlyInA)),
            }
        }
        for figure in b.figures.iter().filter(|figure| a.find(&figure.name).is_none()) {
            rows.push(alone(figure, [None, Some(figure.value)], Verdict::OnlyInB));
        }
        let head = |results: &Results| format!("{}, {}", results.commit, results.taken_at);
        Ok(Self { warnings: warnings(a, b), heads: [head(a), head(b)], rows })
    }

    /// Figures that are worse by more than so many percent, beyond their spread.
    pub fn worse_by_more_than(&self, percent: f64) -> Vec<&str> {
        let worse = |row: &&Row| {
            row.is_figure
                && row.verdict == Verdict::Worse
                && row.change.is_none_or(|change| change.abs() > percent)
        };
        self.rows.iter().filter(worse).map(|row| row.name.as_str()).collect()
    }
}

fn warnings(a: &Results, b: &Results) -> Vec<String> {
    let mut warnings = Vec::new();
    if a.machine != b.machine {
        warnings.push(format!(
            "the machines differ, so only shares of ceilings tell something: A on {}; B on {}",
            a.machine, b.machine
        ));
    }
    let names: BTreeSet<&String> = a.settings.keys().chain(b.settings.keys()).collect();
    for name in names {
        let of = |results: &Results| results.settings.get(name).cloned();
        if of(a) != of(b) {
            let said = |value: Option<String>| value.unwrap_or_else(|| "not set".to_owned());
            warnings.push(format!(
                "the settings differ: {name} is {} in A, {} in B",
                said(of(a)),
                said(of(b))
            ));
        }
    }
    let gone = a.figures.iter().filter(|figure| b.find(&figure.name).is_none()).count();
    if gone > 0 {
        warnings.push(format!("{gone} figures of A are not in B"));
    }
    warnings
}

/// The row of a figure, and that of the share of its ceiling.
fn compared(a: &Figure, b: &Figure) -> Vec<Row> {
    let values = [Some(a.value), Some(b.value)];
    if a.unit != b.unit {
        let unit = format!("{}, {}", a.unit, b.unit);
        return vec![Row { unit, ..alone(a, values, Verdict::OtherUnit) }];
    }
    let change = change(a.value, b.value);
    let verdict = verdict([a.value, b.value], [a.range(), b.range()], a.better);
    let mut rows = vec![Row { change, ..alone(a, values, verdict) }];
    if let (Some(ceiling), Some(from), Some(to)) = (&a.ceiling, a.ratio, b.ratio)
        && a.ceiling == b.ceiling
    {
        rows.push(Row {
            name: format!("  of {ceiling}"),
            unit: "share".to_owned(),
            values: [Some(from), Some(to)],
            change: self::change(from, to),
            verdict: self::verdict([from, to], [None, None], Better::More),
            is_figure: false,
        });
    }
    rows
}

fn alone(figure: &Figure, values: [Option<f64>; 2], verdict: Verdict) -> Row {
    let (name, unit) = (figure.name.clone(), figure.unit.clone());
    Row { name, unit, values, change: None, verdict, is_figure: true }
}

/// In percent; from nothing there is no percentage.
fn change(from: f64, to: f64) -> Option<f64> {
    let percent = (to - from) / from.abs() * 100.0;
    if from.to_bits() == to.to_bits() {
        Some(0.0)
    } else {
        Some(percent).filter(|percent| percent.is_finite())
    }
}

fn verdict([a, b]: [f64; 2], ranges: [Option<(f64, f64)>; 2], better: Better) -> Verdict {
    let same = match ranges {
        [Some((a_least, a_most)), Some((b_least, b_most))] => a_least <= b_most && b_least <= a_most,
        // Counts have no noise.
        _ if better == Better::Neither => a.to_bits() == b.to_bits(),
        _ => change(a, b).is_some_and(|percent| percent.abs() < NOISE),
    };
    match better {
        _ if same => Verdict::Same,
        Better::Neither => Verdict::Differs,
        Better::More if b > a => Verdict::Better,
        Better::Less if b < a => Verdict::Better,
        Better::More | Better::Less => Verdict::Worse,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Differs => "differs",
            Self::OnlyInA => "only in A",
            Self::OnlyInB => "only in B",
            Self::OtherUnit => "other unit",
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.heads;
        writeln!(f, "A: {a}\nB: {b}\n")?;
        let mut cells = vec![["figure", "unit", "A", "B", "change", ""].map(str::to_owned)];
        for row in &self.rows {
            let [a, b] = row.values.map(|value| value.map_or_else(|| "-".to_owned(), shown));
            let change = row.change.map_or_else(|| "-".to_owned(), |percent| format!("{percent:+.1} %"));
            cells.push([row.name.clone(), row.unit.clone(), a, b, change, row.verdict.to_string()]);
        }
        let widths: Vec<usize> = (0..6)
            .map(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in &cells {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let cell = match column {
                    // Numbers stand by their last digit.
                    2..=4 => format!("{cell:>width$}  "),
                    _ => format!("{cell:<width$}  "),
                };
                line.push_str(&cell);
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
