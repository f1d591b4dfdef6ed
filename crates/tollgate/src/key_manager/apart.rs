//! Keeps tenants apart, whatever a store answers: a store with a mistake must not let an actor of one tenant see or change the keys of
//! another.

use tollgate_core::{
    denial::Unavailable,
    manage::{Actor, HistoryQuery, KeyAdminError, KeyDetails, KeyEvent, KeyQuery, Page, TenantDetails},
};

/// Restricts a query to the keys that the actor manages. `false` if the query is for another tenant: then there is no result.
pub(super) fn confine(tenant: &mut Option<Box<str>>, actor: &Actor) -> bool {
    if tenant.is_none() {
        *tenant = actor.tenant().map(Into::into);
    }
    actor.manages(tenant.as_deref())
}

/// Removes keys that were not asked for from a store's answer.
pub(super) fn only_selected(page: &mut Page<KeyDetails>, query: &KeyQuery) {
    retain(page, |key| {
        is_wanted(query.id.as_deref(), Some(&key.id))
            && is_wanted(query.tenant.as_deref(), key.tenant.as_deref())
    });
}

/// Removes events that were not asked for from a store's answer.
pub(super) fn only_selected_events(page: &mut Page<KeyEvent>, query: &HistoryQuery) {
    retain(page, |event| {
        is_wanted(query.key.as_deref(), event.key.as_deref())
            && is_wanted(query.tenant.as_deref(), event.tenant.as_deref())
    });
}

/// Whether this value matches the query. A `wanted` of `None` matches every value.
fn is_wanted(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none() || wanted == found
}

fn retain<T>(page: &mut Page<T>, is_selected: impl Fn(&T) -> bool) {
    let returned = page.items.len();
    page.items.retain(is_selected);
    let wrong = returned - page.items.len();
    if wrong > 0 {
        // It may name what was left out.
        page.next = None;
        tracing::error!(
            target: "tollgate",
            wrong,
            "key store returned keys or events that the query excludes, they are left out: correct the store (the suite \
             `key_admin` of tollgate-testing tests it)"
        );
    }
}

/// Refuses another tenant than the one that was asked for.
pub(super) fn check_tenant(found: &TenantDetails, tenant: &str) -> Result<(), KeyAdminError> {
    if *found.tenant == *tenant {
        return Ok(());
    }
    tracing::error!(target: "tollgate", tenant, "key store returned another tenant: correct the store (the suite `key_admin` of tollgate-testing tests it)");
    Err(Unavailable::new("the key store returned another tenant than the one that was asked for").into())
}

/// Refuses a changed key that is not the one that was to be changed.
pub(super) fn check_changed(changed: &KeyDetails, id: &str, actor: &Actor) -> Result<(), KeyAdminError> {
    if *changed.id == *id && actor.manages(changed.tenant.as_deref()) {
        return Ok(());
    }
    tracing::error!(
        target: "tollgate",
        principal = id,
        "key store returned another key than the changed one: correct the store (the suite `key_admin` of tollgate-testing tests it)"
    );
    Err(Unavailable::new("the key store returned another key than the changed one").into())
}
