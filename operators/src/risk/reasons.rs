//! Why an order is refused, by the names of FIX tag 103 (OrdRejReason).

/// A reason, with its FIX name and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The instrument is not known.
    UnknownSymbol,
    /// The trading state forbids it.
    ExchangeClosed,
    /// A limit on quantity, position or exposure.
    OrderExceedsLimit,
    /// The intent has expired.
    TooLateToEnter,
    /// The intent, or one like it, was taken before.
    DuplicateOrder,
    /// The intent is too old.
    StaleOrder,
    /// Side, type, time in force or limit price make no order.
    UnsupportedOrderCharacteristic,
    /// Not a multiple of the lot, or not positive.
    IncorrectQuantity,
    /// No limits are set for the account.
    UnknownAccount,
    /// Too far from the mark.
    PriceExceedsCurrentPriceBand,
    /// Not a multiple of the tick.
    InvalidPriceIncrement,
    /// No mark, or too old a one.
    ReferencePriceNotAvailable,
    /// A limit on value.
    NotionalValueExceedsThreshold,
    /// A limit on the rate of messages or executions.
    AlgorithmRiskThresholdBreached,
    /// Anything else.
    Other,
}

impl Reason {
    /// The FIX name.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::UnknownSymbol => "UnknownSymbol",
            Reason::ExchangeClosed => "ExchangeClosed",
            Reason::OrderExceedsLimit => "OrderExceedsLimit",
            Reason::TooLateToEnter => "TooLateToEnter",
            Reason::DuplicateOrder => "DuplicateOrder",
            Reason::StaleOrder => "StaleOrder",
            Reason::UnsupportedOrderCharacteristic => "UnsupportedOrderCharacteristic",
            Reason::IncorrectQuantity => "IncorrectQuantity",
            Reason::UnknownAccount => "UnknownAccount",
            Reason::PriceExceedsCurrentPriceBand => "PriceExceedsCurrentPriceBand",
            Reason::InvalidPriceIncrement => "InvalidPriceIncrement",
            Reason::ReferencePriceNotAvailable => "ReferencePriceNotAvailable",
            Reason::NotionalValueExceedsThreshold => "NotionalValueExceedsThreshold",
            Reason::AlgorithmRiskThresholdBreached => "AlgorithmRiskThresholdBreached",
            Reason::Other => "Other",
        }
    }

    /// The FIX code.
    pub const fn code(self) -> u16 {
        match self {
            Reason::UnknownSymbol => 1,
            Reason::ExchangeClosed => 2,
            Reason::OrderExceedsLimit => 3,
            Reason::TooLateToEnter => 4,
            Reason::DuplicateOrder => 6,
            Reason::StaleOrder => 8,
            Reason::UnsupportedOrderCharacteristic => 11,
            Reason::IncorrectQuantity => 13,
            Reason::UnknownAccount => 15,
            Reason::PriceExceedsCurrentPriceBand => 16,
            Reason::InvalidPriceIncrement => 18,
            Reason::ReferencePriceNotAvailable => 19,
            Reason::NotionalValueExceedsThreshold => 20,
            Reason::AlgorithmRiskThresholdBreached => 21,
            Reason::Other => 99,
        }
    }
}
