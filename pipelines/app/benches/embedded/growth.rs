//! How the cost of a record grows with symbols, with copies of the rule, and with disorder.

use std::sync::Arc;

use tidewire_engine::log::Log;
use tidewire_engine::plan::StageSpec;
use tidewire_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use tidewire_tests::results::{Better, Results};
use tidewire_tests::ticks::Market;

use crate::{bars, cost, load, set_trades};

pub fn print(results: &mut Results, market: Market, ticks: u64, rounds: usize) {
    set_trades(results, market, ticks);
    results.set("workload", "bars");
    results.set("rounds", rounds);
    let mut row =
        |what: &str, market: Market, stage: &StageSpec| row(results, what, market, stage, ticks, rounds);
    let disordered = |disorder_ms: u64| {
        let allowed = format!("out_of_orderness_ms = {disorder_ms}");
        bars(|text| text.replace("out_of_orderness_ms = 0", &allowed))
    };
    let plain = || bars(|text| text);
    for symbols in [10, 1_000, 100_000] {
        row(&format!("{symbols} symbols"), Market { symbols, ..market }, &plain());
    }
    for copies in [1, 100] {
        row(&format!("{copies} copies of the rule"), market, &bars(|text| copied(&text, copies)));
    }
    for disorder_ms in [10, 10_000] {
        let what = format!("{disorder_ms} ms of disorder");
        row(&what, Market { disorder_ms, ..market }, &disordered(disorder_ms));
    }
}

fn row(results: &mut Results, what: &str, market: Market, stage: &StageSpec, ticks: u64, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(folder.path().join("log"), EmbeddedOptions::default()).unwrap();
    load::trades(&log, "peer.ticks", market, ticks);
    let log: Arc<dyn Log> = log;
    let runs: Vec<_> = (0..rounds).map(|round| cost::run(&log, stage, round)).collect();
    let name = format!("{what}/cost");
    results.add(&name, "ns/record", Better::Less, runs.iter().map(|run| run.total).collect());
    let total = results.find(&name).unwrap().value;
    let outputs = runs[0].outputs_a_record();
    results.add(&format!("{what}/outputs"), "outputs/record", Better::Neither, vec![outputs]);
    println!("{what:<28} {total:>8.0} ns a record, {outputs:>6.3} outputs a record");
}

/// The file with so many copies of the operators that end in the rule of 1 s, all of the same bars.
fn copied(text: &str, copies: usize) -> String {
    let from = text.find("# An average over one bar").unwrap();
    let to = text.find("[[stage.operator]]\nid = \"close_1m\"").unwrap();
    let chain = &text[from..to];
    let mut all = text.to_owned();
    let mut ids = Vec::new();
    for copy in 1..copies {
        let mut one = chain.to_owned();
        for id in ["close_1s", "ema_1s", "rsi_1s", "vector_1s", "rule_1s", "cross_1s"] {
            one = one.replace(&format!("\"{id}\""), &format!("\"{id}_{copy}\""));
        }
        ids.push(format!("\"rule_1s_{copy}\""));
        let end = all.find("[[stage.output]]").unwrap();
        all.insert_str(end, &one);
    }
    if ids.is_empty() {
        return all;
    }
    all.replace("from = [\"rule_1s\", ", &format!("from = [{}, \"rule_1s\", ", ids.join(", ")))
}
