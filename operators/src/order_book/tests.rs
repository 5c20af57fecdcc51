use tidewire_schemas::{Alert, AlertState, AssetClass, BookDelta, BookSnapshot, Instrument, Level, Quote};

use super::*;
use crate::testing::{Harness, dec, ms, only};

fn levels(text: &str) -> Vec<Level> {
    let level = |pair: &str| {
        let (price, quantity) = pair.split_once('x').unwrap();
        Level { price: dec(price), quantity: dec(quantity) }
    };
    text.split_whitespace().map(level).collect()
}

fn snapshot(update_id: i64, bids: &str, asks: &str) -> BookSnapshot {
    BookSnapshot {
        instrument: "A.V".into(),
        event_time: ms(update_id),
        update_id,
        bids: levels(bids),
        asks: levels(asks),
        ..BookSnapshot::default()
    }
}

fn spot(first: i64, last: i64, bids: &str, asks: &str) -> BookDelta {
    BookDelta {
        instrument: "A.V".into(),
        event_time: ms(last),
        first_update_id: first,
        last_update_id: last,
        bids: levels(bids),
        asks: levels(asks),
        ..BookDelta::default()
    }
}

fn futures(first: i64, last: i64, previous: i64, bids: &str) -> BookDelta {
    BookDelta { previous_update_id: Some(previous), ..spot(first, last, bids, "") }
}

fn book() -> Book {
    let mut book = Book::default();
    assert_eq!(
        book.apply_snapshot(&snapshot(100, "10x1 9x2", "11x1 12x2"), Bounds::default()),
        Outcome::Applied
    );
    book
}

#[test]
fn rules_of_sequence() {
    let gap = |have, needs| Outcome::Gap { have, needs };
    // What comes first after a snapshot at update 100.
    for (delta, want) in [
        (spot(90, 99, "", ""), Outcome::Old),
        (spot(90, 100, "", ""), Outcome::Old),
        (spot(99, 101, "", ""), Outcome::Applied),
        (spot(101, 105, "", ""), Outcome::Applied),
        (spot(102, 105, "", ""), gap(100, 101)),
        (futures(90, 99, 80, ""), Outcome::Old),
        (futures(90, 100, 80, ""), Outcome::Applied),
        (futures(90, 120, 80, ""), Outcome::Applied),
        (futures(105, 120, 100, ""), Outcome::Applied),
        (futures(105, 120, 104, ""), gap(100, 104)),
    ] {
        assert_eq!(book().apply_delta(&delta, Bounds::default()), want, "{delta:?}");
    }
    // What comes next after update 105.
    for (delta, want) in [
        (spot(106, 107, "", ""), Outcome::Applied),
        (spot(104, 107, "", ""), Outcome::Applied),
        (spot(107, 108, "", ""), gap(105, 106)),
        (spot(100, 105, "", ""), Outcome::Old),
        (futures(110, 120, 105, ""), Outcome::Applied),
        (futures(104, 120, 106, ""), gap(105, 106)),
    ] {
        let mut book = book();
        book.apply_delta(&spot(101, 105, "", ""), Bounds::default());
        assert_eq!(book.apply_delta(&delta, Bounds::default()), want, "{delta:?}");
    }
}

#[test]
fn levels_are_set_and_deleted() {
    let mut book = book();
    book.apply_delta(&spot(101, 101, "10x0 9.5x3 1x0", "10.5x4 11x9"), Bounds::default());
    assert_eq!(book.top(9), (levels("9.5x3 9x2"), levels("10.5x4 11x9 12x2")));
    assert_eq!(book.top(1), (levels("9.5x3"), levels("10.5x4")));
    assert_eq!(book.depth(), (2, 3));
}

#[test]
fn the_worst_levels_are_dropped() {
    let mut book = book();
    book.apply_delta(
        &spot(101, 101, "8x1 9.5x1", "13x1 11.5x1"),
        Bounds { max_levels: 3, max_kept_deltas: 9 },
    );
    assert_eq!(book.top(9), (levels("10x1 9.5x1 9x2"), levels("11x1 11.5x1 12x2")));
}

#[test]
fn deltas_before_the_snapshot_are_kept_up_to_the_bound() {
    let bounds = Bounds { max_levels: 9, max_kept_deltas: 2 };
    let mut book = Book::default();
    for update in 98..=102 {
        assert_eq!(
            book.apply_delta(&spot(update, update, &format!("10x{update}"), ""), bounds),
            Outcome::Kept
        );
    }
    // 98 to 100 were dropped: a snapshot at 99 leaves a gap, one at 100 does not.
    assert_eq!(
        book.apply_snapshot(&snapshot(99, "10x1", "11x1"), bounds),
        Outcome::Gap { have: 99, needs: 100 }
    );
    assert_eq!(book.touch(), None);
    assert_eq!(book.apply_snapshot(&snapshot(100, "10x1", "11x1"), bounds), Outcome::Applied);
    assert_eq!(book.phase(), Phase::Live);
    assert_eq!(book.last_update_id(), 102);
    assert_eq!(book.best_bid(), levels("10x102").pop());
}

#[test]
fn an_old_snapshot_changes_nothing() {
    let mut book = book();
    let before = book.checksum();
    assert_eq!(book.apply_snapshot(&snapshot(100, "1x1", "2x1"), Bounds::default()), Outcome::Old);
    assert_eq!(book.checksum(), before);
    assert_eq!(book.apply_snapshot(&snapshot(101, "1x1", "2x1"), Bounds::default()), Outcome::Applied);
    assert_ne!(book.checksum(), before);
}

fn touches(records: &[Record]) -> Vec<(i64, String, String)> {
    let side = |price: Price, quantity: Quantity| format!("{price}x{quantity}");
    only::<Quote>(records)
        .iter()
        .map(|q| (q.update_id, side(q.bid_price, q.bid_quantity), side(q.ask_price, q.ask_quantity)))
        .collect()
}

fn alerts(records: &[Record]) -> Vec<(String, AlertState)> {
    only::<Alert>(records).iter().map(|alert| (alert.kind.to_string(), alert.state)).collect()
}

#[test]
fn quotes_only_when_the_touch_changed_and_the_book_is_in_order() {
    for mut book in [Harness::new::<OrderBook>(""), Harness::new::<OrderBook>("").restarting()] {
        assert!(book.send("A.V", spot(99, 100, "10x1", "")).is_empty());
        let quote = |update, bid: &str, ask: &str| vec![(update, bid.to_owned(), ask.to_owned())];
        assert_eq!(touches(&book.send("A.V", snapshot(99, "10x5 9x2", "11x1"))), quote(100, "10x1", "11x1"));
        assert!(book.send("A.V", spot(101, 102, "8x1", "12x3")).is_empty());
        assert_eq!(touches(&book.send("A.V", spot(103, 103, "", "11x4"))), quote(103, "10x1", "11x4"));
        // A day late.
        let old = BookDelta { event_time: ms(-86_400_000), ..spot(99, 100, "10x7", "") };
        assert!(book.send("A.V", old).is_empty());
        // A gap: said once, then silence until a snapshot that the kept deltas follow on.
        let raised = [("book-gap".to_owned(), AlertState::Raised)];
        let recovered = [("book-gap".to_owned(), AlertState::Recovered)];
        let records = book.send("A.V", spot(105, 106, "10x2", ""));
        assert_eq!((alerts(&records), touches(&records)), (raised.to_vec(), vec![]));
        assert!(book.send("A.V", spot(107, 107, "10x3", "")).is_empty());
        assert!(book.send("A.V", spot(109, 109, "10x4", "")).is_empty());
        let records = book.send("A.V", snapshot(104, "10x1", "11x4"));
        assert!(records.is_empty(), "108 is missing: {records:?}");
        let records = book.send("A.V", snapshot(108, "10x1", "11x4"));
        assert_eq!((alerts(&records), touches(&records)), (recovered.to_vec(), quote(109, "10x4", "11x4")));
        // Crossed.
        let records = book.send("A.V", spot(110, 110, "11x1", ""));
        assert_eq!(
            (alerts(&records), touches(&records)),
            (vec![("book-crossed".into(), AlertState::Raised)], vec![])
        );
    }
}

#[test]
fn a_book_in_order_again_says_its_touch_even_if_it_is_the_old_one() {
    let mut book = Harness::new::<OrderBook>("");
    book.send("A.V", snapshot(1, "10x1", "11x1"));
    book.send("A.V", spot(5, 5, "", ""));
    assert_eq!(touches(&book.send("A.V", snapshot(6, "10x1", "11x1"))).len(), 1);
}

#[test]
fn without_a_snapshot_only_a_proven_touch_is_given() {
    let mut book = Harness::new::<OrderBook>("start_from_deltas = true");
    let instrument = Instrument {
        instrument: "A.V".into(),
        asset_class: AssetClass::Spot,
        tick_size: dec("1"),
        ..Instrument::default()
    };
    book.broadcast("A.V", instrument);
    assert!(book.send("A.V", spot(0, 0, "10x1", "13x1")).is_empty(), "11 or 12 may be there, unseen");
    assert!(book.send("A.V", spot(1, 1, "11x1", "")).is_empty(), "12 may be");
    assert_eq!(touches(&book.send("A.V", spot(2, 2, "11x0 12x1", "")))[0].1, "12x1");
    // Back below: between 10 and 12 a bid may rest that never changed.
    assert!(book.send("A.V", spot(3, 3, "12x0", "")).is_empty());
    assert_eq!(touches(&book.send("A.V", spot(4, 4, "", "11x1")))[0].1, "10x1");
    // From 10 up all bids are known now, and from 13 down all offers.
    assert_eq!(touches(&book.send("A.V", spot(5, 5, "", "11x0")))[0].2, "13x1");
}
