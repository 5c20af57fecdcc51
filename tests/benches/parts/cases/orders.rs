//! Made signals, intents and orders, with the marks that they are judged by.

use smol_str::{SmolStr, format_smolstr};
use tidewire_schemas::{
    Direction, EventTime, ExecType, ExecutionReport, Liquidity, MarkPrice, NewOrder, OrderIntent,
    OrderStatus, OrderType, Quantity, RiskLimits, Side, Signal, TimeInForce,
};

use super::market::{
    CONTROL, FROM_MS, KEYED, Made, SHARED, SYMBOLS, Walks, instruments, name, price, quantity,
};
use super::market::{quote, time_of};

const ACCOUNTS: [&str; 4] = ["one", "two", "three", "four"];

/// Quotes, and after nine of them a signal on an instrument; its direction goes round.
pub fn signals() -> impl Iterator<Item = Made> {
    let mut walks = Walks::new(SYMBOLS);
    let made = (0..).map(move |number: usize| {
        // All have been quoted before the first signal.
        if number < 10 * SYMBOLS || !number.is_multiple_of(10) {
            let quote = quote(&mut walks, number);
            return Made::of(KEYED, quote.event_time, &quote.instrument.clone(), quote);
        }
        let (symbol, round) = (number / 10 % SYMBOLS, number / 10 / SYMBOLS);
        let event_time = time_of(number);
        let signal = Signal {
            id: format_smolstr!("trend:{}:{round}", name(symbol)),
            instrument: name(symbol),
            strategy: "trend".into(),
            direction: [Direction::Long, Direction::Flat, Direction::Short][round % 3],
            strength: 0.5,
            confidence: 0.7,
            event_time,
            horizon_ms: 60_000,
            expiry: event_time.plus_ms(60_000),
            ..Signal::default()
        };
        Made::of(KEYED, event_time, &name(symbol), signal)
    });
    instruments().chain(made)
}

fn mark(walks: &mut Walks, symbol: usize, event_time: EventTime) -> MarkPrice {
    let cents = walks.step(symbol);
    MarkPrice {
        instrument: name(symbol),
        event_time,
        mark: price(cents),
        bid: price(cents - 1),
        ask: price(cents + 1),
        bid_quantity: quantity(5_000),
        ask_quantity: quantity(5_000),
        source: "mid".into(),
    }
}

/// Market orders and the marks that fill them, seven marks for an order.
pub fn commands() -> impl Iterator<Item = Made> {
    let mut walks = Walks::new(SYMBOLS);
    let made = (0..).map(move |number: usize| {
        let (symbol, event_time) = (number % SYMBOLS, time_of(number));
        if number < SYMBOLS || !number.is_multiple_of(8) {
            return Made::of(KEYED, event_time, &name(symbol), mark(&mut walks, symbol, event_time));
        }
        let order = NewOrder {
            order_id: format_smolstr!("o{number}"),
            account: ACCOUNTS[number / 8 % ACCOUNTS.len()].into(),
            instrument: name(symbol),
            side: if number.is_multiple_of(16) { Side::Buy } else { Side::Sell },
            order_type: OrderType::Market,
            quantity: quantity(100),
            time_in_force: TimeInForce::Ioc,
            event_time,
            ..NewOrder::default()
        };
        Made::of(KEYED, event_time, &name(symbol), order)
    });
    instruments().chain(made)
}

/// Intents of four accounts, each followed by what the venue says of its order, and marks: of eight records five are
/// marks. Each account buys an instrument and then sells it again, within its limits.
pub fn intents() -> impl Iterator<Item = Made> {
    let mut walks = Walks::new(SYMBOLS);
    let first = SYMBOLS.next_multiple_of(8);
    let made = (0..).map(move |number: usize| {
        let event_time = time_of(number);
        let (turn, step) = ((number - number.min(first)) / 8, number % 8);
        if number < first || step > 2 {
            let symbol = number % SYMBOLS;
            return Made::of(SHARED, event_time, &name(symbol), mark(&mut walks, symbol, event_time));
        }
        let (account, round) = (turn % ACCOUNTS.len(), turn / ACCOUNTS.len());
        let deal = Deal {
            account: ACCOUNTS[account],
            round,
            symbol: round / 2 % SYMBOLS,
            cents: walks.at(round / 2 % SYMBOLS),
            event_time,
        };
        match step {
            0 => deal.intent(),
            1 => deal.report(ExecType::New, OrderStatus::New, Quantity::ZERO),
            _ => deal.report(ExecType::Trade, OrderStatus::Filled, quantity(100)),
        }
    });
    instruments().chain(ACCOUNTS.iter().map(|account| limits(account))).chain(made)
}

/// An intent of an account, and the order that comes of it.
struct Deal {
    account: &'static str,
    /// Which of the account's intents.
    round: usize,
    symbol: usize,
    cents: i64,
    event_time: EventTime,
}

impl Deal {
    fn side(&self) -> Side {
        if self.round.is_multiple_of(2) { Side::Buy } else { Side::Sell }
    }

    fn intent(self) -> Made {
        let intent = OrderIntent {
            id: format_smolstr!("i{}:{}", self.account, self.round),
            account: self.account.into(),
            strategy: "trend".into(),
            instrument: name(self.symbol),
            side: self.side(),
            order_type: OrderType::Market,
            quantity: quantity(100),
            time_in_force: TimeInForce::Ioc,
            reference_price: price(self.cents),
            event_time: self.event_time,
            ..OrderIntent::default()
        };
        Made::of(KEYED, self.event_time, self.account, intent)
    }

    /// Of the account's ids each intent takes one for the decision and one for the order.
    fn report(self, exec_type: ExecType, order_status: OrderStatus, filled: Quantity) -> Made {
        let order_id: SmolStr = format_smolstr!("op:{}:{}", self.account, 2 * self.round + 1);
        let all = quantity(100);
        let report = ExecutionReport {
            execution_id: format_smolstr!("{order_id}:{exec_type}"),
            order_id,
            account: self.account.into(),
            instrument: name(self.symbol),
            side: self.side(),
            exec_type,
            order_status,
            last_quantity: filled,
            last_price: if filled.is_zero() { price(0) } else { price(self.cents) },
            leaves_quantity: all.checked_sub(filled).unwrap(),
            cumulative_quantity: filled,
            fee_currency: "USDT".into(),
            liquidity: Liquidity::Taker,
            event_time: self.event_time,
            ..ExecutionReport::default()
        };
        Made::of(KEYED, self.event_time, self.account, report)
    }
}

fn limits(account: &str) -> Made {
    let event_time = EventTime::from_ms(FROM_MS - 10_000);
    let limits = RiskLimits {
        account: account.into(),
        strategy: "*".into(),
        instrument: "*".into(),
        max_order_value: Some("60000".parse().unwrap()),
        max_position_value: Some("30000".parse().unwrap()),
        price_collar_bps: Some(50),
        max_intent_age_ms: Some(5_000),
        max_mark_age_ms: Some(5_000),
        event_time,
        ..RiskLimits::default()
    };
    Made::of(CONTROL, event_time, &format!("{account}/*/*"), limits)
}
