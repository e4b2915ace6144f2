//! What every engine of the [`Store`](super::Store) port must do, as tests that know no engine.
//!
//! An engine gives an [`Engine`] (how to open its store, again and again over the same data) and calls
//! `conformance_suite!` with it; each case then runs as a test of its own. Cases see the store through a [`World`] only:
//! its clock moves by hand, and no case sleeps. Where engines may differ (whether a lease outlives a crash, when a
//! lease that has run out is noticed) a case accepts both.

pub(in crate::store) mod backlog;
pub(in crate::store) mod batch;
pub(in crate::store) mod breaker;
pub(in crate::store) mod crash;
pub(in crate::store) mod crowd;
pub(in crate::store) mod ingest;
pub(in crate::store) mod kept;
pub(in crate::store) mod lanes;
pub(in crate::store) mod log;
mod model;
pub(in crate::store) mod newest;
pub(in crate::store) mod records;
pub(in crate::store) mod retry;
pub(in crate::store) mod settle;
pub(in crate::store) mod shares;
pub(in crate::store) mod storm;
pub(in crate::store) mod sweep;
pub(in crate::store) mod transfer;
pub(in crate::store) mod waiting;
mod world;

pub(in crate::store) use world::{Engine, World, retention};

/// Every case, by topic; `$engine` makes a fresh [`Engine`] with no data.
macro_rules! conformance_suite {
    ($engine:expr) => {
        $crate::store::conformance::conformance_cases! { $engine;
            ingest: a_repeat_gets_the_first_answer_and_writes_nothing,
            ingest: a_large_batch_tells_its_repeats,
            ingest: the_same_key_with_other_content_is_refused,
            ingest: keys_are_forgotten_after_a_day,
            ingest: an_event_fans_out_and_reads_back,
            ingest: closed_and_unknown_connections_get_no_jobs,
            lanes: jobs_come_in_the_order_of_writing,
            lanes: a_lease_hides_a_job_until_it_runs_out,
            lanes: renewal_moves_the_deadline,
            lanes: release_puts_a_job_back_to_its_place,
            lanes: concurrency_is_a_cap_that_can_be_changed,
            lanes: a_strict_lane_waits_for_its_first_job,
            lanes: a_strict_lane_lets_nobody_pass_who_comes_later,
            lanes: a_paused_lane_keeps_its_jobs_and_its_order,
            lanes: a_flood_does_not_starve_others,
            lanes: waiting_for_work_ends_when_there_is_some,
            lanes: every_sleeper_is_woken_while_work_remains,
            waiting: waiting_jobs_are_counted_by_lane,
            breaker: failures_in_a_row_open_it_and_it_probes_one_at_a_time,
            breaker: what_was_under_way_when_it_opened_says_nothing_new,
            breaker: a_run_of_failures_outlives_a_crash_and_ends_with_a_resume,
            breaker: outcomes_of_one_step_count_in_their_order,
            breaker: a_day_of_failures_pauses_the_connection,
            backlog: what_is_not_wanted_is_cancelled_in_steps,
            backlog: what_was_under_way_is_cancelled_when_it_comes_back,
            backlog: an_empty_backlog_holds_nobody_back,
            backlog: whoever_does_upkeep_is_called_at_once,
            backlog: a_pause_in_between_and_a_closing_are_no_obstacle,
            batch: a_batch_counts_as_one_and_is_alone,
            batch: a_batch_is_tried_again_in_its_order,
            batch: a_batch_ends_before_it_is_too_large,
            batch: a_lost_lease_leaves_a_doubt,
            batch: a_batch_lane_is_fair_to_others,
            settle: each_outcome_leaves_the_job_where_it_says,
            settle: a_settlement_counts_once_and_only_for_the_newest_lease,
            settle: retry_after_holds_back_the_lane,
            settle: the_newest_attempts_are_kept,
            settle: the_last_bytes_are_kept,
            settle: gone_closes_the_lane_and_cancels_the_rest,
            settle: refused_credentials_pause_the_lane,
            records: a_write_needs_the_revision_it_read,
            records: a_source_is_a_record_like_any_other,
            records: changes_tell_all_in_order,
            records: deleting_a_tenant_takes_all_that_is_its,
            records: waiting_for_a_change_ends_when_there_is_one,
            records: mappings_are_kept_by_version,
            records: nothing_is_written_again_where_nothing_is_missing,
            log: each_filter_narrows,
            log: a_cursor_walks_all_deliveries_once,
            log: a_long_search_says_where_to_go_on,
            log: totals_tell_what_came_of_a_connections_jobs,
            newest: the_newest_events_are_given_by_type,
            newest: what_is_given_is_bounded,
            newest: many_events_and_types_cost_little,
            retry: an_ended_job_runs_again_with_a_fresh_schedule,
            retry: only_what_makes_sense_is_retried,
            retry: a_waiting_job_becomes_due_at_once,
            retry: a_triggered_job_stands_in_the_log_and_in_no_lane,
            retry: a_triggered_job_that_went_into_its_lane_meanwhile_is_left_alone,
            sweep: what_ended_long_ago_is_removed,
            sweep: a_closed_lane_is_cancelled_in_steps,
            sweep: upkeep_is_called_for_in_time,
            sweep: a_lease_that_outlives_its_connection_is_cancelled,
            sweep: types_are_kept_for_their_own_time,
            kept: a_replay_puts_each_job_back_once,
            kept: a_replay_takes_what_has_ended,
            kept: a_tenants_events_are_walked_in_order,
            kept: one_more_job_is_made_once,
            kept: an_erased_event_tells_nothing_and_sends_nothing,
            kept: an_event_of_many_jobs_is_erased_as_a_whole,
            kept: a_purge_takes_all_of_a_tenant_and_nothing_else,
            kept: a_purged_event_is_known_again_for_its_day,
            kept: what_a_job_sent_is_forgotten_where_that_is_asked_for,
            transfer: what_is_exported_is_what_is_there,
            transfer: what_is_imported_goes_on_where_it_stood,
            crash: everything_accepted_is_there_again,
            crash: waits_and_pauses_outlive_a_crash,
            crash: a_clock_set_back_after_a_crash_finds_the_wait_again,
            crash: a_closed_store_says_so,
            crowd: nothing_is_lost_or_settled_twice_by_many_at_once,
            crowd: concurrent_repeats_store_one_event,
            crowd: one_record_has_one_winner,
            shares: a_bucket_gives_no_more_than_its_rate_and_burst,
            shares: a_call_takes_from_all_its_buckets_or_from_none,
            shares: many_at_once_never_overspend,
            shares: a_broken_clock_blocks_no_bucket,
            shares: a_hold_has_one_owner_until_it_ends,
            storm: a_storm_of_due_retries_is_leased_in_steps,
            storm: a_long_lane_gives_all_in_order,
            storm: many_lanes_come_back_after_a_crash,
        }
        #[test]
        fn random_operations_agree_with_the_model() {
            $crate::store::conformance::run_model(|| $engine);
        }
    };
}

macro_rules! conformance_cases {
    ($engine:expr; $($topic:ident: $case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let world = $crate::store::conformance::World::open($engine).await;
                $crate::store::conformance::$topic::$case(world).await;
            }
        )*
    };
}

pub(in crate::store) use conformance_cases;
pub(in crate::store) use conformance_suite;
pub(in crate::store) use model::run as run_model;
