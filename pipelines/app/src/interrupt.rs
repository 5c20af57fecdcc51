//! Ctrl-C: the first one asks to stop, the second one ends the process.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use crate::cli::ABORTED;

/// A flag that the first Ctrl-C (or SIGTERM) sets. May be called once in a process.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            let _ = writeln!(io::stderr(), "aborted; the next start recovers");
            std::process::exit(i32::from(ABORTED));
        }
        let _ = writeln!(io::stderr(), "finishing the epoch; Ctrl-C again aborts");
    })
    .context("Ctrl-C can not be caught")?;
    Ok(stop)
}
