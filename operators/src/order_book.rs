//! `order_book`: the order book of each instrument, and its best bid and offer.
//!
//! Takes snapshots and deltas, gives a [`Quote`] each time the touch (price or quantity of the best bid or offer)
//! changed. Warm-up: nothing is given out before a snapshot is in. The rules of sequence are at [`Book`]. Deltas
//! that come before a snapshot are kept for it. After a gap, or when the book crosses itself, nothing is given out
//! until the next snapshot, and an alert says so; another says when the book is in order again. Records older than
//! the book change nothing.
//!
//! With `start_from_deltas` a book begins without a snapshot. Of such a book, levels that never changed are unknown;
//! a touch is given out only where it is proven to be the best (see [`Book::prove_touch`]), which needs the
//! instrument's tick size from the broadcast of instruments.

mod book;

pub use book::{Book, Bounds, Outcome, Phase, Touch};

use serde::Deserialize;
use smol_str::SmolStr;
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, Keys, MapState, Operator, Whole, composite_state, persist,
};
use tidewire_schemas::{AlertState, EventTime, Kind, Price, Quantity, Quote, ReceivedTime, Record, Severity};

use crate::common::{AlertBody, alert, check_between};

/// Settings of [`OrderBook`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Most levels a side; beyond it the worst are dropped.
    pub max_levels: u32,
    /// Most deltas kept while there is no snapshot; beyond it the oldest are dropped.
    pub max_kept_deltas: u32,
    /// Begin without a snapshot, for feeds that have none.
    pub start_from_deltas: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_levels: 5_000, max_kept_deltas: 1_000, start_from_deltas: false }
    }
}

/// See the module.
pub struct OrderBook {
    bounds: Bounds,
    start_from_deltas: bool,
}

persist! {
    /// What was last said of the book.
    #[derive(Clone, Debug, Default)]
    pub struct Said {
        touch: Option<((Price, Quantity), (Price, Quantity))>,
        in_trouble: Option<SmolStr>,
        alerts: u64,
    }
}

composite_state! {
    /// The book of one instrument.
    pub struct BookState {
        book: Book,
        said: Whole<Said>,
    }
}

impl Configured for OrderBook {
    const NAME: &'static str = "order_book";
    const ABOUT: &'static str =
        "Order book from snapshots and deltas; gives the best bid and offer when they change";
    type Settings = Settings;

    fn new(settings: Settings) -> Result<Self, String> {
        check_between("max_levels", settings.max_levels.into(), 1, 100_000)?;
        check_between("max_kept_deltas", settings.max_kept_deltas.into(), 1, 100_000)?;
        let bounds = Bounds {
            max_levels: settings.max_levels as usize,
            max_kept_deltas: settings.max_kept_deltas as usize,
        };
        Ok(Self { bounds, start_from_deltas: settings.start_from_deltas })
    }
}

impl Operator for OrderBook {
    type State = BookState;
    /// Tick sizes by instrument.
    type Shared = MapState<SmolStr, Price>;

    fn interface(&self) -> Interface {
        Interface {
            accepts: vec![Kind::BookSnapshot, Kind::BookDelta],
            broadcasts: if self.start_from_deltas { vec![Kind::Instrument] } else { Vec::new() },
            emits: vec![Kind::Quote, Kind::Alert],
            ..Interface::default()
        }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut BookState,
        ticks: &MapState<SmolStr, Price>,
    ) -> Result<(), Fault> {
        let (outcome, event_time, received_time) = match input.record {
            Record::BookSnapshot(snapshot) => (
                state.book.apply_snapshot(snapshot, self.bounds),
                snapshot.event_time,
                snapshot.received_time,
            ),
            Record::BookDelta(delta) => {
                let waits = self.start_from_deltas && state.book.phase() == Phase::Waiting;
                let outcome = if waits {
                    state.book.start_from_deltas(delta, self.bounds)
                } else {
                    state.book.apply_delta(delta, self.bounds)
                };
                (outcome, delta.event_time, delta.received_time)
            }
            _ => return Ok(()),
        };
        match outcome {
            Outcome::Kept | Outcome::Old => return Ok(()),
            Outcome::Applied => {}
            Outcome::Gap { have, needs } => {
                let text = format!(
                    "updates {} to {needs} are missing; waiting for a snapshot",
                    have.saturating_add(1)
                );
                raise(
                    cx,
                    &mut state.said,
                    "book-gap",
                    text,
                    &[("have", have as f64), ("needs", needs as f64)],
                    event_time,
                    input,
                );
                return Ok(());
            }
            Outcome::Crossed { bid, ask } => {
                let text = format!("best bid {bid} is not below best offer {ask}; waiting for a snapshot");
                raise(
                    cx,
                    &mut state.said,
                    "book-crossed",
                    text,
                    &[("bid", bid.to_f64()), ("ask", ask.to_f64())],
                    event_time,
                    input,
                );
                return Ok(());
            }
        }
        if state.book.phase() == Phase::Partial
            && let Some(tick_size) = ticks.get(input.key)
        {
            state.book.prove_touch(*tick_size);
        }
        recover(cx, state, event_time, input);
        say_touch(cx, state, event_time, received_time, input);
        Ok(())
    }

    fn on_broadcast(
        &self,
        _cx: &mut Cx<'_>,
        input: &Input<'_>,
        _keys: &mut Keys<'_, BookState>,
        ticks: &mut MapState<SmolStr, Price>,
    ) -> Result<(), Fault> {
        if let Record::Instrument(instrument) = input.record
            && ticks.get(&instrument.instrument) != Some(&instrument.tick_size)
        {
            ticks.insert(instrument.instrument.clone(), instrument.tick_size);
        }
        Ok(())
    }
}

/// Gives out the touch, if it is known and differs from what was last said.
fn say_touch(
    cx: &mut Cx<'_>,
    state: &mut BookState,
    event_time: EventTime,
    received_time: ReceivedTime,
    input: &Input<'_>,
) {
    let Some(touch) = state.book.touch() else { return };
    let now = Some(((touch.bid_price, touch.bid_quantity), (touch.ask_price, touch.ask_quantity)));
    if state.said.touch == now {
        return;
    }
    state.said.touch = now;
    cx.emit(Quote {
        instrument: input.key.clone(),
        event_time,
        received_time,
        update_id: state.book.last_update_id(),
        bid_price: touch.bid_price,
        bid_quantity: touch.bid_quantity,
        ask_price: touch.ask_price,
        ask_quantity: touch.ask_quantity,
        event_time_estimated: false,
    });
}

/// Says that the book is out of order; once, until it is in order again.
fn raise(
    cx: &mut Cx<'_>,
    said: &mut Whole<Said>,
    kind: &'static str,
    text: String,
    values: &[(&str, f64)],
    event_time: EventTime,
    input: &Input<'_>,
) {
    // A book in order again says its touch even if it is the old one: readers were told that there is none.
    said.touch = None;
    if said.in_trouble.is_some() {
        return;
    }
    said.in_trouble = Some(kind.into());
    let body = AlertBody {
        scope: input.key,
        kind,
        severity: Severity::Warning,
        about: "",
        text,
        values,
        state: AlertState::Raised,
        event_time,
    };
    let alert = alert(cx, &mut said.alerts, body);
    cx.emit(alert);
}

fn recover(cx: &mut Cx<'_>, state: &mut BookState, event_time: EventTime, input: &Input<'_>) {
    if state.said.in_trouble.is_none() {
        return;
    }
    let Some(kind) = state.said.in_trouble.take() else { return };
    let body = AlertBody {
        scope: input.key,
        kind: &kind,
        severity: Severity::Warning,
        about: "",
        text: format!("the book is in order again at update {}", state.book.last_update_id()),
        values: &[],
        state: AlertState::Recovered,
        event_time,
    };
    let alert = alert(cx, &mut state.said.alerts, body);
    cx.emit(alert);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
