//! Compares and plots what benches found: files that they write where `JSON=FILE` is given. docs/benchmarks.md describes
//! the files and shows how to use this.

mod compare;
mod lines;
mod numbers;
mod plot;
mod rows;

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidewire_tests::results::Results;

/// Compares and plots results of benches
#[derive(Debug, Parser)]
#[command(name = "bench", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  JSON=old.json cargo bench -p tidewire --bench embedded    write a file, here and on another commit
  bench compare old.json new.json                           what changed, figure by figure
  bench compare old.json new.json --fail-above 10           exit code 1 where one is worse by more
  bench plot page.html old.json new.json                    a page to look at

`bench` stands for: cargo run -p tidewire-tests --bin bench --";

#[derive(Debug, Subcommand)]
enum Command {
    /// Print what changed from A to B
    #[command(after_help = COMPARE)]
    Compare {
        /// Results before
        a: PathBuf,
        /// Results after
        b: PathBuf,
        /// Exit with 1 where a figure is worse by more than this, in percent, and not within the spread
        #[arg(long, value_name = "PERCENT")]
        fail_above: Option<f64>,
    },
    /// Draw results as one HTML page that needs no other file
    #[command(after_help = PLOT)]
    Plot {
        /// The page to write
        #[arg(value_name = "OUT.html")]
        out: PathBuf,
        /// Results; several of one bench are drawn together
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

const COMPARE: &str = "\
A figure is the same where the ranges of its repeats overlap, and, where a file has fewer than two repeats of it, where it \
changed by less than 3 %, or, of what is neither better nor worse, not at all. A row `of ...` below a figure compares the shares of its ceiling that were reached: read those \
where machines differ. --fail-above looks at figures alone.

Exit code: 0; 1 by --fail-above; 2 where a file cannot be used.

Example:
  bench compare docs/measurements/embedded-bars.json new.json --fail-above 10";

const PLOT: &str = "\
Two or three files of one bench are drawn as bars beside each other, four or more as lines in the order in which they were \
measured. Percentiles of latency have a logarithmic chart of their own, from four files on of the first and the last. A table says all figures.

Example:
  bench plot page.html docs/measurements/bars.json docs/measurements/embedded-bars.json";

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Compare { a, b, fail_above } => compare(&a, &b, fail_above),
        Command::Plot { out, files } => plot(&out, &files).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        ExitCode::from(2)
    })
}

fn compare(a: &PathBuf, b: &PathBuf, fail_above: Option<f64>) -> Result<ExitCode, Box<dyn Error>> {
    let comparison = compare::Comparison::of(&Results::read(a)?, &Results::read(b)?)
        .map_err(|what| format!("{} and {}: {what}", a.display(), b.display()))?;
    for warning in &comparison.warnings {
        eprintln!("warning: {warning}");
    }
    // A reader that has seen enough, as `head`, is no error.
    let _ = std::io::stdout().write_all(comparison.to_string().as_bytes());
    let Some(percent) = fail_above else { return Ok(ExitCode::SUCCESS) };
    let worse = comparison.worse_by_more_than(percent);
    if worse.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("worse by more than {percent} %: {}", worse.join(", "));
    Ok(ExitCode::FAILURE)
}

fn plot(out: &PathBuf, files: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    if out.extension().is_some_and(|extension| extension == "json") {
        return Err(format!("{}: the page to write comes first, results after it", out.display()).into());
    }
    let mut all = Vec::new();
    for file in files {
        all.push((file.display().to_string(), Results::read(file)?));
    }
    let page = plot::page(&all)?;
    std::fs::write(out, page).map_err(|error| format!("{}: not written: {error}", out.display()))?;
    Ok(())
}
