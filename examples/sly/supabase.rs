//! A stand-in for Supabase Auth on this machine: it signs people in, and publishes its keys over HTTP. With a project of your own, this
//! file is three texts: the issuer, the audience, and the URL of the keys.
//!
//! ```text
//! > GET http://127.0.0.1:PORT/auth/v1/.well-known/jwks.json
//! < {"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"key-1","use":"sig","x":"…","y":"…"}]}
//! ```

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use support::clock::ServiceClock;
use tollgate::clock::Clock as _;
use tollgate_jwt::{Algorithm, InvalidKeysUrl, Issuer};
use tollgate_testing::TestAuthority;
use uuid::Uuid;

use crate::{Credentials, users};

/// How long a session token is valid.
const LIFETIME: Duration = Duration::from_mins(15);

pub(crate) struct Supabase {
    pub(crate) authority: TestAuthority,
    clock: ServiceClock,
}

impl Supabase {
    pub(crate) async fn start(clock: ServiceClock) -> Self {
        Self { authority: TestAuthority::start_with_clock(clock.clone()).await, clock }
    }

    /// Which tokens are accepted. For a project: `https://PROJECT.supabase.co/auth/v1`.
    pub(crate) fn issuer(&self) -> Result<Issuer, InvalidKeysUrl> {
        let url = self.url();
        let keys = format!("{url}/.well-known/jwks.json");
        let issuer = Issuer::from_url(url, "authenticated", keys)?.with_algorithms([Algorithm::Es256]);
        // The stand-in has the clock of this service, so a session ends after exactly 15 minutes. For a project, keep the default of 5 s.
        Ok(issuer.with_leeway(Duration::ZERO))
    }

    fn url(&self) -> String {
        format!("{}/auth/v1", self.authority.issuer())
    }

    /// Signs a user in. Returns the session token.
    pub(crate) fn sign_in(&self, user: &str) -> String {
        self.authority.mint(self.claims(user, self.clock.now()))
    }

    /// Session tokens to try: a valid one, one that has expired, and one that another key has signed.
    pub(crate) async fn credentials(&self) -> Credentials {
        let (user, now) = (users::ADA, self.clock.now());
        let an_hour_ago = self.claims(user, now - Duration::from_hours(1));
        let forger = TestAuthority::start_with_clock(self.clock.clone()).await;
        vec![
            ("jwt", self.sign_in(user)),
            ("jwt_expired", self.authority.mint(an_hour_ago)),
            // Its header names the key of the true issuer: both call their first key `key-1`.
            ("jwt_forged", forger.mint(self.claims(user, now))),
        ]
    }

    /// The claims that this service needs, and one that it must not believe: `role` is the same for all users of a project.
    pub(crate) fn claims(&self, user: &str, at: SystemTime) -> Value {
        json!({
            "iss": self.url(),
            "aud": "authenticated",
            "sub": user,
            "role": "authenticated",
            "session_id": Uuid::new_v4().to_string(),
            "iat": seconds(at),
            "exp": seconds(at + LIFETIME),
        })
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
