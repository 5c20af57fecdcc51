//! Each operator by itself: a stage of it alone, with its settings in the shipped pipeline, over what it takes. The figure has
//! the engine's part in it, which is that of `epoch/no operator`.

use std::hint::black_box;

use super::Case;
use super::market::{self, Made, SYMBOLS};
use super::orders;
use super::stage::{self, Feed, Runner};

/// Records an epoch.
const RECORDS: usize = 1_024;
/// Epochs before the first that is measured: all averages have begun, all books are there.
const BEFORE: usize = 16;

type Records = Box<dyn Iterator<Item = Made>>;
type Make = fn() -> Records;

pub fn cases() -> Vec<Case> {
    fn quotes() -> Records {
        Box::new(market::quotes())
    }
    fn bars() -> Records {
        Box::new(market::bars(SYMBOLS))
    }
    fn trades() -> Records {
        Box::new(market::trades(SYMBOLS, 2_000))
    }
    // How many inputs each needs, and what comes from them.
    let all: [(&str, usize, Make); 16] = [
        ("as_of", 1, || Box::new(market::features())),
        ("ema", 1, bars),
        ("intents", 2, || Box::new(orders::signals())),
        ("marks", 1, quotes),
        ("microprice", 1, quotes),
        ("mid", 1, quotes),
        ("momentum", 1, || Box::new(market::vectors())),
        ("order_book", 1, || Box::new(market::book())),
        ("paper_venue", 2, || Box::new(orders::commands())),
        ("price_jump", 1, trades),
        ("risk_orders", 3, || Box::new(orders::intents())),
        ("rsi", 1, bars),
        ("sentiment", 2, || Box::new(market::opinions())),
        ("spread", 1, quotes),
        // Most of these instruments trade seldom, so that some fall silent.
        ("stale_feed", 1, || Box::new(market::trades(2_000, 500))),
        ("time_bars", 1, trades),
    ];
    all.into_iter().map(|(name, inputs, records)| case(name, inputs, records)).collect()
}

fn case(name: &'static str, inputs: usize, records: Make) -> Case {
    Case::new(format!("operator/{name}"), "record", RECORDS, move || {
        let spec = stage::chain(inputs, &[settings(name)]);
        let mut feed = Feed::new(&spec, records());
        let mut runner = Runner::new(spec);
        let outputs = runner.warm_up(&mut feed, BEFORE, RECORDS);
        assert!(outputs > 0, "{name} gives something out");
        let run = move |batch| {
            runner.process(batch);
            black_box(runner.close(false));
        };
        (move || feed.batch(RECORDS), run)
    })
}

/// The operator as the shipped pipeline has it first; one that it does not have needs no settings.
fn settings(name: &str) -> toml::Table {
    let shipped = stage::operators_of("pipelines/market-intel.toml");
    let found = shipped.into_iter().find(|operator| operator["type"].as_str() == Some(name));
    let mut operator = found.unwrap_or_else(|| {
        let mut operator = toml::Table::new();
        operator.insert("type".to_owned(), name.into());
        operator.insert("from".to_owned(), toml::Value::Array(Vec::new()));
        operator
    });
    // Ids of orders begin with it.
    operator.insert("id".to_owned(), "op".into());
    operator
}
