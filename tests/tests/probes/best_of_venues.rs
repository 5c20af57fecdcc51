//! (c) The best bid and offer over all venues: a stage keyed by symbol.

use smol_str::{SmolStr, format_smolstr};
use tidewire_contract::{
    Configured, Cx, Fault, Input, Interface, MapState, Operator, OperatorType, Settings, Whole,
    composite_state,
};
use tidewire_engine::driver::StageBuilder;
use tidewire_engine::plan::Role;
use tidewire_schemas::{Kind, Price, Quantity, Quote, Record};

use super::{dec, ms, rekeyed, through};

type Touch = ((Price, Quantity), (Price, Quantity));

struct Consolidated;

composite_state! {
    /// The touch of each venue, and the best last given out.
    struct Venues {
        touches: MapState<SmolStr, Touch>,
        said: Whole<Option<Touch>>,
    }
}

impl Configured for Consolidated {
    const NAME: &'static str = "consolidated";
    const ABOUT: &'static str = "Best bid and offer over venues";
    type Settings = Settings;

    fn new(_: Settings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Operator for Consolidated {
    type State = Venues;
    type Shared = ();

    fn interface(&self) -> Interface {
        Interface { accepts: vec![Kind::Quote], emits: vec![Kind::Quote], ..Interface::default() }
    }

    fn on_record(
        &self,
        cx: &mut Cx<'_>,
        input: &Input<'_>,
        state: &mut Venues,
        (): &(),
    ) -> Result<(), Fault> {
        let Record::Quote(quote) = input.record else { return Ok(()) };
        let touch = ((quote.bid_price, quote.bid_quantity), (quote.ask_price, quote.ask_quantity));
        state.touches.insert(quote.instrument.clone(), touch);
        let best_bid = state.touches.iter().map(|(_, (bid, _))| bid.0).max().unwrap_or_default();
        let best_ask = state.touches.iter().map(|(_, (_, ask))| ask.0).min().unwrap_or_default();
        let mut best = ((best_bid, Quantity::ZERO), (best_ask, Quantity::ZERO));
        for (_, (bid, ask)) in state.touches.iter() {
            let overflow = |_| Fault::new("overflow", "quantity over venues");
            if bid.0 == best_bid {
                best.0.1 = best.0.1.checked_add(bid.1).map_err(overflow)?;
            }
            if ask.0 == best_ask {
                best.1.1 = best.1.1.checked_add(ask.1).map_err(overflow)?;
            }
        }
        if *state.said == Some(best) {
            return Ok(());
        }
        *state.said = Some(best);
        let ((bid_price, bid_quantity), (ask_price, ask_quantity)) = best;
        let instrument = format_smolstr!("{}.ALL", input.key);
        cx.emit(Quote { instrument, bid_price, bid_quantity, ask_price, ask_quantity, ..quote.clone() });
        Ok(())
    }
}

#[test]
fn best_bid_and_offer_over_venues() {
    let quote = |venue: &str, at: i64, bid: &str, ask: &str| {
        let instrument = format!("BTCUSDT.{venue}");
        let quote = Quote {
            instrument: instrument.as_str().into(),
            event_time: ms(at),
            bid_price: dec(bid),
            bid_quantity: dec("1"),
            ask_price: dec(ask),
            ask_quantity: dec("2"),
            ..Quote::default()
        };
        ("quotes", instrument, at, Record::from(quote))
    };
    let records = vec![
        quote("ONE", 1, "100", "102"),
        quote("TWO", 2, "101", "103"),
        quote("THREE", 3, "99", "104"),
        quote("THREE", 4, "101", "102"),
        quote("TWO", 5, "90", "103"),
    ];
    let stage = StageBuilder::new("best")
        .input("by-symbol", Role::Driving, 2)
        .node("best", OperatorType::of::<Consolidated>(), "", &["by-symbol"])
        .output("best", 2, &["best"], &["instrument"])
        .build();
    let first = rekeyed("quotes", "by-symbol", "by = { before = '.' }", 3, 2);
    let (_, seen) = through(first, records, stage);
    let row = |q: &Quote| {
        format!("{} {}x{} {}x{}", q.instrument, q.bid_price, q.bid_quantity, q.ask_price, q.ask_quantity)
    };
    let got: Vec<_> = seen.iter().map(|seen| row(seen.record.as_quote().unwrap())).collect();
    assert_eq!(
        got,
        [
            "BTCUSDT.ALL 100x1 102x2",
            "BTCUSDT.ALL 101x1 102x2",
            "BTCUSDT.ALL 101x2 102x4",
            "BTCUSDT.ALL 101x1 102x4",
        ]
    );
}
