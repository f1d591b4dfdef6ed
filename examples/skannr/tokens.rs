//! Access tokens: JSON Web Tokens, signed with HMAC-SHA-256 (HS256) by a secret that this process alone has. `tollgate-jwt` verifies
//! them; making one is the application's part.

use std::{
    error::Error,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::Sha256;
use support::clock::ServiceClock;
use tollgate::{Principal, denial::Unavailable};
use tollgate_jwt::{Claims, Issuer, JwtVerifier, Revocations};

use crate::random;

pub(crate) const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_mins(15);

const ISSUER: &str = "https://api.skannr.app";
const AUDIENCE: &str = "https://api.skannr.app/api/v1";

/// Makes access tokens. Clones share the secret and the list of ended sessions.
#[derive(Clone)]
pub(crate) struct Tokens {
    // Prepared with the secret.
    signature: Hmac<Sha256>,
    issuer: Issuer,
    ended: Revocations,
}

impl Tokens {
    pub(crate) fn new(clock: ServiceClock) -> Result<Self, Box<dyn Error>> {
        let secret = random::bytes::<32>();
        // This service is the issuer, and has one clock.
        let issuer = Issuer::hs256(ISSUER, AUDIENCE, secret)?.with_leeway(Duration::ZERO);
        let ended = Revocations::new().with_clock(clock);
        Ok(Self { signature: Hmac::new_from_slice(&secret)?, issuer, ended })
    }

    /// Verifies access tokens. The principal is the session, and its tenant is the account.
    pub(crate) fn verifier(&self) -> JwtVerifier {
        let to_principal = |claims: &Claims| {
            Ok(Principal::new(claims.require_text("sid")?).with_tenant(claims.require_text("sub")?))
        };
        JwtVerifier::new(self.issuer.clone()).with_principal(to_principal).with_revocations(&self.ended)
    }

    /// Ends all access tokens of a session, also one that is made at this moment.
    pub(crate) fn end_session(&self, session: &str, now: SystemTime) -> Result<(), Unavailable> {
        let until = now + 2 * ACCESS_TOKEN_LIFETIME;
        let full = |error| Unavailable::new("a session cannot be ended").with_source(error);
        self.ended.revoke_session(session, until).map_err(full)
    }

    /// An access token of an account and a session. It expires 15 minutes after `now`.
    pub(crate) fn mint(&self, account: &str, session: &str, now: SystemTime) -> String {
        let header = json!({ "alg": "HS256", "typ": "JWT" });
        let issued_at = seconds(now);
        let claims = json!({
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": account,
            "sid": session,
            "jti": random::text(),
            "iat": issued_at,
            "exp": issued_at + seconds(UNIX_EPOCH + ACCESS_TOKEN_LIFETIME),
        });
        let message =
            format!("{}.{}", random::encode(header.to_string()), random::encode(claims.to_string()));
        let signature = self.signature.clone().chain_update(&message).finalize().into_bytes();
        format!("{message}.{}", random::encode(signature))
    }
}

/// Whole seconds since the Unix epoch; 0 for any time before it.
pub(crate) fn seconds(instant: SystemTime) -> i64 {
    let since_epoch = instant.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
}
