//! Keys for tests.

use http::HeaderValue;
use tollgate::{Environment, KeyFormat, KeyVerifier, MemoryKeys, Principal, key::ApiKey};

/// Mints keys in memory, and verifies them.
///
/// ```
/// use tollgate::{Principal, Tollgate};
/// use tollgate_testing::{TestKeys, bearer};
///
/// let keys = TestKeys::new();
/// let key = keys.mint(Principal::new("key_1").with_tenant("acme"));
/// let tollgate = Tollgate::builder().verify(keys.verifier()).build()?;
///
/// let request = http::Request::get("/jobs").header("authorization", bearer(&key)).body(())?;
/// keys.store().revoke("key_1"); // ... and then it is refused
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TestKeys {
    format: KeyFormat,
    store: MemoryKeys,
}

impl TestKeys {
    /// No keys yet. They begin with `sk_live_`.
    ///
    /// # Panics
    /// Never: the format is valid.
    pub fn new() -> Self {
        Self::with_format(KeyFormat::new("sk").unwrap())
    }

    /// No keys yet. They have this format: the one of your application, if your code builds the verifier.
    pub fn with_format(format: KeyFormat) -> Self {
        Self { format, store: MemoryKeys::new() }
    }

    /// Issues a live key for a principal.
    ///
    /// # Panics
    /// If the operating system provides no randomness.
    pub fn mint(&self, principal: Principal) -> ApiKey {
        let environment = principal.environment().unwrap_or(Environment::Live);
        match self.store.issue(&self.format, environment, principal) {
            Ok(key) => key,
            Err(error) => panic!("no key was issued: {error}"),
        }
    }

    /// The store of these keys, for example to revoke one, or for a verifier of your own.
    pub fn store(&self) -> &MemoryKeys {
        &self.store
    }

    /// A verifier of these keys.
    pub fn verifier(&self) -> KeyVerifier {
        KeyVerifier::new(self.format.clone(), self.store.clone())
    }
}

impl Default for TestKeys {
    fn default() -> Self {
        Self::new()
    }
}

/// The value of an `Authorization` header with this key: `Bearer <key>`.
///
/// # Panics
/// Never: a key has only characters that a header may have.
pub fn bearer(key: &ApiKey) -> HeaderValue {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).unwrap();
    value.set_sensitive(true);
    value
}
