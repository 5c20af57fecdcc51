//! `tidewire diff`: two runs compared record by record, and why they differ.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidewire_schemas::EventTime;

use crate::cli::{self, Context};
use crate::diff::address::Opener;
use crate::diff::fields::{FieldName, Rules, Tolerance};
use crate::diff::{Request, page, report, show};
use crate::table::grouped;

/// Each record that the pipelines write is matched by topic, key and derived id, and is the same, changed, missing (in A
/// only) or extra (in B only). Differences are traced back to first causes: a changed setting, changed code, a changed
/// input, a late arrival. Nothing is written. The exit code is 0 if the runs are the same, 3 if they differ.
///
/// A run is named by
///   '-'            the live run on the log at hand
///   PREFIX         a reprocessed run on the log at hand
///   PATH           the run in another folder or bundle: with a separator in it, or there
///   PATH#PREFIX    a reprocessed run there
///
/// Examples:
///   tidewire diff - ema-6
///   tidewire diff by-arrival by-event --html differences.html
///   tidewire diff ./monday ./tuesday --topic signals.v1 --topic orders.v1 --json
///   tidewire diff - new --tolerance Bar.vwap=0.01 --tolerance values=0.1% --ignore text
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The first run: what was.
    a: String,
    /// The second run: what it is compared with.
    b: String,
    /// Only this topic; may be given more than once [default: all that the pipelines write].
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// Only records of this key.
    #[arg(long)]
    key: Option<String>,
    /// Only records from this event time on, such as 2024-08-08T23:57:00Z [default: what both runs were made over].
    #[arg(long, value_name = "TIME")]
    from: Option<EventTime>,
    /// Only records before this event time.
    #[arg(long, value_name = "TIME")]
    to: Option<EventTime>,
    /// Numbers this near count as the same: FIELD=0.01, FIELD=0.5% or KIND.FIELD=...; may be given more than once.
    #[arg(long, value_name = "FIELD=NEAR")]
    tolerance: Vec<Tolerance>,
    /// Do not look at this field, FIELD or KIND.FIELD; may be given more than once.
    #[arg(long, value_name = "FIELD")]
    ignore: Vec<FieldName>,
    /// Compare the timestamps of records too, as the field `@timestamp`.
    #[arg(long)]
    timestamps: bool,
    /// Differences and first causes shown, of each topic; counts are always whole.
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
    /// Write a page for the browser to this file too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    if let Some(prefix) = &context.prefix {
        bail!("`diff` is told both runs: `tidewire diff - {prefix}`, without `--prefix`");
    }
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from >= to
    {
        bail!("the range from {from} to {to} is empty");
    }
    let mut opener = Opener::new(context);
    let (a, b) = (opener.run(&args.a)?, opener.run(&args.b)?);
    let request = Request {
        rules: Rules { tolerances: args.tolerance.clone(), ignored: args.ignore.clone() },
        topics: args.topic.iter().map(Into::into).collect(),
        key: args.key.clone(),
        from: args.from,
        to: args.to,
        timestamps: args.timestamps,
        limit: args.limit,
    };
    let bar = progress();
    let report = report::compare(&a, &b, &request, &mut |what, records| {
        bar.set_message(what.to_owned());
        bar.set_position(records);
    });
    bar.finish_and_clear();
    let report = report?;
    if let Some(file) = &args.html {
        std::fs::write(file, page::page(&report)?)
            .with_context(|| format!("{} can not be written", file.display()))?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report.json())?;
        writeln!(out)?;
    } else {
        show::show(&mut out, &report, args.limit)?;
        let total = report.total();
        let verdict = match total.differences() {
            0 => format!("the runs are the same: {} records", grouped(total.all())),
            1 => "the runs differ in 1 record".to_owned(),
            many => format!("the runs differ in {} records", grouped(many)),
        };
        writeln!(out, "{verdict}")?;
    }
    out.flush()?;
    Ok(if report.is_same() { cli::OK } else { cli::DIFFERS })
}

fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {msg}: {human_pos} records compared, {per_sec}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
