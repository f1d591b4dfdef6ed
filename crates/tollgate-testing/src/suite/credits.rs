//! The suite for stores of credits.

mod bounds;
mod grants;
mod idempotency;
mod ledger;
mod loans;
mod losses;
mod model;
mod races;
mod random_calls;
mod refills;
mod reservations;
mod setup;

use std::sync::Arc;

use tollgate::credits::{CreditAdmin, CreditLoans};

use self::setup::Setup;
use super::run_cases;

/// Runs the suite for stores of credits: grants and their refills, reservations and their settlement, idempotency keys, concurrent
/// calls, the losses that other services have had, and random calls that are compared with a model in which each credit has a place.
///
/// `random_calls` is the number of these calls: 100,000 for a store in memory, fewer for a database. With the environment variable
/// `TOLLGATE_LONG`, there are ten times as many.
///
/// The store must use the instant of the request, not a clock of its own.
///
/// ```
/// use tollgate::credits::MemoryCredits;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // In a test of its own, with your store in place of `MemoryCredits`:
/// tollgate_testing::suite::credits(1_000, async || MemoryCredits::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the store does not conform.
pub async fn credits<C: CreditAdmin>(random_calls: usize, open: impl AsyncFn() -> C) {
    run_cases!(
        "credits",
        async { Setup::new(Arc::new(open().await), random_calls) },
        [
            grants::an_account_without_grants_has_nothing,
            grants::grants_are_spent_in_their_order,
            grants::a_grant_with_the_same_identifier_is_made_once,
            grants::a_grant_that_has_ended_is_not_made_again,
            grants::an_expired_grant_lapses,
            grants::a_withdrawn_grant_leaves_what_is_reserved,
            grants::only_an_actor_of_all_tenants_changes_accounts,
            refills::a_daily_grant_is_filled_up_at_midnight,
            refills::a_monthly_grant_of_the_31st_is_filled_up_on_the_last_day_of_shorter_months,
            refills::missed_periods_are_filled_up_once,
            refills::a_clock_that_steps_back_fills_nothing_up,
            refills::credits_of_an_earlier_period_lapse_when_they_are_returned,
            refills::a_debt_is_paid_by_the_next_refill,
            reservations::reserved_credits_are_not_available,
            reservations::the_first_settlement_wins,
            reservations::an_excess_is_charged_as_its_caller_chose,
            reservations::a_debt_has_a_limit_and_is_paid_first,
            reservations::an_expired_reservation_gives_back_and_still_charges,
            reservations::an_unknown_reservation_charges_and_returns_nothing,
            reservations::a_sweep_releases_the_expired_reservations_of_all_accounts,
            idempotency::a_repeated_request_is_charged_once,
            idempotency::a_key_of_a_released_request_can_be_used_again,
            idempotency::a_key_that_moved_to_a_new_reservation_leaves_the_earlier_one_to_be_charged,
            idempotency::a_key_is_forgotten_24_hours_after_the_settlement,
            ledger::the_ledger_records_every_change,
            ledger::pages_show_every_entry_once_the_latest_first,
            ledger::an_invalid_cursor_is_no_outage,
            bounds::a_command_that_exceeds_a_bound_is_refused_with_its_name,
            bounds::extreme_amounts_and_instants_change_nothing_by_mistake,
            losses::the_error_of_a_stream_that_never_released_keeps_no_credits,
            losses::a_commit_whose_acknowledgement_was_lost_is_paid_once,
            losses::a_settlement_that_is_reset_after_an_error_makes_no_credits,
            losses::a_charge_that_failed_is_no_refund,
            losses::requests_that_outlive_their_reservations_spend_no_credit_twice,
            losses::an_idempotency_key_matches_no_request_of_another_tenant,
            races::of_concurrent_reservations_as_many_succeed_as_there_are_credits,
            races::concurrent_settlements_of_a_reservation_have_the_same_result,
            races::concurrent_requests_with_one_idempotency_key_reserve_once,
            races::concurrent_grants_with_one_identifier_are_made_once,
            races::a_cancelled_call_is_made_completely_or_not_at_all,
            random_calls::random_calls_have_the_same_results_as_in_the_model,
        ]
    );
}

/// Runs the suite for stores whose credits another backend can lend: [`credits`], with cases and random calls that also shrink loans and charge
/// what was lent.
///
/// ```
/// use tollgate::credits::MemoryCredits;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // In a test of its own, with your store in place of `MemoryCredits`:
/// tollgate_testing::suite::credit_loans(1_000, async || MemoryCredits::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the store does not conform.
pub async fn credit_loans<C: CreditAdmin + CreditLoans>(random_calls: usize, open: impl AsyncFn() -> C) {
    // The random calls below contain those of this suite.
    credits(0, &open).await;
    run_cases!(
        "credit loans",
        async { Setup::with_loans(Arc::new(open().await), random_calls) },
        [
            loans::a_shrunk_loan_stays_open_with_the_rest,
            loans::what_is_lent_is_charged_once_from_its_loan,
            loans::what_is_lent_is_charged_in_full_without_its_loan,
            loans::what_was_charged_is_found_by_its_identifier_for_24_hours,
            random_calls::random_calls_have_the_same_results_as_in_the_model,
        ]
    );
}

/// Runs the cases of [`credits`] that a backend has to pass which is in front of another one, and lends to requests what it has reserved
/// there: all except those about the entries of the ledger, which are those of its loans, and about the grants that requests are charged to.
///
/// ```
/// use tollgate::credits::MemoryCredits;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // In a test of its own, with your backend in place of `MemoryCredits`:
/// tollgate_testing::suite::lent_credits(async || MemoryCredits::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the backend does not conform.
pub async fn lent_credits<C: CreditAdmin>(open: impl AsyncFn() -> C) {
    run_cases!(
        "lent credits",
        async { Setup::new(Arc::new(open().await), 0) },
        [
            grants::an_account_without_grants_has_nothing,
            grants::grants_are_spent_in_their_order,
            grants::a_grant_with_the_same_identifier_is_made_once,
            grants::a_grant_that_has_ended_is_not_made_again,
            grants::an_expired_grant_lapses,
            grants::a_withdrawn_grant_leaves_what_is_reserved,
            grants::only_an_actor_of_all_tenants_changes_accounts,
            refills::a_daily_grant_is_filled_up_at_midnight,
            refills::a_clock_that_steps_back_fills_nothing_up,
            refills::credits_of_an_earlier_period_lapse_when_they_are_returned,
            refills::a_debt_is_paid_by_the_next_refill,
            reservations::reserved_credits_are_not_available,
            reservations::the_first_settlement_wins,
            reservations::an_excess_is_charged_as_its_caller_chose,
            reservations::a_debt_has_a_limit_and_is_paid_first,
            reservations::an_expired_reservation_gives_back_and_still_charges,
            reservations::an_unknown_reservation_charges_and_returns_nothing,
            idempotency::a_repeated_request_is_charged_once,
            idempotency::a_key_of_a_released_request_can_be_used_again,
            idempotency::a_key_that_moved_to_a_new_reservation_leaves_the_earlier_one_to_be_charged,
            idempotency::a_key_is_forgotten_24_hours_after_the_settlement,
            bounds::a_command_that_exceeds_a_bound_is_refused_with_its_name,
            bounds::extreme_amounts_and_instants_change_nothing_by_mistake,
            losses::the_error_of_a_stream_that_never_released_keeps_no_credits,
            losses::a_commit_whose_acknowledgement_was_lost_is_paid_once,
            losses::a_settlement_that_is_reset_after_an_error_makes_no_credits,
            losses::requests_that_outlive_their_reservations_spend_no_credit_twice,
            losses::an_idempotency_key_matches_no_request_of_another_tenant,
            races::of_concurrent_reservations_as_many_succeed_as_there_are_credits,
            races::concurrent_settlements_of_a_reservation_have_the_same_result,
            races::concurrent_requests_with_one_idempotency_key_reserve_once,
            races::concurrent_grants_with_one_identifier_are_made_once,
            races::a_cancelled_call_is_made_completely_or_not_at_all,
        ]
    );
}
