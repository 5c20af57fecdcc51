//! `/healthz`, `/readyz` and `/metrics` of a running process.

mod board;
mod bounded;
mod metrics;
mod probe;
mod process;
mod verifying;
mod watching;

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use smol_str::SmolStr;
use tidewire_engine::log::Log;
use tidewire_runtime::clock::now_ms;
use tidewire_runtime::watch::Watch;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use board::Verdict;
use bounded::Bounded;
pub use metrics::{Described, METRICS};
pub use verifying::Verifying;
use watching::Watching;

/// How long a worker may make no step before the process counts as stuck, where nothing else is said: longer than any
/// commit may take.
pub const STALL_AFTER: Duration = Duration::from_secs(60);

/// OpenMetrics text, which Prometheus asks for.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const INDEX: &str = "\
tidewire
/healthz  200 while the process turns, else 503 with the reasons
/readyz   200 while every task runs and the log answers, else 503 with the reasons
/metrics  for Prometheus
";

/// What is served, and where.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long a worker may make no step.
    pub stall_after: Duration,
    /// The pipeline's name, for `tidewire_build_info`.
    pub pipeline: SmolStr,
    /// A topic of the pipeline, to ask the log about before a task is held.
    pub known_topic: SmolStr,
}

/// The running server. Dropping it ends it.
pub struct Http {
    /// Where it listens.
    pub at: SocketAddr,
    watching: Arc<Watching>,
    stop: Option<oneshot::Sender<()>>,
    stop_probe: Option<Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl Http {
    /// Listens, and serves from a thread of its own.
    ///
    /// # Errors
    /// When the address can not be listened on.
    pub fn start(options: &HttpOptions, log: &Arc<dyn Log>, stop: &Arc<AtomicBool>) -> anyhow::Result<Self> {
        let cannot = || format!("can not listen on {} for /healthz, /readyz and /metrics", options.listen);
        let listener = std::net::TcpListener::bind(options.listen).with_context(cannot)?;
        listener.set_nonblocking(true).with_context(cannot)?;
        let at = listener.local_addr().with_context(cannot)?;
        let watching = Arc::new(Watching::new());
        show_build(&watching, &options.pipeline);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().with_context(cannot)?;
        let (stop_server, stopped) = oneshot::channel();
        let served = Served {
            watching: Arc::clone(&watching),
            stall_after: options.stall_after,
            stop: Arc::clone(stop),
        };
        let server = std::thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(serve(listener, served, stopped)))
            .with_context(cannot)?;
        let (stop_probe, probe_stopped) = channel();
        let (log, known) = (Arc::clone(log), options.known_topic.clone());
        let asked = Arc::clone(&watching);
        // Not joined: a log that hangs must not hold up the end of the process.
        std::thread::Builder::new()
            .name("log-probe".to_owned())
            .spawn(move || probe::run(&log, &asked, &known, &probe_stopped))
            .with_context(cannot)?;
        Ok(Self { at, watching, stop: Some(stop_server), stop_probe: Some(stop_probe), server: Some(server) })
    }

    /// Who looks on at the workers.
    pub fn watch(&self) -> Arc<dyn Watch> {
        Arc::clone(&self.watching) as Arc<dyn Watch>
    }

    /// Who shows a check beside production, in a process that has no workers.
    pub fn verifying(&self) -> Verifying {
        Verifying::new(Arc::clone(&self.watching))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.stop_probe.take();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

#[derive(Clone)]
struct Served {
    watching: Arc<Watching>,
    stall_after: Duration,
    /// Set once the process was asked to stop.
    stop: Arc<AtomicBool>,
}

async fn serve(listener: std::net::TcpListener, served: Served, stopped: oneshot::Receiver<()>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "health and metrics are not served");
            return;
        }
    };
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(show_metrics))
        .with_state(served);
    let serving = axum::serve(Bounded::new(listener), router);
    let serving = tokio::spawn(serving.into_future());
    let _ = stopped.await;
    // Connections that are open are not waited for: the process is at its end.
    serving.abort();
}

async fn health(State(served): State<Served>) -> Response {
    answer(&served.watching.board().health(Instant::now(), served.stall_after))
}

async fn readiness(State(served): State<Served>) -> Response {
    let mut board = served.watching.board();
    board.stops = served.stop.load(Ordering::SeqCst);
    answer(&board.readiness(Instant::now(), served.stall_after))
}

async fn show_metrics(State(served): State<Served>) -> Response {
    served.watching.refresh(Instant::now(), now_ms());
    process::refresh(&served.watching.metrics);
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &served.watching.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn answer(verdict: &Verdict) -> Response {
    let status = if verdict.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let text = serde_json::to_string_pretty(verdict).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

fn show_build(watching: &Watching, pipeline: &str) {
    let build = crate::build::digest().unwrap_or_default();
    let build = build.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let by = metrics::ByBuild { version, build, pipeline: pipeline.to_owned() };
    watching.metrics.build.get_or_create(&by).set(1);
}
