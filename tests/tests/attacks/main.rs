//! What an attacker has tried, each attack as a test that tells its story. Most of them worked once.
#![expect(clippy::unwrap_used, reason = "whatever goes wrong in a test fails it")]

mod builder;
mod caches;
mod identity;
mod keys;
mod limits;
mod own_parts;
mod report_only;
mod spending;
mod time;

use http::{Method, Request};
use tests::suite::get;
use tollgate::{
    Environment, KeyFormat, KeyVerifier, MemoryKeys, Policy, Principal, Quota, RateLimitLayer, limit::Subject,
};

/// Keys of one format, and who verifies them.
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

    /// A key in the right format that nobody has issued.
    fn invent(&self) -> String {
        self.format.generate(Environment::Live).unwrap().expose_secret().to_owned()
    }

    fn verifier(&self) -> KeyVerifier {
        KeyVerifier::new(self.format.clone(), self.store.clone())
    }
}

/// Limits everybody together, whoever they are.
fn everybody(quota: Quota) -> RateLimitLayer {
    RateLimitLayer::from_policies([
        Policy::new("all", quota).with_subject(Subject::custom(|_, _| Some("all".into())))
    ])
    .unwrap()
}

/// What any stranger can send: `OPTIONS` with the two headers by which a browser asks what it may.
fn preflight(path: &str) -> Request<String> {
    let headers = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    let mut request = get(path, &headers);
    *request.method_mut() = Method::OPTIONS;
    request
}
