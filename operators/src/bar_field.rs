//! What indicators over bars share: which number of a bar they take, and which bars they take at all.

use serde::Deserialize;
use smol_str::{SmolStr, format_smolstr};
use tidewire_contract::Input;
use tidewire_schemas::{Bar, EventTime, FieldId, Kind, Record};

use crate::common::{check_between, check_name};

/// Longest period of an indicator, in bars.
pub const MAX_PERIOD: i64 = 100_000;

/// Settings of an indicator of one period.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Number of bars.
    pub period: i64,
    /// Which number of the bar it takes.
    #[serde(default = "default_field")]
    pub field: SmolStr,
    /// Name of the feature value; by default the indicator's name and its period, such as `ema_12`.
    #[serde(default)]
    pub name: Option<SmolStr>,
}

fn default_field() -> SmolStr {
    "close".into()
}

/// Settings that were checked.
#[derive(Clone, Debug)]
pub(crate) struct Indicator {
    pub period: u32,
    pub field: FieldId,
    pub name: SmolStr,
}

impl Indicator {
    pub fn new(kind: &str, least_period: i64, settings: Settings) -> Result<Self, String> {
        check_between("period", settings.period, least_period, MAX_PERIOD)?;
        let period = u32::try_from(settings.period).map_err(|error| error.to_string())?;
        let field = Kind::Bar.numeric_field(&settings.field).ok_or_else(|| {
            let all: Vec<_> = Kind::Bar.numbers().map(FieldId::name).collect();
            format!("`field` is `{}`, which no bar has; use one of {}", settings.field, all.join(", "))
        })?;
        let name = settings.name.unwrap_or_else(|| format_smolstr!("{kind}_{period}"));
        check_name("name", &name)?;
        Ok(Self { period, field, name })
    }

    /// The bar at hand with its number, unless it is a revision or not newer than the last one taken.
    /// An indicator is never corrected afterwards.
    pub fn take<'a>(&self, input: &'a Input<'_>, last: Option<EventTime>) -> Option<(&'a Bar, f64)> {
        let Record::Bar(bar) = input.record else { return None };
        if bar.revision > 0 || last.is_some_and(|last| bar.event_time <= last) {
            return None;
        }
        Some((bar, input.record.number(self.field)?))
    }
}
