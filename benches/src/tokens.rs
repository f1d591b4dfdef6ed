//! The tokens of the callers: JSON Web Tokens of about 660 bytes, signed with ES256, and with such claims as Supabase's have.

use std::sync::LazyLock;

use serde_json::json;
use tollgate_jwt::{Issuer, JwtVerifier, KeySet};
use tollgate_testing::TestAuthority;

use crate::cast::{self, Scenario};

/// Its server ends at once, together with the runtime. The key set is read from the value.
static AUTHORITY: LazyLock<TestAuthority> = LazyLock::new(|| runtime().block_on(TestAuthority::start()));

/// The tokens of the callers.
pub fn all() -> &'static [String] {
    static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| (0..cast::CALLERS).map(mint).collect());
    &TOKENS
}

fn mint(number: usize) -> String {
    AUTHORITY.mint(json!({
        "sub": format!("0192a3b4-c5d6-7e8f-9012-3456789abc{number:02}"),
        "number": number,
        "email": format!("caller.{number:02}@example.com"),
        "role": "authenticated",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": 1_800_000_000}],
        "app_metadata": {"provider": "email", "providers": ["email"]},
        "session_id": "5f0c1d2e-3b4a-4958-8776-655443322110",
        "is_anonymous": false,
    }))
}

/// Makes the same principals of tokens as there are of keys.
pub fn verifier() -> JwtVerifier {
    let keys = KeySet::parse(AUTHORITY.jwks()).unwrap();
    let issuer = Issuer::from_keys(AUTHORITY.issuer(), AUTHORITY.audience(), keys);
    JwtVerifier::new(issuer).with_principal(|claims| {
        let number = claims.get("number").and_then(serde_json::Value::as_u64).unwrap();
        Ok(cast::principal(usize::try_from(number).unwrap(), Scenario::CachedToken))
    })
}

/// A runtime for what is done before a measurement.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_about_660_bytes() {
        for token in all() {
            assert!((640..=680).contains(&token.len()), "{} bytes", token.len());
        }
    }
}
