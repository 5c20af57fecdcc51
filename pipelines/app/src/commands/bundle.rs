//! `tidewire bundle`: a stretch of time in one file, and what is in such a file.

mod show;
mod verify;

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidewire_runtime::bundle::BundleLog;

use crate::bundle::{Edge, Progress, Request, make};
use crate::cli::{self, Context};
use crate::open;
use crate::recorded::pipelines;

pub use verify::{say_what_it_holds, verify_restricted};

/// Takes all that is needed to run a stretch of time again: the state it began from, the records that were taken, the
/// outputs and the epoch records, the schemas and the pipeline file without its secrets. The file opens as a log with
/// `--data FILE`, on any machine.
///
/// Examples:
///   tidewire bundle incident.tidewire --from 2024-08-08T23:54:30Z --to 2024-08-08T23:55:00Z
///   tidewire bundle btc.tidewire --stage signals --key BTCUSDT.BINANCE_USDM
///   tidewire bundle order.tidewire --order orders:paper-main:12
///   tidewire bundle --show incident.tidewire
///   tidewire verify --data incident.tidewire
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The bundle.
    file: PathBuf,
    /// Show what is in it, after every byte of it was checked.
    #[arg(long, conflicts_with_all = ["from", "to", "stage", "task", "key", "order", "force"])]
    show: bool,
    /// Where it begins: a time such as 2024-08-08T23:54:30Z, or the number of an epoch [default: the first epoch kept].
    #[arg(long, value_name = "TIME|EPOCH")]
    from: Option<Edge>,
    /// Where it ends [default: the last epoch].
    #[arg(long, value_name = "TIME|EPOCH")]
    to: Option<Edge>,
    /// Only this stage; may be given several times.
    #[arg(long, value_name = "NAME")]
    stage: Vec<String>,
    /// Only this task.
    #[arg(long, value_name = "N")]
    task: Option<u32>,
    /// Only what belongs to this key, such as an instrument or an account; may be given several times.
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// Only the way of this order: its account and instrument, from what led to it to its last event.
    #[arg(long, value_name = "ID")]
    order: Option<String>,
    /// Write over a file that is there.
    #[arg(long)]
    force: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    if !args.show {
        write(args, context)?;
    }
    let log = BundleLog::open(&args.file)?;
    if args.show {
        log.check(|_| {})?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &show::as_value(&log))?;
        writeln!(out)?;
    } else {
        show::show(&mut out, &log)?;
    }
    Ok(cli::OK)
}

fn write(args: &Args, context: &Context) -> anyhow::Result<()> {
    let open = open::to_read(context)?;
    if open.bundle().is_some_and(|bundle| bundle.about().is_restricted()) {
        bail!("{} is restricted to some keys: another bundle is to be made from the log itself", open.place);
    }
    let request = Request {
        from: args.from,
        to: args.to,
        stages: args.stage.clone(),
        task: args.task,
        keys: args.key.clone(),
        order: args.order.clone(),
    };
    let recorded = pipelines(&*open.log)?;
    let bar = progress();
    let made = make(&open.log, &open.book, &recorded, &request, &args.file, args.force, |progress| {
        bar.set_message(match progress {
            Progress::Task(task) => format!("looking for the epochs of {task}"),
            Progress::Topic(topic) => format!("writing {topic}"),
        });
        bar.tick();
    });
    bar.finish_and_clear();
    made.map(|_| ())
}

fn progress() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
