//! One list of promises, kept by every sink; and sinks that break one each, which the list must find.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod sinks;

#[path = "sinks/cases_driven.rs"]
mod cases_driven;
#[path = "sinks/cases_store.rs"]
mod cases_store;

use sinks::reference::{Break, Reference};

/// Runs each case against each store.
macro_rules! conformance {
    ($($store:ident: $new:expr;)* => $cases:tt) => { $(conformance!(@store $store, $new, $cases);)* };
    (@store $store:ident, $new:expr, { $($file:ident: $($case:ident)*;)* }) => {
        mod $store {
            use super::sinks::{redis_store, reference};
            #[allow(dead_code, reason = "each store uses one")]
            fn imports() { let _ = (redis_store::RedisStore::start, reference::Reference::new); }
            $($(
                #[test]
                fn $case() {
                    super::$file::$case(&$new);
                }
            )*)*
        }
    };
}

conformance! {
    memory: reference::Reference::new();
    redis: redis_store::RedisStore::start();
    => {
        cases_store:
            it_opens_and_closes
            a_batch_is_written_exactly
            an_empty_batch_changes_nothing
            a_batch_of_any_size_is_written
            a_record_replaces_all_fields_of_the_one_before
            within_a_batch_the_last_of_a_key_wins
            a_redelivery_changes_nothing
            an_older_record_never_wins
            any_order_of_batches_ends_the_same
            writers_at_once_end_with_the_newest
            a_tombstone_deletes_and_is_remembered
            a_bad_record_is_refused_alone
            a_key_of_another_partition_is_not_compared
            a_higher_generation_wins_and_a_lower_one_is_told
            a_store_that_is_down_is_tried_again
            a_full_store_loses_nothing
            wrong_credentials_are_fatal_and_show_no_secret;
        cases_driven:
            what_the_topic_holds_comes_to_the_store
            a_restart_of_the_store_in_mid_stream_is_gone_over
            a_store_that_is_down_stops_this_sink_alone
            what_can_not_be_read_or_written_is_a_dead_letter_once
            two_members_share_and_one_takes_over
            a_zombie_changes_nothing
            a_fatal_error_stops_and_commits_nothing
            a_newer_writer_is_understood
            an_outage_of_the_log_is_waited_for
            deleted_records_are_told_of;
    }
}

/// Each broken store must fail the case that is there for it.
#[test]
fn broken_stores_are_found() {
    type Case = fn(&dyn sinks::Store);
    let cases: [(Break, Case); 7] = [
        (Break::NoGuard, cases_store::an_older_record_never_wins),
        (Break::NoGuard, cases_driven::a_zombie_changes_nothing),
        (Break::Merges, cases_store::a_record_replaces_all_fields_of_the_one_before),
        (Break::ForgetsDeleted, cases_store::a_tombstone_deletes_and_is_remembered),
        (Break::TakesAnyPartition, cases_store::a_key_of_another_partition_is_not_compared),
        (Break::FailsWhole, cases_store::a_bad_record_is_refused_alone),
        (Break::SaysDoneWhenFull, cases_store::a_full_store_loses_nothing),
    ];
    for (broken, case) in cases {
        case(&Reference::new());
        let found = std::panic::catch_unwind(|| case(&Reference::broken(broken)));
        assert!(found.is_err(), "{broken:?} was not found");
    }
}
