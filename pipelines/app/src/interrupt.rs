//! Ctrl-C, SIGTERM and SIGHUP: the first one asks to stop, the second one ends the process.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::Context as _;
use tracing::Level;

use crate::cli::ABORTED;
use crate::logging;

/// How long the words about stopping may take to be written.
const LONGEST_WORDS: Duration = Duration::from_millis(500);

/// A flag that the first Ctrl-C, SIGTERM or SIGHUP sets. May be called once in a process.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    stop_flag_within(None)
}

/// As [`stop_flag`]; once it is set, the process ends after `timeout` even if it is not through.
pub fn stop_flag_within(timeout: Option<Duration>) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            abort("aborted; the next start recovers");
        }
        if let Some(timeout) = timeout {
            // Signals are told to this handler's thread one after another: it must not wait itself.
            let waiting = std::thread::Builder::new().name("stop-timeout".to_owned()).spawn(move || {
                std::thread::sleep(timeout);
                let s = timeout.as_secs_f64();
                abort(&format!(
                    "not stopped within {s} s (--stop-timeout): aborted; the next start recovers"
                ));
            });
            if let Err(error) = waiting {
                say(format!("stopping has no time limit: {error}"), Level::WARN);
            }
        }
        say("finishing the epoch; Ctrl-C again aborts".to_owned(), Level::INFO);
    })
    .context("Ctrl-C can not be caught")?;
    Ok(stop)
}

fn abort(text: &str) -> ! {
    say(text.to_owned(), Level::ERROR);
    std::process::exit(i32::from(ABORTED));
}

/// Writes to stderr, but waits only briefly: when nobody reads it, the process must end all the same.
fn say(text: String, level: Level) {
    let (done, told) = sync_channel(1);
    let saying = std::thread::Builder::new().name("stop-words".to_owned()).spawn(move || {
        match (logging::is_json(), level) {
            (false, _) => drop(writeln!(io::stderr(), "{text}")),
            (true, Level::ERROR) => tracing::error!("{text}"),
            (true, Level::WARN) => tracing::warn!("{text}"),
            (true, _) => tracing::info!("{text}"),
        }
        let _ = done.send(());
    });
    if saying.is_ok() {
        let _ = told.recv_timeout(LONGEST_WORDS);
    }
}
