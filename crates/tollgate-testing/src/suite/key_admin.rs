//! The suite for stores that manage keys.

mod events;
mod life_cycle;
mod lists;
mod model;
mod races;
mod setup;
mod tenants;

use std::sync::Arc;

use tollgate::{
    key::Digest,
    manage::{Command, KeyAdmin, KeyChange, KeyDetails},
    store::KeyStore,
};

pub(super) use self::setup::{Setup, root};
use super::{KeyStoreFixture, key_store, run_cases};
use crate::at;

/// Runs the suite for stores that manage keys, and [`key_store`](super::key_store) on the same store.
///
/// It covers the life cycle of keys, the plans of tenants, that tenants are kept apart, lists and their pages, the history, events,
/// races, and random commands that are compared with [`MemoryKeys`](tollgate::MemoryKeys).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // In a test of its own, with your store in place of `MemoryKeys`:
/// tollgate_testing::suite::key_admin(async || tollgate::MemoryKeys::new()).await;
/// # }
/// ```
///
/// # Panics
/// If the store does not conform.
pub async fn key_admin<S: KeyStore + KeyAdmin>(open: impl AsyncFn() -> S) {
    key_store(async || Managed(Arc::new(open().await))).await;
    run_cases!(
        "key_admin",
        async { Setup::new(Arc::new(open().await)) },
        [
            life_cycle::an_issued_key_is_verified_with_all_that_it_was_issued_with,
            life_cycle::a_key_is_shown_with_everything_but_its_secret,
            life_cycle::invalid_keys_are_refused_and_not_stored,
            life_cycle::a_key_that_reaches_every_bound_is_stored,
            life_cycle::secrets_and_identifiers_are_unique,
            life_cycle::a_name_is_unique_within_its_tenant,
            life_cycle::a_key_is_renamed_and_its_rights_are_changed,
            life_cycle::a_key_expires,
            life_cycle::a_rotated_key_is_the_same_key_with_another_secret,
            life_cycle::a_former_secret_works_until_the_overlap_ends,
            life_cycle::a_second_rotation_ends_the_secret_of_the_first,
            life_cycle::a_revoked_key_is_refused_and_kept,
            life_cycle::a_deleted_key_leaves_only_its_history,
            tenants::the_keys_of_a_suspended_tenant_are_refused_until_it_is_resumed,
            tenants::the_keys_of_a_tenant_have_its_plan_unless_they_have_their_own,
            tenants::a_cache_sees_the_plan_of_a_tenant_once_the_change_returns,
            tenants::an_actor_of_one_tenant_sees_and_changes_no_other_keys,
            tenants::the_store_itself_keeps_tenants_apart,
            lists::pages_show_every_key_once_the_newest_first,
            lists::a_list_shows_what_the_query_selects,
            lists::the_history_shows_who_did_what_and_when,
            lists::an_invalid_cursor_is_no_outage,
            events::listeners_are_notified_of_every_change_before_it_returns,
            events::the_principals_of_a_key_end_when_it_ends,
            events::every_change_raises_the_generation,
            races::of_many_keys_with_one_name_one_is_issued,
            races::no_request_is_let_in_once_revoke_has_returned,
            races::no_key_of_a_suspended_tenant_stays_active,
            races::a_cancelled_change_is_made_completely_or_not_at_all,
            model::random_commands_have_the_same_results_as_in_memory,
        ]
    );
}

/// A store whose keys are changed by its own management.
struct Managed<S>(Arc<S>);

impl<S: KeyStore + KeyAdmin> Managed<S> {
    async fn change(&self, change: KeyChange) {
        self.0.change(Command::new(change, root(), at(0))).await.unwrap();
    }
}

impl<S: KeyStore + KeyAdmin> KeyStoreFixture for Managed<S> {
    type Store = S;

    fn store(&self) -> &Arc<S> {
        &self.0
    }

    async fn insert(&self, id: &str, digest: Digest) {
        let details = Box::new(KeyDetails::new(id, id, at(0)));
        self.change(KeyChange::Issue { details, digest }).await;
    }

    async fn revoke(&self, id: &str) {
        self.change(KeyChange::Revoke { id: id.into() }).await;
    }
}
