//! An order book by price level, from snapshots and deltas, usable without the engine.

use tidewire_contract::{
    ListState, MapState, State as _, Whole, composite_state, entry_hash, persist, persist_enum,
};
use tidewire_schemas::{BookDelta, BookSnapshot, Level, Price, Quantity};

/// How far the book is to be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No snapshot yet, or a gap since: the levels are not to be used, deltas are kept for the next snapshot.
    #[default]
    Waiting,
    /// A snapshot is in; the first delta after it has not come.
    Primed,
    /// Snapshot and deltas, without a gap.
    Live,
    /// Deltas only: what was never seen to change is missing. See [`Book::start_from_deltas`].
    Partial,
}
persist_enum!(Phase { Waiting, Primed, Live, Partial });

/// What a record did to the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the book.
    Applied,
    /// It waits for a snapshot.
    Kept,
    /// The book already has it, or a newer one.
    Old,
    /// Updates between the book and this record are missing: the book waits for a snapshot.
    Gap {
        /// The last update in the book.
        have: i64,
        /// The last update that the record needs to be there.
        needs: i64,
    },
    /// The best bid is not below the best offer: the book waits for a snapshot.
    Crossed {
        /// Best bid.
        bid: Price,
        /// Best offer.
        ask: Price,
    },
}

/// The best levels of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Best bid.
    pub bid_price: Price,
    /// Quantity there.
    pub bid_quantity: Quantity,
    /// Best offer.
    pub ask_price: Price,
    /// Quantity there.
    pub ask_quantity: Quantity,
}

/// Bounds of a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Most levels a side; beyond it the worst are dropped.
    pub max_levels: usize,
    /// Most deltas kept while there is no snapshot; beyond it the oldest are dropped.
    pub max_kept_deltas: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_levels: 5_000, max_kept_deltas: 1_000 }
    }
}

persist! {
    /// Where the book stands in the sequence of updates.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Sequence {
        phase: Phase,
        last_update_id: i64,
        /// In a partial book: every bid from here up is known.
        bids_known_from: Option<Price>,
        /// In a partial book: every offer from here down is known.
        asks_known_to: Option<Price>,
    }
}

composite_state! {
    /// A book. Levels are written to the changelog one by one.
    ///
    /// Sequence rules are Binance's, "How to manage a local order book correctly" in its API documentation. A delta
    /// holds quantities, not differences, so one that overlaps what the book has is applied; only missing updates
    /// are a gap:
    ///
    /// * with `previous_update_id` (futures), a delta needs that update; the first one after a snapshot with update
    ///   L may instead hold L itself (`first <= L <= last`);
    /// * without (spot), a delta needs update `first - 1`.
    pub struct Book {
        bids: MapState<Price, Quantity>,
        asks: MapState<Price, Quantity>,
        sequence: Whole<Sequence>,
        kept: ListState<BookDelta>,
    }
}

impl Book {
    /// How far the book is to be trusted.
    pub fn phase(&self) -> Phase {
        self.sequence.phase
    }

    /// The last update in the book.
    pub fn last_update_id(&self) -> i64 {
        self.sequence.last_update_id
    }

    /// Sets the book to a snapshot, then applies the deltas kept for it. A snapshot older than a book that is in
    /// order changes nothing.
    pub fn apply_snapshot(&mut self, snapshot: &BookSnapshot, bounds: Bounds) -> Outcome {
        let in_order = matches!(self.sequence.phase, Phase::Primed | Phase::Live);
        if in_order && snapshot.update_id <= self.sequence.last_update_id {
            return Outcome::Old;
        }
        self.bids.clear();
        self.asks.clear();
        self.set_levels(&snapshot.bids, &snapshot.asks, bounds);
        *self.sequence =
            Sequence { phase: Phase::Primed, last_update_id: snapshot.update_id, ..Sequence::default() };
        if let Some(crossed) = self.check_crossed() {
            return crossed;
        }
        let mut outcome = Outcome::Applied;
        for _ in 0..self.kept.len() {
            let Some(delta) = self.kept.pop_front() else { break };
            // After a gap the rest is kept again, for the next snapshot.
            match self.apply_delta(&delta, bounds) {
                Outcome::Applied | Outcome::Old | Outcome::Kept => {}
                failed => outcome = failed,
            }
        }
        outcome
    }

    /// Applies a delta, keeps it for a snapshot to come, or finds that updates are missing.
    pub fn apply_delta(&mut self, delta: &BookDelta, bounds: Bounds) -> Outcome {
        let have = self.sequence.last_update_id;
        if self.sequence.phase == Phase::Waiting {
            self.keep(delta, bounds);
            return Outcome::Kept;
        }
        let primed = self.sequence.phase == Phase::Primed;
        // A futures delta that ends at the snapshot's update is the first of its chain; it repeats what is there.
        let first_of_chain = primed && delta.previous_update_id.is_some();
        if delta.last_update_id < have || (delta.last_update_id == have && !first_of_chain) {
            return Outcome::Old;
        }
        let needs = match delta.previous_update_id {
            Some(_) if primed && delta.first_update_id <= have => have,
            Some(previous) => previous,
            None => delta.first_update_id.saturating_sub(1),
        };
        if needs > have {
            self.forget();
            self.keep(delta, bounds);
            return Outcome::Gap { have, needs };
        }
        self.set_levels(&delta.bids, &delta.asks, bounds);
        self.sequence.last_update_id = delta.last_update_id;
        if primed {
            self.sequence.phase = Phase::Live;
        }
        self.check_crossed().unwrap_or(Outcome::Applied)
    }

    /// Begins a book without a snapshot, from the first delta at hand; for feeds that have none.
    ///
    /// Levels that do not change stay unknown, so such a book gives no touch until [`Book::prove_touch`] can tell
    /// that nothing is missing at the top.
    pub fn start_from_deltas(&mut self, delta: &BookDelta, bounds: Bounds) -> Outcome {
        self.forget();
        self.kept.clear();
        *self.sequence =
            Sequence { phase: Phase::Partial, last_update_id: delta.last_update_id, ..Sequence::default() };
        self.set_levels(&delta.bids, &delta.asks, bounds);
        self.check_crossed().unwrap_or(Outcome::Applied)
    }

    /// In a partial book: when best bid and best offer are one tick apart, no level can lie between them, so both
    /// are the best there are, and every level better than they were is known from then on.
    pub fn prove_touch(&mut self, tick_size: Price) {
        if self.sequence.phase != Phase::Partial || !tick_size.is_positive() {
            return;
        }
        let (Some(bid), Some(ask)) = (self.best_bid(), self.best_ask()) else { return };
        if ask.price.checked_sub(bid.price).is_ok_and(|spread| spread <= tick_size) {
            let sequence = &mut *self.sequence;
            sequence.bids_known_from = Some(sequence.bids_known_from.map_or(bid.price, |p| p.min(bid.price)));
            sequence.asks_known_to = Some(sequence.asks_known_to.map_or(ask.price, |p| p.max(ask.price)));
        }
    }

    /// Best bid as held, whatever the phase.
    pub fn best_bid(&self) -> Option<Level> {
        self.bids.last().map(|(price, quantity)| Level { price: *price, quantity: *quantity })
    }

    /// Best offer as held, whatever the phase.
    pub fn best_ask(&self) -> Option<Level> {
        self.asks.first().map(|(price, quantity)| Level { price: *price, quantity: *quantity })
    }

    /// Best bid and offer, when the book has both and they are to be trusted.
    pub fn touch(&self) -> Option<Touch> {
        let (bid, ask) = (self.best_bid()?, self.best_ask()?);
        let trusted = match self.sequence.phase {
            Phase::Waiting => false,
            Phase::Primed | Phase::Live => true,
            Phase::Partial => {
                self.sequence.bids_known_from.is_some_and(|from| bid.price >= from)
                    && self.sequence.asks_known_to.is_some_and(|to| ask.price <= to)
            }
        };
        trusted.then_some(Touch {
            bid_price: bid.price,
            bid_quantity: bid.quantity,
            ask_price: ask.price,
            ask_quantity: ask.quantity,
        })
    }

    /// The best `levels` bids and offers, best first.
    pub fn top(&self, levels: usize) -> (Vec<Level>, Vec<Level>) {
        let level = |(price, quantity): (&Price, &Quantity)| Level { price: *price, quantity: *quantity };
        (
            self.bids.iter().rev().take(levels).map(level).collect(),
            self.asks.iter().take(levels).map(level).collect(),
        )
    }

    /// Number of bids and of offers held.
    pub fn depth(&self) -> (usize, usize) {
        (self.bids.len(), self.asks.len())
    }

    /// A digest of all levels and the last update: two books are alike exactly when these are.
    pub fn checksum(&self) -> u64 {
        let mut bytes = self.sequence.last_update_id.to_le_bytes().to_vec();
        for side in [&self.bids, &self.asks] {
            bytes.extend_from_slice(&(side.len() as u64).to_le_bytes());
            for (price, quantity) in side.iter() {
                bytes.extend_from_slice(&price.units().to_le_bytes());
                bytes.extend_from_slice(&quantity.units().to_le_bytes());
            }
        }
        entry_hash(&[&bytes])
    }

    fn set_levels(&mut self, bids: &[Level], asks: &[Level], bounds: Bounds) {
        for (side, levels) in [(&mut self.bids, bids), (&mut self.asks, asks)] {
            for level in levels {
                if level.quantity.is_positive() {
                    side.insert(level.price, level.quantity);
                } else {
                    side.remove(&level.price);
                }
            }
        }
        while self.bids.len() > bounds.max_levels
            && let Some(worst) = self.bids.first().map(|(price, _)| *price)
        {
            self.bids.remove(&worst);
        }
        while self.asks.len() > bounds.max_levels
            && let Some(worst) = self.asks.last().map(|(price, _)| *price)
        {
            self.asks.remove(&worst);
        }
    }

    fn check_crossed(&mut self) -> Option<Outcome> {
        let (bid, ask) = (self.best_bid()?.price, self.best_ask()?.price);
        if bid < ask {
            return None;
        }
        self.forget();
        Some(Outcome::Crossed { bid, ask })
    }

    /// Drops all levels: nothing may be read from a book that is out of order.
    fn forget(&mut self) {
        self.bids.clear();
        self.asks.clear();
        *self.sequence = Sequence::default();
    }

    fn keep(&mut self, delta: &BookDelta, bounds: Bounds) {
        self.kept.push_back(delta.clone());
        while self.kept.len() > bounds.max_kept_deltas {
            self.kept.pop_front();
        }
    }
}
