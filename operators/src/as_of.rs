//! `as_of`: the last value of each feature, joined into one vector.
//!
//! Takes feature values, gives a [`FeatureVector`] an instrument and occasion. Occasions are either
//!
//! * `every_ms`: each boundary T of that length since 1970. The vector holds the last value of each feature with an
//!   event time not after T, whatever else is known by then, and has `event_time` = T; or
//! * `trigger`: each new value of the feature of that name. The vector holds the last value of each with an event
//!   time not after the trigger's, and has that event time.
//!
//! A value counts from its event time, which for feature values is when it became available: so a vector never looks
//! ahead. All of `features` must be there and no older than `max_age_ms` (or their own bound), otherwise there is no
//! vector: that is the warm-up. `optional` ones are left out where they are missing or too old. A value older than
//! the last one of its name changes nothing.

use std::collections::BTreeMap;

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, MapState, Operator, Timer, persist};
use tidewire_schemas::{EventTime, FeatureValue, FeatureVector, Kind, Record};

use crate::common::{boundary_after, boundary_at_or_after, check_name, check_span};

/// Most features a vector may have.
pub const MAX_FEATURES: usize = 1_000;

/// Most boundaries ahead of the watermark for which values of one feature are held.
pub const MAX_BOUNDARIES_AHEAD: usize = 10_000;

/// Settings of [`AsOf`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Features that every vector has.
    pub features: Vec<SmolStr>,
    /// Features that a vector has when they are there.
    #[serde(default)]
    pub optional: Vec<SmolStr>,
    /// Distance of the vectors in milliseconds.
    #[serde(default)]
    pub every_ms: Option<i64>,
    /// The feature whose values call for a vector each.
    #[serde(default)]
    pub trigger: Option<SmolStr>,
    /// Greatest age of a value, in milliseconds.
    #[serde(default = "default_max_age_ms")]
    pub max_age_ms: i64,
    /// Greatest age of single features' values, where it differs.
    #[serde(default)]
    pub max_age_ms_by_name: BTreeMap<SmolStr, i64>,
}

fn default_max_age_ms() -> i64 {
    300_000
}

/// When vectors are made.
#[derive(Clone, Debug)]
enum Occasion {
    Every(i64),
    Trigger(SmolStr),
}

/// See the module.
pub struct AsOf {
    required: Vec<SmolStr>,
    occasion: Occasion,
    /// Greatest age of each feature, required or not.
    max_age_ms: BTreeMap<SmolStr, i64>,
}

persist! {
    /// A value and when it became available.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Known {
        at: EventTime,
        value: f64,
    }
}

/// The last value by feature and by the first boundary that may see it. With a trigger each time is a boundary.
type Values = MapState<(SmolStr, EventTime), Known>;

impl Configured for AsOf {
    const NAME: &'static str = "as_of";
    const ABOUT: &'static str = "Joins the last values of named features into vectors, never looking ahead";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        let Settings { features, optional, every_ms, trigger, max_age_ms: default_age, max_age_ms_by_name } =
            settings;
        if features.is_empty() || features.len() + optional.len() > MAX_FEATURES {
            return Err(format!("`features` and `optional` must name 1 to {MAX_FEATURES} features"));
        }
        check_span("max_age_ms", default_age)?;
        let mut max_age_ms = BTreeMap::new();
        for name in features.iter().chain(&optional) {
            check_name("features", name)?;
            if max_age_ms.insert(name.clone(), default_age).is_some() {
                return Err(format!("feature `{name}` is named twice"));
            }
        }
        for (name, age) in max_age_ms_by_name {
            check_span("max_age_ms_by_name", age)?;
            let Some(entry) = max_age_ms.get_mut(&name) else {
                return Err(format!(
                    "`max_age_ms_by_name` has `{name}`, which is not in `features` or `optional`"
                ));
            };
            *entry = age;
        }
        let occasion = match (every_ms, trigger) {
            (Some(every_ms), None) => {
                check_span("every_ms", every_ms)?;
                Occasion::Every(every_ms)
            }
            (None, Some(trigger)) if max_age_ms.contains_key(&trigger) => Occasion::Trigger(trigger),
            (None, Some(trigger)) => {
                return Err(format!("`trigger` is `{trigger}`, which is not in `features` or `optional`"));
            }
            _ => return Err("set either `every_ms` or `trigger`".into()),
        };
        Ok(Self { required: features, occasion, max_age_ms })
    }
}

impl Operator for AsOf {
    type State = Values;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::FeatureValue],
            emits: vec![Kind::FeatureVector],
            features_in: self.required.clone(),
            features_out: self.max_age_ms.keys().cloned().collect(),
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        values: &mut Values,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::FeatureValue(value) = input.record else { return Ok(()) };
        if !self.max_age_ms.contains_key(&value.name) {
            return Ok(());
        }
        match &self.occasion {
            Occasion::Trigger(trigger) => {
                let newest = values.range(of_name(&value.name)).next_back();
                let is_newest = newest.is_none_or(|(_, known)| known.at <= value.event_time);
                put(values, value, value.event_time);
                forget_behind(cx, values, &value.name);
                if is_newest && *trigger == value.name {
                    self.give(cx, input.key, values, value.event_time);
                }
            }
            Occasion::Every(every_ms) => {
                let mut boundary = boundary_at_or_after(value.event_time, *every_ms);
                if let Some(watermark) = cx.moment().watermark
                    && watermark >= boundary
                {
                    // That boundary is past; the next one can see it.
                    boundary = boundary_after(watermark, *every_ms);
                }
                if has_most(values, &value.name) {
                    let text = format!(
                        "{} has values of `{}` for {MAX_BOUNDARIES_AHEAD} boundaries ahead: event times are too far apart",
                        input.key, value.name
                    );
                    return Err(Fault::new("too-many-boundaries", text));
                }
                put(values, value, boundary);
                cx.set_timer(boundary, 0);
            }
        }
        Ok(())
    }

    fn on_timer(&self, cx: &mut Cx<'_>, timer: &Timer, values: &mut Values, (): &()) -> Result<(), Fault> {
        let Occasion::Every(every_ms) = self.occasion else { return Ok(()) };
        for name in self.max_age_ms.keys() {
            let seen = values.range((name.clone(), EventTime::MIN)..=(name.clone(), timer.at));
            let mut superseded: Vec<_> = seen.map(|(place, _)| place.clone()).collect();
            superseded.pop();
            for place in superseded {
                values.remove(&place);
            }
        }
        if self.give(cx, &timer.key, values, timer.at) {
            // Silence ends this: once a value is too old, the next value sets the next timer.
            cx.set_timer(timer.at.plus_ms(every_ms), 0);
        }
        Ok(())
    }
}

impl AsOf {
    /// Gives out the vector as of `now`, if all that it must have is there.
    fn give(&self, cx: &mut Cx<'_>, instrument: &SmolStr, values: &Values, now: EventTime) -> bool {
        let mut vector = BTreeMap::new();
        for (name, max_age_ms) in &self.max_age_ms {
            let mut seen = values.range((name.clone(), EventTime::MIN)..=(name.clone(), now));
            let Some((_, known)) = seen.next_back() else { continue };
            if known.at.plus_ms(*max_age_ms) >= now {
                vector.insert(name.clone(), known.value);
            }
        }
        if !self.required.iter().all(|name| vector.contains_key(name)) {
            return false;
        }
        cx.emit(FeatureVector { instrument: instrument.clone(), event_time: now, values: vector });
        true
    }
}

/// Of the values that the watermark has passed, only the last one can still be asked for.
fn forget_behind(cx: &Cx<'_>, values: &mut Values, name: &SmolStr) {
    while let Some(first) = superseded(cx, values, name) {
        values.remove(&first);
    }
}

/// The place of a feature's oldest value, if the next one replaces it for good.
fn superseded(cx: &Cx<'_>, values: &Values, name: &SmolStr) -> Option<(SmolStr, EventTime)> {
    let mut held = values.range(of_name(name)).map(|(place, _)| place);
    let (first, second) = (held.next()?, held.next()?);
    (cx.has_passed(second.1) || has_most(values, name)).then(|| first.clone())
}

/// Whether as many values of a feature are held as may be. They are counted only where there could be so many.
fn has_most(values: &Values, name: &SmolStr) -> bool {
    values.len() >= MAX_BOUNDARIES_AHEAD && values.range(of_name(name)).count() >= MAX_BOUNDARIES_AHEAD
}

/// Holds a value for a boundary, unless a newer one of its name is held for this or an earlier boundary.
fn put(values: &mut Values, value: &FeatureValue, boundary: EventTime) -> bool {
    let upto = (value.name.clone(), EventTime::MIN)..=(value.name.clone(), boundary);
    // The later the boundary the newer the value, since both only go forward: the last one is the newest.
    if values.range(upto).next_back().is_some_and(|(_, known)| known.at > value.event_time) {
        return false;
    }
    values.insert((value.name.clone(), boundary), Known { at: value.event_time, value: value.value });
    true
}

fn of_name(name: &SmolStr) -> std::ops::RangeInclusive<(SmolStr, EventTime)> {
    (name.clone(), EventTime::MIN)..=(name.clone(), EventTime::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, ms, only};

    fn value(name: &str, at: i64, value: f64) -> FeatureValue {
        FeatureValue { instrument: "A.V".into(), event_time: ms(at), name: name.into(), value }
    }

    fn rows(records: &[Record]) -> Vec<String> {
        let row = |v: &FeatureVector| {
            let values: Vec<_> = v.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{} {}", v.event_time.as_ms(), values.join(" "))
        };
        only::<FeatureVector>(records).iter().map(row).collect()
    }

    const EVERY: &str = "features = ['a', 'b']\noptional = ['c']\nevery_ms = 1000\nmax_age_ms = 2500";

    #[test]
    fn a_vector_never_looks_ahead() {
        for restarting in [false, true] {
            let mut join = Harness::new::<AsOf>(EVERY).out_of_orderness_ms(1_500);
            if restarting {
                join = join.restarting();
            }
            let mut got = Vec::new();
            for (name, at) in [
                ("a", 100),
                ("b", 1_000),
                ("a", 1_001),
                ("a", 900),
                ("b", 2_400),
                ("c", 2_500),
                ("b", 2_300),
                ("x", 1),
            ] {
                got.extend(join.send("A.V", value(name, at, at as f64)));
            }
            // At 2500 the watermark is at 1000. What came for later is not in it, what came out of order is.
            assert_eq!(rows(&got), ["1000 a=900 b=1000"]);
            assert_eq!(
                rows(&join.advance_to(ms(3_000))),
                ["2000 a=1001 b=1000", "3000 a=1001 b=2400 c=2500"]
            );
        }
    }

    #[test]
    fn warm_up_and_age() {
        let mut join = Harness::new::<AsOf>(EVERY);
        join.send("A.V", value("a", 100, 1.0));
        assert!(rows(&join.advance_to(ms(5_000))).is_empty(), "b is missing");
        join.send("A.V", value("b", 5_100, 2.0));
        assert!(rows(&join.advance_to(ms(6_000))).is_empty(), "a is too old");
        join.send("A.V", value("a", 6_100, 3.0));
        assert_eq!(rows(&join.advance_to(ms(99_000))), ["7000 a=3 b=2"], "then b is too old");
        assert_eq!(join.timers(), 0);
        // A bound of its own.
        let mut join = Harness::new::<AsOf>(&format!("{EVERY}\nmax_age_ms_by_name = {{ b = 9000 }}"));
        join.send("A.V", value("b", 100, 2.0));
        join.send("A.V", value("a", 6_100, 3.0));
        assert_eq!(rows(&join.advance_to(ms(99_000))), ["7000 a=3 b=2", "8000 a=3 b=2"]);
    }

    #[test]
    fn a_day_late_changes_nothing() {
        let mut join = Harness::new::<AsOf>(EVERY);
        for at in [86_400_100, 86_400_900] {
            join.send("A.V", value("a", at, 1.0));
            join.send("A.V", value("b", at, 2.0));
        }
        let entries = join.entries();
        assert!(join.send("A.V", value("b", 900, 99.0)).is_empty());
        assert_eq!(rows(&join.advance_to(ms(86_401_000))), ["86401000 a=1 b=2"]);
        assert_eq!(join.entries(), entries);
    }

    #[test]
    fn a_value_whose_boundary_has_passed_is_seen_by_the_next() {
        let mut join = Harness::new::<AsOf>(EVERY);
        join.send("A.V", value("b", 800, 9.0));
        join.send("A.V", value("b", 1_200, 2.0));
        assert!(
            join.send("A.V", value("a", 900, 1.0)).is_empty(),
            "1000 is over: nothing is said of it any more"
        );
        assert_eq!(rows(&join.advance_to(ms(2_000))), ["2000 a=1 b=2"]);
    }

    #[test]
    fn trigger() {
        for restarting in [false, true] {
            let settings = "features = ['a', 'b']\ntrigger = 'a'\nmax_age_ms = 100";
            let mut join = Harness::new::<AsOf>(settings).out_of_orderness_ms(50);
            if restarting {
                join = join.restarting();
            }
            assert!(join.send("A.V", value("a", 0, 1.0)).is_empty());
            assert!(join.send("A.V", value("b", 10, 2.0)).is_empty());
            assert!(join.send("A.V", value("a", 5, 3.0)).is_empty(), "b came later than that");
            assert_eq!(rows(&join.send("A.V", value("a", 12, 3.0))), ["12 a=3 b=2"]);
            assert!(join.send("A.V", value("a", 4, 9.0)).is_empty(), "older");
            join.send("A.V", value("b", 20, 7.0));
            assert_eq!(
                rows(&join.send("A.V", value("a", 15, 4.0))),
                ["15 a=4 b=2"],
                "not the b that came since"
            );
            assert!(join.send("A.V", value("a", 121, 9.0)).is_empty(), "b is too old");
        }
    }

    #[test]
    fn settings_that_can_not_be() {
        for (settings, words) in [
            ("features = []\nevery_ms = 1", "1 to 1000"),
            ("features = ['a']", "either"),
            ("features = ['a']\nevery_ms = 1\ntrigger = 'a'", "either"),
            ("features = ['a']\ntrigger = 'b'", "`b`"),
            ("features = ['a', 'a']\nevery_ms = 1", "twice"),
            ("features = ['a']\nevery_ms = 1\nmax_age_ms_by_name = { b = 1 }", "`b`"),
            ("features = ['a']\nevery_ms = 0", "`every_ms` is 0"),
        ] {
            let said = AsOf::new(toml::from_str(settings).unwrap()).err().unwrap();
            assert!(said.contains(words), "{settings}: {said}");
        }
    }
}
