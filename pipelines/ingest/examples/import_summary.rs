//! Reads recorded files and prints what came of them, and how fast: `cargo run --release -p tidewire-ingest --example
//! import_summary FILE...`.

use std::process::ExitCode;
use std::time::Instant;
use tidewire_ingest::{ImportError, ImportOptions, Importer, Item};

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args_os().skip(1) {
        if let Err(error) = summarise(path.as_ref()) {
            eprintln!("{error}");
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn summarise(path: &std::path::Path) -> Result<(), ImportError> {
    let start = Instant::now();
    let mut importer = Importer::open(path, ImportOptions::default())?;
    let mut shown = 0;
    for item in importer.by_ref() {
        if let Item::Rejected { line, reason, .. } = item?
            && shown < 10
        {
            println!("line {line}: {reason}");
            shown += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let summary = importer.summary();
    let records = summary.record_count();
    print!("{summary}");
    println!("  {seconds:.3} s, {:.0} records/s", records as f64 / seconds);
    Ok(())
}
