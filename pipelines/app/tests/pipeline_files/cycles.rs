//! Cycles between stages, and stages that make orders.

use serde::Deserialize;
use tidewire::pipeline::{Pipeline, PipelineError, Setting, load};
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, OperatorType};
use tidewire_schemas::Kind;

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
