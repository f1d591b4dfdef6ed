//! Regression tests for attacks. The comment on each test describes the attack. Most of them once succeeded.

mod application_code;
mod builder;
mod caches;
mod identity;
mod keys;
mod limits;
mod report_only;
mod time;

use http::{Method, Request};
use tests::suite::get;
use tollgate::{
    Environment, KeyFormat, KeyVerifier, MemoryKeys, Policy, Principal, Quota, RateLimitLayer, limit::Subject,
};

/// Keys of one format, and their verifier.
struct Keys {
    format: KeyFormat,
    store: MemoryKeys,
}

impl Keys {
    fn new() -> Self {
        Self { format: KeyFormat::new("sk").unwrap(), store: MemoryKeys::new() }
    }

    fn issue(&self, principal: Principal) -> String {
        self.store.issue(&self.format, Environment::Live, principal).unwrap().expose_secret().to_owned()
    }

    /// A well-formed key that was never issued.
    fn invent(&self) -> String {
        self.format.generate(Environment::Live).unwrap().expose_secret().to_owned()
    }

    fn verifier(&self) -> KeyVerifier {
        KeyVerifier::new(self.format.clone(), self.store.clone())
    }
}

/// One limit shared by all callers.
fn shared_limit(quota: Quota) -> RateLimitLayer {
    RateLimitLayer::from_policies([
        Policy::new("all", quota).with_subject(Subject::custom(|_, _| Some("all".into())))
    ])
    .unwrap()
}

/// A CORS preflight, which needs no key.
fn preflight(path: &str) -> Request<String> {
    let headers = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let mut request = get(path, &headers);
    *request.method_mut() = Method::OPTIONS;
    request
}
