//! The log's registry behind Confluent's REST API, so that any Confluent client finds the schemas of our topics.
//!
//! For development: whoever reaches the port may register. So it listens on the loopback address unless told
//! otherwise. Requests, connections and bodies are bounded; what a request asks of the log is done by a few threads.

mod answer;
mod connections;
mod ids;
mod rules;
mod subjects;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Router, serve};
use tidewire_engine::log::Log;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};

use super::LogRegistry;
use answer::{Answer, Refusal};
use connections::Connections;

/// Most connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
/// Most requests at a time; more are refused with status 503.
const MAX_REQUESTS: usize = 64;
/// Threads that read and write the log.
const LOG_THREADS: usize = 4;
/// Longest body of a request.
const MAX_BODY_BYTES: usize = 4 << 20;
/// The longest time for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests may go on when the server is stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

type Registry = LogRegistry<Arc<dyn Log>>;
/// What stands behind the `?`.
type Params = axum::extract::Query<BTreeMap<String, String>>;

/// A registry that answers on a port until it is stopped or dropped.
pub struct RegistryServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RegistryServer {
    /// Serves the registry of `log` on `listen`; port 0 takes a free one.
    pub fn start(log: Arc<dyn Log>, listen: SocketAddr) -> io::Result<RegistryServer> {
        let listener = TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(LOG_THREADS)
            .thread_name("registry-log")
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("registry".to_owned()).spawn(move || {
            if let Err(error) = run(&runtime, listener, log, stopped) {
                tracing::error!(%address, %error, "the schema registry stopped");
            }
            runtime.shutdown_timeout(STOP_TIMEOUT);
        })?;
        Ok(RegistryServer { address, stop: Some(stop), thread: Some(thread) })
    }

    /// The address that it answers on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the requests at hand and stops.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(
    runtime: &Runtime,
    listener: TcpListener,
    log: Arc<dyn Log>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let shared = Shared {
        registry: Arc::new(LogRegistry::new(log)),
        requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
    };
    runtime.block_on(async move {
        let listener = Connections::new(tokio::net::TcpListener::from_std(listener)?, MAX_CONNECTIONS);
        let (stopping, stop_now) = oneshot::channel();
        let server = serve(listener, routes(shared)).with_graceful_shutdown(async move {
            // A sender that is gone means the same.
            let _ = stopped.await;
            let _ = stopping.send(());
        });
        let late = async move {
            let _ = stop_now.await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        // A client that holds its request open does not hold up the end.
        tokio::pin!(late);
        tokio::select! {
            done = server => done,
            () = &mut late => Ok(()),
        }
    })
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/", get(answer::empty))
        .route("/subjects", get(subjects::list))
        .route("/subjects/{subject}", post(subjects::lookup).delete(subjects::delete_subject))
        .route("/subjects/{subject}/versions", get(subjects::versions).post(subjects::register))
        .route(
            "/subjects/{subject}/versions/{version}",
            get(subjects::version).delete(subjects::delete_version),
        )
        .route("/subjects/{subject}/versions/{version}/schema", get(subjects::schema))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(subjects::referenced_by))
        .route("/schemas/types", get(ids::types))
        .route("/schemas/ids/{id}", get(ids::schema))
        .route("/schemas/ids/{id}/schema", get(ids::text))
        .route("/schemas/ids/{id}/versions", get(ids::versions))
        .route("/schemas/ids/{id}/subjects", get(ids::subjects))
        .route("/config", get(rules::common).put(rules::set_common))
        .route("/config/{subject}", get(rules::of).put(rules::set).delete(rules::unset))
        .route("/compatibility/subjects/{subject}/versions", post(rules::check_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(rules::check_one))
        .route("/mode", get(rules::mode).put(rules::set_mode))
        .route("/mode/{subject}", get(rules::mode).put(rules::set_mode))
        .fallback(answer::not_found)
        .method_not_allowed_fallback(answer::not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(map_response(answer::as_json))
        .with_state(shared)
}

/// What all requests share.
#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    requests: Arc<Semaphore>,
}

/// Does what a request asks on a thread that may wait for the log.
async fn with_registry(
    State(shared): State<Shared>,
    ask: impl FnOnce(&Registry) -> Result<Answer, Refusal> + Send + 'static,
) -> Response {
    let Ok(permit) = Arc::clone(&shared.requests).try_acquire_owned() else {
        return Refusal::busy().into();
    };
    let task = tokio::task::spawn_blocking(move || {
        let answer = ask(&shared.registry);
        // Held until the log has answered, whether or not anybody still waits for it.
        drop(permit);
        answer
    });
    match tokio::time::timeout(REQUEST_TIMEOUT, task).await {
        Ok(Ok(Ok(answer))) => answer.into(),
        Ok(Ok(Err(refusal))) => refusal.into(),
        Ok(Err(_)) => Refusal::store("the request failed".to_owned()).into(),
        Err(_) => Refusal::store(format!("the log did not answer in {} s", REQUEST_TIMEOUT.as_secs())).into(),
    }
}
