//! Asks one of several verifiers, chosen by what the credential looks like.

use std::{borrow::Cow, fmt, sync::Arc};

use tollgate_core::{
    answer::Answer,
    denial::{Denial, DenialKind},
    verify::{Credential, Principal, RefusalText, Verify, VerifyRequest},
};

use crate::ConfigurationError;

/// Asks one of several verifiers, chosen by what the credential looks like: for services that accept API keys and tokens.
///
/// ```
/// use tollgate::{
///     Denial, DenialKind, KeyFormat, KeyVerifier, MemoryKeys, Principal, Tollgate,
///     verify::{Credential, Dispatch, verify_fn},
/// };
///
/// let keys = KeyVerifier::new(KeyFormat::new("psk")?, MemoryKeys::new());
/// let tokens = verify_fn(|token: Credential| async move {
///     // asks the issuer of the token ...
/// #   let _ = token;
///     Err::<Principal, _>(Denial::new(DenialKind::TokenInvalid))
/// });
///
/// let verifier = Dispatch::new().with_prefix("psk_", keys)?.with_jwt(tokens)?;
/// let tollgate = Tollgate::builder().verify(verifier).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Each [`Branch`] may refuse in its own words, and all other credentials may have a verifier, too:
///
/// ```
/// use tollgate::verify::{Branch, Dispatch, Verify};
///
/// fn verifier(
///     keys: impl Verify,
///     tokens: impl Verify,
///     sessions: impl Verify,
/// ) -> Result<Dispatch, tollgate::ConfigurationError> {
///     Dispatch::new()
///         .with_prefix("psk_", Branch::new(keys).with_refusal_text("invalid_api_key", "Invalid API key"))?
///         .with_jwt(Branch::new(tokens).with_refusal_text("invalid_token", "Invalid or expired token"))?
///         .with_default(sessions)
/// }
/// ```
///
/// # Which verifier is asked
///
/// | the credential | is verified by |
/// |---|---|
/// | begins with a prefix | the verifier of that [prefix](Self::with_prefix) |
/// | looks like a JWT: begins with `eyJ` (`{"` in base64url), and has three parts, separated by dots | the verifier of [tokens](Self::with_jwt) |
/// | is any other | the [default](Self::with_default); if there is none, it is refused with [`CredentialMalformed`](DenialKind::CredentialMalformed): 401 |
///
/// Exactly one verifier is asked, and its answer is final: a token that is refused is not tried as a key. A credential cannot match
/// two rows: prefixes of which one begins with the other are a configuration error.
///
/// # Security
///
/// What a credential looks like is not trusted: it only chooses who verifies it. In which words a refusal is written depends on the
/// credential, which the caller knows, and not on the reason.
#[derive(Default)]
pub struct Dispatch {
    // None of the prefixes begins with another one.
    prefixes: Vec<(Box<str>, Branch)>,
    jwt: Option<Branch>,
    default: Option<Branch>,
}

impl Dispatch {
    /// No verifier yet: every credential is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks this verifier about credentials that begin with `prefix`, which is visible ASCII, such as `psk_`.
    ///
    /// # Errors
    /// If the prefix is empty or not visible ASCII, or if a credential could match this prefix and another one, or this prefix and
    /// [`with_jwt`](Self::with_jwt).
    pub fn with_prefix(
        mut self,
        prefix: impl Into<Box<str>>,
        to: impl Into<Branch>,
    ) -> Result<Self, ConfigurationError> {
        let prefix = prefix.into();
        if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ConfigurationError::new(format!(
                "Dispatch: the prefix {prefix:?} matches no credential: use visible ASCII such as psk_, and Dispatch::with_default for \
                 all other credentials"
            )));
        }
        if let Some((other, _)) = self.prefixes.iter().find(|(other, _)| overlap(&prefix, other)) {
            return Err(ConfigurationError::new(format!(
                "Dispatch: a credential can begin with both prefixes, {other:?} and {prefix:?}: use prefixes of which none begins with \
                 another one"
            )));
        }
        if self.jwt.is_some() {
            check_not_jwt(&prefix)?;
        }
        self.prefixes.push((prefix, to.into()));
        Ok(self)
    }

    /// Asks this verifier about credentials that look like a JSON Web Token (RFC 7519).
    ///
    /// # Errors
    /// If tokens have a verifier already, or if a JWT could begin with one of the prefixes.
    pub fn with_jwt(mut self, to: impl Into<Branch>) -> Result<Self, ConfigurationError> {
        if self.jwt.is_some() {
            return Err(ConfigurationError::new(
                "Dispatch: two verifiers of tokens: use one that accepts the tokens of several issuers",
            ));
        }
        self.prefixes.iter().try_for_each(|(prefix, _)| check_not_jwt(prefix))?;
        self.jwt = Some(to.into());
        Ok(self)
    }

    /// Asks this verifier about all other credentials. Default: they are refused.
    ///
    /// # Errors
    /// If they have a verifier already.
    pub fn with_default(mut self, to: impl Into<Branch>) -> Result<Self, ConfigurationError> {
        if self.default.is_some() {
            return Err(ConfigurationError::new(
                "Dispatch: two default verifiers: call Dispatch::with_default once, and tell other credentials apart by prefixes",
            ));
        }
        self.default = Some(to.into());
        Ok(self)
    }

    /// The one branch for this credential.
    fn branch(&self, credential: &Credential) -> Option<&Branch> {
        let secret = credential.expose_secret_bytes();
        let by_prefix = self.prefixes.iter().find(|(prefix, _)| secret.starts_with(prefix.as_bytes()));
        let by_look = || self.jwt.as_ref().filter(|_| looks_like_jwt(secret));
        by_prefix.map(|(_, branch)| branch).or_else(by_look).or(self.default.as_ref())
    }
}

/// How a JWT begins: its header is a JSON object, and these are the first two bytes of one, `{"`, and some bits of the third.
const JWT_START: &str = "eyJ";

/// Reads a token as little as it can, since every request with one comes here: the verifier of tokens checks the rest.
fn looks_like_jwt(secret: &[u8]) -> bool {
    secret.starts_with(JWT_START.as_bytes()) && dots(secret) == 2
}

/// The number of dots. Counted in a byte, for as many bytes as cannot overflow it, so that the compiler uses vector instructions.
fn dots(text: &[u8]) -> usize {
    let of_part = |part: &[u8]| part.iter().map(|byte| u8::from(*byte == b'.')).sum::<u8>();
    text.chunks(u8::MAX.into()).map(|part| usize::from(of_part(part))).sum()
}

/// Whether a text can begin with both prefixes.
fn overlap(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn check_not_jwt(prefix: &str) -> Result<(), ConfigurationError> {
    if overlap(prefix, JWT_START) {
        return Err(ConfigurationError::new(format!(
            "Dispatch: a JWT can begin with the prefix {prefix:?}: use a prefix that does not begin with {JWT_START}"
        )));
    }
    Ok(())
}

impl Verify for Dispatch {
    fn verify(&self, request: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
        match self.branch(request.credential) {
            Some(branch) => branch.verifier.verify(request),
            None => Answer::Now(Err(Denial::new(DenialKind::CredentialMalformed)
                .with_log_detail("no verifier of the Dispatch is for credentials that look like this"))),
        }
    }

    fn refusal_text(&self, credential: &Credential) -> Option<Arc<RefusalText>> {
        let branch = self.branch(credential)?;
        branch.text.clone().or_else(|| branch.verifier.refusal_text(credential))
    }
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefixes: Vec<_> = self.prefixes.iter().map(|(prefix, _)| prefix).collect();
        f.debug_struct("Dispatch")
            .field("prefixes", &prefixes)
            .field("has_jwt", &self.jwt.is_some())
            .field("has_default", &self.default.is_some())
            .finish()
    }
}

/// A verifier of a [`Dispatch`], and the words in which its credentials are refused.
///
/// ```
/// use tollgate::{
///     KeyFormat, KeyVerifier, MemoryKeys,
///     verify::{Branch, Dispatch},
/// };
///
/// let keys = KeyVerifier::new(KeyFormat::new("psk")?, MemoryKeys::new());
/// let branch = Branch::new(keys).with_refusal_text("invalid_api_key", "Invalid API key");
/// let verifier = Dispatch::new().with_prefix("psk_", branch)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Branch {
    verifier: Arc<dyn Verify>,
    text: Option<Arc<RefusalText>>,
}

impl Branch {
    /// A branch in which the default words are used.
    pub fn new(verifier: impl Verify) -> Self {
        Self { verifier: Arc::new(verifier), text: None }
    }

    /// Replaces the code and the sentence of every 401 that refuses a credential of this branch, whatever the reason and whichever
    /// layer refuses it. Other statuses keep theirs, such as the 403 of a suspended tenant, and so does a refusal of the
    /// `CredentialLayer`, which knows no verifier.
    pub fn with_refusal_text(
        mut self,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.text = Some(Arc::new(RefusalText::new(code, detail)));
        self
    }
}

impl<V: Verify> From<V> for Branch {
    fn from(verifier: V) -> Self {
        Self::new(verifier)
    }
}

impl fmt::Debug for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch").field("text", &self.text).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwt_has_three_parts_and_begins_with_an_object() {
        let long = "a".repeat(300);
        for (text, is_jwt) in [
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl", true),
            ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZGEifQ.", true),
            (&format!("eyJ{long}.{long}.{long}"), true),
            (&format!("eyJ{long}.{long}.{long}.{long}"), false),
            (&format!("eyJ{}", ".".repeat(258)), false),
            ("eyJ", false),
            ("eyJ.a", false),
            ("eyJ.a.b.c", false),
            ("eyJ.a.b.c.d", false),
            ("EyJ.a.b", false),
            (" eyJ.a.b", false),
            ("", false),
        ] {
            assert_eq!(looks_like_jwt(text.as_bytes()), is_jwt, "{text:?}");
        }
    }
}
