//! `tidewire operators`: the operators that a pipeline file can name.

use std::io::{self, Write as _};

use serde_json::json;
use tidewire_operators::OPERATORS;

use crate::cli;
use crate::table::{Align, Table};

/// docs/operators.md describes each one: what it takes and gives, its settings, its formula and its warm-up.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print them as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let mut out = io::stdout().lock();
    if args.json {
        let all = OPERATORS.iter().map(|operator| json!({ "name": operator.name, "about": operator.about }));
        serde_json::to_writer_pretty(&mut out, &all.collect::<Vec<_>>())?;
        writeln!(out)?;
        return Ok(cli::OK);
    }
    let mut table = Table::new(&[("operator", Align::Left), ("what it does", Align::Left)]);
    for operator in OPERATORS {
        table.row([operator.name.to_owned(), operator.about.to_owned()]);
    }
    table.write(&mut out, "")?;
    Ok(cli::OK)
}
