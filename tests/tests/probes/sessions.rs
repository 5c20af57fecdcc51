//! (h) Bars over trading sessions of a calendar with a time zone: 09:30 to 16:00 in New York, weekdays, over the end
//! of daylight saving time.

use chrono::{DateTime, Datelike as _, NaiveDate, TimeZone as _, Utc, Weekday};
use chrono_tz::America::New_York;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, MapState, Operator, OperatorType, Settings, Timer, persist,
};
use tidewire_engine::driver::{StageBuilder, TestDriver};
use tidewire_engine::plan::Role;
use tidewire_schemas::{Bar, BarKind, EventTime, Kind, Price, Quantity, Record};

use super::{dec, trade};

struct SessionBars;

persist! {
    /// A session so far.
    #[derive(Default)]
    struct Session {
        open: Price,
        close: Price,
        volume: Quantity,
        trade_count: i64,
    }
}

impl Configured for SessionBars {
    const NAME: &'static str = "session_bars";
    const ABOUT: &'static str = "Bars over the sessions of a calendar";
    type Settings = Settings;

    fn new(_: Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

/// The session that a time falls into, as start and end. Rules of time zones are data of the build, not of the machine.
fn session(time: EventTime) -> Option<(EventTime, EventTime)> {
    let utc = DateTime::<Utc>::from_timestamp_micros(time.as_micros())?;
    let day = utc.with_timezone(&New_York).date_naive();
    let (start, end) = bounds(day)?;
    (start..end).contains(&time).then_some((start, end))
}

fn bounds(day: NaiveDate) -> Option<(EventTime, EventTime)> {
    if matches!(day.weekday(), Weekday::Sat | Weekday::Sun) {
        return None;
    }
    let at = |hour, minute| {
        let local = New_York.from_local_datetime(&day.and_hms_opt(hour, minute, 0)?).earliest()?;
        Some(EventTime::from_micros(local.timestamp_micros()))
    };
    Some((at(9, 30)?, at(16, 0)?))
}

impl Operator for SessionBars {
    type State = MapState<EventTime, Session>;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface { accepts: vec![Kind::Trade], emits: vec![Kind::Bar], ..Interface::default() }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        sessions: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::Trade(trade) = input.record else { return Ok(()) };
        let Some((start, end)) = session(trade.event_time) else { return Ok(()) };
        if cx.has_passed(end) {
            cx.late(input, start, end);
            return Ok(());
        }
        let session = sessions.get_or_insert_with(start, Session::default);
        if session.trade_count == 0 {
            session.open = trade.price;
        }
        session.close = trade.price;
        session.volume =
            session.volume.checked_add(trade.quantity).map_err(|_| Fault::new("overflow", "volume"))?;
        session.trade_count += 1;
        cx.set_timer(end, 0);
        Ok(())
    }

    fn on_timer(
        &self,
        cx: &mut Cx<'_>,
        timer: &Timer,
        sessions: &mut Self::State,
        (): &(),
    ) -> Result<(), Fault> {
        let Some(start) = sessions.range(..timer.at).next_back().map(|(start, _)| *start) else {
            return Ok(());
        };
        let Some(session) = sessions.remove(&start) else { return Ok(()) };
        cx.emit(Bar {
            instrument: timer.key.clone(),
            event_time: timer.at,
            bar_kind: BarKind::Time,
            window_start: start,
            window_end: timer.at,
            interval_ms: timer.at.micros_since(start) / 1_000,
            open: session.open,
            close: session.close,
            volume: session.volume,
            trade_count: session.trade_count,
            is_final: true,
            ..Bar::default()
        });
        Ok(())
    }
}

#[test]
fn sessions_over_the_end_of_daylight_saving() {
    let stage = StageBuilder::new("sessions")
        .input("ticks", Role::Driving, 1)
        .node("bars", OperatorType::of::<SessionBars>(), "", &["ticks"])
        .output("bars", 1, &["bars"], &["instrument"])
        .build();
    let mut driver = TestDriver::new(stage);
    // Clocks in New York went back on Sunday, 3 November 2024.
    for (time, price) in [
        ("2024-11-01T13:29:59Z", "1"), // Friday, before the open (09:30 is 13:30 UTC)
        ("2024-11-01T13:30:00Z", "2"), // the open
        ("2024-11-01T19:59:59Z", "3"), // before the close
        ("2024-11-01T20:00:00Z", "4"), // the close is not in it
        ("2024-11-02T15:00:00Z", "5"), // Saturday
        ("2024-11-04T14:29:59Z", "6"), // Monday: 09:30 is 14:30 UTC now
        ("2024-11-04T14:30:00Z", "7"),
        ("2024-11-04T20:59:59Z", "8"),
        ("2024-11-01T19:00:00Z", "9"), // Friday's session is long closed
        ("2024-11-04T21:00:00Z", "10"),
    ] {
        let at: DateTime<Utc> = time.parse().unwrap();
        let ms = at.timestamp_millis();
        driver.append("ticks", "A.X", ms, trade("A.X", ms, price, "1"));
    }
    let seen = driver.run();
    let row = |bar: &Bar| {
        (bar.window_start.to_string(), bar.window_end.to_string(), bar.open, bar.close, bar.trade_count)
    };
    let got: Vec<_> = seen.iter().map(|seen| row(seen.record.as_bar().unwrap())).collect();
    let want = |start: &str, end: &str, open, close| {
        (format!("{start}Z"), format!("{end}Z"), dec(open), dec(close), 2_i64)
    };
    assert_eq!(
        got,
        [
            want("2024-11-01T13:30:00", "2024-11-01T20:00:00", "2", "3"),
            want("2024-11-04T14:30:00", "2024-11-04T21:00:00", "7", "8"),
        ]
    );
    let late = driver.late();
    assert_eq!(
        (late.len(), late[0].window_end),
        (1, session("2024-11-01T19:00:00Z".parse().unwrap()).unwrap().1)
    );
}
