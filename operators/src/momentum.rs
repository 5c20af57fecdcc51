//! `momentum`: a rule of two averages, confirmed by an oscillator and by sentiment.
//!
//! Takes feature vectors, gives a [`Signal`] when the direction changes. Let `edge = (fast / slow - 1) * 10 000`, in
//! basis points. For LONG, `edge` counts as it is, the oscillator `r` as it is and sentiment as it is; for SHORT
//! they are mirrored to `-edge`, `100 - r` and `-sentiment`. A direction
//!
//! * begins when `edge >= hysteresis_bps`, `rsi_low <= r <= rsi_high` and `sentiment >= min_sentiment`;
//! * holds while `edge > 0` and the other two hold: so a value around the threshold does not flip it;
//! * ends as FLAT when it no longer holds, or when its horizon is over (`expiry` = `event_time` + `horizon_ms`), or
//!   turns into the other when that begins.
//!
//! LONG and SHORT come no sooner than `cooldown_ms` after the last signal; FLAT is never held back. Without `rsi` or
//! `sentiment` in the settings that condition is left out. A vector without a value that the settings name, or with
//! one that is not finite, changes nothing: that is the warm-up. So does one older than the last.
//!
//! Strength is `min(1, edge / full_strength_bps)`. Confidence is the mean of how far inside its bounds each
//! condition is, 0 to 1: strength, `(r - rsi_low) / (rsi_high - rsi_low)` and `(sentiment - min_sentiment) / (1 -
//! min_sentiment)`. FLAT has strength 0 and confidence 1. `values` are the numbers used, with `edge_bps`.

use std::collections::BTreeMap;

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Key, Operator, Timer, Whole, persist};
use tidewire_schemas::{Direction, EventTime, FeatureVector, Kind, Record, Signal};

use crate::common::{MAX_SPAN_MS, check_between, check_float, check_name, check_span};

/// Settings of [`Momentum`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of the strategy.
    pub strategy: SmolStr,
    /// Feature: the fast average.
    pub fast: SmolStr,
    /// Feature: the slow average.
    pub slow: SmolStr,
    /// Feature: an oscillator from 0 to 100.
    #[serde(default)]
    pub rsi: Option<SmolStr>,
    /// Feature: sentiment from -1 to 1.
    #[serde(default)]
    pub sentiment: Option<SmolStr>,
    /// Least oscillator for LONG.
    #[serde(default = "default_rsi_low")]
    pub rsi_low: f64,
    /// Greatest oscillator for LONG.
    #[serde(default = "default_rsi_high")]
    pub rsi_high: f64,
    /// Least sentiment for LONG.
    #[serde(default)]
    pub min_sentiment: f64,
    /// By how much the fast average must lead to begin, in basis points.
    #[serde(default = "default_hysteresis_bps")]
    pub hysteresis_bps: f64,
    /// The lead that counts as full strength, in basis points.
    #[serde(default = "default_full_strength_bps")]
    pub full_strength_bps: f64,
    /// Least time from a signal to the next LONG or SHORT, in milliseconds.
    #[serde(default)]
    pub cooldown_ms: i64,
    /// How far ahead a signal looks, in milliseconds.
    pub horizon_ms: i64,
}

fn default_rsi_low() -> f64 {
    45.0
}
fn default_rsi_high() -> f64 {
    80.0
}
fn default_hysteresis_bps() -> f64 {
    1.0
}
fn default_full_strength_bps() -> f64 {
    20.0
}

/// See the module.
pub struct Momentum {
    settings: Settings,
}

persist! {
    /// Where the rule stands for an instrument.
    #[derive(Clone, Debug, Default)]
    pub struct Stance {
        last_vector: Option<EventTime>,
        last_signal: Option<EventTime>,
        direction: Direction,
        expiry: EventTime,
        signals: u64,
    }
}

/// The numbers of a vector that the rule uses.
struct Reading {
    edge_bps: f64,
    rsi: Option<f64>,
    sentiment: Option<f64>,
    values: BTreeMap<SmolStr, f64>,
}

impl Configured for Momentum {
    const NAME: &'static str = "momentum";
    const ABOUT: &'static str = "Rule: fast average over slow, confirmed by RSI and sentiment, gives signals";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_name("strategy", &settings.strategy)?;
        check_float("rsi_low", settings.rsi_low, 0.0, 100.0)?;
        check_float("rsi_high", settings.rsi_high, 0.0, 100.0)?;
        if settings.rsi_low >= settings.rsi_high {
            return Err("`rsi_low` must be below `rsi_high`".into());
        }
        check_float("min_sentiment", settings.min_sentiment, -1.0, 0.999)?;
        check_float("hysteresis_bps", settings.hysteresis_bps, 1e-9, 10_000.0)?;
        check_float("full_strength_bps", settings.full_strength_bps, 1e-9, 10_000.0)?;
        check_between("cooldown_ms", settings.cooldown_ms, 0, MAX_SPAN_MS)?;
        check_span("horizon_ms", settings.horizon_ms)?;
        Ok(Self { settings })
    }
}

impl Operator for Momentum {
    type State = Whole<Stance>;
    type Shared = ();

    fn interface(&self) -> Interface {
        let s = &self.settings;
        Interface {
            accepts: vec![Kind::FeatureVector],
            emits: vec![Kind::Signal],
            features_in: [Some(&s.fast), Some(&s.slow), s.rsi.as_ref(), s.sentiment.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        stance: &mut Whole<Stance>,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::FeatureVector(vector) = input.record else { return Ok(()) };
        let now = vector.event_time;
        if stance.last_vector.is_some_and(|last| now < last) {
            return Ok(());
        }
        let Some(reading) = self.read(vector) else { return Ok(()) };
        stance.last_vector = Some(now);
        // What ended before this vector ends first, whether or not its timer could fire by now.
        if stance.direction != Direction::Flat && stance.expiry <= now {
            let expiry = stance.expiry;
            self.signal(cx, input.key, stance, Direction::Flat, expiry, None);
        }
        let wanted = self.wanted(&reading, stance.direction);
        if wanted == stance.direction {
            return Ok(());
        }
        let cooled = stance.last_signal.is_none_or(|last| now >= last.plus_ms(self.settings.cooldown_ms));
        if wanted == Direction::Flat || cooled {
            self.signal(cx, input.key, stance, wanted, now, Some(reading));
        } else if stance.direction != Direction::Flat {
            // The other direction begins within the cooldown: this one has ended all the same.
            self.signal(cx, input.key, stance, Direction::Flat, now, Some(reading));
        }
        Ok(())
    }

    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        stance: &mut Whole<Stance>,
        (): &(),
    ) -> Result<(), Fault> {
        if stance.direction != Direction::Flat && stance.expiry == timer.at {
            self.signal(cx, &timer.key, stance, Direction::Flat, timer.at, None);
        }
        Ok(())
    }
}

impl Momentum {
    fn read(&self, vector: &FeatureVector) -> Option<Reading> {
        let mut values = BTreeMap::new();
        let mut take = |name: &SmolStr| {
            let value = vector.values.get(name).copied().filter(|value| value.is_finite())?;
            values.insert(name.clone(), value);
            Some(value)
        };
        let (fast, slow) = (take(&self.settings.fast)?, take(&self.settings.slow)?);
        let rsi = self.settings.rsi.as_ref().map(&mut take);
        let sentiment = self.settings.sentiment.as_ref().map(&mut take);
        if slow <= 0.0 || rsi == Some(None) || sentiment == Some(None) {
            return None;
        }
        let edge_bps = (fast / slow - 1.0) * 10_000.0;
        values.insert("edge_bps".into(), edge_bps);
        Some(Reading { edge_bps, rsi: rsi.flatten(), sentiment: sentiment.flatten(), values })
    }

    /// The direction that the numbers call for, given the one that holds.
    fn wanted(&self, reading: &Reading, now: Direction) -> Direction {
        for direction in [Direction::Long, Direction::Short] {
            let mirrored = reading.mirrored(direction);
            let enough = if now == direction {
                mirrored.edge_bps > 0.0
            } else {
                mirrored.edge_bps >= self.settings.hysteresis_bps
            };
            let rsi_fits = mirrored
                .rsi
                .is_none_or(|rsi| (self.settings.rsi_low..=self.settings.rsi_high).contains(&rsi));
            let sentiment_fits = mirrored.sentiment.is_none_or(|s| s >= self.settings.min_sentiment);
            if enough && rsi_fits && sentiment_fits {
                return direction;
            }
        }
        Direction::Flat
    }

    fn signal(
        &self,
        cx: &mut Cx<'_>,
        instrument: &Key,
        stance: &mut Whole<Stance>,
        direction: Direction,
        now: EventTime,
        reading: Option<Reading>,
    ) {
        let expiry = now.plus_ms(self.settings.horizon_ms);
        let id = cx.id(stance.signals).into();
        let (strength, confidence) = match &reading {
            Some(reading) if direction != Direction::Flat => self.conviction(&reading.mirrored(direction)),
            _ => (0.0, 1.0),
        };
        stance.signals += 1;
        stance.direction = direction;
        stance.last_signal = Some(now);
        stance.expiry = expiry;
        if direction != Direction::Flat {
            cx.set_timer(expiry, 0);
        }
        cx.emit(Signal {
            id,
            instrument: instrument.clone(),
            strategy: self.settings.strategy.clone(),
            direction,
            strength,
            confidence,
            event_time: now,
            horizon_ms: self.settings.horizon_ms,
            expiry,
            values: reading.map(|reading| reading.values).unwrap_or_default(),
        });
    }

    fn conviction(&self, reading: &Reading) -> (f64, f64) {
        let s = &self.settings;
        let strength = (reading.edge_bps / s.full_strength_bps).clamp(0.0, 1.0);
        let rsi = reading.rsi.map(|rsi| (rsi - s.rsi_low) / (s.rsi_high - s.rsi_low));
        let sentiment = reading.sentiment.map(|x| (x - s.min_sentiment) / (1.0 - s.min_sentiment));
        let parts = [Some(strength), rsi, sentiment];
        let (sum, count) =
            parts.iter().flatten().fold((0.0, 0.0), |(sum, n), x| (sum + x.clamp(0.0, 1.0), n + 1.0));
        (strength, sum / count)
    }
}

impl Reading {
    /// As seen by a direction: for SHORT, what speaks for falling prices.
    fn mirrored(&self, direction: Direction) -> Reading {
        let short = direction == Direction::Short;
        Reading {
            edge_bps: if short { -self.edge_bps } else { self.edge_bps },
            rsi: self.rsi.map(|rsi| if short { 100.0 - rsi } else { rsi }),
            sentiment: self.sentiment.map(|s| if short { -s } else { s }),
            values: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, ms, only};

    const SETTINGS: &str = "strategy = 'm'\nfast = 'f'\nslow = 's'\nrsi = 'r'\nsentiment = 'n'\n\
        hysteresis_bps = 10\nfull_strength_bps = 40\nrsi_low = 40\nrsi_high = 80\nmin_sentiment = -0.5\n\
        cooldown_ms = 1000\nhorizon_ms = 10000";

    fn vector(at: i64, edge_bps: f64, rsi: f64, sentiment: f64) -> FeatureVector {
        let values =
            [("f", 1.0 + edge_bps / 10_000.0), ("s", 1.0), ("r", rsi), ("n", sentiment), ("other", 7.0)];
        let values = values.map(|(name, value)| (SmolStr::from(name), value)).into();
        FeatureVector { instrument: "A.V".into(), event_time: ms(at), values }
    }

    fn directions(records: &[Record]) -> Vec<&'static str> {
        only::<Signal>(records).iter().map(|signal| signal.direction.name()).collect()
    }

    #[test]
    fn begins_holds_and_ends() {
        for mut rule in [Harness::new::<Momentum>(SETTINGS), Harness::new::<Momentum>(SETTINGS).restarting()]
        {
            for (at, edge, rsi, sentiment, want) in [
                (0, 9.0, 60.0, 0.0, None),
                (1, 11.0, 39.0, 0.0, None),
                (2, 11.0, 81.0, 0.0, None),
                (3, 11.0, 60.0, -0.6, None),
                (4, 11.0, 60.0, 0.0, Some("LONG")),
                (5, 20.0, 60.0, 0.0, None),
                (6, 1.0, 60.0, 0.0, None),
                (7, -1.0, 60.0, 0.0, Some("FLAT")),
                // Within the cooldown of the FLAT.
                (8, 11.0, 60.0, 0.0, None),
                (1_007, 11.0, 60.0, 0.0, Some("LONG")),
                // Mirrored: 100 - 35 = 65.
                (2_007, -11.0, 35.0, 0.4, Some("SHORT")),
                (2_008, -5.0, 35.0, 0.6, Some("FLAT")),
                (3_008, -11.0, 35.0, 0.4, Some("SHORT")),
                // The other way within the cooldown: FLAT at once, LONG only when it is over.
                (3_009, 11.0, 60.0, 0.0, Some("FLAT")),
                (4_008, 11.0, 60.0, 0.0, None),
                (4_009, 11.0, 60.0, 0.0, Some("LONG")),
                (4_008, -50.0, 60.0, 0.0, None),
            ] {
                let got = directions(&rule.send("A.V", vector(at, edge, rsi, sentiment)));
                assert_eq!(got, want.into_iter().collect::<Vec<_>>(), "at {at}");
            }
        }
    }

    #[test]
    fn a_signal_explains_itself() {
        let mut rule = Harness::new::<Momentum>(SETTINGS);
        let signal = only::<Signal>(&rule.send("A.V", vector(500, 12.0, 60.0, 0.25))).remove(0);
        assert_eq!(signal.id, "node:A.V:0");
        assert_eq!((signal.event_time, signal.expiry, signal.horizon_ms), (ms(500), ms(10_500), 10_000));
        let names: Vec<_> = signal.values.keys().map(SmolStr::as_str).collect();
        assert_eq!(names, ["edge_bps", "f", "n", "r", "s"]);
        assert!((signal.strength - 0.3).abs() < 1e-9, "{}", signal.strength);
        // (0.3 + 20 / 40 + 0.75 / 1.5) / 3
        assert!((signal.confidence - 1.3 / 3.0).abs() < 1e-9, "{}", signal.confidence);
    }

    #[test]
    fn the_horizon_ends_a_signal() {
        let mut rule = Harness::new::<Momentum>(SETTINGS);
        rule.send("A.V", vector(0, 20.0, 60.0, 0.0));
        rule.send("A.V", vector(5_000, -20.0, 40.0, 0.0));
        assert!(
            rule.advance_to(ms(14_999)).is_empty(),
            "the first expiry, at 10000, is that of a signal gone by"
        );
        let flat = only::<Signal>(&rule.advance_to(ms(15_000))).remove(0);
        assert_eq!((flat.direction, flat.event_time), (Direction::Flat, ms(15_000)));
        assert!(rule.advance_to(ms(99_000)).is_empty());
    }

    #[test]
    fn a_horizon_that_is_over_ends_before_the_next_vector() {
        let mut rule = Harness::new::<Momentum>(SETTINGS).out_of_orderness_ms(60_000);
        rule.send("A.V", vector(0, 20.0, 60.0, 0.0));
        let signals = only::<Signal>(&rule.send("A.V", vector(12_000, 20.0, 60.0, 0.0)));
        let got: Vec<_> = signals.iter().map(|s| (s.direction, s.event_time)).collect();
        assert_eq!(got, [(Direction::Flat, ms(10_000)), (Direction::Long, ms(12_000))]);
    }

    #[test]
    fn incomplete_vectors_change_nothing() {
        let mut rule = Harness::new::<Momentum>(SETTINGS);
        rule.send("A.V", vector(0, 20.0, 60.0, 0.0));
        for (missing, nan) in [("f", false), ("s", true), ("r", false), ("n", true)] {
            let mut vector = vector(2_000, -50.0, 40.0, 0.0);
            vector.values.remove(missing);
            if nan {
                vector.values.insert(missing.into(), f64::NAN);
            }
            assert!(rule.send("A.V", vector).is_empty(), "{missing}");
        }
        assert_eq!(directions(&rule.send("A.V", vector(2_000, -50.0, 40.0, 0.0))), ["SHORT"]);
    }

    #[test]
    fn conditions_can_be_left_out() {
        let mut rule = Harness::new::<Momentum>("strategy = 'm'\nfast = 'f'\nslow = 's'\nhorizon_ms = 1");
        assert_eq!(directions(&rule.send("A.V", vector(0, 2.0, 0.0, -1.0))), ["LONG"]);
    }
}
