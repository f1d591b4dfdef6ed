//! Lookups, and the ends of principals.

use std::{collections::BTreeMap, time::Duration};

use tollgate::{
    PerWindow as _, Plan, Scopes,
    key::{Digest, Pepper, PepperId},
    manage::{KeyAdmin as _, KeyAdminError, KeyChange, KeyQuery, Metadata, TenantChange},
    store::{EndReason, KeyLookup, KeyStatus, KeyStore as _},
};

use super::{at, change, digest, find, find_at, issue, key, on_each, reason, revoke, tenant};

#[tokio::test]
async fn a_key_is_found_as_it_was_issued() {
    on_each(async |keys| {
        let mut issued = key("key_1", Some("acme"));
        issued.scopes = Scopes::new(["jobs:read", "results:*"]).unwrap();
        issued.plan = Some(Plan::lapsed("pro"));
        issued.role = Some("admin".into());
        issued.quotas = vec![("z".into(), 60.per_minute()), ("a".into(), 5.per_second().with_burst(9))];
        issued.metadata = Metadata::of(&BTreeMap::from([("region", "eu")])).unwrap();
        issued.expires_at = Some(at(100) + Duration::from_nanos(1_999));
        let shown = issue(&keys, issued.clone()).await.unwrap();
        issued.expires_at = Some(at(100) + Duration::from_micros(1));
        issued.generation = shown.generation;
        assert_eq!(shown, issued);
        assert_eq!(keys.list(&KeyQuery::all()).await.unwrap().items, [shown]);

        let record = find(&keys, "key_1").await.unwrap();
        assert_eq!((record.status(), record.generation()), (KeyStatus::Active, issued.generation));
        let principal = record.principal();
        assert_eq!(
            (principal.id(), principal.tenant(), principal.role()),
            ("key_1", Some("acme"), Some("admin"))
        );
        assert_eq!(principal.quota("a"), Some(&5.per_second().with_burst(9)));
        assert_eq!(principal.extension::<Metadata>(), Some(&issued.metadata));
        assert_eq!(principal.expires_at(), issued.expires_at);
        assert!(find(&keys, "key_2").await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_key_is_found_by_the_digest_of_any_pepper() {
    on_each(async |keys| {
        let peppered =
            |id| Pepper::new(PepperId::new(id), "a pepper of many bytes, to try").unwrap().digest("secret");
        let details = Box::new(key("key", None));
        change(&keys, KeyChange::Issue { details, digest: peppered(7) }).await.unwrap();
        let look = async |digests: &[Digest]| keys.find(&KeyLookup::new(digests, at(3))).await.unwrap();
        assert!(look(&[peppered(7)]).await.is_some());
        assert!(look(&[digest("x"), digest("y"), peppered(7)]).await.is_some());
        assert!(
            look(&[peppered(8), digest("secret")]).await.is_none(),
            "the ID of the pepper is part of the digest"
        );
        assert!(look(&[Digest::from_parts(*peppered(7).as_bytes(), None)]).await.is_none());
        assert!(look(&[]).await.is_none());
    })
    .await;
}

#[tokio::test]
async fn principals_end_before_a_revocation_or_suspension_returns() {
    on_each(async |keys| {
        for (id, of) in
            [("one", Some("acme")), ("two", Some("acme")), ("three", Some("umbrella")), ("four", None)]
        {
            issue(&keys, key(id, of)).await.unwrap();
        }
        let [one, two, three, four] = [
            find(&keys, "one").await,
            find(&keys, "two").await,
            find(&keys, "three").await,
            find(&keys, "four").await,
        ]
        .map(Option::unwrap);
        assert_eq!(revoke(&keys, "one").await.unwrap().status, KeyStatus::Revoked);
        assert_eq!([&one, &two, &three, &four].map(reason), [Some(EndReason::Revoked), None, None, None]);
        tenant(&keys, TenantChange::Suspend { tenant: "acme".into() }).await;
        assert_eq!([&two, &three, &four].map(reason), [Some(EndReason::TenantSuspended), None, None]);
        issue(&keys, key("later", Some("acme"))).await.unwrap();

        let status = async |id: &str| find(&keys, id).await.unwrap().status();
        assert_eq!(status("one").await, KeyStatus::Revoked);
        assert_eq!(status("two").await, KeyStatus::TenantSuspended);
        assert_eq!(status("later").await, KeyStatus::TenantSuspended);
        tenant(&keys, TenantChange::Resume { tenant: "acme".into() }).await;
        assert_eq!(status("one").await, KeyStatus::Revoked);
        let again = find(&keys, "two").await.unwrap();
        assert_eq!((again.status(), reason(&again)), (KeyStatus::Active, None));
        assert!(again.generation() > two.generation());
        assert_eq!(status("later").await, KeyStatus::Active);

        change(&keys, KeyChange::Delete { id: "four".into() }).await.unwrap();
        assert_eq!(reason(&four), Some(EndReason::Revoked));
        assert!(find(&keys, "four").await.is_none());
        assert!(matches!(revoke(&keys, "four").await, Err(KeyAdminError::NotFound)));
        let anew = issue(&keys, key("four", None)).await.unwrap();
        assert!(anew.generation > four.generation());
    })
    .await;
}

#[tokio::test]
async fn a_rotation_keeps_the_former_secret_valid_during_the_overlap() {
    on_each(async |keys| {
        issue(&keys, key("key", None)).await.unwrap();
        let held = find(&keys, "key").await.unwrap();
        let rotate = |secret: &str, former_until| KeyChange::Rotate {
            id: "key".into(),
            digest: digest(secret),
            display_prefix: secret.into(),
            former_until,
        };
        let rotated = change(&keys, rotate("second", Some(at(50)))).await.unwrap();
        assert_eq!((&*rotated.display_prefix, rotated.former_until), ("second", Some(at(50))));
        assert_eq!(reason(&held), None, "the principal stays valid");
        assert_eq!(find(&keys, "key").await.unwrap().principal().expires_at(), Some(at(50)));
        assert_eq!(find(&keys, "second").await.unwrap().principal().expires_at(), None);
        assert!(find_at(&keys, "key", at(50)).await.is_none());

        let held = find(&keys, "second").await.unwrap();
        change(&keys, rotate("third", Some(at(60)))).await.unwrap();
        assert!(find(&keys, "key").await.is_none(), "at most two secrets are valid");
        assert_eq!(
            reason(&held),
            Some(EndReason::Revoked),
            "it may have been verified with the first secret"
        );
        assert!(find(&keys, "second").await.is_some());
        change(&keys, rotate("fourth", None)).await.unwrap();
        assert!(find(&keys, "second").await.is_none() && find(&keys, "third").await.is_none());
        assert!(find(&keys, "fourth").await.is_some());
        revoke(&keys, "key").await.unwrap();
        assert!(matches!(change(&keys, rotate("fifth", None)).await, Err(KeyAdminError::Revoked)));
    })
    .await;
}
