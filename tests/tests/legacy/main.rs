//! Keys from before: checked against their old hash once, then found by their digest like any other.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "whatever goes wrong in a test fails it")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use http::StatusCode;
use tests::suite::{Inner, Stack, erase, send, with_key};
use tollgate::{
    Answer, CredentialLayer, DenialKind, KeyFormat, KeyVerifier, MemoryKeys, Principal, VerifyLayer,
    denial::Unavailable,
    key::{Digest, Pepper, PepperId, Peppers},
    store::{LegacyHashes, LegacyKey, LegacyKeys},
};
use tower::Layer as _;

/// An old table: prefix and hash by identifier. What is upgraded moves into a store.
#[derive(Clone)]
struct Table(Arc<Inside>);

struct Inside {
    rows: Mutex<HashMap<&'static str, (&'static str, &'static str)>>,
    secrets: HashMap<&'static str, &'static str>,
    store: MemoryKeys,
    looked_up: AtomicUsize,
    // Which key another request upgrades just before the next look-up.
    overtaken: Mutex<Option<&'static str>>,
    is_down: bool,
}

impl Table {
    fn import(&self, id: &'static str) {
        // Under the lock: whoever finds the row gone finds the key in the store.
        let mut rows = self.0.rows.lock().unwrap();
        if rows.remove(id).is_some() {
            self.0.store.import(self.0.secrets[id], Principal::new(id));
        }
    }
}

impl LegacyKeys for Table {
    fn candidates(&self, prefix: &str) -> Answer<Result<Vec<LegacyKey>, Unavailable>> {
        self.0.looked_up.fetch_add(1, Ordering::SeqCst);
        if let Some(id) = self.0.overtaken.lock().unwrap().take() {
            self.import(id);
        }
        let rows = self.0.rows.lock().unwrap();
        let found = rows.iter().filter(|(_, (of, _))| *of == prefix);
        let found = found.map(|(id, (_, hash))| LegacyKey::new(*id, *hash)).collect();
        Answer::later(async { Ok(found) })
    }

    fn upgrade(&self, id: &str, digest: Digest) -> Answer<Result<(), Unavailable>> {
        if self.0.is_down {
            return Answer::later(async { Err(Unavailable::new("the table is gone")) });
        }
        let (id, secret) = self.0.secrets.get_key_value(id).unwrap();
        assert_eq!(digest, peppers().current(secret), "as the store finds it from now on");
        self.import(id);
        Answer::Now(Ok(()))
    }
}

fn peppers() -> Peppers {
    Peppers::new(Pepper::new(PepperId::new(1), [7; 32]).unwrap())
}

const BY_BCRYPT: &str = "k7Fq2xYz.the-secret-of-the-first";
const BY_ARGON2: &str = "m3Rt9pQw.the-secret-of-the-second";
const BY_SHA_256: &str = "m3Rt9pQw.the-secret-of-the-third";

/// As Python's `bcrypt` and `argon2-cffi` wrote them.
const BCRYPT: &str = "$2b$04$dCPfA0AOv3umHkom2Ke4N.rNWYcqud1qcXq7FxbMTNzOS6IB3x2Ee";
const ARGON2: &str =
    "$argon2id$v=19$m=64,t=1,p=1$WPFRogNNPlLD3aimkBLB/A$HaU3YA8nMVJSPUan1rXs922v0g3g4thdKny7Ibmu7xM";

struct Api {
    table: Table,
    stack: Stack,
}

impl Api {
    fn new(is_down: bool) -> Self {
        let store = MemoryKeys::with_peppers(peppers());
        let rows = [
            ("bcrypt", ("k7Fq2xYz", BCRYPT)),
            ("argon2", ("m3Rt9pQw", ARGON2)),
            ("sha256", ("m3Rt9pQw", "7ddd26e2dd2f0f8f1cb39ea1214bf433deb03d86e482aa90db94b83e0e2b8156")),
            ("broken", ("bR0k3nXx", "md5:5f4dcc3b5aa765d61d8327deb882cf99")),
        ];
        let secrets = HashMap::from([("bcrypt", BY_BCRYPT), ("argon2", BY_ARGON2), ("sha256", BY_SHA_256)]);
        let inside = Inside {
            rows: Mutex::new(rows.into()),
            secrets,
            store: store.clone(),
            looked_up: AtomicUsize::new(0),
            overtaken: Mutex::new(None),
            is_down,
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

    /// `None` if the key is good.
    async fn refusal(&self, key: &str) -> Option<DenialKind> {
        send(&mut self.stack.clone(), with_key(key)).await.kind()
    }

    fn looked_up(&self) -> usize {
        self.table.0.looked_up.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_key_from_before_is_good_and_upgraded_on_its_first_use() {
    let api = Api::new(false);
    for (secret, looked_up) in [(BY_BCRYPT, 1), (BY_ARGON2, 2), (BY_SHA_256, 3)] {
        assert_eq!(api.refusal(secret).await, None, "{secret}");
        assert_eq!(api.looked_up(), looked_up);
        assert_eq!(api.refusal(secret).await, None, "{secret} again");
        assert_eq!(api.looked_up(), looked_up, "found by its digest now");
    }
    assert_eq!(api.table.0.rows.lock().unwrap().len(), 1, "only the broken row is left");
}

#[tokio::test]
async fn a_wrong_secret_is_unknown_and_upgrades_nothing() {
    let api = Api::new(false);
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
async fn a_revoked_key_that_was_upgraded_does_not_come_back() {
    let api = Api::new(false);
    assert_eq!(api.refusal(BY_BCRYPT).await, None);
    assert!(api.table.0.store.revoke("bcrypt"));
    assert_eq!(api.refusal(BY_BCRYPT).await, Some(DenialKind::KeyRevoked));
    assert_eq!(api.looked_up(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_first_uses_at_once_are_all_good() {
    let api = Api::new(false);
    let outcomes = join_all((0..32).map(|_| api.refusal(BY_BCRYPT))).await;
    assert!(outcomes.iter().all(Option::is_none), "{outcomes:?}");
}

/// Of several first uses at once, one asked the store before another had upgraded the key, and the table after it: it was
/// told that there is no such key.
#[tokio::test]
async fn a_first_use_that_another_one_overtakes_is_good() {
    let api = Api::new(false);
    *api.table.0.overtaken.lock().unwrap() = Some("bcrypt");
    assert_eq!(api.refusal(BY_BCRYPT).await, None);
    assert_eq!(api.looked_up(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_wait_are_told_to_come_back() {
    let api = Api::new(false);
    let outcomes = join_all((0..400).map(|_| api.refusal("k7Fq2xYz.another-secret"))).await;
    let unavailable = outcomes.iter().filter(|outcome| **outcome == Some(DenialKind::Unavailable)).count();
    let unknown = outcomes.iter().filter(|outcome| **outcome == Some(DenialKind::KeyUnknown)).count();
    assert_eq!(unavailable + unknown, 400);
    assert!(unavailable > 0 && unknown >= 64, "{unavailable} unavailable, {unknown} unknown");
    assert_eq!(api.refusal(BY_BCRYPT).await, None, "the places are free again");
}

#[tokio::test]
async fn what_cannot_be_upgraded_is_not_let_in() {
    let api = Api::new(true);
    let reply = send(&mut api.stack.clone(), with_key(BY_BCRYPT)).await;
    assert_eq!(
        (reply.status(), reply.kind()),
        (StatusCode::SERVICE_UNAVAILABLE, Some(DenialKind::Unavailable))
    );
}
