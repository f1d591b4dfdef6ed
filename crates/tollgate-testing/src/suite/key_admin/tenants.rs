//! Tenants: their suspension, and that they are kept apart.

use tollgate::{
    DenialKind,
    manage::{Actor, HistoryQuery, KeyAdminError, KeyQuery, NewKey},
    store::{EndReason, KeyStatus},
};

use super::{Setup, root};

pub(super) async fn the_keys_of_a_suspended_tenant_are_refused_until_it_is_resumed(setup: &Setup) {
    let (good, other, without_tenant) =
        (setup.issue_for("acme", "a").await, setup.issue_for("umbrella", "a").await, setup.issue("a").await);
    let revoked = setup.issue_for("acme", "revoked").await;
    setup.manager.revoke(&revoked.details.id, &root()).await.unwrap();
    let held = setup.verify(good.secret.expose_secret()).await.unwrap();

    setup.manager.suspend_tenant("acme", &root()).await.unwrap();
    assert_eq!(held.end_signal().reason(), Some(EndReason::TenantSuspended));
    let late = setup.issue_for("acme", "late").await;
    assert_eq!(late.details.status, KeyStatus::TenantSuspended);
    for key in [&good, &late] {
        assert_eq!(setup.refusal(key).await, Some(DenialKind::TenantSuspended));
        let shown = setup.manager.show(&key.details.id, &root()).await.unwrap();
        assert_eq!(shown.status, KeyStatus::TenantSuspended);
    }
    assert_eq!(setup.refusal(&revoked).await, Some(DenialKind::KeyRevoked));
    assert_eq!((setup.refusal(&other).await, setup.refusal(&without_tenant).await), (None, None));
    let rotated = setup.manager.rotate(&late.details.id, None, &root()).await.unwrap();
    assert_eq!(
        setup.refusal(&rotated).await,
        Some(DenialKind::TenantSuspended),
        "a key that was rotated during the suspension"
    );
    let gone = setup.issue_for("acme", "gone").await;
    setup.manager.revoke(&gone.details.id, &root()).await.unwrap();

    setup.manager.resume_tenant("acme", &root()).await.unwrap();
    for key in [&good, &rotated] {
        let principal = setup.verify(key.secret.expose_secret()).await.unwrap();
        assert_eq!(principal.end_signal().reason(), None);
    }
    for key in [&revoked, &gone] {
        assert_eq!(setup.refusal(key).await, Some(DenialKind::KeyRevoked));
    }
    assert_eq!(held.end_signal().reason(), Some(EndReason::TenantSuspended), "a signal cannot be taken back");

    // Repeating a change changes nothing, and a tenant without keys can be suspended.
    setup.manager.resume_tenant("acme", &root()).await.unwrap();
    setup.manager.suspend_tenant("newcomer", &root()).await.unwrap();
    setup.manager.suspend_tenant("newcomer", &root()).await.unwrap();
    let newcomer = setup.issue_for("newcomer", "a").await;
    assert_eq!(setup.refusal(&newcomer).await, Some(DenialKind::TenantSuspended));
    let events = async |tenant: &str| {
        let query = HistoryQuery::all().with_tenant(tenant);
        let history = setup.manager.history(query, &root()).await.unwrap().items;
        let of_tenant = history.iter().filter(|event| event.key.is_none());
        of_tenant.map(|event| event.action.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(events("acme").await, ["tenant_resumed", "tenant_suspended"]);
    assert_eq!(events("newcomer").await, ["tenant_suspended"]);
}

pub(super) async fn an_actor_of_one_tenant_sees_and_changes_no_other_keys(setup: &Setup) {
    let ada = Actor::of_tenant("ada", "acme");
    let (own, other, without_tenant) =
        (setup.issue_for("acme", "a").await, setup.issue_for("umbrella", "a").await, setup.issue("a").await);
    for foreign in [&other, &without_tenant] {
        let id = &foreign.details.id;
        let manager = &setup.manager;
        let outcomes = [
            manager.show(id, &ada).await,
            manager.rename(id, "b", &ada).await,
            manager.rotate(id, None, &ada).await.map(|issued| issued.details),
            manager.revoke(id, &ada).await,
            manager.delete(id, &ada).await,
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Err(KeyAdminError::NotFound)), "{outcome:?}");
        }
        assert_eq!(setup.actions(id).await, ["issued"], "a refused change leaves no event");
        assert_eq!(setup.refusal(foreign).await, None, "the other key still works");
        let history = manager.history(HistoryQuery::of_key(&**id), &ada).await.unwrap();
        assert!(history.items.is_empty(), "the history of another tenant's key is hidden");
    }
    let list = setup.manager.list(KeyQuery::all(), &ada).await.unwrap();
    assert_eq!(list.items, std::slice::from_ref(&own.details));
    let foreign = setup.manager.list(KeyQuery::all().with_tenant("umbrella"), &ada).await.unwrap();
    assert!(foreign.items.is_empty(), "the keys of another tenant are hidden");

    let issued = setup.manager.issue(NewKey::named("mine"), &ada).await.unwrap();
    assert_eq!(
        issued.details.tenant.as_deref(),
        Some("acme"),
        "an actor's keys belong to the actor's tenant by default"
    );
    let foreign = setup.manager.issue(NewKey::named("b").with_tenant("umbrella"), &ada).await;
    assert!(matches!(foreign, Err(KeyAdminError::NotPermitted)));
    for tenant in ["acme", "umbrella"] {
        let outcome = setup.manager.suspend_tenant(tenant, &ada).await;
        assert!(matches!(outcome, Err(KeyAdminError::NotPermitted)));
        let outcome = setup.manager.resume_tenant(tenant, &ada).await;
        assert!(matches!(outcome, Err(KeyAdminError::NotPermitted)));
    }
    setup.manager.rename(&own.details.id, "b", &ada).await.unwrap();
    setup.manager.revoke(&own.details.id, &ada).await.unwrap();
    let history = setup.manager.history(HistoryQuery::of_key(&*own.details.id), &ada).await.unwrap();
    assert_eq!(history.items.iter().map(|event| &*event.actor).collect::<Vec<_>>(), ["ada", "ada", "root"]);
}
