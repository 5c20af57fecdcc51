//! One list of promises, kept by every log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod logs;

#[path = "logs/cases_groups.rs"]
mod cases_groups;
#[path = "logs/cases_records.rs"]
mod cases_records;
#[path = "logs/cases_upkeep.rs"]
mod cases_upkeep;

/// Runs each case against each log.
macro_rules! conformance {
    ($($log:ident: $new:expr;)* => $cases:tt) => { $(conformance!(@log $log, $new, $cases);)* };
    (@log $log:ident, $new:expr, { $($file:ident: $($case:ident)*;)* }) => {
        mod $log {
            #[allow(unused_imports, reason = "not all logs use all of it")]
            use super::logs::*;
            $($(
                #[test]
                fn $case() {
                    super::$file::$case(&mut $new);
                }
            )*)*
        }
    };
}

conformance! {
    memory: Memory(tidewire_engine::memory::MemoryLog::new());
    memory_with_control_records: Memory(tidewire_engine::memory::MemoryLog::with_control_records());
    embedded: Embedded::new();
    embedded_without_cache: Embedded::with_cache(0);
    embedded_reopened: Embedded::reopened();
    remote: Remote::new();
    => {
        cases_records:
            topics_are_created_once
            topics_that_no_log_takes_are_refused
            unknown_topics_and_partitions_are_named
            records_come_back_as_they_were_written
            reads_page_by_bytes
            an_empty_partition_is_at_its_end
            reads_outside_of_the_partition_are_refused
            appending_nothing_changes_nothing
            large_appends_keep_their_order
            what_is_too_large_is_refused_whole
            wait_returns_when_something_was_appended
            every_waiting_thread_wakes;
        cases_groups:
            a_transaction_writes_records_and_positions_together
            a_reader_never_sees_half_a_transaction
            a_refused_transaction_leaves_nothing
            positions_belong_to_their_group
            a_second_member_of_a_name_fences_the_first
            an_expired_member_is_a_zombie
            a_stale_generation_is_aborted_and_can_be_sent_again
            positions_of_tasks_not_held_are_refused
            tasks_move_when_they_are_released
            leaving_and_dropping_give_tasks_away
            members_of_one_group_share_one_driving_topic
            two_writers_of_one_partition_take_turns;
        cases_upkeep:
            compaction_keeps_the_last_of_each_key
            compaction_leaves_what_is_younger_than_the_lag
            tombstones_go_one_pass_later
            compaction_leaves_the_end_where_it_was
            a_compacted_topic_needs_keys
            a_topic_may_be_compacted_again_and_again
            retention_by_age_deletes_from_the_front
            retention_by_bytes_keeps_the_newest
            retention_may_delete_everything;
    }
}
