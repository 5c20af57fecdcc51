//! `sentiment`: what is thought of an instrument's base asset, fading with time.
//!
//! Takes the broadcasts of sentiment scores and of instruments, and any record of an instrument (by which a task
//! knows which instruments are its own). Gives three feature values an instrument: `<name>`, `<name>_dispersion` and
//! `<name>_volume`.
//!
//! A score s with confidence c, made t ago, has the weight `w = c * 2^(-t / half_life)`. Over the scores of the
//! instrument's base asset and those of `*`:
//!
//! * volume `W = sum(w)`: how much is being said;
//! * value `sum(w s) / (W + prior_weight)`, -1 to 1: the weighted mean, drawn towards 0 by `prior_weight` of neutral
//!   opinion, so that it fades to 0 when nothing more is said (a mean alone would stand for ever);
//! * dispersion `sqrt(sum(w s^2) / W - m^2)` with `m = sum(w s) / W`: how divided opinion is.
//!
//! Values come with each new score that concerns the instrument and every `every_ms` while |value| is above
//! `epsilon`, and once more when it falls below. Warm-up: none before the first score. A score that comes after the
//! watermark has passed its time by `allowed_lateness_ms` goes to the late records; one within it counts by its own
//! age. Scores beyond [-1, 1], or confidences beyond [0, 1], are faults.

use serde::Deserialize;
use smol_str::{SmolStr, format_smolstr};
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Key, Keys, MapState, Operator, Timer, Whole, composite_state,
    persist,
};
use tidewire_schemas::{EventTime, FeatureValue, Kind, Record, SentimentScore};

use crate::common::{MAX_SPAN_MS, boundary_after, check_between, check_float, check_name, check_span};

/// Most scores of an asset between the watermark and now; beyond it the oldest join the sums early.
pub const MAX_FRESH: usize = 10_000;

/// Most assets that may have scores.
pub const MAX_ASSETS: usize = 100_000;

/// Scores of this asset count for all.
pub const EVERY_ASSET: &str = "*";

/// Settings of [`Sentiment`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// After how long a score counts half, in milliseconds.
    pub half_life_ms: i64,
    /// Name of the value; the others' names begin with it.
    #[serde(default = "default_name")]
    pub name: SmolStr,
    /// How often the fading value is given out, in milliseconds.
    #[serde(default = "default_every_ms")]
    pub every_ms: i64,
    /// Below this, a value is no longer given out.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
    /// Weight of neutral opinion that draws the value towards 0.
    #[serde(default = "default_prior_weight")]
    pub prior_weight: f64,
    /// How much older than the watermark a score may come; by default one half-life.
    #[serde(default)]
    pub allowed_lateness_ms: Option<i64>,
}

fn default_name() -> SmolStr {
    "sentiment".into()
}
fn default_every_ms() -> i64 {
    60_000
}
fn default_epsilon() -> f64 {
    0.001
}
fn default_prior_weight() -> f64 {
    1.0
}

/// See the module.
pub struct Sentiment {
    settings: Settings,
    allowed_lateness_ms: i64,
    names: [SmolStr; 3],
}

persist! {
    /// Sums over the scores of an asset, as they stood at a time.
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    pub struct Sums {
        at: EventTime,
        weight: f64,
        score: f64,
        square: f64,
    }
}

persist! {
    /// A score that the watermark has not passed yet.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Fresh {
        score: f64,
        confidence: f64,
    }
}

persist! {
    /// An instrument of this task.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Own {
        seen: bool,
        /// The timer that is set.
        next: Option<EventTime>,
    }
}

composite_state! {
    /// What the whole task knows.
    pub struct Opinions {
        by_asset: MapState<SmolStr, Sums>,
        /// By asset, time and arrival. They join the sums in this order, so that what a sum is as of a time does not
        /// depend on how far the watermark was when.
        fresh: MapState<(SmolStr, EventTime, u64), Fresh>,
        scores: Whole<u64>,
        base: MapState<SmolStr, SmolStr>,
    }
}

impl Configured for Sentiment {
    const NAME: &'static str = "sentiment";
    const ABOUT: &'static str =
        "Fading mean of sentiment scores for each instrument's base asset, with dispersion and volume";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_span("half_life_ms", settings.half_life_ms)?;
        check_span("every_ms", settings.every_ms)?;
        check_name("name", &settings.name)?;
        check_float("epsilon", settings.epsilon, 1e-9, 1.0)?;
        check_float("prior_weight", settings.prior_weight, 1e-9, 1e9)?;
        let allowed_lateness_ms = settings.allowed_lateness_ms.unwrap_or(settings.half_life_ms);
        check_between("allowed_lateness_ms", allowed_lateness_ms, 0, MAX_SPAN_MS)?;
        let name = &settings.name;
        let names = [name.clone(), format_smolstr!("{name}_dispersion"), format_smolstr!("{name}_volume")];
        Ok(Self { allowed_lateness_ms, names, settings })
    }
}

impl Operator for Sentiment {
    type State = Whole<Own>;
    type Shared = Opinions;

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Trade, Kind::Quote, Kind::BookSnapshot, Kind::BookDelta, Kind::Bar],
            broadcasts: vec![Kind::SentimentScore, Kind::Instrument],
            emits: vec![Kind::FeatureValue],
            features_out: self.names.to_vec(),
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        own: &mut Whole<Own>,
        shared: &Opinions,
    ) -> Result<(), Fault> {
        if !own.seen {
            own.seen = true;
            let now = input.record.event_time().unwrap_or(input.time);
            self.give(cx, input.key, own, shared, now);
        }
        Ok(())
    }

    fn on_broadcast(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        keys: &mut Keys<'_, Whole<Own>>,
        shared: &mut Opinions,
    ) -> Result<(), Fault> {
        match input.record {
            Record::Instrument(instrument) => {
                if shared.base.get(&instrument.instrument) != Some(&instrument.base) {
                    shared.base.insert(instrument.instrument.clone(), instrument.base.clone());
                }
                Ok(())
            }
            Record::SentimentScore(score) => self.take(cx, input, score, keys, shared),
            _ => Ok(()),
        }
    }

    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        own: &mut Whole<Own>,
        shared: &Opinions,
    ) -> Result<(), Fault> {
        // A timer that was overtaken by a sooner one says nothing.
        if own.next == Some(timer.at) {
            own.next = None;
            self.give(cx, &timer.key, own, shared, timer.at);
        }
        Ok(())
    }
}

impl Sentiment {
    fn take(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        score: &SentimentScore,
        keys: &mut Keys<'_, Whole<Own>>,
        shared: &mut Opinions,
    ) -> Result<(), Fault> {
        if !(-1.0..=1.0).contains(&score.score) || !(0.0..=1.0).contains(&score.confidence) {
            let text = format!(
                "score {} with confidence {} for {}: the score must be from -1 to 1, the confidence from 0 to 1",
                score.score, score.confidence, score.asset
            );
            return Err(Fault::new("bad-score", text));
        }
        let in_time_until = score.event_time.plus_ms(self.allowed_lateness_ms);
        if cx.has_passed(in_time_until) {
            cx.late(input, score.event_time, in_time_until);
            return Ok(());
        }
        if shared.by_asset.len() >= MAX_ASSETS && shared.by_asset.get(&score.asset).is_none() {
            let text = format!("{MAX_ASSETS} assets have scores; none is taken for {}", score.asset);
            return Err(Fault::new("too-many-assets", text));
        }
        shared.take(cx, score, self.settings.half_life_ms);
        for key in keys.keys() {
            let concerned = score.asset == EVERY_ASSET || shared.base.get(&key) == Some(&score.asset);
            if concerned {
                let newest = shared.newest(&score.asset).unwrap_or(score.event_time);
                self.give(cx, &key, keys.get_mut(&key), shared, newest);
            }
        }
        Ok(())
    }

    /// Gives out the values of an instrument as of `now`, from the scores up to then, and sees to the next timer.
    fn give(&self, cx: &mut Cx<'_>, key: &Key, own: &mut Whole<Own>, shared: &Opinions, now: EventTime) {
        let every = SmolStr::new_static(EVERY_ASSET);
        let base = shared.base.get(key).filter(|base| **base != every);
        let assets: Vec<&SmolStr> = [Some(&every), base].into_iter().flatten().collect();
        let half_life_ms = self.settings.half_life_ms;
        let parts: Vec<Sums> =
            assets.iter().filter_map(|asset| shared.as_of(asset, now, half_life_ms)).collect();
        let newest = assets.iter().filter_map(|asset| shared.newest(asset)).max();
        if let Some(newest) = newest.filter(|newest| *newest > now) {
            // What came after `now` will fade too, whatever stands now.
            self.wake_at(cx, key, own, boundary_after(newest, self.settings.every_ms));
        }
        if parts.is_empty() {
            return;
        }
        let mut sum = Sums { at: now, ..Sums::default() };
        for part in parts {
            sum.weight += part.weight;
            sum.score += part.score;
            sum.square += part.square;
        }
        let value = sum.score / (sum.weight + self.settings.prior_weight);
        for (name, value) in self.names.iter().zip([value, sum.dispersion(), sum.weight]) {
            let (instrument, name) = (key.clone(), name.clone());
            cx.emit_for(key, FeatureValue { instrument, event_time: now, name, value });
        }
        if value.abs() > self.settings.epsilon {
            self.wake_at(cx, key, own, boundary_after(now, self.settings.every_ms));
        }
    }

    /// Sets the timer, unless one is set for then or sooner.
    fn wake_at(&self, cx: &mut Cx<'_>, key: &Key, own: &mut Whole<Own>, at: EventTime) {
        if own.next.is_none_or(|next| at < next) {
            own.next = Some(at);
            cx.set_timer_for(key, at, 0);
        }
    }
}

impl Opinions {
    /// Keeps a score, and moves those that the watermark has passed into the sums.
    fn take(&mut self, cx: &Cx<'_>, score: &SentimentScore, half_life_ms: i64) {
        let fresh = Fresh { score: score.score, confidence: score.confidence };
        match self.by_asset.get_mut(&score.asset) {
            Some(sums) if score.event_time <= sums.at => sums.add(score.event_time, fresh, half_life_ms),
            _ => {
                let number = *self.scores;
                *self.scores += 1;
                self.fresh.insert((score.asset.clone(), score.event_time, number), fresh);
            }
        }
        while let Some((place, fresh)) = self.settled(cx, &score.asset) {
            self.fresh.remove(&place);
            let start = || Sums { at: place.1, ..Sums::default() };
            self.by_asset.get_or_insert_with(score.asset.clone(), start).add(place.1, fresh, half_life_ms);
        }
    }

    /// The oldest fresh score of an asset, if no older one can come any more.
    fn settled(&self, cx: &Cx<'_>, asset: &SmolStr) -> Option<((SmolStr, EventTime, u64), Fresh)> {
        let mut waiting = self.fresh.range(of_asset(asset));
        let (place, fresh) = waiting.next()?;
        (cx.has_passed(place.1) || waiting.count() >= MAX_FRESH).then(|| (place.clone(), *fresh))
    }

    /// The sums of an asset as of a time, from the scores up to then.
    fn as_of(&self, asset: &SmolStr, time: EventTime, half_life_ms: i64) -> Option<Sums> {
        let mut sums = self.by_asset.get(asset).copied();
        for (place, fresh) in self.fresh.range(of_asset(asset)).take_while(|(place, _)| place.1 <= time) {
            let start = || Sums { at: place.1, ..Sums::default() };
            sums.get_or_insert_with(start).add(place.1, *fresh, half_life_ms);
        }
        sums.map(|sums| if sums.at < time { sums.at_time(time, half_life_ms) } else { sums })
    }

    /// Time of the newest score of an asset.
    fn newest(&self, asset: &SmolStr) -> Option<EventTime> {
        let fresh = self.fresh.range(of_asset(asset)).next_back().map(|(place, _)| place.1);
        fresh.max(self.by_asset.get(asset).map(|sums| sums.at))
    }
}

fn of_asset(asset: &SmolStr) -> std::ops::RangeInclusive<(SmolStr, EventTime, u64)> {
    (asset.clone(), EventTime::MIN, 0)..=(asset.clone(), EventTime::MAX, u64::MAX)
}

impl Sums {
    /// The sums as they stand at a time not before theirs.
    fn at_time(mut self, time: EventTime, half_life_ms: i64) -> Self {
        let factor = fading(time.micros_since(self.at), half_life_ms);
        self.at = time;
        self.weight *= factor;
        self.score *= factor;
        self.square *= factor;
        self
    }

    fn add(&mut self, time: EventTime, fresh: Fresh, half_life_ms: i64) {
        if time > self.at {
            *self = self.at_time(time, half_life_ms);
        }
        let weight = fresh.confidence * fading(self.at.micros_since(time), half_life_ms);
        self.weight += weight;
        self.score += weight * fresh.score;
        self.square += weight * fresh.score * fresh.score;
    }

    fn dispersion(&self) -> f64 {
        if self.weight <= 0.0 {
            return 0.0;
        }
        let mean = self.score / self.weight;
        // Rounding may leave a variance just below 0.
        libm::sqrt((self.square / self.weight - mean * mean).max(0.0))
    }
}

fn fading(age_us: i64, half_life_ms: i64) -> f64 {
    libm::exp2(-(age_us as f64) / (half_life_ms as f64 * 1_000.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, ms, only};
    use tidewire_schemas::{Instrument, Trade};

    fn score(asset: &str, at: i64, score: f64, confidence: f64) -> SentimentScore {
        SentimentScore {
            asset: asset.into(),
            event_time: ms(at),
            score,
            confidence,
            ..SentimentScore::default()
        }
    }

    fn harness() -> Harness {
        let mut harness = Harness::new::<Sentiment>("half_life_ms = 1000\nevery_ms = 1000\nepsilon = 0.1");
        for (instrument, base) in [("BTC.V", "BTC"), ("ETH.V", "ETH"), ("FAR.V", "BTC")] {
            let (instrument, base) = (instrument.into(), base.into());
            harness.broadcast("x", Instrument { instrument, base, ..Instrument::default() });
        }
        for key in ["BTC.V", "ETH.V"] {
            assert!(harness.send(key, Trade::default()).is_empty(), "no score yet");
        }
        harness
    }

    /// instrument, time, value, dispersion, volume
    fn rows(records: &[Record]) -> Vec<(String, i64, [f64; 3])> {
        let values = only::<FeatureValue>(records);
        let rows = values.chunks(3).map(|three| {
            assert_eq!(three[0].name, "sentiment");
            assert_eq!(three[1].name, "sentiment_dispersion");
            assert_eq!(three[2].name, "sentiment_volume");
            (
                three[0].instrument.to_string(),
                three[0].event_time.as_ms(),
                [0, 1, 2].map(|n: usize| three[n].value),
            )
        });
        rows.collect()
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn fades_and_ends() {
        for mut harness in [harness(), harness().restarting()] {
            let got = rows(&harness.broadcast("BTC", score("BTC", 0, 1.0, 1.0)));
            // One score of weight 1 against a prior of 1; only the instruments of this task.
            assert_eq!(got, [("BTC.V".to_owned(), 0, [0.5, 0.0, 1.0])]);
            let got = rows(&harness.advance_to(ms(10_000)));
            let volumes: Vec<f64> = got.iter().map(|row| row.2[2]).collect();
            assert_eq!(volumes, [0.5, 0.25, 0.125, 0.0625], "the last one is below epsilon");
            assert!(near(got[3].2[0], 0.0625 / 1.0625));
            assert_eq!(harness.timers(), 0);
        }
    }

    #[test]
    fn mean_dispersion_and_every_asset() {
        let mut harness = harness();
        harness.broadcast("BTC", score("BTC", 0, 1.0, 1.0));
        let got = rows(&harness.broadcast("*", score("*", 0, -0.5, 0.5)));
        assert_eq!(got.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["BTC.V", "ETH.V"]);
        // BTC: W = 1.5, sum = 0.75, m = 0.5, sum of squares 1.125.
        let [value, dispersion, volume] = got[0].2;
        assert!(near(value, 0.75 / 2.5) && near(dispersion, f64::sqrt(0.75 - 0.25)) && near(volume, 1.5));
        assert_eq!(got[1].2, [-0.25 / 1.5, 0.0, 0.5]);
        // A key that comes later starts with what is known.
        let far = Trade { event_time: ms(0), ..Trade::default() };
        assert_eq!(rows(&harness.send("FAR.V", far))[0].2, got[0].2);
    }

    #[test]
    fn order_within_the_lateness_does_not_matter() {
        let run = |scores: [SentimentScore; 2]| {
            let mut harness = harness();
            scores.into_iter().for_each(|score| _ = harness.broadcast("BTC", score));
            rows(&harness.advance_to(ms(2_000))).last().unwrap().clone()
        };
        let (a, b) = (score("BTC", 500, 1.0, 1.0), score("BTC", 1_000, -0.3, 0.5));
        let (forth, back) = (run([a.clone(), b.clone()]), run([b, a]));
        assert_eq!(forth.1, back.1);
        assert!(forth.2.iter().zip(back.2).all(|(a, b)| near(*a, b)));
    }

    #[test]
    fn a_timer_does_not_see_scores_after_its_time() {
        let at_one_second = |ahead: bool| {
            let mut harness = harness().out_of_orderness_ms(2_000);
            harness.broadcast("BTC", score("BTC", 500, 1.0, 1.0));
            if ahead {
                harness.broadcast("BTC", score("BTC", 1_500, -1.0, 1.0));
                // Scores that the watermark has not passed are kept apart, through a restart too.
                harness.restart();
            }
            let got = rows(&harness.advance_to(ms(1_000)));
            (got[0].1, got[0].2)
        };
        assert_eq!(at_one_second(true), at_one_second(false));
    }

    #[test]
    fn late_and_bad_scores() {
        let mut harness = harness();
        harness.broadcast("BTC", score("BTC", 86_400_000, 1.0, 1.0));
        assert!(harness.broadcast("BTC", score("BTC", 0, -1.0, 1.0)).is_empty());
        assert_eq!((harness.late[0].window_start, harness.late[0].window_end), (ms(0), ms(1_000)));
        for bad in [
            score("BTC", 86_400_000, 1.1, 1.0),
            score("BTC", 86_400_000, f64::NAN, 1.0),
            score("BTC", 86_400_000, 0.0, -0.1),
        ] {
            assert_eq!(harness.try_send("BTC", bad, true).unwrap_err().code, "bad-score");
        }
    }
}
