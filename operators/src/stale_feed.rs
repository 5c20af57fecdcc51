//! `stale_feed`: an alert when an instrument's feed falls silent.
//!
//! Takes trades, quotes and order book records, gives alerts of kind `stale_feed`: RAISED when the task's time has
//! gone `after_ms` past the newest record's event time, RECOVERED with the next newer record. Time goes by records
//! of this and other instruments and, when all are silent, by the clock that the engine keeps; what is said depends
//! on the instrument's own records alone. Warm-up: an instrument is watched from its first record on. A record older
//! than the newest changes nothing.

use serde::Deserialize;
use tidewire_contract::{Configured, Cx, Fault, Input, Interface, Operator, Timer, Whole, persist};
use tidewire_schemas::{AlertState, EventTime, Kind, Severity};

use crate::common::{AlertBody, alert, check_span};

/// Settings of [`StaleFeed`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long a feed may be silent, in milliseconds.
    pub after_ms: i64,
}

/// See the module.
pub struct StaleFeed {
    after_ms: i64,
}

persist! {
    /// What is known of a feed.
    #[derive(Clone, Debug, Default)]
    pub struct Feed {
        newest: Option<EventTime>,
        timer_set: bool,
        raised: bool,
        alerts: u64,
    }
}

impl Configured for StaleFeed {
    const NAME: &'static str = "stale_feed";
    const ABOUT: &'static str =
        "Alert when no record of an instrument comes for some time, and when one comes again";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_span("after_ms", settings.after_ms)?;
        Ok(Self { after_ms: settings.after_ms })
    }
}

impl Operator for StaleFeed {
    type State = Whole<Feed>;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::Trade, Kind::Quote, Kind::BookSnapshot, Kind::BookDelta],
            emits: vec![Kind::Alert],
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        feed: &mut Whole<Feed>,
        (): &(),
    ) -> Result<(), Fault> {
        let time = input.record.event_time().unwrap_or(input.time);
        if let Some(before) = feed.newest {
            if time <= before {
                return Ok(());
            }
            let limit = before.plus_ms(self.after_ms);
            if !feed.raised && limit <= time {
                // Silent too long, though the timer could not fire by now: a silence shows by the records alone.
                self.raise(cx, feed, input.key, before);
            }
            if feed.raised {
                feed.raised = false;
                let silent_ms = time.micros_since(before) / 1_000;
                let text = format!("records come again after {silent_ms} ms");
                self.say(cx, feed, input.key, AlertState::Recovered, text, silent_ms, time);
            }
        }
        feed.newest = Some(time);
        self.watch(cx, feed, time);
        Ok(())
    }

    fn on_timer(&self, cx: &mut Cx<'_>, timer: &Timer, feed: &mut Whole<Feed>, (): &()) -> Result<(), Fault> {
        feed.timer_set = false;
        let Some(newest) = feed.newest else { return Ok(()) };
        if newest.plus_ms(self.after_ms) > timer.at {
            self.watch(cx, feed, newest);
        } else if !feed.raised {
            self.raise(cx, feed, &timer.key, newest);
        }
        Ok(())
    }
}

impl StaleFeed {
    /// One timer at a time: it moves on when it fires, not with each record.
    fn watch(&self, cx: &mut Cx<'_>, feed: &mut Whole<Feed>, newest: EventTime) {
        if !feed.timer_set {
            feed.timer_set = true;
            cx.set_timer(newest.plus_ms(self.after_ms), 0);
        }
    }

    fn raise(&self, cx: &mut Cx<'_>, feed: &mut Whole<Feed>, scope: &str, newest: EventTime) {
        feed.raised = true;
        let text = format!("no record for {} ms; the last one is of {newest}", self.after_ms);
        let at = newest.plus_ms(self.after_ms);
        self.say(cx, feed, scope, AlertState::Raised, text, self.after_ms, at);
    }

    #[allow(clippy::too_many_arguments, reason = "each is one field of the alert")]
    fn say(
        &self,
        cx: &mut Cx<'_>,
        feed: &mut Whole<Feed>,
        scope: &str,
        state: AlertState,
        text: String,
        silent_ms: i64,
        event_time: EventTime,
    ) {
        let values = [("silent_ms", silent_ms as f64), ("after_ms", self.after_ms as f64)];
        let (kind, severity) = ("stale_feed", Severity::Warning);
        let body =
            AlertBody { scope, kind, severity, about: cx.node(), text, values: &values, state, event_time };
        let alert = alert(cx, &mut feed.alerts, body);
        cx.emit(alert);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{Harness, ms, only};
    use tidewire_schemas::{Alert, Quote, Record, Trade};

    fn rows(records: &[Record]) -> Vec<(AlertState, i64, f64)> {
        let row = |a: &Alert| (a.state, a.event_time.as_ms(), a.values["silent_ms"]);
        only::<Alert>(records).iter().map(row).collect()
    }

    fn at(at: i64) -> Trade {
        Trade { event_time: ms(at), ..Trade::default() }
    }

    #[test]
    fn raised_and_recovered() {
        for mut feed in [
            Harness::new::<StaleFeed>("after_ms = 1000"),
            Harness::new::<StaleFeed>("after_ms = 1000").restarting(),
        ] {
            feed.send("A.V", at(0));
            feed.send("A.V", Quote { event_time: ms(900), ..Quote::default() });
            assert!(feed.advance_to(ms(1_899)).is_empty(), "the quote counts too");
            assert_eq!(rows(&feed.advance_to(ms(1_900))), [(AlertState::Raised, 1_900, 1_000.0)]);
            assert!(feed.advance_to(ms(9_000)).is_empty(), "said once");
            assert!(feed.send("A.V", at(800)).is_empty(), "older than the newest: still silent");
            assert_eq!(rows(&feed.send("A.V", at(9_100))), [(AlertState::Recovered, 9_100, 8_200.0)]);
            assert_eq!(rows(&feed.advance_to(ms(99_000))), [(AlertState::Raised, 10_100, 1_000.0)]);
        }
    }

    #[test]
    fn one_timer_however_many_records() {
        let mut feed = Harness::new::<StaleFeed>("after_ms = 1000");
        for n in 0..500 {
            feed.send("A.V", at(n));
            feed.send("B.V", at(n));
        }
        assert_eq!(feed.timers(), 2);
        // Other instruments carry time on; the one that comes again was silent too, and no longer is.
        let alerts = only::<Alert>(&feed.send("B.V", at(5_000)));
        let said: Vec<_> = alerts.iter().map(|alert| (alert.scope.as_str(), alert.state)).collect();
        let (raised, recovered) = (AlertState::Raised, AlertState::Recovered);
        assert_eq!(said, [("B.V", raised), ("B.V", recovered), ("A.V", raised)]);
        assert_eq!(alerts[0].event_time, ms(1_499));
    }
}
