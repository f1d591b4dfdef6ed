//! Every key store through one suite: whatever keeps the keys, they are issued, found, changed, ended and remembered alike.
//!
//! | module | idea |
//! |---|---|
//! | `world` | a store, its manager, and what a caller sees of it |
//! | `lives` | a key from its issue to its end |
//! | `tenants` | whose keys they are |
//! | `lists` | pages, filters, the history |
//! | `events` | who is told, and when |
//! | `races` | what happens at the same time |
//! | `usage` | how often a key was used, and when last |
//! | `model` | thousands of commands at random, against the store in memory |
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "whatever goes wrong in a test fails it"
)]

mod events;
mod lists;
mod lives;
mod model;
mod races;
mod tenants;
mod usage;
mod world;

use world::World;

/// The same cases on each store, which is fresh for each.
macro_rules! on_each_store {
    ($($module:ident::$case:ident),* $(,)?) => {
        on_each_store! { @store memory = World::memory() => $($module::$case),* }
        on_each_store! { @store sqlite_in_memory = World::sqlite_in_memory() => $($module::$case),* }
        on_each_store! { @store sqlite = World::sqlite() => $($module::$case),* }
        on_each_store! { @store postgresql = World::postgresql() => $($module::$case),* }
    };
    (@store $store:ident = $open:expr => $($module:ident::$case:ident),*) => {
        mod $store {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $module::$case(&$open.await).await;
                }
            )*
        }
    };
}

on_each_store! {
    lives::an_issued_key_proves_what_it_was_issued_for,
    lives::a_key_is_listed_with_everything_but_its_secret,
    lives::what_makes_no_sense_is_refused_and_nothing_is_stored,
    lives::a_secret_or_an_identifier_is_one_keys,
    lives::a_name_is_one_keys_within_its_tenant,
    lives::a_key_is_renamed_and_its_rights_are_changed,
    lives::a_key_expires_by_itself,
    lives::a_rotated_key_is_the_same_key_with_another_secret,
    lives::a_former_secret_is_good_until_the_overlap_ends,
    lives::a_second_rotation_ends_what_the_first_left,
    lives::a_revoked_key_is_refused_and_kept,
    lives::a_deleted_key_is_gone_but_for_its_history,
    tenants::a_suspended_tenants_keys_are_refused_until_it_is_resumed,
    tenants::an_actor_of_one_tenant_sees_and_changes_nobody_elses_keys,
    lists::pages_show_every_key_once_the_newest_first,
    lists::a_list_shows_what_was_asked_for_and_no_more,
    lists::the_history_tells_who_did_what_and_when,
    lists::a_page_that_was_not_passed_on_as_it_was_is_refused,
    events::watchers_are_told_of_every_change_before_it_is_answered,
    events::streams_are_told_of_their_end_and_of_nothing_else,
    events::every_change_raises_the_generation,
    races::of_many_that_want_one_name_one_gets_it,
    races::nobody_is_let_in_once_revoke_has_returned,
    races::no_key_of_a_suspended_tenant_is_left_active,
    races::a_change_that_nobody_waits_for_is_made_as_a_whole,
    usage::what_was_used_is_counted_by_the_hour_and_once,
    usage::what_unknown_and_deleted_keys_used_is_dropped,
    model::any_store_does_what_the_one_in_memory_does,
}
