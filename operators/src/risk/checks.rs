//! The pre-trade checks, by the names of MiFID II RTS 6 article 15, SEC rule 15c3-5 and FIX.
//!
//! Every check runs for every intent, and every one is published: a check passes, fails, or is skipped because no
//! limit is set. What can not be decided (no mark, no instrument, an overflow) fails. Where several limits apply
//! (the account's, the strategy's, the instrument's), the strictest counts. Limits on positions and exposures hold
//! for the account's whole position, also where a strategy's limits name them.

use tidewire_schemas::{
    Amount, CheckResult, DecimalError, EventTime, Instrument, MarkPrice, OrderIntent, OrderType, Price,
    Quantity, RiskLimits, Side, TimeInForce, Verdict,
};

use super::account::{Account, Known, MAX_WORKING_ORDERS};
use super::control::{TradingState, limits_for, trading_state};
use super::exposure;
use super::rates;
use super::reasons::Reason;
use crate::instruments::quote_value;

/// Every check in the order they ran, and the reason of the first that failed.
#[derive(Debug, Default)]
pub struct Checks {
    /// Results.
    pub results: Vec<CheckResult>,
    /// Why the intent is refused, if it is.
    pub refused: Option<Reason>,
}

/// How a check ended.
pub(super) enum Found {
    /// No limit is set, or it does not apply.
    Skipped,
    /// A limit and what was compared with it; it passes while the value is not above.
    Within { limit: Amount, value: Amount },
    /// Passed or failed for a reason in words.
    Says { passes: bool, text: String },
    /// What is needed is missing.
    Undecidable(String),
}

/// What the checks look at.
pub(super) struct Case<'a> {
    pub intent: &'a OrderIntent,
    pub account: &'a Account,
    pub known: &'a Known,
    pub limits: Vec<&'a RiskLimits>,
    pub instrument: Option<&'a Instrument>,
    pub mark: Option<&'a MarkPrice>,
    /// The task's time.
    pub now: EventTime,
    /// Processing time.
    pub stamp: EventTime,
}

/// Runs every check of an intent.
pub fn run(
    intent: &OrderIntent,
    account: &Account,
    known: &Known,
    now: EventTime,
    stamp: EventTime,
) -> Checks {
    let case = Case {
        intent,
        account,
        known,
        limits: limits_for(known, intent),
        instrument: known.instruments.get(&intent.instrument),
        mark: known.marks.get(&intent.instrument),
        now,
        stamp,
    };
    let mut checks = Checks::default();
    checks.add("limits_set", Reason::UnknownAccount, case.limits_set());
    checks.add("trading_state", Reason::ExchangeClosed, case.trading_state());
    checks.add("restricted_list", Reason::Other, case.restricted());
    checks.add("instrument_known", Reason::UnknownSymbol, case.instrument_known());
    checks.add("order_characteristics", Reason::UnsupportedOrderCharacteristic, case.characteristics());
    checks.add("lot_size", Reason::IncorrectQuantity, case.lot_size());
    checks.add("price_increment", Reason::InvalidPriceIncrement, case.price_increment());
    checks.add("minimum_notional", Reason::IncorrectQuantity, case.minimum_notional());
    checks.add("intent_expiry", Reason::TooLateToEnter, case.expiry());
    checks.add("maximum_intent_age", Reason::StaleOrder, case.intent_age());
    checks.add("stale_market_data", Reason::ReferencePriceNotAvailable, case.mark_age());
    checks.add("price_collar", Reason::PriceExceedsCurrentPriceBand, case.collar());
    checks.add("maximum_order_value", Reason::NotionalValueExceedsThreshold, case.order_value());
    checks.add("maximum_order_volume", Reason::OrderExceedsLimit, case.order_volume());
    checks.add("maximum_position", Reason::OrderExceedsLimit, case.position());
    checks.add("maximum_position_value", Reason::NotionalValueExceedsThreshold, case.position_value());
    for (name, found) in exposure::checks(&case) {
        checks.add(name, Reason::NotionalValueExceedsThreshold, found);
    }
    checks.add("maximum_working_orders", Reason::OrderExceedsLimit, case.working_orders());
    checks.add("duplicative_order", Reason::DuplicateOrder, rates::duplicate(&case));
    checks.add("maximum_messages", Reason::AlgorithmRiskThresholdBreached, rates::messages(&case));
    checks.add(
        "repeated_automated_execution",
        Reason::AlgorithmRiskThresholdBreached,
        rates::repeated(&case),
    );
    for (name, is_set) in case.unsupported() {
        let found = if is_set {
            Found::Undecidable("this build can not enforce this limit; remove it to trade".into())
        } else {
            Found::Skipped
        };
        checks.add(name, Reason::Other, found);
    }
    checks
}

impl Checks {
    fn add(&mut self, name: &'static str, reason: Reason, found: Found) {
        let mut result = CheckResult { check: name.into(), ..CheckResult::default() };
        result.verdict = match found {
            Found::Skipped => Verdict::Skipped,
            Found::Within { limit, value } => {
                (result.limit, result.value) = (Some(limit), Some(value));
                if value <= limit { Verdict::Pass } else { Verdict::Fail }
            }
            Found::Says { passes, text } => {
                result.text = (!text.is_empty()).then(|| text.into());
                if passes { Verdict::Pass } else { Verdict::Fail }
            }
            Found::Undecidable(text) => {
                result.text = Some(text.into());
                Verdict::Fail
            }
        };
        if result.verdict == Verdict::Fail && self.refused.is_none() {
            self.refused = Some(reason);
        }
        self.results.push(result);
    }
}

impl Found {
    /// An overflow on the way to a value makes a check undecidable.
    pub fn of(found: Result<Found, DecimalError>) -> Found {
        found.unwrap_or_else(|error| Found::Undecidable(format!("the value can not be reckoned: {error}")))
    }

    fn ok() -> Found {
        Found::Says { passes: true, text: String::new() }
    }

    fn fails(text: impl Into<String>) -> Found {
        Found::Says { passes: false, text: text.into() }
    }
}

const NO_INSTRUMENT: &str = "the instrument is not known";
const NO_MARK: &str = "no mark is known";

impl Case<'_> {
    /// The strictest of the limits that apply.
    pub fn least<T: Ord>(&self, limit: impl Fn(&RiskLimits) -> Option<T>) -> Option<T> {
        self.limits.iter().filter_map(|limits| limit(limits)).min()
    }

    pub fn buys(&self) -> bool {
        self.intent.side == Side::Buy
    }

    /// The price at which the order is valued: its limit, else the mark, else what the strategy saw.
    pub fn price(&self) -> Option<Price> {
        let candidates =
            [self.intent.limit_price, self.mark.map(|mark| mark.mark), Some(self.intent.reference_price)];
        candidates.into_iter().flatten().find(|price| price.is_positive())
    }

    /// The position were this order and all working ones of its side filled: positive in the order's direction.
    pub fn worst_position(&self) -> Result<Quantity, DecimalError> {
        let held =
            self.account.holdings.get(&self.intent.instrument).map_or(0, |holding| holding.quantity.units());
        let (buying, selling) = self.account.working_quantity(&self.intent.instrument);
        let ordered = self.intent.quantity.units();
        Quantity::from_units(if self.buys() { held + buying + ordered } else { selling + ordered - held })
    }

    fn limits_set(&self) -> Found {
        if self.limits.is_empty() {
            return Found::fails(format!(
                "no limits are set for account {}; publish them first",
                self.intent.account
            ));
        }
        Found::ok()
    }

    fn trading_state(&self) -> Found {
        let i = self.intent;
        let (state, command) = trading_state(self.known, &i.account, &i.strategy, &i.instrument, self.now);
        let words = |command: &tidewire_schemas::ControlCommand| {
            format!("{} for {} by {}: {}", state.name(), command.scope, command.who, command.why)
        };
        let text = command.map_or_else(|| state.name().to_owned(), words);
        let passes = match state {
            TradingState::Active => true,
            TradingState::Halted => false,
            // Smaller, never through zero: all that works and this order together do not turn the position.
            TradingState::Reducing => self.worst_position().is_ok_and(|worst| !worst.is_positive()),
        };
        Found::Says { passes, text }
    }

    fn restricted(&self) -> Found {
        if self.limits.iter().any(|limits| limits.restricted == Some(true)) {
            return Found::fails("trading is forbidden by the limits");
        }
        if self.limits.iter().all(|limits| limits.restricted.is_none()) {
            Found::Skipped
        } else {
            Found::ok()
        }
    }

    fn instrument_known(&self) -> Found {
        let Some(instrument) = self.instrument else {
            return Found::Undecidable(format!("{NO_INSTRUMENT}; publish it to the topic of instruments"));
        };
        if !instrument.contract_multiplier.is_positive() {
            return Found::Undecidable("the instrument's contract multiplier is not positive".into());
        }
        let expiry = instrument.expiry.into_iter().chain(instrument.valid_to).min();
        match expiry {
            Some(end) if end <= self.now => Found::fails(format!("the instrument ended at {end}")),
            _ => Found::ok(),
        }
    }

    fn characteristics(&self) -> Found {
        let i = self.intent;
        if i.side == Side::Unknown
            || i.order_type == OrderType::Unknown
            || i.time_in_force == TimeInForce::Unknown
        {
            return Found::fails("side, order type or time in force is unknown");
        }
        match (i.order_type, i.limit_price) {
            (OrderType::Limit, None) => Found::fails("a limit order without a limit price"),
            (OrderType::Limit, Some(price)) if !price.is_positive() => {
                Found::fails("the limit price is not positive")
            }
            (OrderType::Market, Some(_)) => Found::fails("a market order with a limit price"),
            _ => Found::ok(),
        }
    }

    fn lot_size(&self) -> Found {
        if !self.intent.quantity.is_positive() {
            return Found::fails("the quantity is not positive");
        }
        let Some(instrument) = self.instrument else { return Found::Undecidable(NO_INSTRUMENT.into()) };
        if !instrument.lot_size.is_positive() {
            return Found::Skipped;
        }
        let passes = self.intent.quantity.is_multiple_of(instrument.lot_size);
        Found::Says { passes, text: format!("{} in lots of {}", self.intent.quantity, instrument.lot_size) }
    }

    fn price_increment(&self) -> Found {
        let Some(price) = self.intent.limit_price else { return Found::Skipped };
        let Some(instrument) = self.instrument else { return Found::Undecidable(NO_INSTRUMENT.into()) };
        if !instrument.tick_size.is_positive() {
            return Found::Skipped;
        }
        let passes = price.is_multiple_of(instrument.tick_size);
        Found::Says { passes, text: format!("{price} in ticks of {}", instrument.tick_size) }
    }

    fn minimum_notional(&self) -> Found {
        let Some(instrument) = self.instrument else { return Found::Undecidable(NO_INSTRUMENT.into()) };
        if !instrument.min_notional.is_positive() {
            return Found::Skipped;
        }
        let Some(price) = self.price() else { return Found::Undecidable(NO_MARK.into()) };
        match quote_value(instrument, self.intent.quantity, price) {
            Ok(value) => Found::Says {
                passes: value >= instrument.min_notional,
                text: format!("{value} against a least of {}", instrument.min_notional),
            },
            Err(error) => Found::of(Err(error)),
        }
    }

    fn expiry(&self) -> Found {
        match self.intent.expiry {
            None => Found::Skipped,
            Some(expiry) => {
                Found::Says { passes: self.now < expiry, text: format!("until {expiry}, now {}", self.now) }
            }
        }
    }

    /// Against the stamp, not the task's time: catching up must not trade the past.
    fn intent_age(&self) -> Found {
        self.age(self.least(|limits| limits.max_intent_age_ms), self.intent.event_time, self.stamp)
    }

    fn mark_age(&self) -> Found {
        let limit = self.least(|limits| limits.max_mark_age_ms);
        match self.mark {
            Some(mark) => self.age(limit, mark.event_time, self.now),
            None if limit.is_some() => Found::Undecidable(NO_MARK.into()),
            None => Found::Skipped,
        }
    }

    fn age(&self, limit_ms: Option<i64>, then: EventTime, now: EventTime) -> Found {
        let Some(limit_ms) = limit_ms else { return Found::Skipped };
        // Rounded up: what is older by less than a millisecond is older.
        let age_ms = now.micros_since(then).saturating_add(999).div_euclid(1_000);
        Found::of(
            Amount::from_int(limit_ms)
                .and_then(|limit| Ok(Found::Within { limit, value: Amount::from_int(age_ms)? })),
        )
    }

    /// Distance of the order's price from the mark, in basis points of the mark.
    fn collar(&self) -> Found {
        let Some(limit_bps) = self.least(|limits| limits.price_collar_bps) else { return Found::Skipped };
        let Some(mark) = self.mark.map(|mark| mark.mark).filter(|mark| mark.is_positive()) else {
            return Found::Undecidable(NO_MARK.into());
        };
        let price = self.intent.limit_price.unwrap_or(self.intent.reference_price);
        let distance_bps = || {
            let distance = Amount::from_units(price.checked_sub(mark)?.abs().units())?;
            let share = distance.checked_mul_int(10_000)?.checked_div_price(mark)?;
            Ok(Found::Within {
                limit: Amount::from_int(limit_bps)?,
                value: Amount::from_units(share.units())?,
            })
        };
        Found::of(distance_bps())
    }

    fn order_value(&self) -> Found {
        let Some(limit) = self.least(|limits| limits.max_order_value) else { return Found::Skipped };
        self.value_within(limit, Ok(self.intent.quantity))
    }

    fn order_volume(&self) -> Found {
        let Some(limit) = self.least(|limits| limits.max_order_quantity) else { return Found::Skipped };
        within_quantity(limit, Ok(self.intent.quantity))
    }

    fn position(&self) -> Found {
        let Some(limit) = self.least(|limits| limits.max_position) else { return Found::Skipped };
        within_quantity(limit, self.worst_position())
    }

    fn position_value(&self) -> Found {
        let Some(limit) = self.least(|limits| limits.max_position_value) else { return Found::Skipped };
        let worst = self.worst_position();
        if worst.is_ok_and(|worst| !worst.is_positive()) {
            return Found::Within { limit, value: Amount::ZERO };
        }
        self.value_within(limit, worst)
    }

    fn value_within(&self, limit: Amount, quantity: Result<Quantity, DecimalError>) -> Found {
        let Some(instrument) = self.instrument else { return Found::Undecidable(NO_INSTRUMENT.into()) };
        let Some(price) = self.price() else { return Found::Undecidable(NO_MARK.into()) };
        Found::of(
            quantity.and_then(|q| Ok(Found::Within { limit, value: quote_value(instrument, q, price)? })),
        )
    }

    fn working_orders(&self) -> Found {
        let limit = i64::try_from(MAX_WORKING_ORDERS).unwrap_or(i64::MAX);
        let with_this = i64::try_from(self.account.working.len()).unwrap_or(i64::MAX).saturating_add(1);
        Found::of(
            Amount::from_int(limit)
                .and_then(|limit| Ok(Found::Within { limit, value: Amount::from_int(with_this)? })),
        )
    }

    /// Limits of the schema that are not enforced yet: set, they refuse, since a limit must never be passed over.
    fn unsupported(&self) -> [(&'static str, bool); 2] {
        [
            ("capital_threshold", self.limits.iter().any(|limits| limits.capital_threshold.is_some())),
            ("maximum_daily_loss", self.limits.iter().any(|limits| limits.max_daily_loss.is_some())),
        ]
    }
}

fn within_quantity(limit: Quantity, value: Result<Quantity, DecimalError>) -> Found {
    let as_amount = |quantity: Quantity| Amount::from_units(quantity.units());
    Found::of(
        value.and_then(|value| Ok(Found::Within { limit: as_amount(limit)?, value: as_amount(value)? })),
    )
}
