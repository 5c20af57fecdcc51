//! Records and enums of the schemas as state. They are declared here because a crate may give a foreign type a
//! trait only where the trait is its own.

use tidewire_schemas::{
    Aggressor, AlertState, Direction, Level, OrderStatus, OrderType, Severity, Side, TimeInForce,
};

use crate::persist::{Persist, PersistError, Shape};

crate::persist_record!(
    Alert,
    Bar,
    BookDelta,
    BookSnapshot,
    CancelOrder,
    ControlCommand,
    ExecutionReport,
    FeatureValue,
    FeatureVector,
    Instrument,
    MarkPrice,
    NewOrder,
    NewsItem,
    Order,
    OrderIntent,
    Position,
    Quote,
    ReplaceOrder,
    RiskLimits,
    SentimentScore,
    Signal,
    Trade,
);

crate::persist_enum!(Aggressor { Unknown, Buyer, Seller });
crate::persist_enum!(AlertState { Raised, Recovered, Escalated });
crate::persist_enum!(Direction { Flat, Long, Short });
crate::persist_enum!(OrderType { Unknown, Market, Limit });
crate::persist_enum!(Severity { Info, Warning, Critical });
crate::persist_enum!(Side { Unknown, Buy, Sell });
crate::persist_enum!(TimeInForce { Unknown, Day, Gtc, Ioc, Fok });
crate::persist_enum!(OrderStatus {
    Unknown,
    PendingNew,
    New,
    PartiallyFilled,
    Filled,
    PendingCancel,
    Canceled,
    PendingReplace,
    Replaced,
    Rejected,
    Expired,
    DoneForDay,
    Stopped,
    Suspended,
});

impl Persist for Level {
    fn shape(out: &mut Shape) {
        out.push_str("Level{price:Price,quantity:Quantity,}");
    }
    fn save(&self, out: &mut Vec<u8>) {
        self.price.save(out);
        self.quantity.save(out);
    }
    fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
        Ok(Self { price: Persist::load(bytes)?, quantity: Persist::load(bytes)? })
    }
}
