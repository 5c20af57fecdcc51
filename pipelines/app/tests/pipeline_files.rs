//! Pipeline files: what is wrong with them is told all at once, where it stands, with the nearest right name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use serde::Deserialize;
use tidewire::pipeline::{Pipeline, PipelineError, Setting, describe, draw, load};
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, OperatorType};
use tidewire_operators::OPERATORS;
use tidewire_schemas::Kind;

/// A small pipeline in which everything is right. Line numbers of the cases count in it.
const GOOD: &str = r#"[pipeline]
name = "small"
partitions = 4

[[stage]]
name = "features"

[[stage.input]]
id = "ticks"
topic = "market.ticks.v1"
role = "driving"

[[stage.input]]
id = "instruments"
topic = "reference.instruments.v1"
role = "broadcast"

[[stage.operator]]
id = "bars"
type = "time_bars"
from = ["ticks"]
interval_ms = 1_000

[[stage.operator]]
id = "fast"
type = "ema"
from = ["bars"]
period = 5
name = "fast"

[[stage.operator]]
id = "slow"
type = "ema"
from = ["bars"]
period = 20
name = "slow"

[[stage.operator]]
id = "vector"
type = "as_of"
from = ["fast", "slow"]
features = ["fast", "slow"]
trigger = "fast"

[[stage.operator]]
id = "rule"
type = "momentum"
from = ["vector"]
strategy = "trend"
fast = "fast"
slow = "slow"
horizon_ms = 60_000

[[stage.operator]]
id = "wants"
type = "intents"
from = ["rule", "quotes", "instruments"]
account = "a"
quantity = "0.1"

[[stage.operator]]
id = "quotes"
type = "order_book"
from = ["ticks"]

[[stage.output]]
topic = "signals.v1"
from = ["rule"]

[[stage.output]]
topic = "intents.v1"
from = ["wants"]

[[stage.output]]
topic = "features.bars.v1"
from = ["bars"]

[[stage.output]]
topic = "alerts.v1"
from = ["wants", "quotes"]
"#;

/// What the good one has after its last line in the tests of limits.
const LIMITS: &str = r#"
[[stage]]
name = "risk"

[[stage.input]]
id = "intents"
topic = "intents.v1"
role = "driving"

[[stage.input]]
id = "limits"
topic = "risk.limits.v1"
role = "control"

[[stage.operator]]
id = "orders"
type = "risk_orders"
from = ["intents", "limits"]

[[stage.output]]
topic = "risk.decisions.v1"
from = ["orders"]

[[risk.limit]]
account = "a"
max_order_value = 50_000
max_position = "0.5"
"#;

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

/// One row: what is replaced in the good file, by what, and what is said: line, column, words, help.
struct Case {
    replace: &'static str,
    by: &'static str,
    line: usize,
    column: usize,
    says: &'static str,
    help: &'static str,
}

const fn case(
    replace: &'static str,
    by: &'static str,
    (line, column): (usize, usize),
    says: &'static str,
    help: &'static str,
) -> Case {
    Case { replace, by, line, column, says, help }
}

const LIMIT_CASES: &[Case] = &[
    case(
        "max_order_value = 50_000",
        "max_order_value = 50_000.5",
        (106, 19),
        "without quotes, which would be rounded",
        "\"50000.5\"",
    ),
    case(
        "max_order_value = 50_000",
        "max_order_vale = 50_000",
        (106, 1),
        "unknown key in [[risk.limit]]: `max_order_vale`",
        "`max_order_value`",
    ),
    case("max_position = \"0.5\"", "max_position = \"-1\"", (107, 16), "can not be negative", ""),
    case("max_position = \"0.5\"", "[[risk.limit]]\naccount = \"a\"", (107, 1), "two limits for `a/*/*`", ""),
    case(
        "topic = \"risk.limits.v1\"",
        "topic = \"control.v1\"",
        (104, 1),
        "no stage reads risk limits",
        "`risk.limits.v1`",
    ),
];

const CASES: &[Case] = &[
    // Syntax.
    case("partitions = 4", "partitions = = 4", (3, 14), "", ""),
    case(
        "[pipeline]\nname",
        "[pipelin]\nname",
        (1, 2),
        "unknown key in the file: `pipelin`",
        "nearest name is `pipeline`",
    ),
    case("name = \"small\"\n", "", (1, 1), "[pipeline] needs `name`", ""),
    case("name = \"small\"", "name = \"small.one\"", (2, 8), "use up to 60 letters, digits", ""),
    case(
        "partitions = 4",
        "partitons = 4",
        (3, 1),
        "unknown key in [pipeline]: `partitons`",
        "nearest name is `partitions`",
    ),
    case("partitions = 4", "partitions = 0", (3, 14), "`partitions` is 0; it must be from 1 to", ""),
    case("partitions = 4", "partitions = \"4\"", (3, 14), "must be a whole number, not text", ""),
    case("partitions = 4", "partitions = 99999999999999999999", (3, 14), "", ""),
    // Inputs.
    case(
        "role = \"driving\"",
        "role = \"drivin\"",
        (11, 8),
        "unknown role `drivin`",
        "nearest name is `driving`",
    ),
    case("role = \"driving\"\n", "", (8, 1), "[[stage.input]] needs `role`", ""),
    case(
        "role = \"driving\"",
        "role = \"keyed\"",
        (5, 1),
        "stage `features` has no driving input",
        "give one input `role",
    ),
    case(
        "role = \"broadcast\"",
        "role = \"driving\"",
        (14, 6),
        "two driving inputs, `ticks` and `instruments`",
        "`keyed` or `broadcast`",
    ),
    case(
        "topic = \"market.ticks.v1\"",
        "topic = \"market.tick.v1\"",
        (10, 9),
        "unknown topic `market.tick.v1`",
        "`market.ticks.v1`",
    ),
    case(
        "topic = \"reference.instruments.v1\"",
        "topic = \"market.ticks.v1\"",
        (15, 9),
        "reads `market.ticks.v1` twice",
        "share one input",
    ),
    case(
        "role = \"broadcast\"",
        "role = \"keyed\"",
        (15, 9),
        "has 1 partitions and the driving `market.ticks.v1` has 4",
        "partitions = 4",
    ),
    case(
        "topic = \"reference.instruments.v1\"\nrole = \"broadcast\"",
        "topic = \"executions.v1\"\nrole = \"keyed\"",
        (15, 9),
        "`executions.v1` lies by account and the driving `market.ticks.v1` by instrument",
        "broadcast",
    ),
    case(
        "role = \"driving\"",
        "role = \"driving\"\nidle_after = 5",
        (12, 1),
        "unknown key in [[stage.input]]: `idle_after`",
        "`idle_after_ms`",
    ),
    case("id = \"instruments\"", "id = \"bars\"", (19, 6), "two inputs or operators called `bars`", ""),
    // Operators.
    case(
        "type = \"time_bars\"",
        "type = \"time_bar\"",
        (20, 8),
        "unknown operator `time_bar`",
        "nearest name is `time_bars`",
    ),
    case("type = \"time_bars\"\n", "", (18, 1), "[[stage.operator]] needs `type`", ""),
    case("from = [\"bars\"]\nperiod = 5", "period = 5", (24, 1), "[[stage.operator]] needs `from`", ""),
    case(
        "from = [\"bars\"]\nperiod = 5",
        "from = [\"bar\"]\nperiod = 5",
        (27, 9),
        "unknown input or operator `bar`",
        "nearest name is `bars`",
    ),
    case(
        "from = [\"fast\", \"slow\"]",
        "from = [\"fast\", \"fast\"]",
        (41, 17),
        "`fast` is in `from` twice",
        "",
    ),
    case(
        "interval_ms = 1_000",
        "interval = 1_000",
        (22, 1),
        "unknown field `interval`",
        "nearest name is `interval_ms`",
    ),
    case(
        "interval_ms = 1_000",
        "interval_ms = \"1s\"",
        (22, 15),
        "`interval_ms`: invalid type: string \"1s\"",
        "",
    ),
    case("interval_ms = 1_000\n", "", (19, 6), "missing field `interval_ms`", ""),
    case("period = 5", "period = 0", (28, 10), "`period` is 0", ""),
    case(
        "from = [\"vector\"]",
        "from = [\"bars\"]",
        (48, 9),
        "operator `bars` carries Bar, but operator `rule` (momentum) takes FeatureVector",
        "",
    ),
    case(
        "from = [\"bars\"]\nperiod = 5",
        "from = [\"ticks\"]\nperiod = 5",
        (27, 9),
        "input `ticks` carries Trade, Quote, BookSnapshot, BookDelta, but operator `fast` (ema) takes Bar",
        "",
    ),
    case(
        "role = \"broadcast\"",
        "role = \"keyed\"\n[topics.\"reference.instruments.v1\"]\npartitions = 4",
        (59, 27),
        "input `instruments` carries Instrument, but operator `wants` (intents) takes Signal, Quote, MarkPrice",
        "role = \"broadcast\"",
    ),
    case(
        "slow = \"slow\"\n",
        "slow = \"slo\"\n",
        (51, 8),
        "operator `rule` needs the feature `slo`",
        "nearest name is `slow`",
    ),
    case(
        "features = [\"fast\", \"slow\"]",
        "features = [\"fast\"]",
        (51, 8),
        "operator `rule` needs the feature `slow`",
        "it is offered fast",
    ),
    case(
        "type = \"order_book\"\nfrom = [\"ticks\"]",
        "type = \"order_book\"\nfrom = [\"ticks\", \"wants\"]",
        (55, 6),
        "circle: quotes -> wants -> quotes",
        "through a topic",
    ),
    // Outputs.
    case(
        "topic = \"signals.v1\"",
        "topic = \"signal.v1\"",
        (67, 9),
        "unknown topic `signal.v1`",
        "nearest name is `signals.v1`",
    ),
    case(
        "from = [\"rule\"]\n\n[[stage.output]]",
        "from = [\"rules\"]\n\n[[stage.output]]",
        (68, 9),
        "unknown operator `rules`",
        "nearest name is `rule`",
    ),
    case(
        "topic = \"signals.v1\"\nfrom = [\"rule\"]",
        "topic = \"signals.v1\"\nfrom = [\"bars\"]",
        (68, 9),
        "operator `bars` gives Bar, none of which goes to `signals.v1` (Signal)",
        "",
    ),
    case(
        "topic = \"signals.v1\"",
        "topic = \"signals.v1\"\nkinds = [\"Signa\"]",
        (68, 10),
        "unknown kind of record `Signa`",
        "nearest name is `Signal`",
    ),
    case(
        "topic = \"signals.v1\"",
        "topic = \"signals.v1\"\nkinds = [\"Bar\"]",
        (68, 10),
        "`signals.v1` takes Signal, not Bar",
        "",
    ),
    case(
        "topic = \"signals.v1\"",
        "topic = \"signals.v1\"\nkey = [\"strategy\"]",
        (68, 8),
        "the key of `signals.v1` is always instrument",
        "leave `key` out",
    ),
    case(
        "topic = \"intents.v1\"",
        "topic = \"signals.v1\"",
        (71, 9),
        "two outputs to `signals.v1`",
        "one output",
    ),
    // Topics and bounds.
    case(
        "partitions = 4",
        "partitions = 4\n[topics.\"signals.v1\"]\nkinds = [\"Bar\"]",
        (4, 9),
        "records of `signals.v1` are fixed",
        "",
    ),
    case(
        "partitions = 4",
        "partitions = 4\n[topics.\"dead-letters.v1\"]\npartitions = 2",
        (4, 9),
        "must have the same number of partitions",
        "",
    ),
    case(
        "partitions = 4",
        "partitions = 4\n[engine]\nmax_record = 5",
        (5, 1),
        "unknown key in [engine]: `max_record`",
        "`max_records`",
    ),
    case(
        "name = \"features\"",
        "name = \"features\"\non_error = \"skip\"",
        (7, 12),
        "unknown value of `on_error`: `skip`",
        "dead-letter",
    ),
];

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
        digest(&GOOD.replacen("idle", "idle", 1).replacen(
            "role = \"driving\"",
            "role = \"driving\"\nidle_after_ms = 9",
            1
        )),
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

/// Takes what an account's stage takes and gives what it gives, at once or after a time.
struct Step {
    accepts: Kind,
    emits: Kind,
    delays: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepSettings {
    accepts: String,
    emits: String,
    #[serde(default)]
    delays: bool,
}

impl Configured for Step {
    const NAME: &'static str = "step";
    const ABOUT: &'static str = "For tests";
    type Settings = StepSettings;

    fn new(settings: StepSettings) -> Result<Self, String> {
        let kind = |name: &str| Kind::from_name(name).ok_or_else(|| format!("no kind {name}"));
        Ok(Self { accepts: kind(&settings.accepts)?, emits: kind(&settings.emits)?, delays: settings.delays })
    }
}

impl Operator for Step {
    type State = ();
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![self.accepts],
            emits: vec![self.emits],
            delays: self.delays,
            ..Interface::default()
        }
    }

    fn on_record(&self, _: &mut Cx<'_>, _: &Input<'_>, (): &mut (), (): &()) -> Result<(), Fault> {
        Ok(())
    }
}

const CYCLE: &str = r#"
[pipeline]
name = "cycle"

[[stage]]
name = "risk"
[[stage.input]]
id = "intents"
topic = "intents.v1"
role = "driving"
[[stage.input]]
id = "executions"
topic = "executions.v1"
role = "keyed"
[[stage.operator]]
id = "orders"
type = "step"
from = ["intents"]
accepts = "OrderIntent"
emits = "NewOrder"
[[stage.operator]]
id = "again"
type = "step"
from = ["executions"]
accepts = "ExecutionReport"
emits = "NewOrder"
[[stage.output]]
topic = "venue.commands.v1"
from = ["orders", "again"]

[[stage]]
name = "venue"
[[stage.input]]
id = "commands"
topic = "venue.commands.v1"
role = "driving"
[[stage.operator]]
id = "paper"
type = "step"
from = ["commands"]
accepts = "NewOrder"
emits = "ExecutionReport"
delays = true
[[stage.output]]
topic = "executions.v1"
from = ["paper"]
"#;

fn check_cycle(text: &str) -> Result<Pipeline, PipelineError> {
    const STEPS: &[OperatorType] = &[OperatorType::of::<Step>()];
    load("cycle.toml", text, STEPS, Setting::default())
}

#[test]
fn a_cycle_between_stages_needs_a_delay() {
    let pipeline = check_cycle(CYCLE).unwrap_or_else(|error| panic!("{error}"));
    let risk = &pipeline.stages[0];
    assert!(risk.makes_orders, "a stage that writes NewOrder makes orders");
    assert!(risk.inputs[0].external && !risk.inputs[1].external, "who writes a topic decides");
    assert!(!pipeline.stages[1].has_watermark());
    let Err(error) = check_cycle(&CYCLE.replacen("delays = true", "delays = false", 1)) else {
        panic!("a cycle without delay was taken")
    };
    let shown = error.to_string();
    let way = "executions.v1 -> risk -> venue.commands.v1 -> venue -> executions.v1";
    assert!(shown.starts_with("cycle.toml:6:8: stages form a cycle without delay: "), "{shown}");
    assert!(shown.contains(way), "{shown}");
    // The way in from outside is no part of the cycle: without the way back there is none.
    let one_way = CYCLE.replacen("delays = true", "delays = false", 1).replacen(
        "from = [\"orders\", \"again\"]",
        "from = [\"orders\"]",
        1,
    );
    assert!(check_cycle(&one_way).is_ok());
}

#[test]
fn a_stage_that_makes_orders_can_not_say_otherwise() {
    let text = CYCLE.replacen("name = \"risk\"", "name = \"risk\"\nmakes_orders = false", 1);
    let Err(error) = check_cycle(&text) else { panic!("it was taken") };
    assert!(
        error.to_string().contains("stage `risk` writes NewOrder records, so it makes orders"),
        "{error}"
    );
}
