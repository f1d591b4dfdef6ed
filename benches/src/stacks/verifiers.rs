//! What verifies the credentials of a scenario.

use std::{sync::Weak, time::Duration};

use http::{HeaderValue, Request};
use tollgate::{
    Answer, CachedKeys, KeyVerifier, MemoryKeys, VerifyLayer,
    clock::{Clock as _, SystemClock},
    denial::Unavailable,
    request::RequestHead,
    store::{KeyLookup, KeyRecord, KeyStore, StoreListener, Subscription},
    verify::{Credential, CredentialSource, Dispatch, Verify, VerifyRequest},
};

use crate::{
    cast::{self, Scenario},
    tokens,
};

pub(super) fn of(scenario: Scenario) -> VerifyLayer {
    match scenario {
        Scenario::CachedKey => cached_keys().into(),
        Scenario::CachedToken => tokens::verifier().into(),
        _ => KeyVerifier::new(cast::format(), memory_keys(scenario)).into(),
    }
}

/// Verifies keys and tokens, which it tells apart by what they look like.
pub(super) fn dispatch() -> VerifyLayer {
    let dispatch = Dispatch::new().with_prefix("exampleapi_", cached_keys()).unwrap();
    dispatch.with_jwt(tokens::verifier()).unwrap().into()
}

fn memory_keys(scenario: Scenario) -> MemoryKeys {
    let keys = MemoryKeys::new();
    for (number, key) in cast::keys().iter().enumerate() {
        keys.import(key, cast::principal(number, scenario));
    }
    keys
}

/// All keys are in the cache already: a stack that is measured cannot wait for a store.
fn cached_keys() -> KeyVerifier {
    let store = AnswersLater(memory_keys(Scenario::CachedKey));
    let cache = CachedKeys::new(store).with_ttl(Duration::from_secs(24 * 3_600));
    let verifier = KeyVerifier::new(cast::format(), cache);
    let (request, runtime) = (Request::new(()), tokens::runtime());
    // A lookup is a task.
    let _entered = runtime.enter();
    for key in cast::keys() {
        let header = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
        let credential = Credential::new(header, "Bearer ".len(), CredentialSource::Bearer);
        let presented = VerifyRequest::new(&credential, RequestHead::of(&request), SystemClock.now());
        runtime.block_on(verifier.verify(&presented).into_future()).unwrap();
    }
    verifier
}

/// A store that answers like a database, and knows its keys at once.
struct AnswersLater(MemoryKeys);

impl KeyStore for AnswersLater {
    fn find(&self, lookup: &KeyLookup<'_>) -> Answer<Result<Option<KeyRecord>, Unavailable>> {
        Answer::later(self.0.find(lookup).into_future())
    }

    fn subscribe(&self, listener: Weak<dyn StoreListener>) -> Subscription {
        self.0.subscribe(listener)
    }
}
