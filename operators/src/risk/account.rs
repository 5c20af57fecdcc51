//! What is kept for an account, and what the whole task knows.

use smol_str::SmolStr;
use tidewire_contract::{ListState, MapState, Whole, composite_state, persist};
use tidewire_schemas::{
    Amount, ControlCommand, EventTime, Instrument, MarkPrice, Order, Price, Quantity, RiskLimits, Side,
};

use super::positions::Holding;

/// Most orders of an account that may work at once; beyond it intents are refused.
pub const MAX_WORKING_ORDERS: usize = 10_000;
/// Most finished orders, executions and intents remembered for an account: for what a venue sends late or twice.
pub const MAX_REMEMBERED: usize = 10_000;
/// Most messages and fills remembered for an account, to count rates by.
pub const MAX_RATE_ENTRIES: usize = 100_000;
/// How long messages and fills are remembered, in milliseconds: no window of a rate may be longer.
pub const MAX_RATE_WINDOW_MS: i64 = 86_400_000;

persist! {
    /// An order with what its record does not say.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Tracked {
        /// The order as last published.
        pub order: Order,
        /// Sum of price times quantity of its fills.
        pub filled_value: Amount,
    }
}

persist! {
    /// A fill, kept for corrections.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Executed {
        /// Order it belongs to.
        pub order_id: SmolStr,
        /// Instrument.
        pub instrument: SmolStr,
        /// Positive: bought.
        pub signed: Quantity,
        /// Price.
        pub price: Price,
        /// Fee.
        pub fee: Amount,
        /// Its currency.
        pub fee_currency: SmolStr,
    }
}

persist! {
    /// A message that went to the venue.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Sent {
        /// When, in the task's time.
        pub at: EventTime,
        /// Strategy.
        pub strategy: SmolStr,
        /// Instrument.
        pub instrument: SmolStr,
        /// Side; unknown for a cancel.
        pub side: Side,
        /// Quantity; 0 for a cancel.
        pub quantity: Quantity,
        /// Limit price.
        pub limit_price: Option<Price>,
    }
}

persist! {
    /// Counts of an account.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Counts {
        /// Ids given out.
        pub ids: u64,
    }
}

composite_state! {
    /// The one state of an account: no limit can be outrun, as nothing is decided elsewhere.
    pub struct Account {
        /// Counts for ids.
        pub counts: Whole<Counts>,
        /// Orders that can still be filled, by id.
        pub working: MapState<SmolStr, Tracked>,
        /// Orders that ended, by id.
        pub finished: MapState<SmolStr, Tracked>,
        /// The same, oldest first.
        pub finished_order: ListState<SmolStr>,
        /// Fills by execution id.
        pub executions: MapState<SmolStr, Executed>,
        /// The same, oldest first.
        pub execution_order: ListState<SmolStr>,
        /// Intents that became orders.
        pub intents: MapState<SmolStr, ()>,
        /// The same, oldest first.
        pub intent_order: ListState<SmolStr>,
        /// Messages to the venue, oldest first.
        pub sent: ListState<Sent>,
        /// Times and strategies of fills, oldest first.
        pub fills: ListState<(EventTime, SmolStr)>,
        /// Positions by instrument.
        pub holdings: MapState<SmolStr, Holding>,
        /// Balances by currency.
        pub cash: MapState<SmolStr, Amount>,
    }
}

composite_state! {
    /// What the whole task knows.
    pub struct Known {
        /// Descriptions by instrument.
        pub instruments: MapState<SmolStr, Instrument>,
        /// Last mark by instrument.
        pub marks: MapState<SmolStr, MarkPrice>,
        /// By account, strategy and instrument.
        pub limits: MapState<(SmolStr, SmolStr, SmolStr), RiskLimits>,
        /// The last halt, reduction or resumption by scope.
        pub commands: MapState<SmolStr, ControlCommand>,
        /// When positions were last said at a mark, by instrument.
        pub said: MapState<SmolStr, EventTime>,
    }
}

impl Account {
    /// The next id of this account: deterministic, and never given twice.
    pub fn new_id(&mut self, node: &str, account: &str) -> SmolStr {
        let count = self.counts.ids;
        self.counts.ids += 1;
        smol_str::format_smolstr!("{node}:{account}:{count}")
    }

    /// Quantity of an instrument that working orders could still buy and sell.
    pub fn working_quantity(&self, instrument: &str) -> (i128, i128) {
        let mut open = (0_i128, 0_i128);
        for (_, Tracked { order, .. }) in
            self.working.iter().filter(|(_, t)| t.order.instrument == instrument)
        {
            let leaves = order.leaves_quantity.units();
            match order.side {
                Side::Buy => open.0 += leaves,
                // An unknown side never gets this far; were it to, it counts against both.
                Side::Sell => open.1 += leaves,
                Side::Unknown => open = (open.0 + leaves, open.1 + leaves),
            }
        }
        open
    }

    /// Notes a message to the venue, for the limits on rates.
    pub fn note_sent(&mut self, sent: Sent) {
        let oldest = sent.at.minus_ms(MAX_RATE_WINDOW_MS);
        self.sent.push_back(sent);
        while self.sent.len() > MAX_RATE_ENTRIES || self.sent.front().is_some_and(|sent| sent.at < oldest) {
            self.sent.pop_front();
        }
    }

    /// Notes a fill of a strategy, for the limit on repeated executions.
    pub fn note_fill(&mut self, at: EventTime, strategy: SmolStr) {
        self.fills.push_back((at, strategy));
        let oldest = at.minus_ms(MAX_RATE_WINDOW_MS);
        while self.fills.len() > MAX_RATE_ENTRIES || self.fills.front().is_some_and(|(at, _)| *at < oldest) {
            self.fills.pop_front();
        }
    }

    /// Keeps an order where it belongs: working, or finished and remembered for a while.
    pub fn keep(&mut self, tracked: Tracked, ended: bool) {
        let id = tracked.order.order_id.clone();
        if !ended {
            self.working.insert(id, tracked);
            return;
        }
        self.working.remove(&id);
        remember(&mut self.finished, &mut self.finished_order, id, tracked);
    }

    /// The order of that id, working or remembered.
    pub fn order(&self, id: &SmolStr) -> Option<&Tracked> {
        self.working.get(id).or_else(|| self.finished.get(id))
    }
}

/// Puts an entry into a map that forgets its oldest beyond [`MAX_REMEMBERED`].
pub fn remember<V>(map: &mut MapState<SmolStr, V>, order: &mut ListState<SmolStr>, key: SmolStr, value: V) {
    if map.insert(key.clone(), value).is_none() {
        order.push_back(key);
    }
    while order.len() > MAX_REMEMBERED
        && let Some(oldest) = order.pop_front()
    {
        map.remove(&oldest);
    }
}
