//! A newly issued key.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Environment;

/// A newly issued key: a secret that is shown to its owner once.
///
/// Store its [`Digest`](crate::key::Digest) and its [`display_prefix`](Self::display_prefix), never the key itself.
/// The memory is wiped on drop. The type has neither `Clone` nor `Display`: the only way to read the key is
/// [`expose_secret`](Self::expose_secret).
///
/// ```
/// use tollgate_core::key::{Digest, Environment, KeyFormat};
///
/// let key = KeyFormat::new("sk")?.generate(Environment::Live)?;
/// let stored = (Digest::of(key.expose_secret()), key.display_prefix().to_owned());
///
/// assert!(stored.1.starts_with("sk_live_"));
/// assert_eq!(format!("{key:?}"), format!("ApiKey(\"{}…\")", stored.1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ApiKey {
    secret: Zeroizing<String>,
    display_length: usize,
    environment: Environment,
}

impl ApiKey {
    /// `display_length` is the length of the display prefix in bytes. The secret is ASCII.
    pub(super) const fn new(
        secret: Zeroizing<String>,
        display_length: usize,
        environment: Environment,
    ) -> Self {
        Self { secret, display_length, environment }
    }

    /// The key itself, for its owner.
    pub fn expose_secret(&self) -> &str {
        &self.secret
    }

    /// The beginning of the key, which is safe in lists and logs: prefix, environment and four random characters,
    /// such as `sk_live_a1B2`. For an opaque key: the first four characters.
    pub fn display_prefix(&self) -> &str {
        // Always `Some`: the secret is ASCII and longer than its display prefix.
        self.secret.get(..self.display_length).unwrap_or_default()
    }

    /// The environment of the key, even if the format does not include it in the text.
    pub const fn environment(&self) -> Environment {
        self.environment
    }

    /// Whether `presented` is this key. The time it takes reveals only whether the lengths are equal.
    pub fn matches(&self, presented: &str) -> bool {
        self.secret.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey(\"{}…\")", self.display_prefix())
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::ApiKey;
    use crate::key::Environment;

    fn key() -> ApiKey {
        ApiKey::new(Zeroizing::new("sk_live_a1B2c3D4e5".to_owned()), 12, Environment::Live)
    }

    #[test]
    fn debug_shows_only_the_display_prefix() {
        assert_eq!(key().display_prefix(), "sk_live_a1B2");
        assert_eq!(format!("{:?}", key()), "ApiKey(\"sk_live_a1B2…\")");
        assert!(!format!("{:#?}", key()).contains("c3"));
    }

    #[test]
    fn matches_only_itself() {
        assert!(key().matches(key().expose_secret()));
        for other in ["", "sk_live_a1B2", "sk_live_a1B2c3D4e6", "tk_live_a1B2c3D4e5", "sk_live_a1B2c3D4e5 "] {
            assert!(!key().matches(other), "{other:?}");
        }
    }
}
