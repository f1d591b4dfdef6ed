//! The life cycle of a key, from its issue to its end.

use std::{
    collections::BTreeMap,
    time::{Duration, UNIX_EPOCH},
};

use tollgate::{
    DenialKind, Environment, PerWindow as _, Plan, Quota, Scopes,
    bounds::{
        END_OF_CALENDAR_SECONDS, MAX_ACTOR_CHARS, MAX_DETAIL_BYTES, MAX_DISPLAY_PREFIX_BYTES, MAX_ID_BYTES,
        MAX_METADATA_BYTES, MAX_NAME_CHARS, MAX_NETWORKS, MAX_POLICY_BYTES, MAX_QUOTAS, MAX_ROLE_BYTES,
        MAX_SCOPES, MAX_SCOPES_BYTES, MAX_TENANT_BYTES, MAX_TIER_BYTES, MAX_WINDOWS,
    },
    key::Digest,
    limit::Window,
    manage::{
        Actor, Command, HistoryQuery, KeyAdmin as _, KeyAdminError, KeyChange, KeyDetails, KeyQuery,
        KeyUpdate, Metadata, NewKey,
    },
    network::Networks,
    store::{EndReason, KeyStatus},
};

use super::{Setup, root};
use crate::at;

/// A key that has everything that a key can have.
fn complete_key() -> NewKey {
    NewKey::named("nightly büild ☂ 'quoted\"; --%_")
        .with_tenant("acme/ö")
        .with_scopes(Scopes::new(["write", "read", "admin:*"]).unwrap())
        .with_plan(Plan::lapsed("pro"))
        .with_environment(Environment::Test)
        .with_role("owner")
        .with_expiry(at(1_000) + Duration::from_micros(123_456))
        .with_quota("default", 600.per_minute().and(10.per_second().with_burst(30)))
        .with_quota("exports", 5.per_day().sliding())
        .with_allowed_networks(Networks::new(["198.51.100.0/24", "2001:db8::7"]).unwrap())
        .with_metadata(Metadata::of(&BTreeMap::from([("team", "köln"), ("x", "\u{0}\n")])).unwrap())
}

pub(super) async fn an_issued_key_is_verified_with_all_that_it_was_issued_with(setup: &Setup) {
    let issued = setup.manager.issue(complete_key(), &root()).await.unwrap();
    assert!(issued.secret.expose_secret().starts_with("sk_test_"));
    let principal = setup.verify(issued.secret.expose_secret()).await.unwrap();
    assert_eq!(principal.id(), &*issued.details.id);
    assert_eq!(principal.tenant(), Some("acme/ö"));
    assert_eq!(principal.scopes().to_string(), "admin:* read write");
    assert_eq!(principal.plan().map(|plan| (**plan).clone()), Some(Plan::lapsed("pro")));
    assert_eq!(principal.environment(), Some(Environment::Test));
    assert_eq!(principal.role(), Some("owner"));
    assert_eq!(principal.expires_at(), Some(at(1_000) + Duration::from_micros(123_456)));
    assert_eq!(principal.quota("default"), Some(&600.per_minute().and(10.per_second().with_burst(30))));
    assert_eq!(principal.quota("exports"), Some(&5.per_day().sliding()));
    assert_eq!(principal.allowed_networks().to_string(), "198.51.100.0/24 2001:db8::7/128");
    let metadata: BTreeMap<String, String> = principal.extension::<Metadata>().unwrap().read().unwrap();
    assert_eq!((&*metadata["team"], &*metadata["x"]), ("köln", "\u{0}\n"));

    let plain = setup.issue("plain").await;
    let principal = setup.verify(plain.secret.expose_secret()).await.unwrap();
    assert_eq!((principal.tenant(), principal.plan(), principal.expires_at()), (None, None, None));
    assert_eq!(principal.scopes().to_string(), "read", "the default scopes");
    assert!(principal.extension::<Metadata>().is_none() && principal.quotas().is_empty());
    assert!(principal.allowed_networks().is_anywhere());
    let other = setup.issue("never presented").await;
    assert_ne!(other.details.id, plain.details.id);
    assert_eq!(
        setup.verify("sk_live_0123456789ABCDEFGHIJKLMNOP12ANzld").await.unwrap_err().kind(),
        DenialKind::KeyUnknown
    );
}

pub(super) async fn a_key_is_shown_with_everything_but_its_secret(setup: &Setup) {
    let issued = setup.manager.issue(complete_key(), &root()).await.unwrap();
    let shown = setup.manager.show(&issued.details.id, &root()).await.unwrap();
    assert_eq!(shown, issued.details);
    assert_eq!(shown.created_at, at(0));
    assert_eq!((&*shown.name, shown.status), ("nightly büild ☂ 'quoted\"; --%_", KeyStatus::Active));
    assert_eq!(&*shown.display_prefix, issued.secret.display_prefix());
    assert_eq!((shown.revoked_at, shown.last_used_at, shown.former_until), (None, None, None));
    let printed = format!("{shown:?} {issued:?}");
    assert!(!printed.contains(&issued.secret.expose_secret()[13..]), "Debug shows the secret: {printed}");
    let missing = setup.manager.show("key_unknown", &root()).await.unwrap_err();
    assert!(matches!(missing, KeyAdminError::NotFound));
}

pub(super) async fn invalid_keys_are_refused_and_not_stored(setup: &Setup) {
    let cases = [
        (NewKey::named(""), "1 to 100 characters"),
        (NewKey::named("   "), "1 to 100 characters"),
        (NewKey::named("a\nb"), "control characters"),
        (NewKey::named("x".repeat(101)), "1 to 100 characters"),
        (NewKey::named("a").with_tenant(""), "tenant"),
        (
            NewKey::named("a").with_scopes(Scopes::new(["raed"]).unwrap()),
            "unknown scope `raed`: known scopes are `admin:*`, `read`",
        ),
        (NewKey::named("a").with_scopes(Scopes::all()), "unknown scope `*`"),
        (NewKey::named("a").with_expiry(at(0)), "past"),
    ];
    for (key, expected) in cases {
        let error = setup.manager.issue(key, &root()).await.unwrap_err();
        assert!(
            matches!(error, KeyAdminError::Invalid(_)) && error.to_string().contains(expected),
            "{error}"
        );
    }
    let issued = setup.issue("a").await;
    let id = &issued.details.id;
    for (update, expected) in [
        (KeyUpdate::new().with_name(" "), "name"),
        (KeyUpdate::new().with_scopes(Scopes::new(["nope"]).unwrap()), "unknown scope"),
        (KeyUpdate::new().with_expiry(Some(at(0))), "past"),
    ] {
        let error = setup.manager.update(id, update, &root()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(setup.manager.list(KeyQuery::all(), &root()).await.unwrap().items, [issued.details]);
}

pub(super) async fn a_key_that_reaches_every_bound_is_stored(setup: &Setup) {
    let window = |second: u32| Window::lasting(Duration::from_secs(second.into()));
    let quota = (1..=MAX_WINDOWS).fold(Quota::unlimited(), |quota, second| {
        quota.and(u64::MAX.per(window(86_400 + u32::try_from(second).unwrap())))
    });
    let scopes =
        (0..MAX_SCOPES).map(|number| format!("{number:0width$}", width = MAX_SCOPES_BYTES / MAX_SCOPES - 1));
    // Characters of four bytes: databases bound the bytes of an entry in an index.
    let mut details = KeyDetails::new("x".repeat(MAX_ID_BYTES), "\u{1d11e}".repeat(MAX_NAME_CHARS), at(0));
    details.display_prefix = "x".repeat(MAX_DISPLAY_PREFIX_BYTES).into();
    details.tenant = Some("x".repeat(MAX_TENANT_BYTES).into());
    details.scopes = Scopes::new(scopes).unwrap();
    details.plan = Some(Plan::active("x".repeat(MAX_TIER_BYTES)));
    details.role = Some("x".repeat(MAX_ROLE_BYTES).into());
    details.quotas = (0..MAX_QUOTAS)
        .map(|number| (format!("{number:0MAX_POLICY_BYTES$}").into(), quota.clone()))
        .collect();
    let networks =
        (0..MAX_NETWORKS).map(|number| format!("2001:db8:1111:1111:1111:1111:1111:{:x}", 0x1111 + number));
    details.allowed_networks = Networks::new(networks).unwrap();
    details.metadata = Metadata::of(&BTreeMap::from([("a", "x".repeat(MAX_METADATA_BYTES - 8))])).unwrap();
    details.expires_at = Some(UNIX_EPOCH + Duration::from_secs(END_OF_CALENDAR_SECONDS - 1));
    let actor = Actor::new("\u{1d11e}".repeat(MAX_ACTOR_CHARS));
    let change = KeyChange::Issue { details: Box::new(details.clone()), digest: Digest::of("secret") };
    let command = Command::new(change, actor.clone(), at(0));
    command.check().unwrap();
    let issued = setup.store.change(command).await.unwrap();
    details.generation = issued.generation;
    assert_eq!(issued, details);
    assert_eq!(setup.manager.show(&details.id, &root()).await.unwrap(), details);
    let renamed =
        setup.manager.rename(&details.id, &"\u{1d120}".repeat(MAX_NAME_CHARS), &actor).await.unwrap();
    assert_eq!(renamed.metadata, details.metadata);
    assert_eq!(setup.actions(&details.id).await, ["updated", "issued"]);
    let events = setup.history(HistoryQuery::all()).await;
    assert!(
        events.iter().all(|event| *event.actor == *actor.name() && event.detail.len() <= MAX_DETAIL_BYTES)
    );
}

pub(super) async fn secrets_and_identifiers_are_unique(setup: &Setup) {
    let issue = |id: &str, name: &str, secret: &str| {
        let details = Box::new(KeyDetails::new(id, name, at(0)));
        let change = KeyChange::Issue { details, digest: Digest::of(secret) };
        setup.store.change(Command::new(change, root(), at(0))).into_future()
    };
    issue("one", "one", "secret 1").await.unwrap();
    assert!(matches!(issue("one", "two", "secret 2").await, Err(KeyAdminError::KeyTaken)));
    assert!(matches!(issue("two", "two", "secret 1").await, Err(KeyAdminError::KeyTaken)));
    issue("two", "two", "secret 2").await.unwrap();
    let rotate = |secret: &str| {
        let (id, display_prefix) = ("one".into(), "one".into());
        let change = KeyChange::Rotate { id, digest: Digest::of(secret), display_prefix, former_until: None };
        setup.store.change(Command::new(change, root(), at(0))).into_future()
    };
    assert!(matches!(rotate("secret 2").await, Err(KeyAdminError::KeyTaken)));
    assert_eq!(setup.actions("one").await, ["issued"], "a refused change leaves no event");
    rotate("secret 3").await.unwrap();
}

pub(super) async fn a_name_is_unique_within_its_tenant(setup: &Setup) {
    let is_taken = async |key: NewKey| match setup.manager.issue(key, &root()).await {
        Ok(_) => false,
        Err(KeyAdminError::NameTaken) => true,
        Err(other) => panic!("{other}"),
    };
    let first = setup.issue_for("acme", "build").await;
    let of = |tenant: &str| NewKey::named("build").with_tenant(tenant);
    assert!(is_taken(of("acme")).await);
    assert!(!is_taken(of("umbrella")).await, "another tenant may have a key of this name");
    assert!(!is_taken(NewKey::named("build")).await, "a key without a tenant may have this name");
    assert!(is_taken(NewKey::named("build")).await, "names are unique among keys without a tenant, too");
    assert!(!is_taken(NewKey::named("Build").with_tenant("acme")).await, "names are compared exactly");

    let other = setup.issue_for("acme", "deploy").await;
    let renamed = setup.manager.rename(&other.details.id, "build", &root()).await;
    assert!(matches!(renamed, Err(KeyAdminError::NameTaken)));
    setup.manager.rename(&first.details.id, "build", &root()).await.unwrap();
    setup.manager.revoke(&first.details.id, &root()).await.unwrap();
    assert!(is_taken(of("acme")).await, "a revoked key keeps its name");
    setup.manager.delete(&first.details.id, &root()).await.unwrap();
    setup.manager.rename(&other.details.id, "build", &root()).await.unwrap();
    assert!(!is_taken(NewKey::named("deploy").with_tenant("acme")).await);
}

pub(super) async fn a_key_is_renamed_and_its_rights_are_changed(setup: &Setup) {
    let issued = setup.manager.issue(complete_key(), &root()).await.unwrap();
    let id = &issued.details.id;
    setup.advance(5);
    let renamed = setup.manager.rename(id, "another", &root()).await.unwrap();
    assert_eq!((&*renamed.name, &renamed.scopes), ("another", &issued.details.scopes));
    assert_eq!(setup.refusal(&issued).await, None);

    let update = KeyUpdate::new()
        .with_scopes(Scopes::new(["write"]).unwrap())
        .with_plan(Some(Plan::active("max")))
        .with_expiry(None)
        .with_quotas(vec![("default".into(), 1.per_day())])
        .with_allowed_networks(Networks::new(["10.0.0.0/8"]).unwrap())
        .with_metadata(Metadata::of(&BTreeMap::from([("team", "bonn")])).unwrap());
    let updated = setup.manager.update(id, update.clone(), &root()).await.unwrap();
    assert_eq!(setup.manager.show(id, &root()).await.unwrap(), updated);
    let principal = setup.verify(issued.secret.expose_secret()).await.unwrap();
    assert_eq!(principal.scopes().to_string(), "write");
    assert_eq!(principal.plan().unwrap().tier(), "max");
    assert_eq!(principal.expires_at(), None);
    assert_eq!((principal.quota("default"), principal.quota("exports")), (Some(&1.per_day()), None));
    assert_eq!(principal.allowed_networks().to_string(), "10.0.0.0/8");
    let metadata: BTreeMap<String, String> = principal.extension::<Metadata>().unwrap().read().unwrap();
    assert_eq!(metadata, BTreeMap::from([("team".into(), "bonn".into())]));

    assert_eq!(setup.actions(id).await, ["updated", "updated", "issued"]);
    assert_eq!(
        &*setup.history(HistoryQuery::of_key(&**id).with_limit(1)).await[0].detail,
        "scopes: \"admin:* read write\" -> \"write\", plan: \"pro\" (lapsed) -> \"max\", expiry: 2033-05-19T00:16:40Z -> never, \
         quotas: \"default\" 10 per second in bursts of 30, 600 per minute; \"exports\" 5 per sliding day -> \"default\" 1 per day, \
         networks: 198.51.100.0/24 2001:db8::7/128 -> 10.0.0.0/8, metadata: changed"
    );
    assert_eq!(
        setup.manager.update(id, update, &root()).await.unwrap(),
        updated,
        "an update without effect changes nothing"
    );
    setup.manager.update(id, KeyUpdate::new(), &root()).await.unwrap();
    assert_eq!(setup.actions(id).await, ["updated", "updated", "issued"]);
    let anywhere = KeyUpdate::new().with_plan(None).with_allowed_networks(Networks::anywhere());
    setup.manager.update(id, anywhere, &root()).await.unwrap();
    let principal = setup.verify(issued.secret.expose_secret()).await.unwrap();
    assert!(principal.allowed_networks().is_anywhere());
    assert!(setup.verify(issued.secret.expose_secret()).await.unwrap().plan().is_none());
    let missing = setup.manager.rename("key_unknown", "x", &root()).await;
    assert!(matches!(missing, Err(KeyAdminError::NotFound)));
}

pub(super) async fn a_key_expires(setup: &Setup) {
    let issued = setup.manager.issue(NewKey::named("a").with_expiry(at(10)), &root()).await.unwrap();
    setup.advance(9);
    assert_eq!(setup.refusal(&issued).await, None);
    setup.advance(1);
    assert_eq!(setup.refusal(&issued).await, Some(DenialKind::KeyExpired));
    let shown = setup.manager.show(&issued.details.id, &root()).await.unwrap();
    assert_eq!((shown.status, shown.ended(setup.now())), (KeyStatus::Active, Some(EndReason::Expired)));
    let id = &issued.details.id;
    setup.manager.update(id, KeyUpdate::new().with_expiry(Some(at(20))), &root()).await.unwrap();
    assert_eq!(setup.refusal(&issued).await, None, "a later expiry makes an expired key work again");
}

pub(super) async fn a_rotated_key_is_the_same_key_with_another_secret(setup: &Setup) {
    let issued = setup.manager.issue(complete_key(), &root()).await.unwrap();
    let id = &issued.details.id;
    let held = setup.verify(issued.secret.expose_secret()).await.unwrap();
    setup.advance(5);
    let rotated = setup.manager.rotate(id, None, &root()).await.unwrap();
    assert_eq!(setup.refusal(&issued).await, Some(DenialKind::KeyUnknown));
    assert_eq!(
        held.end_signal().reason(),
        Some(EndReason::Revoked),
        "principals of the former secret end at once"
    );
    let principal = setup.verify(rotated.secret.expose_secret()).await.unwrap();
    assert_eq!(principal.end_signal().reason(), None);
    assert_eq!((principal.id(), principal.scopes()), (&**id, &issued.details.scopes));
    assert_eq!(principal.expires_at(), issued.details.expires_at);
    assert!(
        rotated.secret.expose_secret().starts_with("sk_test_"),
        "the new secret is of the same environment"
    );

    let mut expected = issued.details.clone();
    expected.display_prefix = rotated.secret.display_prefix().into();
    expected.generation = rotated.details.generation;
    assert_eq!(rotated.details, expected);
    assert_eq!(setup.manager.show(id, &root()).await.unwrap(), expected);
    assert_eq!(setup.actions(id).await, ["rotated", "issued"]);
    let long = Duration::from_secs(367 * 24 * 3_600);
    let error = setup.manager.rotate(id, Some(long), &root()).await.unwrap_err();
    assert!(matches!(error, KeyAdminError::Invalid(_)), "{error}");
    assert!(matches!(setup.manager.rotate("key_unknown", None, &root()).await, Err(KeyAdminError::NotFound)));
}

pub(super) async fn a_former_secret_works_until_the_overlap_ends(setup: &Setup) {
    let issued = setup.issue("a").await;
    let held = setup.verify(issued.secret.expose_secret()).await.unwrap();
    let rotated =
        setup.manager.rotate(&issued.details.id, Some(Duration::from_secs(60)), &root()).await.unwrap();
    assert_eq!(rotated.details.former_until, Some(at(60)));
    assert_eq!((setup.refusal(&issued).await, setup.refusal(&rotated).await), (None, None));
    let former = setup.verify(issued.secret.expose_secret()).await.unwrap();
    assert_eq!(
        former.expires_at(),
        Some(at(60)),
        "the principal of a former secret expires when the overlap ends"
    );
    assert_eq!(held.end_signal().reason(), None);
    setup.advance(60);
    assert!(setup.refusal(&issued).await.is_some());
    assert_eq!(setup.refusal(&rotated).await, None);

    let soon = setup.manager.issue(NewKey::named("b").with_expiry(at(100)), &root()).await.unwrap();
    setup.manager.rotate(&soon.details.id, Some(Duration::from_secs(1_000)), &root()).await.unwrap();
    let former = setup.verify(soon.secret.expose_secret()).await.unwrap();
    assert_eq!(former.expires_at(), Some(at(100)), "an overlap does not extend the expiry of a key");
}

pub(super) async fn a_second_rotation_ends_the_secret_of_the_first(setup: &Setup) {
    let first = setup.issue("a").await;
    let id = &first.details.id;
    let overlap = Some(Duration::from_secs(60));
    let second = setup.manager.rotate(id, overlap, &root()).await.unwrap();
    let held = setup.verify(first.secret.expose_secret()).await.unwrap();
    assert_eq!(held.end_signal().reason(), None);
    let third = setup.manager.rotate(id, overlap, &root()).await.unwrap();
    assert_eq!(
        held.end_signal().reason(),
        Some(EndReason::Revoked),
        "the principals of the first secret end"
    );
    assert!(setup.refusal(&first).await.is_some());
    assert_eq!((setup.refusal(&second).await, setup.refusal(&third).await), (None, None));
    let fourth = setup.manager.rotate(id, None, &root()).await.unwrap();
    assert_eq!(fourth.details.former_until, None);
    for former in [&first, &second, &third] {
        assert_eq!(setup.refusal(former).await, Some(DenialKind::KeyUnknown));
    }
    assert_eq!(setup.refusal(&fourth).await, None);
}

pub(super) async fn a_revoked_key_is_refused_and_kept(setup: &Setup) {
    let issued = setup.issue("a").await;
    let id = &issued.details.id;
    let rotated = setup.manager.rotate(id, Some(Duration::from_secs(60)), &root()).await.unwrap();
    let held = setup.verify(rotated.secret.expose_secret()).await.unwrap();
    let former = setup.verify(issued.secret.expose_secret()).await.unwrap();
    setup.advance(7);
    let revoked = setup.manager.revoke(id, &root()).await.unwrap();
    assert_eq!((revoked.status, revoked.revoked_at), (KeyStatus::Revoked, Some(at(7))));
    assert!(setup.refusal(&issued).await.is_some(), "the former secret is refused, too");
    assert_eq!(setup.refusal(&rotated).await, Some(DenialKind::KeyRevoked));
    for held in [held, former] {
        assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked));
    }
    setup.advance(1);
    assert_eq!(
        setup.manager.revoke(id, &root()).await.unwrap(),
        revoked,
        "revoking a revoked key changes nothing"
    );
    assert_eq!(setup.manager.show(id, &root()).await.unwrap(), revoked);
    assert_eq!(setup.actions(id).await, ["revoked", "rotated", "issued"]);
    assert!(matches!(setup.manager.rename(id, "b", &root()).await, Err(KeyAdminError::Revoked)));
    assert!(matches!(setup.manager.rotate(id, None, &root()).await, Err(KeyAdminError::Revoked)));
    assert!(matches!(setup.manager.revoke("key_unknown", &root()).await, Err(KeyAdminError::NotFound)));
}

pub(super) async fn a_deleted_key_leaves_only_its_history(setup: &Setup) {
    let issued = setup.issue("a").await;
    let id = &issued.details.id;
    let held = setup.verify(issued.secret.expose_secret()).await.unwrap();
    let deleted = setup.manager.delete(id, &root()).await.unwrap();
    assert_eq!(&deleted.id, id);
    assert_eq!(setup.refusal(&issued).await, Some(DenialKind::KeyUnknown));
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked));
    assert_eq!(setup.actions(id).await, ["deleted", "issued"]);
    assert!(setup.manager.list(KeyQuery::all(), &root()).await.unwrap().items.is_empty());
    assert!(matches!(setup.manager.delete(id, &root()).await, Err(KeyAdminError::NotFound)));
    assert!(matches!(setup.manager.revoke(id, &root()).await, Err(KeyAdminError::NotFound)));
    let again = setup.issue("a").await;
    setup.manager.revoke(&again.details.id, &root()).await.unwrap();
    setup.manager.delete(&again.details.id, &root()).await.unwrap();
    assert_eq!(
        setup.refusal(&again).await,
        Some(DenialKind::KeyUnknown),
        "a revoked key can be deleted, too"
    );
}
