//! `tidewire backtest`: many settings of a pipeline over the same recorded inputs.

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use smol_str::SmolStr;
use tidewire_engine::log::Log;
use tidewire_engine::memory::MemoryLog;
use tidewire_runtime::registry::open_book;
use tidewire_schemas::SchemaBook;

use super::taking::Taking;
use crate::backtest::grid::{Draw, Grid, Parameter};
use crate::backtest::page::page;
use crate::backtest::show::{self, Report, SortBy, money_of, plain};
use crate::backtest::{Backtest, Inputs, MAX_INPUT_MIB, Outcome, load};
use crate::cli::{self, Context};
use crate::files::{Loaded, load_pipeline};
use crate::interrupt::stop_flag;
use crate::logging;
use crate::open::{self, OpenLog};
use crate::reprocess::{Job, Limits, order_name};
use crate::shell::Words;
use crate::table::grouped;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Every combination of the values runs by itself over the same inputs, as `reprocess` would run it alone, with the paper
/// venue of the pipeline file. Inputs are read into memory once; outputs are counted and dropped. Nothing is written to
/// the log. docs/backtest.md has the whole of it.
///
/// A parameter is STAGE.OPERATOR.KEY, or the path of any other key of the file, such as engine.max_records or, with
/// `--limits file`, risk.limit.0.max_order_value. Values are a list, ranges FROM..TO:STEP among them.
///
/// Examples:
///   tidewire backtest market-intel --grid signals.ema_fast.period=3,5,8 --grid signals.trend.cooldown_ms=1000..5000:1000
///   tidewire backtest market-intel --grid signals.ema_slow.period=10..60 --sort drawdown --html slow.html
///   tidewire backtest market-intel --grid signals.rsi.period=5..14 --files usdm_btcusdt.gz --random 5 --seed 7
///   tidewire --data monday.bundle backtest market-intel --grid venue.paper.delay_ms=0,20,200 --json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The pipeline file, or the name of one that ships, such as market-intel.
    file: PathBuf,
    /// A parameter and its values; may be given more than once. Without any, the file is run as it is.
    #[arg(long, value_name = "PARAMETER=VALUES")]
    grid: Vec<Parameter>,
    /// Run only so many settings, drawn from all.
    #[arg(long, value_name = "N")]
    random: Option<NonZeroUsize>,
    /// Draw other settings.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "random")]
    seed: u64,
    /// Settings that run at a time; the result does not depend on it [default: as many as the machine has cores].
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroUsize>,
    /// Memory that the inputs may take, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = MAX_INPUT_MIB, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    max_input_mib: u64,
    #[command(flatten)]
    taking: Taking,
    /// What the table is sorted by, best first.
    #[arg(long, value_enum, default_value_t = SortBy::Pnl)]
    sort: SortBy,
    /// Currency of the table and of the plots [default: the one with the most fills].
    #[arg(long, value_name = "CURRENCY")]
    currency: Option<SmolStr>,
    /// Rows of the table; JSON, CSV and the page have all.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// Print all settings as JSON.
    #[arg(long)]
    json: bool,
    /// Write all settings to this file as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a page with plots and a table for the browser.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<u8> {
    let base = load_pipeline(&args.file)?;
    let stages: Vec<String> = base.pipeline.stages.iter().map(|stage| stage.name.to_string()).collect();
    let draw = args.random.map(|count| Draw { count: count.get(), seed: args.seed });
    let grid = Grid::new(args.grid.clone(), draw, &stages)?;
    let stop = stop_flag()?;
    grid.check(&base, &stop)?;
    let source = Source::open(args, context, &base)?;
    if grid.has_limits() && args.taking.limits == Limits::Log && !source.is_empty {
        bail!(
            "the log's risk limits hold, so that other limits of the file would change nothing: add `--limits file`"
        );
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let job = Job {
        log: &source.log,
        book: &source.book,
        loaded: &base,
        options: args.taking.options(1),
        limits: args.taking.limits,
        files: args.taking.files.clone(),
        inputs: None,
        reading: args.taking.reading.options(),
    };
    let started = Instant::now();
    let mut live = Live::new(grid.settings.len());
    let Some(Inputs { shelf, options }) =
        load(&job, args.max_input_mib << 20, &stop, |records| live.reading(records))?
    else {
        bail!("stopped before the inputs were read");
    };
    let inputs = (shelf.records(), shelf.bytes());
    let backtest = Backtest {
        base: &base,
        grid: &grid,
        inputs: Arc::new(shelf),
        options,
        book: &source.book,
        limits: args.taking.limits,
        workers: args.workers.map_or(cores, NonZeroUsize::get),
    };
    live.begin();
    let outcomes = backtest.run(&stop, |outcome| live.done(&grid, outcome))?;
    live.bar.finish_and_clear();
    let report = Report {
        pipeline: &base.pipeline.name,
        file: &base.file,
        order: order_name(args.taking.order.into()),
        again: again(args, context, &source),
        stopped: outcomes.len() < grid.settings.len(),
        grid: &grid,
        outcomes,
        currency: SmolStr::default(),
        sort: args.sort,
        inputs,
        workers: backtest.workers.min(grid.settings.len()),
        wall: started.elapsed(),
    };
    let report = report.sorted(args.currency.clone());
    write(args, &report)?;
    Ok(if report.stopped { cli::FAILED } else { cli::OK })
}

/// How `reprocess` takes the same inputs.
fn again(args: &Args, context: &Context, source: &Source) -> String {
    let mut words = Words::default();
    let data = context.data.as_ref().map(|data| data.display());
    if source.is_bundle {
        // A bundle can only be read: the run goes elsewhere.
        words.option("--inputs", data.filter(|_| args.taking.files.is_empty()));
        words.option("--data", Some("best"));
    } else {
        words.option("--data", data);
    }
    words.option("--bootstrap", context.bootstrap.as_ref());
    words.option("--registry", context.registry.as_ref());
    words.option("--config", context.config.as_ref().map(|file| file.display()));
    let mut taking = args.taking.clone();
    if source.is_empty {
        // There was no log whose limits could have held, but there may be one where the run goes.
        taking.limits = Limits::File;
    }
    [words.text(), taking.words()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn write(args: &Args, report: &Report<'_>) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("{} can not be written", path.display());
    if let Some(path) = &args.csv {
        let mut text = Vec::new();
        show::csv(&mut text, report)?;
        std::fs::write(path, text).with_context(|| failed(path))?;
    }
    if let Some(path) = &args.html {
        std::fs::write(path, page(report)?).with_context(|| failed(path))?;
    }
    let mut out = io::stdout().lock();
    if args.json {
        show::json(&mut out, report)?
    } else {
        show::text(&mut out, report, args.top)?
    }
    Ok(())
}

/// Where inputs and schemas are from.
struct Source {
    log: Arc<dyn Log>,
    book: Arc<SchemaBook>,
    /// Whether there is no log, but files alone.
    is_empty: bool,
    is_bundle: bool,
    /// Keeps the log open.
    _open: Option<OpenLog>,
}

impl Source {
    fn open(args: &Args, context: &Context, base: &Loaded) -> anyhow::Result<Self> {
        let names_log = context.data.is_some() || context.bootstrap.is_some();
        if !args.taking.files.is_empty() && !names_log {
            let log: Arc<dyn Log> = Arc::new(MemoryLog::new());
            let book = Arc::new(open_book(&*log).context("making the schemas of an empty log")?);
            return Ok(Self { log, book, is_empty: true, is_bundle: false, _open: None });
        }
        let open = open::to_read_for(context, &base.pipeline.deployment)?;
        if let Some(words) = open.bundle().and_then(|bundle| bundle.about().of_keys_alone()) {
            writeln!(io::stderr(), "{}: {words}", open.place)?;
        }
        Ok(Self {
            log: Arc::clone(&open.log),
            book: Arc::clone(&open.book),
            is_empty: false,
            is_bundle: open.bundle().is_some(),
            _open: Some(open),
        })
    }
}

/// What is shown meanwhile: a bar on a terminal, elsewhere a line now and then.
struct Live {
    bar: ProgressBar,
    settings: usize,
    done: usize,
    read: u64,
    started: Instant,
    told: Instant,
}

impl Live {
    fn new(settings: usize) -> Self {
        let bar = if io::stderr().is_terminal() && !logging::is_json() {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}");
            ProgressBar::new(settings as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        } else {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        };
        let now = Instant::now();
        Self { bar, settings, done: 0, read: 0, started: now, told: now }
    }

    fn reading(&mut self, records: u64) {
        self.read += records;
        self.show(&format!("reading inputs: {} records", grouped(self.read)));
    }

    fn begin(&mut self) {
        self.started = Instant::now();
    }

    fn done(&mut self, grid: &Grid, outcome: &Outcome) {
        self.done += 1;
        self.bar.set_position(self.done as u64);
        let each_s = self.started.elapsed().as_secs_f64() / self.done as f64;
        let left_s = each_s * (self.settings - self.done) as f64;
        let money: Vec<String> = outcome
            .tally
            .money
            .keys()
            .map(|currency| format!("{} {currency}", plain(money_of(outcome, currency).pnl())))
            .collect();
        let last = format!("{}: {}", grid.describe(&outcome.setting), money.join(", "));
        self.show(&format!("{} of {} settings, {left_s:.0} s left; {last}", self.done, self.settings));
    }

    fn show(&mut self, text: &str) {
        if !self.bar.is_hidden() {
            self.bar.set_message(text.to_owned());
        } else if self.told.elapsed() >= LINE_EVERY {
            self.told = Instant::now();
            if logging::is_json() {
                tracing::info!("{text}");
            } else {
                let _ = writeln!(io::stderr(), "{text}");
            }
        }
    }
}
