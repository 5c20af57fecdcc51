//! `tidewire explain`: why a record is there.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::{self, Context};
use crate::explain::{Explainer, html, text};
use crate::files::load_pipeline;
use crate::open;
use crate::recorded::{as_recorded, pipelines};

/// What led to a record, back to the ticks and news that it comes from: who made each record on the way, what made it
/// act, the inputs it had gathered, its state before and what changed of it, its settings, and for orders each check with
/// its limit and value. The recorded epochs are run again for it from the nearest cut; nothing is written. With --prove
/// the exit code is 3 if the record does not come out as it lies in the log.
///
/// ID is the id of an order, intent, decision, signal, alert or execution; a feature, INSTRUMENT/NAME@TIME; an identity
/// from a record's tw-id header, STAGE/TASK/SEQUENCE; or a place, TOPIC/PARTITION@OFFSET.
///
/// Examples:
///   tidewire explain orders:paper-main:1
///   tidewire explain risk.decisions.v1/2@17 --prove
///   tidewire explain BTCUSDT.BINANCE_USDM/rsi@2024-08-08T23:54:30Z --depth 3
///   tidewire explain trend:BTCUSDT.BINANCE_USDM:0 --html why.html
///   tidewire explain risk/0/12 --json
///   tidewire explain --every order
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What is to be explained.
    #[arg(required_unless_present = "every", conflicts_with = "every")]
    id: Option<String>,
    /// Explain every record of a kind in turn, and tell how long that took.
    #[arg(long, value_enum, value_name = "KIND")]
    every: Option<Every>,
    /// Run the epochs again with this pipeline file instead of the recorded one.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How many records deep the tree goes.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=64))]
    depth: u16,
    /// Say whether the record comes out again as it lies in the log, byte by byte.
    #[arg(long)]
    prove: bool,
    /// Write a page for a browser as well.
    #[arg(long, value_name = "FILE", conflicts_with = "every")]
    html: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Every {
    Order,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let open = open::to_read(context)?;
    let stages = match &args.file {
        Some(file) => as_recorded(&*open.log, &load_pipeline(file)?)?,
        None => pipelines(&*open.log)?.iter().flat_map(|recorded| recorded.stages().to_vec()).collect(),
    };
    let explainer = Explainer::new(&*open.log, &open.book, stages, open.only_keys(), usize::from(args.depth));
    let Some(id) = &args.id else { return every_order(&explainer, args.json) };
    let bar = progress();
    let explanation = explainer.explain(id, &mut |looked| {
        bar.set_message(format!("{looked} records looked at"));
        bar.tick();
    })?;
    bar.finish_and_clear();
    if let Some(file) = &args.html {
        let page = File::create(file).with_context(|| format!("{} can not be written", file.display()))?;
        let mut page = BufWriter::new(page);
        html::write(&mut page, &explanation)?;
        page.flush()?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &explanation)?;
        writeln!(out)?;
    } else {
        text::write(&mut out, &explanation, args.prove)?;
    }
    Ok(if args.prove && explanation.proof.verdict == "differs" { cli::DIFFERS } else { cli::OK })
}

/// Explains each order from nothing, so that each time is that of one call.
fn every_order(explainer: &Explainer<'_>, as_json: bool) -> anyhow::Result<u8> {
    let orders = explainer.all_orders()?;
    let bar = progress();
    let mut times = Vec::with_capacity(orders.len());
    let (mut same, mut records, mut external, mut without_leaves) = (0, 0, 0, 0);
    for (id, place) in &orders {
        bar.set_message(id.clone());
        let begun = Instant::now();
        let explanation = explainer.explain_at(id, place)?;
        times.push(begun.elapsed());
        bar.tick();
        same += usize::from(explanation.proof.verdict == "same");
        records += explanation.size.records;
        external += explanation.size.external;
        without_leaves += usize::from(explanation.size.external == 0);
    }
    bar.finish_and_clear();
    times.sort_unstable();
    let (median, p99, worst) = (at(&times, 0.5), at(&times, 0.99), at(&times, 1.0));
    let mut out = io::stdout().lock();
    if as_json {
        let value = json!({
            "orders": orders.len(),
            "same_bytes": same,
            "without_external_leaf": without_leaves,
            "records": records,
            "external": external,
            "median_us": us(median),
            "p99_us": us(p99),
            "worst_us": us(worst),
        });
        serde_json::to_writer_pretty(&mut out, &value)?;
        writeln!(out)?;
        return Ok(cli::OK);
    }
    writeln!(
        out,
        "{} orders explained, {same} with the same bytes again; {records} records in their trees, {external} from outside",
        orders.len()
    )?;
    if without_leaves > 0 {
        writeln!(out, "{without_leaves} trees reach no record from outside")?;
    }
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    writeln!(out, "median {:.1} ms, p99 {:.1} ms, worst {:.1} ms", ms(median), ms(p99), ms(worst))?;
    Ok(cli::OK)
}

/// The value that this part of all, sorted, does not exceed.
fn at(sorted: &[Duration], part: f64) -> Duration {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place"
    )]
    let place = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
