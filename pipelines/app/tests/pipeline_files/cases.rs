//! The good file, and what is told when a piece of it is replaced.

/// A small pipeline in which everything is right. Line numbers of the cases count in it.
pub const GOOD: &str = r#"[pipeline]
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
pub const LIMITS: &str = r#"
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

/// One row: what is replaced in the good file, by what, and what is said: line, column, words, help.
pub struct Case {
    pub replace: &'static str,
    pub by: &'static str,
    pub line: usize,
    pub column: usize,
    pub says: &'static str,
    pub help: &'static str,
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

pub const LIMIT_CASES: &[Case] = &[
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

pub const CASES: &[Case] = &[
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
