//! What a verified token says.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tollgate_core::{
    bounds::{END_OF_CALENDAR_SECONDS, MAX_ID_BYTES},
    denial::{Denial, DenialKind},
    scope::{Scope, Scopes},
    verify::Principal,
};

/// The claims of a token whose signature, issuer, audience and dates are verified.
///
/// ```
/// use tollgate_core::{denial::Denial, verify::Principal};
/// use tollgate_jwt::Claims;
///
/// fn to_principal(claims: &Claims) -> Result<Principal, Denial> {
///     let tenant = claims.require_text("org_id")?; // refused with 401 if the token has none
///     let role = claims.text("role").unwrap_or("member");
///     Ok(claims.to_principal()?.with_tenant(tenant).with_role(role))
/// }
/// ```
#[derive(Clone)]
pub struct Claims {
    pub(crate) members: Map<String, Value>,
    /// Whether `sub` alone identifies a caller.
    pub(crate) is_only_issuer: bool,
}

impl Claims {
    /// `iss`: the issuer. One of those that the verifier knows.
    pub fn issuer(&self) -> &str {
        self.text("iss").unwrap_or_default()
    }

    /// `sub`: the subject, if the token has one. It is unique for its issuer only.
    pub fn subject(&self) -> Option<&str> {
        self.text("sub")
    }

    /// A claim of any type.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// A claim that is a text; `None` if there is none, or if it has another type.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A claim that is a text and not empty.
    ///
    /// # Errors
    /// A denial with 401 if the token does not have it. The log names the claim.
    pub fn require_text(&self, name: &str) -> Result<&str, Denial> {
        self.text(name).filter(|text| !text.is_empty()).ok_or_else(|| {
            let detail = format!("the token has no claim `{name}` that is a text");
            Denial::new(DenialKind::TokenInvalid).with_log_detail(detail)
        })
    }

    /// All claims as a type of your own.
    ///
    /// ```
    /// # fn doc(claims: &tollgate_jwt::Claims) -> Result<(), tollgate_core::denial::Denial> {
    /// #[derive(serde::Deserialize)]
    /// struct Own { org_id: String, plan: Option<String> }
    /// # fn use_it(own: Own) -> (String, Option<String>) { (own.org_id, own.plan) }
    ///
    /// let own: Own = claims.parse()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A denial with 401 if the claims do not have the form of the type. The log does not show values.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Denial> {
        T::deserialize(Value::Object(self.members.clone())).map_err(|_| {
            let detail = format!("the claims cannot be read as a `{}`", std::any::type_name::<T>());
            Denial::new(DenialKind::TokenInvalid).with_log_detail(detail)
        })
    }

    /// `exp`: the instant from which the token is expired, without leeway.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.date("exp").ok().flatten()
    }

    /// The names in `scope` (RFC 9068 section 2.2.3), `scp` and `permissions`: a text with names separated by spaces, or an array of names.
    ///
    /// Leaves out names that Tollgate does not allow, and [wildcards](Scopes#wildcards): an issuer knows no wildcards, so one in a token
    /// may be a name that the issuer let its user choose.
    pub fn scopes(&self) -> Scopes {
        let claims = ["scope", "scp", "permissions"].into_iter().filter_map(|name| self.get(name));
        let names = claims.flat_map(|claim| match claim {
            Value::String(names) => names.split(' ').collect(),
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        });
        let scopes = names.filter_map(|name| Scope::new(name.to_owned()).ok());
        scopes.filter(|scope| !scope.is_wildcard()).collect()
    }

    /// The principal if nothing else is chosen: its identifier is `sub`, and its scopes are [`scopes`](Self::scopes).
    ///
    /// If the verifier has issuers of several names, the identifier is `iss`, a space, and `sub`, since two issuers may use the same `sub` for
    /// different callers.
    ///
    /// # Beside keys
    /// Requests and usage are counted by identifiers. Those of a `KeyManager`'s keys are `key_` and a random number, so no `sub` equals one by
    /// chance. If your issuer lets users choose their `sub`, or if your keys have other identifiers, give the principal an identifier that no key
    /// has: `Principal::new(format!("user:{sub}"))` in [`with_principal`](crate::JwtVerifier::with_principal).
    ///
    /// # Errors
    /// A denial with 401 if the token has no `sub`, or one of more than 256 bytes.
    pub fn to_principal(&self) -> Result<Principal, Denial> {
        let subject = self.require_text("sub")?;
        if subject.len() > MAX_ID_BYTES {
            return Err(invalid("the claim `sub` is longer than 256 bytes"));
        }
        let id = if self.is_only_issuer { subject.into() } else { format!("{} {subject}", self.issuer()) };
        Ok(Principal::new(id).with_scopes(self.scopes()))
    }

    /// A date (RFC 7519 section 2, "NumericDate"): whole seconds, since it may have a fraction.
    pub(crate) fn date(&self, name: &str) -> Result<Option<SystemTime>, ()> {
        let Some(claim) = self.get(name) else { return Ok(None) };
        let seconds = claim.as_u64().or_else(|| {
            let seconds = claim.as_f64().filter(|seconds| (0.0..1e12).contains(seconds))?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the range is checked"
            )]
            Some(seconds as u64)
        });
        let seconds = seconds.filter(|seconds| *seconds < END_OF_CALENDAR_SECONDS).ok_or(())?;
        Ok(Some(UNIX_EPOCH + Duration::from_secs(seconds)))
    }
}

impl fmt::Debug for Claims {
    /// Shows the names only: values may be personal or secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.members.keys()).finish()
    }
}

/// A denial of a token, with a sentence for the log.
pub(crate) fn invalid(log_detail: &'static str) -> Denial {
    Denial::new(DenialKind::TokenInvalid).with_log_detail(log_detail)
}
