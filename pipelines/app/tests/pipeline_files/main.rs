//! Pipeline files: what is wrong with them is told all at once, where it stands, with the nearest right name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cases;
mod cycles;

use cases::{CASES, Case, GOOD, LIMIT_CASES, LIMITS};
use tidewire::pipeline::{Pipeline, PipelineError, Setting, describe, draw, load};
use tidewire_operators::OPERATORS;

fn check(text: &str) -> Result<Pipeline, PipelineError> {
    check_with(text, &[])
}

fn check_with(text: &str, variables: &[(&str, &str)]) -> Result<Pipeline, PipelineError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load("small.toml", text, OPERATORS, Setting { variables, build_digest: [7; 16] })
}

fn error(text: &str) -> PipelineError {
    match check(text) {
        Ok(_) => panic!("it was taken:\n{text}"),
        Err(error) => error,
    }
}

#[test]
fn the_good_one_is_taken() {
    let pipeline = check(GOOD).unwrap();
    assert_eq!(pipeline.warnings, Vec::<String>::new());
    let stage = &pipeline.stages[0];
    let ids: Vec<&str> = stage.nodes.iter().map(|node| node.id.as_str()).collect();
    // `wants` takes from `quotes`, which stands below it in the file.
    assert_eq!(ids, ["bars", "fast", "slow", "vector", "rule", "quotes", "wants"]);
    assert!(stage.inputs.iter().all(|input| input.external));
    assert!(!stage.makes_orders);
}

#[test]
fn each_problem_is_told_where_it_stands() {
    assert_told(GOOD, CASES);
}

#[test]
fn each_problem_of_a_limit_is_told_where_it_stands() {
    let text = format!("{GOOD}{LIMITS}");
    let limits = check(&text).unwrap_or_else(|error| panic!("{error}")).limits;
    assert_eq!(limits.len(), 1);
    assert_eq!(limits[0].max_order_value, "50000".parse().ok());
    assert_eq!((limits[0].strategy.as_str(), limits[0].instrument.as_str()), ("*", "*"));
    assert_told(&text, LIMIT_CASES);
}

fn assert_told(good: &str, cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        assert!(good.contains(case.replace), "the good file has no {:?}", case.replace);
        let text = good.replacen(case.replace, case.by, 1);
        let error = error(&text);
        let found = error.problems.iter().any(|problem| {
            error.position(problem) == Some((case.line, case.column))
                && problem.text.contains(case.says)
                && problem.help.as_deref().unwrap_or_default().contains(case.help)
        });
        let place = format!("small.toml:{}:{}: ", case.line, case.column);
        if !found || !error.to_string().contains(&place) {
            wrong.push(format!("{place}{:?} {:?}, but got\n{error}", case.says, case.help));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = GOOD
        .replacen("market.ticks.v1", "market.tick.v1", 1)
        .replacen("interval_ms", "interval", 1)
        .replacen("topic = \"alerts.v1\"", "topic = \"alert.v1\"", 1);
    let shown = error(&text).to_string();
    let places: Vec<&str> = shown.lines().filter(|line| line.starts_with("small.toml:")).collect();
    assert_eq!(places.len(), 4, "{shown}");
    assert!(places[0].starts_with("small.toml:10:9: "), "{shown}");
    assert!(places[1].starts_with("small.toml:22:1: "), "{shown}");
    assert!(places[2].starts_with("small.toml:79:9: "), "{shown}");
    assert!(places[3].ends_with("3 problems; nothing was started"), "{shown}");
}

#[test]
fn a_problem_shows_its_line() {
    let shown = error(&GOOD.replacen("type = \"time_bars\"", "type = \"time_bar\"", 1)).to_string();
    let expected = "small.toml:20:8: unknown operator `time_bar`\n 20 | type = \"time_bar\"\n    |        ^^^^^^^^^^\n    = the nearest name is `time_bars`\n";
    assert!(shown.starts_with(expected), "{shown}");
}

#[test]
fn no_file_whatever_makes_it_panic() {
    for cut in 0..GOOD.len() {
        if GOOD.is_char_boundary(cut) {
            let _ = check(&GOOD[..cut]);
            let _ = check(&GOOD[cut..]);
        }
    }
    for (at, _) in GOOD.match_indices(['"', '=', '[', '1', 'e']) {
        for with in ["", "7", "\"\"", "[]", "é", "-"] {
            let mut text = GOOD.to_owned();
            text.replace_range(at..=at, with);
            let _ = check(&text);
        }
    }
}

#[test]
fn variables_override_the_file() {
    let pipeline = check_with(
        GOOD,
        &[
            ("TIDEWIRE__PIPELINE__PARTITIONS", "8"),
            ("TIDEWIRE__ENGINE__MAX_RECORDS", "100"),
            ("TIDEWIRE__TOPICS__SIGNALS_V1__RETENTION_MS", "5000"),
            ("TIDEWIRE__STAGE__FEATURES__OPERATOR__FAST__PERIOD", "7"),
            ("TIDEWIRE__STAGE__FEATURES__OPERATOR__WANTS__QUANTITY", "0.25"),
            ("TIDEWIRE__STAGE__0__INPUT__TICKS__OUT_OF_ORDERNESS_MS", "250"),
            ("PATH", "/bin"),
        ],
    )
    .unwrap_or_else(|error| panic!("{error}"));
    let stage = &pipeline.stages[0];
    assert_eq!(stage.tasks(), 8);
    assert_eq!(stage.caps.max_records, 100);
    assert_eq!(stage.inputs[0].out_of_orderness_ms, 250);
    let setting = |id: &str, name: &str| {
        let node = stage.nodes.iter().find(|node| node.id == id).unwrap();
        node.settings[name].clone()
    };
    assert_eq!(setting("fast", "period"), toml::Value::Integer(7));
    // Text stays text: a decimal is not made a float.
    assert_eq!(setting("wants", "quantity"), toml::Value::String("0.25".into()));
    let signals = pipeline.topics.iter().find(|topic| topic.name == "signals.v1").unwrap();
    assert_eq!(signals.retention_ms, Some(5_000));
}

#[test]
fn a_variable_that_names_nothing_is_a_problem() {
    let cases = [
        ("TIDEWIRE__PIPLINE__PARTITIONS", "8", "unknown section `PIPLINE`", "`PIPELINE`"),
        ("TIDEWIRE__STAGE__FEATURE__ON_ERROR", "halt", "unknown element `FEATURE`", "`FEATURES`"),
        ("TIDEWIRE__PIPELINE__PARTITIONS", "many", "must be a whole number, not text", ""),
        ("TIDEWIRE__PARTITIONS", "8", "does not name a key", "TIDEWIRE__SECTION__KEY"),
        ("TIDEWIRE__STAGE__FEATURES", "x", "names a whole element", ""),
        ("TIDEWIRE__PIPELINE__NAME__X", "x", "nothing in it can be set", ""),
    ];
    for (name, value, says, help) in cases {
        let Err(error) = check_with(GOOD, &[(name, value)]) else { panic!("{name} was taken") };
        let shown = error.to_string();
        assert!(shown.contains(&format!("environment variable {name}: ")), "{shown}");
        assert!(shown.contains(says) && shown.contains(help), "{shown}");
    }
}

#[test]
fn the_digest_follows_the_meaning_and_not_the_words() {
    let digest = |text: &str| check(text).unwrap_or_else(|error| panic!("{error}")).stages[0].pipeline_digest;
    let good = digest(GOOD);
    assert_eq!(digest(&format!("# A comment.\n{GOOD}")), good);
    assert_eq!(digest(&GOOD.replacen("1_000", "1000", 1)), good);
    let tuned = GOOD.replacen(
        "[[stage]]\nname = \"features\"",
        "[engine]\nmax_records = 9\n[[stage]]\nname = \"features\"",
        1,
    );
    assert_eq!(digest(&tuned), good);
    assert_ne!(digest(&GOOD.replacen("period = 5", "period = 6", 1)), good);
    assert_ne!(digest(&GOOD.replacen("partitions = 4", "partitions = 2", 1)), good);
    assert_ne!(
        digest(&GOOD.replacen("role = \"driving\"", "role = \"driving\"\nidle_after_ms = 9", 1)),
        good
    );
}

#[test]
fn the_drawing_shows_how_records_flow() {
    let drawn = draw::draw(&check(GOOD).unwrap());
    let expected = "\
pipeline small: 1 stage, 7 operators, 8 topics

stage features: 4 tasks, consumer group small.features
├─ ticks  <- market.ticks.v1 (4), driving
│  ├─ bars: time_bars  -> features.bars.v1
│  │  ├─ fast: ema
│  │  │  └─ vector: as_of
│  │  │     └─ rule: momentum  -> signals.v1
│  │  │        └─ wants: intents  -> intents.v1, alerts.v1
│  │  └─ slow: ema
│  │     └─ vector (above)
│  └─ quotes: order_book  -> alerts.v1
│     └─ wants (above)
└─ instruments  <- reference.instruments.v1 (1), broadcast
   └─ wants (above)

topics
  alerts.v1                   4 partitions             features -> outside  Alert
  dead-letters.v1             1 partition              features -> outside  DeadLetter
  features.bars.v1            4 partitions             features -> outside  Bar
  intents.v1                  4 partitions             features -> outside  OrderIntent
  late.v1                     1 partition              features -> outside  LateRecord
  market.ticks.v1             4 partitions             outside -> features  Trade, Quote, BookSnapshot, BookDelta
  reference.instruments.v1    1 partition   compacted  outside -> features  Instrument
  signals.v1                  4 partitions             features -> outside  Signal
";
    assert_eq!(drawn, expected, "\n{drawn}");
    let described = describe::stage(&check(GOOD).unwrap().stages[0]);
    assert_eq!(described["group"], "small.features");
}

#[test]
fn what_looks_odd_is_a_warning() {
    let text =
        GOOD.replacen("from = [\"rule\", \"quotes\", \"instruments\"]", "from = [\"rule\", \"quotes\"]", 1);
    let warnings = check(&text).unwrap().warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("`wants` also takes Instrument"), "{warnings:?}");
    assert!(warnings[1].contains("no operator reads input `instruments`"), "{warnings:?}");
    let text = GOOD.replacen("[[stage.output]]\ntopic = \"signals.v1\"\nfrom = [\"rule\"]\n", "", 1);
    let text = text.replacen("from = [\"wants\", \"quotes\"]", "from = [\"quotes\"]", 1).replacen(
        "[[stage.output]]\ntopic = \"intents.v1\"\nfrom = [\"wants\"]\n",
        "",
        1,
    );
    let warnings = check(&text).unwrap().warnings;
    assert!(
        warnings.iter().any(|warning| warning.contains("`wants` gives out goes nowhere")),
        "{warnings:?}"
    );
}

#[test]
fn the_example_of_the_documentation_is_taken() {
    let docs = include_str!("../../../../docs/configuration.md");
    let example = docs.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let pipeline = check(example).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(pipeline.warnings, Vec::<String>::new());
}
