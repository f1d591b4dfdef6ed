//! Tenants: their suspension, their plans, and that they are kept apart.

use std::{slice, sync::Arc};

use tollgate::{
    CachedKeys, DenialKind, Plan,
    key::Digest,
    manage::{
        Actor, Command, HistoryQuery, IssuedKey, KeyAction, KeyAdmin as _, KeyAdminError, KeyChange,
        KeyDetails, KeyQuery, KeyUpdate, NewKey, TenantChange, TenantDetails,
    },
    store::{EndReason, KeyLookup, KeyStatus, KeyStore as _},
};

use super::{Setup, root};
use crate::at;

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
    setup.manager.suspend_tenant("initech", &root()).await.unwrap();
    setup.manager.suspend_tenant("initech", &root()).await.unwrap();
    let key = setup.issue_for("initech", "a").await;
    assert_eq!(setup.refusal(&key).await, Some(DenialKind::TenantSuspended));
    let events = async |tenant: &str| {
        let query = HistoryQuery::all().with_tenant(tenant);
        let history = setup.manager.history(query, &root()).await.unwrap().items;
        let of_tenant = history.iter().filter(|event| event.key.is_none());
        of_tenant.map(|event| event.action.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(events("acme").await, ["tenant_resumed", "tenant_suspended"]);
    assert_eq!(events("initech").await, ["tenant_suspended"]);
}

pub(super) async fn the_keys_of_a_tenant_have_its_plan_unless_they_have_their_own(setup: &Setup) {
    let (basic, pro, lapsed) = (Plan::active("basic"), Plan::active("pro"), Plan::lapsed("pro"));
    let unchanged = setup.manager.tenant("acme", &root()).await.unwrap();
    assert_eq!(unchanged, TenantDetails::new("acme"), "a tenant that was never changed");
    let (plain, other, without_tenant) =
        (setup.issue_for("acme", "a").await, setup.issue_for("umbrella", "a").await, setup.issue("a").await);
    let own = NewKey::named("own").with_tenant("acme").with_plan(basic.clone());
    let own = setup.manager.issue(own, &root()).await.unwrap();
    let revoked = setup.issue_for("acme", "revoked").await;
    setup.manager.revoke(&revoked.details.id, &root()).await.unwrap();
    // The plans of a key as a list shows it, and the plan of its principal.
    let plans = async |key: &IssuedKey| {
        let shown = setup.manager.show(&key.details.id, &root()).await.unwrap();
        let principal = setup.verify(key.secret.expose_secret()).await.unwrap();
        let found = principal.plan().map(|plan| (**plan).clone());
        assert_eq!(found.as_ref(), shown.effective_plan(), "lists and lookups agree");
        (shown.plan, shown.tenant_plan)
    };
    let held = setup.verify(plain.secret.expose_secret()).await.unwrap();

    setup.advance(1);
    let changed = setup.manager.set_tenant_plan("acme", Some(pro.clone()), &root()).await.unwrap();
    assert_eq!((&changed.plan, changed.is_suspended), (&Some(pro.clone()), false));
    assert_eq!(setup.manager.tenant("acme", &root()).await.unwrap(), changed);
    let later = setup.issue_for("acme", "later").await;
    assert_eq!(later.details.tenant_plan, Some(pro.clone()), "a key that is issued later");
    for key in [&plain, &later] {
        assert_eq!(plans(key).await, (None, Some(pro.clone())));
    }
    assert_eq!(plans(&own).await, (Some(basic.clone()), Some(pro.clone())));
    for key in [&other, &without_tenant] {
        assert_eq!(plans(key).await, (None, None), "a key of another tenant");
    }
    let shown = setup.manager.show(&revoked.details.id, &root()).await.unwrap();
    assert_eq!((shown.tenant_plan, shown.status), (Some(pro.clone()), KeyStatus::Revoked));
    assert_eq!(setup.refusal(&revoked).await, Some(DenialKind::KeyRevoked));
    assert_eq!(held.end_signal().reason(), None, "a change of a plan ends no principal");

    let rotated = setup.manager.rotate(&plain.details.id, None, &root()).await.unwrap();
    assert_eq!(plans(&rotated).await, (None, Some(pro.clone())));
    let update = |plan| KeyUpdate::new().with_plan(plan);
    setup.manager.update(&own.details.id, update(None), &root()).await.unwrap();
    assert_eq!(plans(&own).await, (None, Some(pro.clone())), "a key without its own plan any more");
    setup.manager.update(&later.details.id, update(Some(basic.clone())), &root()).await.unwrap();
    assert_eq!(plans(&later).await, (Some(basic), Some(pro.clone())));

    // A suspension leaves the plan as it is, and a plan the suspension.
    setup.manager.suspend_tenant("acme", &root()).await.unwrap();
    let suspended = setup.manager.set_tenant_plan("acme", Some(lapsed.clone()), &root()).await.unwrap();
    assert!(suspended.is_suspended && suspended.generation > changed.generation);
    assert_eq!(setup.refusal(&own).await, Some(DenialKind::TenantSuspended));
    setup.manager.resume_tenant("acme", &root()).await.unwrap();
    assert_eq!(plans(&own).await, (None, Some(lapsed.clone())));

    setup.manager.set_tenant_plan("acme", None, &root()).await.unwrap();
    assert_eq!(plans(&own).await, (None, None));
    setup.manager.set_tenant_plan("acme", None, &root()).await.unwrap();
    let tenant = setup.manager.set_tenant_plan("initech", Some(pro.clone()), &root()).await.unwrap();
    assert_eq!(tenant.plan, Some(pro.clone()), "a tenant without keys");
    assert_eq!(plans(&setup.issue_for("initech", "a").await).await, (None, Some(pro)));

    let history = setup.history(HistoryQuery::all().with_tenant("acme")).await;
    let of_tenant = history.iter().filter(|event| event.key.is_none());
    let recorded: Vec<_> = of_tenant.map(|event| (event.action, &*event.detail)).collect();
    let expected = [
        (KeyAction::TenantUpdated, "plan: \"pro\" (lapsed) -> none"),
        (KeyAction::TenantResumed, ""),
        (KeyAction::TenantUpdated, "plan: \"pro\" -> \"pro\" (lapsed)"),
        (KeyAction::TenantSuspended, ""),
        (KeyAction::TenantUpdated, "plan: none -> \"pro\""),
    ];
    assert_eq!(recorded, expected, "a change without effect leaves no event");

    let ada = Actor::of_tenant("ada", "acme");
    let refused = setup.manager.set_tenant_plan("acme", Some(Plan::active("max")), &ada).await;
    assert!(matches!(refused, Err(KeyAdminError::NotPermitted)), "{refused:?}");
    assert_eq!(setup.manager.tenant("acme", &ada).await.unwrap().plan, None);
    let hidden = setup.manager.tenant("umbrella", &ada).await;
    assert!(matches!(hidden, Err(KeyAdminError::NotPermitted)), "{hidden:?}");
}

pub(super) async fn a_cache_sees_the_plan_of_a_tenant_once_the_change_returns(setup: &Setup) {
    let cache = CachedKeys::new(Arc::clone(&setup.store));
    let key = setup.issue_for("acme", "a").await;
    let digest = Digest::of(key.secret.expose_secret());
    let tier = async || {
        let found = cache.find(&KeyLookup::new(slice::from_ref(&digest), setup.now())).await.unwrap();
        found.unwrap().principal().plan().map(|plan| plan.tier().to_owned())
    };
    assert_eq!(tier().await, None);
    for plan in ["basic", "pro", "basic"] {
        setup.manager.set_tenant_plan("acme", Some(Plan::active(plan)), &root()).await.unwrap();
        assert_eq!(tier().await.as_deref(), Some(plan));
        assert_eq!(tier().await.as_deref(), Some(plan));
    }
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

/// Without the manager, which would hide a mistake of the store.
pub(super) async fn the_store_itself_keeps_tenants_apart(setup: &Setup) {
    let eve = Actor::of_tenant("eve", "acme");
    let own = setup.issue_for("acme", "a").await;
    let foreign = [setup.issue_for("umbrella", "a").await, setup.issue("a").await];
    for key in &foreign {
        let id = &key.details.id;
        let update = |update: KeyUpdate| KeyChange::Update { id: id.clone(), update: Box::new(update) };
        let changes = [
            update(KeyUpdate::new().with_name("b")),
            update(KeyUpdate::new().with_expiry(Some(at(1)))),
            KeyChange::Rotate {
                id: id.clone(),
                digest: Digest::of("eve's own"),
                display_prefix: "sk_live_".into(),
                former_until: None,
            },
            KeyChange::Revoke { id: id.clone() },
            KeyChange::Delete { id: id.clone() },
        ];
        for change in changes {
            let outcome = setup.store.change(Command::new(change.clone(), eve.clone(), at(0))).await;
            let is_not_found = matches!(outcome, Err(KeyAdminError::NotFound));
            assert!(is_not_found, "{change:?} by an actor of another tenant: {outcome:?}");
        }
        let shown = setup.manager.show(id, &root()).await.unwrap();
        assert_eq!(shown, key.details, "an actor of another tenant has changed the key");
        assert_eq!(setup.refusal(key).await, None);
    }
    for tenant in [Some("umbrella"), None] {
        let mut details = KeyDetails::new("smuggled", "smuggled", at(0));
        details.tenant = tenant.map(Into::into);
        let change = KeyChange::Issue { details: Box::new(details), digest: Digest::of("smuggled") };
        let outcome = setup.store.change(Command::new(change, eve.clone(), at(0))).await;
        assert!(matches!(outcome, Err(KeyAdminError::NotPermitted)), "a key of {tenant:?}: {outcome:?}");
    }
    for change in [
        TenantChange::Suspend { tenant: "umbrella".into() },
        TenantChange::Suspend { tenant: "acme".into() },
        TenantChange::Resume { tenant: "acme".into() },
    ] {
        let outcome = setup.store.change_tenant(Command::new(change.clone(), eve.clone(), at(0))).await;
        assert!(matches!(outcome, Err(KeyAdminError::NotPermitted)), "{change:?}: {outcome:?}");
    }

    let listed = setup.store.list(&KeyQuery::all().with_tenant("acme")).await.unwrap().items;
    assert_eq!(listed, std::slice::from_ref(&own.details), "a list of the keys of one tenant");
    let events = setup.store.history(&HistoryQuery::all().with_tenant("acme")).await.unwrap().items;
    assert!(!events.is_empty() && events.iter().all(|event| event.tenant.as_deref() == Some("acme")));
    for key in &foreign {
        let id = &*key.details.id;
        let listed = setup.store.list(&KeyQuery::one(id).with_tenant("acme")).await.unwrap().items;
        assert_eq!(listed, [], "a query for an identifier and another tenant");
        let search = KeyQuery::all().with_search(&*key.details.display_prefix).with_tenant("acme");
        let listed = setup.store.list(&search).await.unwrap().items;
        assert!(listed.iter().all(|found| found.id != key.details.id), "a search in another tenant");
        let query = HistoryQuery::of_key(id).with_tenant("acme");
        assert_eq!(setup.store.history(&query).await.unwrap().items, [], "the history in another tenant");
    }
}
