//! Legacy keys: checked against their old hash once, then found by their digest like any other key.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::StatusCode;
use tests::{
    hosts::within,
    suite::{Backend, Inner, Latch, Stack, erase, send, with_key},
};
use tollgate::{
    Answer, CredentialLayer, DenialKind, KeyFormat, KeyVerifier, MemoryKeys, Principal, VerifyLayer,
    denial::Unavailable,
    key::{Digest, Pepper, PepperId, Peppers},
    store::{LegacyHashes, LegacyKey, LegacyKeys},
};
use tower::Layer as _;

/// A legacy table: prefix and hash by ID. An upgraded key moves into a store.
#[derive(Clone)]
struct Table(Arc<Inside>);

struct Inside {
    rows: Mutex<HashMap<&'static str, (&'static str, &'static str)>>,
    secrets: HashMap<&'static str, &'static str>,
    store: MemoryKeys,
    looked_up: AtomicUsize,
    // The key that another request upgrades just before the next lookup.
    upgraded_by_another: Mutex<Option<&'static str>>,
    upgrading: AtomicUsize,
    upgrades: Backend,
}

impl Table {
    fn import(&self, id: &'static str) {
        // Under the lock: when the row is gone, the key is in the store.
        let mut rows = self.0.rows.lock().unwrap();
        if rows.remove(id).is_some() {
            self.0.store.import(self.0.secrets[id], Principal::new(id));
        }
    }
}

impl LegacyKeys for Table {
    fn candidates(&self, prefix: &str) -> Answer<Result<Vec<LegacyKey>, Unavailable>> {
        self.0.looked_up.fetch_add(1, Ordering::SeqCst);
        if let Some(id) = self.0.upgraded_by_another.lock().unwrap().take() {
            self.import(id);
        }
        let rows = self.0.rows.lock().unwrap();
        let found = rows.iter().filter(|(_, (of, _))| *of == prefix);
        let found = found.map(|(id, (_, hash))| LegacyKey::new(*id, *hash)).collect();
        Answer::later(async { Ok(found) })
    }

    fn upgrade(&self, id: &str, digest: Digest) -> Answer<Result<(), Unavailable>> {
        self.0.upgrading.fetch_add(1, Ordering::SeqCst);
        let (id, secret) = self.0.secrets.get_key_value(id).unwrap();
        assert_eq!(digest, peppers().current(secret), "the digest by which the store finds the key");
        let (table, id) = (self.clone(), *id);
        self.0.upgrades.answer(()).map(move |answer| answer.map(|()| table.import(id)))
    }
}

fn peppers() -> Peppers {
    Peppers::new(Pepper::new(PepperId::new(1), [7; 32]).unwrap())
}

const SECRET_OF_BCRYPT: &str = "k7Fq2xYz.the-secret-of-the-first";
const SECRET_OF_ARGON2: &str = "m3Rt9pQw.the-secret-of-the-second";
const SECRET_OF_SHA_256: &str = "m3Rt9pQw.the-secret-of-the-third";

/// Written by Python's `bcrypt` and `argon2-cffi`.
const BCRYPT: &str = "$2b$04$dCPfA0AOv3umHkom2Ke4N.rNWYcqud1qcXq7FxbMTNzOS6IB3x2Ee";
const ARGON2: &str =
    "$argon2id$v=19$m=64,t=1,p=1$WPFRogNNPlLD3aimkBLB/A$HaU3YA8nMVJSPUan1rXs922v0g3g4thdKny7Ibmu7xM";

struct Api {
    table: Table,
    stack: Stack,
}

impl Api {
    fn new() -> Self {
        Self::with_upgrades(Backend::prompt())
    }

    fn with_upgrades(upgrades: Backend) -> Self {
        let store = MemoryKeys::with_peppers(peppers());
        let rows = [
            ("bcrypt", ("k7Fq2xYz", BCRYPT)),
            ("argon2", ("m3Rt9pQw", ARGON2)),
            ("sha256", ("m3Rt9pQw", "7ddd26e2dd2f0f8f1cb39ea1214bf433deb03d86e482aa90db94b83e0e2b8156")),
            ("broken", ("bR0k3nXx", "md5:5f4dcc3b5aa765d61d8327deb882cf99")),
        ];
        let secrets = HashMap::from([
            ("bcrypt", SECRET_OF_BCRYPT),
            ("argon2", SECRET_OF_ARGON2),
            ("sha256", SECRET_OF_SHA_256),
        ]);
        let inside = Inside {
            rows: Mutex::new(rows.into()),
            secrets,
            store: store.clone(),
            looked_up: AtomicUsize::new(0),
            upgraded_by_another: Mutex::new(None),
            upgrading: AtomicUsize::new(0),
            upgrades,
        };
        let table = Table(Arc::new(inside));
        let legacy = LegacyHashes::new(table.clone())
            .with_prefix(|secret| secret.split_once('.').map(|(prefix, _)| prefix));
        let verifier = KeyVerifier::new(KeyFormat::new("sk").unwrap(), store)
            .with_peppers(peppers())
            .with_legacy(legacy);
        let stack = erase((CredentialLayer::new(), VerifyLayer::new(verifier)).layer(Inner::new()));
        Self { table, stack }
    }

    /// `None` if the key is accepted.
    async fn refusal(&self, key: &str) -> Option<DenialKind> {
        send(&mut self.stack.clone(), with_key(key)).await.kind()
    }

    fn looked_up(&self) -> usize {
        self.table.0.looked_up.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_legacy_key_is_accepted_and_upgraded_on_its_first_use() {
    let api = Api::new();
    for (secret, looked_up) in [(SECRET_OF_BCRYPT, 1), (SECRET_OF_ARGON2, 2), (SECRET_OF_SHA_256, 3)] {
        assert_eq!(api.refusal(secret).await, None, "{secret}");
        assert_eq!(api.looked_up(), looked_up);
        assert_eq!(api.refusal(secret).await, None, "{secret} again");
        assert_eq!(api.looked_up(), looked_up, "found by its digest");
    }
    assert_eq!(api.table.0.rows.lock().unwrap().len(), 1, "only the broken row remains");
}

#[tokio::test]
async fn a_wrong_secret_is_unknown_and_upgrades_nothing() {
    let api = Api::new();
    for secret in [
        "k7Fq2xYz.another-secret",
        "zzzzzzzz.the-secret-of-the-first",
        "no-full-stop-in-it",
        "bR0k3nXx.password",
    ] {
        assert_eq!(api.refusal(secret).await, Some(DenialKind::KeyUnknown), "{secret}");
    }
    assert_eq!(api.table.0.rows.lock().unwrap().len(), 4);
    assert_eq!(api.refusal("short").await, Some(DenialKind::CredentialMalformed));
}

#[tokio::test]
async fn a_key_that_is_revoked_after_its_upgrade_stays_revoked() {
    let api = Api::new();
    assert_eq!(api.refusal(SECRET_OF_BCRYPT).await, None);
    assert!(api.table.0.store.revoke("bcrypt"));
    assert_eq!(api.refusal(SECRET_OF_BCRYPT).await, Some(DenialKind::KeyRevoked));
    assert_eq!(api.looked_up(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_first_uses_are_all_accepted() {
    let api = Api::new();
    let outcomes = join_all((0..32).map(|_| api.refusal(SECRET_OF_BCRYPT))).await;
    assert!(outcomes.iter().all(Option::is_none), "{outcomes:?}");
}

/// Regression: a first use looked in the store before a concurrent one upgraded the key, and in the table after it. It found the key
/// in neither and was refused.
#[tokio::test]
async fn a_first_use_succeeds_when_another_one_upgrades_the_key_meanwhile() {
    let api = Api::new();
    *api.table.0.upgraded_by_another.lock().unwrap() = Some("bcrypt");
    assert_eq!(api.refusal(SECRET_OF_BCRYPT).await, None);
    assert_eq!(api.looked_up(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_503_when_too_many_requests_wait_for_a_hash() {
    let api = Api::new();
    let outcomes = join_all((0..400).map(|_| api.refusal("k7Fq2xYz.another-secret"))).await;
    let unavailable = outcomes.iter().filter(|outcome| **outcome == Some(DenialKind::Unavailable)).count();
    let unknown = outcomes.iter().filter(|outcome| **outcome == Some(DenialKind::KeyUnknown)).count();
    assert_eq!(unavailable + unknown, 400);
    assert!(unavailable > 0 && unknown >= 64, "{unavailable} unavailable, {unknown} unknown");
    assert_eq!(api.refusal(SECRET_OF_BCRYPT).await, None, "later requests can wait again");
}

#[tokio::test]
async fn refuses_a_key_that_cannot_be_upgraded() {
    let api = Api::with_upgrades(Backend::down());
    let reply = send(&mut api.stack.clone(), with_key(SECRET_OF_BCRYPT)).await;
    assert_eq!(
        (reply.status(), reply.kind()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(DenialKind::Unavailable))
    );
}

/// Regression: the upgrade was dropped with the request, perhaps between the change and its event.
#[tokio::test]
async fn an_upgrade_that_has_begun_is_completed_if_its_caller_hangs_up() {
    let latch = Latch::shut();
    let api = Api::with_upgrades(Backend::slow(&latch));
    let has_begun = async {
        while api.table.0.upgrading.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = api.refusal(SECRET_OF_SHA_256) => panic!("the upgrade is not completed yet"),
        () = within(has_begun) => {}
    }
    latch.open();
    let is_completed = async {
        while api.table.0.rows.lock().unwrap().contains_key("sha256") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within(is_completed).await;
    assert_eq!(api.refusal(SECRET_OF_SHA_256).await, None);
}
