//! A key from its issue to its end.

use std::{collections::BTreeMap, time::Duration};

use tests::suite::at;
use tollgate::{
    DenialKind, Environment, PerWindow as _, Plan, Scopes,
    key::Digest,
    manage::{Command, KeyAdminError, KeyChange, KeyDetails, KeyQuery, KeyUpdate, Metadata, NewKey},
    store::{EndReason, KeyStatus},
};

use crate::world::{World, root};

fn everything() -> NewKey {
    NewKey::named("nightly büild ☂ 'quoted\"; --%_")
        .with_tenant("acme/ö")
        .with_scopes(Scopes::new(["write", "read", "admin:*"]).unwrap())
        .with_plan(Plan::lapsed("pro"))
        .with_environment(Environment::Test)
        .with_role("owner")
        .with_expiry(at(1_000) + Duration::from_micros(123_456))
        .with_quota("default", 600.per_minute().and(10.per_second().with_burst(30)))
        .with_quota("exports", 5.per_day().sliding())
        .with_metadata(Metadata::of(&BTreeMap::from([("team", "köln"), ("x", "\u{0}\n")])).unwrap())
}

pub(crate) async fn an_issued_key_proves_what_it_was_issued_for(world: &World) {
    let issued = world.manager.issue(everything(), &root()).await.unwrap();
    assert!(issued.secret.expose_secret().starts_with("sk_test_"));
    let principal = world.verify(issued.secret.expose_secret()).await.unwrap();
    assert_eq!(principal.id(), &*issued.details.id);
    assert_eq!(principal.tenant(), Some("acme/ö"));
    assert_eq!(principal.scopes().to_string(), "admin:* read write");
    assert_eq!(principal.plan().map(|plan| (**plan).clone()), Some(Plan::lapsed("pro")));
    assert_eq!(principal.environment(), Some(Environment::Test));
    assert_eq!(principal.role(), Some("owner"));
    assert_eq!(principal.expires_at(), Some(at(1_000) + Duration::from_micros(123_456)));
    assert_eq!(principal.quota("default"), Some(&600.per_minute().and(10.per_second().with_burst(30))));
    assert_eq!(principal.quota("exports"), Some(&5.per_day().sliding()));
    let metadata: BTreeMap<String, String> = principal.extension::<Metadata>().unwrap().read().unwrap();
    assert_eq!((&*metadata["team"], &*metadata["x"]), ("köln", "\u{0}\n"));

    let plain = world.issue("plain").await;
    let principal = world.verify(plain.secret.expose_secret()).await.unwrap();
    assert_eq!((principal.tenant(), principal.plan(), principal.expires_at()), (None, None, None));
    assert_eq!(principal.scopes().to_string(), "read", "by default");
    assert!(principal.extension::<Metadata>().is_none() && principal.quotas().is_empty());
    let other = world.issue("never presented").await;
    assert_ne!(other.details.id, plain.details.id);
    assert_eq!(
        world.verify("sk_live_0123456789ABCDEFGHIJKLMNOP12ANzld").await.unwrap_err().kind(),
        DenialKind::KeyUnknown
    );
}

pub(crate) async fn a_key_is_listed_with_everything_but_its_secret(world: &World) {
    let issued = world.manager.issue(everything(), &root()).await.unwrap();
    let shown = world.manager.show(&issued.details.id, &root()).await.unwrap();
    assert_eq!(shown, issued.details);
    assert_eq!(shown.created_at, at(0));
    assert_eq!((&*shown.name, shown.status), ("nightly büild ☂ 'quoted\"; --%_", KeyStatus::Active));
    assert_eq!(&*shown.display_prefix, issued.secret.display_prefix());
    assert_eq!((shown.revoked_at, shown.last_used_at, shown.former_until), (None, None, None));
    let printed = format!("{shown:?} {issued:?}");
    assert!(!printed.contains(&issued.secret.expose_secret()[13..]), "{printed}");
    let missing = world.manager.show("key_nobody", &root()).await.unwrap_err();
    assert!(matches!(missing, KeyAdminError::NotFound));
}

pub(crate) async fn what_makes_no_sense_is_refused_and_nothing_is_stored(world: &World) {
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
        let error = world.manager.issue(key, &root()).await.unwrap_err();
        assert!(
            matches!(error, KeyAdminError::Invalid(_)) && error.to_string().contains(expected),
            "{error}"
        );
    }
    let issued = world.issue("a").await;
    let id = &issued.details.id;
    for (update, expected) in [
        (KeyUpdate::new().with_name(" "), "name"),
        (KeyUpdate::new().with_scopes(Scopes::new(["nope"]).unwrap()), "unknown scope"),
        (KeyUpdate::new().with_expiry(Some(at(0))), "past"),
    ] {
        let error = world.manager.update(id, update, &root()).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(world.manager.list(KeyQuery::all(), &root()).await.unwrap().items, [issued.details]);
}

pub(crate) async fn a_secret_or_an_identifier_is_one_keys(world: &World) {
    let issue = |id: &str, name: &str, secret: &str| {
        let details = Box::new(KeyDetails::new(id, name, at(0)));
        let change = KeyChange::Issue { details, digest: Digest::of(secret) };
        world.store.change(Command::new(change, root(), at(0))).into_future()
    };
    issue("one", "one", "secret 1").await.unwrap();
    assert!(matches!(issue("one", "two", "secret 2").await, Err(KeyAdminError::KeyTaken)));
    assert!(matches!(issue("two", "two", "secret 1").await, Err(KeyAdminError::KeyTaken)));
    issue("two", "two", "secret 2").await.unwrap();
    let rotate = |secret: &str| {
        let (id, display_prefix) = ("one".into(), "one".into());
        let change = KeyChange::Rotate { id, digest: Digest::of(secret), display_prefix, former_until: None };
        world.store.change(Command::new(change, root(), at(0))).into_future()
    };
    assert!(matches!(rotate("secret 2").await, Err(KeyAdminError::KeyTaken)));
    assert_eq!(world.actions("one").await, ["issued"], "nothing half done");
    rotate("secret 3").await.unwrap();
}

pub(crate) async fn a_name_is_one_keys_within_its_tenant(world: &World) {
    let is_taken = async |key: NewKey| match world.manager.issue(key, &root()).await {
        Ok(_) => false,
        Err(KeyAdminError::NameTaken) => true,
        Err(other) => panic!("{other}"),
    };
    let first = world.issue_for("acme", "build").await;
    let of = |tenant: &str| NewKey::named("build").with_tenant(tenant);
    assert!(is_taken(of("acme")).await);
    assert!(!is_taken(of("umbrella")).await, "another tenant's");
    assert!(!is_taken(NewKey::named("build")).await, "nobody's");
    assert!(is_taken(NewKey::named("build")).await, "also among the keys of no tenant");
    assert!(!is_taken(NewKey::named("Build").with_tenant("acme")).await, "case counts");

    let other = world.issue_for("acme", "deploy").await;
    let renamed = world.manager.rename(&other.details.id, "build", &root()).await;
    assert!(matches!(renamed, Err(KeyAdminError::NameTaken)));
    world.manager.rename(&first.details.id, "build", &root()).await.unwrap();
    world.manager.revoke(&first.details.id, &root()).await.unwrap();
    assert!(is_taken(of("acme")).await, "revoked keys keep theirs");
    world.manager.delete(&first.details.id, &root()).await.unwrap();
    world.manager.rename(&other.details.id, "build", &root()).await.unwrap();
    assert!(!is_taken(NewKey::named("deploy").with_tenant("acme")).await);
}

pub(crate) async fn a_key_is_renamed_and_its_rights_are_changed(world: &World) {
    let issued = world.manager.issue(everything(), &root()).await.unwrap();
    let id = &issued.details.id;
    world.wait(5);
    let renamed = world.manager.rename(id, "another", &root()).await.unwrap();
    assert_eq!((&*renamed.name, &renamed.scopes), ("another", &issued.details.scopes));
    assert_eq!(world.refusal(&issued).await, None);

    let update = KeyUpdate::new()
        .with_scopes(Scopes::new(["write"]).unwrap())
        .with_plan(Some(Plan::active("max")))
        .with_expiry(None)
        .with_quotas(vec![("default".into(), 1.per_day())])
        .with_metadata(Metadata::of(&BTreeMap::from([("team", "bonn")])).unwrap());
    let updated = world.manager.update(id, update.clone(), &root()).await.unwrap();
    assert_eq!(world.manager.show(id, &root()).await.unwrap(), updated);
    let principal = world.verify(issued.secret.expose_secret()).await.unwrap();
    assert_eq!(principal.scopes().to_string(), "write");
    assert_eq!(principal.plan().unwrap().tier(), "max");
    assert_eq!(principal.expires_at(), None);
    assert_eq!((principal.quota("default"), principal.quota("exports")), (Some(&1.per_day()), None));
    let metadata: BTreeMap<String, String> = principal.extension::<Metadata>().unwrap().read().unwrap();
    assert_eq!(metadata, BTreeMap::from([("team".into(), "bonn".into())]));

    assert_eq!(world.actions(id).await, ["updated", "updated", "issued"]);
    assert_eq!(
        &*world.latest_detail(id).await,
        "scopes: admin:* read write -> write, plan: pro (lapsed) -> max, expiry: 2033-05-19T00:16:40Z -> never, \
         quotas: default 10 per second in bursts of 30, 600 per minute; exports 5 per sliding day -> default 1 per day, \
         metadata: changed"
    );
    assert_eq!(world.manager.update(id, update, &root()).await.unwrap(), updated, "nothing changes");
    world.manager.update(id, KeyUpdate::new(), &root()).await.unwrap();
    assert_eq!(world.actions(id).await, ["updated", "updated", "issued"]);
    world.manager.update(id, KeyUpdate::new().with_plan(None), &root()).await.unwrap();
    assert!(world.verify(issued.secret.expose_secret()).await.unwrap().plan().is_none());
    let missing = world.manager.rename("key_nobody", "x", &root()).await;
    assert!(matches!(missing, Err(KeyAdminError::NotFound)));
}

pub(crate) async fn a_key_expires_by_itself(world: &World) {
    let issued = world.manager.issue(NewKey::named("a").with_expiry(at(10)), &root()).await.unwrap();
    world.wait(9);
    assert_eq!(world.refusal(&issued).await, None);
    world.wait(1);
    assert_eq!(world.refusal(&issued).await, Some(DenialKind::KeyExpired));
    let shown = world.manager.show(&issued.details.id, &root()).await.unwrap();
    assert_eq!((shown.status, shown.ended(world.now())), (KeyStatus::Active, Some(EndReason::Expired)));
    let id = &issued.details.id;
    world.manager.update(id, KeyUpdate::new().with_expiry(Some(at(20))), &root()).await.unwrap();
    assert_eq!(world.refusal(&issued).await, None, "it can be given more time");
}

pub(crate) async fn a_rotated_key_is_the_same_key_with_another_secret(world: &World) {
    let issued = world.manager.issue(everything(), &root()).await.unwrap();
    let id = &issued.details.id;
    let held = world.verify(issued.secret.expose_secret()).await.unwrap();
    world.wait(5);
    let rotated = world.manager.rotate(id, None, &root()).await.unwrap();
    assert_eq!(world.refusal(&issued).await, Some(DenialKind::KeyUnknown));
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked), "at the same moment");
    let principal = world.verify(rotated.secret.expose_secret()).await.unwrap();
    assert_eq!(principal.end_signal().reason(), None);
    assert_eq!((principal.id(), principal.scopes()), (&**id, &issued.details.scopes));
    assert_eq!(principal.expires_at(), issued.details.expires_at);
    assert!(rotated.secret.expose_secret().starts_with("sk_test_"), "of the same environment");

    let mut expected = issued.details.clone();
    expected.display_prefix = rotated.secret.display_prefix().into();
    expected.generation = rotated.details.generation;
    assert_eq!(rotated.details, expected);
    assert_eq!(world.manager.show(id, &root()).await.unwrap(), expected);
    assert_eq!(world.actions(id).await, ["rotated", "issued"]);
    let long = Duration::from_hours(367 * 24);
    let error = world.manager.rotate(id, Some(long), &root()).await.unwrap_err();
    assert!(matches!(error, KeyAdminError::Invalid(_)), "{error}");
    assert!(matches!(world.manager.rotate("key_nobody", None, &root()).await, Err(KeyAdminError::NotFound)));
}

pub(crate) async fn a_former_secret_is_good_until_the_overlap_ends(world: &World) {
    let issued = world.issue("a").await;
    let held = world.verify(issued.secret.expose_secret()).await.unwrap();
    let rotated =
        world.manager.rotate(&issued.details.id, Some(Duration::from_mins(1)), &root()).await.unwrap();
    assert_eq!(rotated.details.former_until, Some(at(60)));
    assert_eq!((world.refusal(&issued).await, world.refusal(&rotated).await), (None, None));
    let former = world.verify(issued.secret.expose_secret()).await.unwrap();
    assert_eq!(former.expires_at(), Some(at(60)), "streams can see when it ends");
    assert_eq!(held.end_signal().reason(), None);
    world.wait(60);
    assert!(world.refusal(&issued).await.is_some());
    assert_eq!(world.refusal(&rotated).await, None);

    let soon = world.manager.issue(NewKey::named("b").with_expiry(at(100)), &root()).await.unwrap();
    world.manager.rotate(&soon.details.id, Some(Duration::from_secs(1_000)), &root()).await.unwrap();
    let former = world.verify(soon.secret.expose_secret()).await.unwrap();
    assert_eq!(former.expires_at(), Some(at(100)), "an overlap does not prolong a key");
}

pub(crate) async fn a_second_rotation_ends_what_the_first_left(world: &World) {
    let first = world.issue("a").await;
    let id = &first.details.id;
    let overlap = Some(Duration::from_mins(1));
    let second = world.manager.rotate(id, overlap, &root()).await.unwrap();
    let held = world.verify(first.secret.expose_secret()).await.unwrap();
    assert_eq!(held.end_signal().reason(), None);
    let third = world.manager.rotate(id, overlap, &root()).await.unwrap();
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked), "what is streamed under it ends, too");
    assert!(world.refusal(&first).await.is_some());
    assert_eq!((world.refusal(&second).await, world.refusal(&third).await), (None, None));
    let fourth = world.manager.rotate(id, None, &root()).await.unwrap();
    assert_eq!(fourth.details.former_until, None);
    for former in [&first, &second, &third] {
        assert_eq!(world.refusal(former).await, Some(DenialKind::KeyUnknown));
    }
    assert_eq!(world.refusal(&fourth).await, None);
}

pub(crate) async fn a_revoked_key_is_refused_and_kept(world: &World) {
    let issued = world.issue("a").await;
    let id = &issued.details.id;
    let rotated = world.manager.rotate(id, Some(Duration::from_mins(1)), &root()).await.unwrap();
    let held = world.verify(rotated.secret.expose_secret()).await.unwrap();
    let former = world.verify(issued.secret.expose_secret()).await.unwrap();
    world.wait(7);
    let revoked = world.manager.revoke(id, &root()).await.unwrap();
    assert_eq!((revoked.status, revoked.revoked_at), (KeyStatus::Revoked, Some(at(7))));
    assert!(world.refusal(&issued).await.is_some(), "the former secret, too");
    assert_eq!(world.refusal(&rotated).await, Some(DenialKind::KeyRevoked));
    for held in [held, former] {
        assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked));
    }
    world.wait(1);
    assert_eq!(world.manager.revoke(id, &root()).await.unwrap(), revoked, "again, which changes nothing");
    assert_eq!(world.manager.show(id, &root()).await.unwrap(), revoked);
    assert_eq!(world.actions(id).await, ["revoked", "rotated", "issued"]);
    assert!(matches!(world.manager.rename(id, "b", &root()).await, Err(KeyAdminError::Revoked)));
    assert!(matches!(world.manager.rotate(id, None, &root()).await, Err(KeyAdminError::Revoked)));
    assert!(matches!(world.manager.revoke("key_nobody", &root()).await, Err(KeyAdminError::NotFound)));
}

pub(crate) async fn a_deleted_key_is_gone_but_for_its_history(world: &World) {
    let issued = world.issue("a").await;
    let id = &issued.details.id;
    let held = world.verify(issued.secret.expose_secret()).await.unwrap();
    let deleted = world.manager.delete(id, &root()).await.unwrap();
    assert_eq!(&deleted.id, id);
    assert_eq!(world.refusal(&issued).await, Some(DenialKind::KeyUnknown));
    assert_eq!(held.end_signal().reason(), Some(EndReason::Revoked));
    assert_eq!(world.actions(id).await, ["deleted", "issued"]);
    assert!(world.manager.list(KeyQuery::all(), &root()).await.unwrap().items.is_empty());
    assert!(matches!(world.manager.delete(id, &root()).await, Err(KeyAdminError::NotFound)));
    assert!(matches!(world.manager.revoke(id, &root()).await, Err(KeyAdminError::NotFound)));
    let again = world.issue("a").await;
    world.manager.revoke(&again.details.id, &root()).await.unwrap();
    world.manager.delete(&again.details.id, &root()).await.unwrap();
    assert_eq!(world.refusal(&again).await, Some(DenialKind::KeyUnknown), "also one that was revoked");
}
