//! What the tests share: requests with a token, and an issuer.

use std::{
    future::IntoFuture as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderValue, Request};
use serde_json::Value;
use tollgate_core::{
    clock::{Clock as _, ManualClock},
    denial::{Denial, DenialKind},
    request::RequestHead,
    verify::{Credential, CredentialSource, Principal, Verify as _, VerifyRequest},
};
use tollgate_jwt::{Issuer, JwtVerifier};
use tollgate_testing::{TestAuthority, midnight};

/// An issuer whose clock is manual, and a verifier of its tokens.
pub(crate) struct Setup {
    pub(crate) authority: TestAuthority,
    pub(crate) clock: ManualClock,
    pub(crate) verifier: JwtVerifier,
}

impl Setup {
    pub(crate) async fn new() -> Self {
        Self::with(|verifier| verifier).await
    }

    pub(crate) async fn with(change: impl FnOnce(JwtVerifier) -> JwtVerifier) -> Self {
        let (authority, clock) = authority().await;
        let verifier = change(JwtVerifier::new(issuer(&authority)));
        Self { authority, clock, verifier }
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<Arc<Principal>, Denial> {
        verify(&self.verifier, token, self.clock.now()).await
    }

    /// The reason of the refusal, and the sentence in the log.
    pub(crate) async fn refusal(&self, token: &str) -> (DenialKind, String) {
        let denial = self.verify(token).await.expect_err("the token is refused");
        (denial.kind(), denial.log_detail().to_owned())
    }
}

pub(crate) async fn authority() -> (TestAuthority, ManualClock) {
    let clock = ManualClock::at(midnight());
    (TestAuthority::start_with_clock(clock.clone()).await, clock)
}

pub(crate) fn issuer(authority: &TestAuthority) -> Issuer {
    Issuer::from_url(authority.issuer(), authority.audience(), authority.jwks_url()).unwrap()
}

pub(crate) async fn verify(
    verifier: &JwtVerifier,
    token: &str,
    now: SystemTime,
) -> Result<Arc<Principal>, Denial> {
    verify_with(verifier, token, &[], now).await
}

pub(crate) async fn verify_with(
    verifier: &JwtVerifier,
    token: &str,
    headers: &[(&'static str, &str)],
    now: SystemTime,
) -> Result<Arc<Principal>, Denial> {
    let mut request = Request::new(());
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    let credential = Credential::new(HeaderValue::from_str(token).unwrap(), 0, CredentialSource::Bearer);
    let answer = verifier.verify(&VerifyRequest::new(&credential, RequestHead::of(&request), now));
    answer.into_future().await
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Waits until something is true that another task does.
pub(crate) async fn eventually(mut is_true: impl FnMut() -> bool) {
    let waits = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waits).await.expect("it becomes true");
}

/// A token whose claims are replaced after it was signed.
pub(crate) fn with_claims(token: &str, claims: &Value) -> String {
    let [header, _, signature] = parts(token);
    format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

pub(crate) fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().expect("three parts")
}
