//! Whose keys they are.

use tollgate::{
    DenialKind,
    manage::{Actor, HistoryQuery, KeyAdminError, KeyQuery, NewKey},
    store::{EndReason, KeyStatus},
};

use crate::world::{World, root};

pub(crate) async fn a_suspended_tenants_keys_are_refused_until_it_is_resumed(world: &World) {
    let (good, other, nobodys) =
        (world.issue_for("acme", "a").await, world.issue_for("umbrella", "a").await, world.issue("a").await);
    let revoked = world.issue_for("acme", "revoked").await;
    world.manager.revoke(&revoked.details.id, &root()).await.unwrap();
    let held = world.verify(good.secret.expose_secret()).await.unwrap();

    world.manager.suspend_tenant("acme", &root()).await.unwrap();
    assert_eq!(held.end_signal().reason(), Some(EndReason::TenantSuspended));
    let late = world.issue_for("acme", "late").await;
    assert_eq!(late.details.status, KeyStatus::TenantSuspended);
    for key in [&good, &late] {
        assert_eq!(world.refusal(key).await, Some(DenialKind::TenantSuspended));
        let shown = world.manager.show(&key.details.id, &root()).await.unwrap();
        assert_eq!(shown.status, KeyStatus::TenantSuspended);
    }
    assert_eq!(world.refusal(&revoked).await, Some(DenialKind::KeyRevoked));
    assert_eq!((world.refusal(&other).await, world.refusal(&nobodys).await), (None, None));
    let rotated = world.manager.rotate(&late.details.id, None, &root()).await.unwrap();
    assert_eq!(world.refusal(&rotated).await, Some(DenialKind::TenantSuspended), "rotated meanwhile");
    let gone = world.issue_for("acme", "gone").await;
    world.manager.revoke(&gone.details.id, &root()).await.unwrap();

    world.manager.resume_tenant("acme", &root()).await.unwrap();
    for key in [&good, &rotated] {
        let principal = world.verify(key.secret.expose_secret()).await.unwrap();
        assert_eq!(principal.end_signal().reason(), None);
    }
    for key in [&revoked, &gone] {
        assert_eq!(world.refusal(key).await, Some(DenialKind::KeyRevoked));
    }
    assert_eq!(held.end_signal().reason(), Some(EndReason::TenantSuspended), "a signal cannot be taken back");

    // Again, which changes nothing; and of a tenant that has no keys yet.
    world.manager.resume_tenant("acme", &root()).await.unwrap();
    world.manager.suspend_tenant("newcomer", &root()).await.unwrap();
    world.manager.suspend_tenant("newcomer", &root()).await.unwrap();
    let newcomer = world.issue_for("newcomer", "a").await;
    assert_eq!(world.refusal(&newcomer).await, Some(DenialKind::TenantSuspended));
    let events = async |tenant: &str| {
        let query = HistoryQuery::all().with_tenant(tenant);
        let history = world.manager.history(query, &root()).await.unwrap().items;
        let of_tenant = history.iter().filter(|event| event.key.is_none());
        of_tenant.map(|event| event.action.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(events("acme").await, ["tenant_resumed", "tenant_suspended"]);
    assert_eq!(events("newcomer").await, ["tenant_suspended"]);
}

pub(crate) async fn an_actor_of_one_tenant_sees_and_changes_nobody_elses_keys(world: &World) {
    let ada = Actor::of_tenant("ada", "acme");
    let (own, other, nobodys) =
        (world.issue_for("acme", "a").await, world.issue_for("umbrella", "a").await, world.issue("a").await);
    for foreign in [&other, &nobodys] {
        let id = &foreign.details.id;
        let manager = &world.manager;
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
        assert_eq!(world.actions(id).await, ["issued"]);
        assert_eq!(world.refusal(foreign).await, None);
        let history = manager.history(HistoryQuery::of_key(&**id), &ada).await.unwrap();
        assert!(history.items.is_empty());
    }
    let list = world.manager.list(KeyQuery::all(), &ada).await.unwrap();
    assert_eq!(list.items, std::slice::from_ref(&own.details));
    let foreign = world.manager.list(KeyQuery::all().with_tenant("umbrella"), &ada).await.unwrap();
    assert!(foreign.items.is_empty());

    let issued = world.manager.issue(NewKey::named("mine"), &ada).await.unwrap();
    assert_eq!(issued.details.tenant.as_deref(), Some("acme"), "theirs without a word");
    let foreign = world.manager.issue(NewKey::named("b").with_tenant("umbrella"), &ada).await;
    assert!(matches!(foreign, Err(KeyAdminError::NotPermitted)));
    for tenant in ["acme", "umbrella"] {
        let outcome = world.manager.suspend_tenant(tenant, &ada).await;
        assert!(matches!(outcome, Err(KeyAdminError::NotPermitted)));
        let outcome = world.manager.resume_tenant(tenant, &ada).await;
        assert!(matches!(outcome, Err(KeyAdminError::NotPermitted)));
    }
    world.manager.rename(&own.details.id, "b", &ada).await.unwrap();
    world.manager.revoke(&own.details.id, &ada).await.unwrap();
    let history = world.manager.history(HistoryQuery::of_key(&*own.details.id), &ada).await.unwrap();
    assert_eq!(history.items.iter().map(|event| &*event.actor).collect::<Vec<_>>(), ["ada", "ada", "root"]);
}
