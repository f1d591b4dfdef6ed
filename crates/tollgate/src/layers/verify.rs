//! Verifies the credential: from here on the request has a principal.
//!
//! # What is refused
//!
//! | condition | status | challenge |
//! |---|---|---|
//! | unknown, revoked or expired key; another environment's key | 401 | `Bearer error="invalid_token"` |
//! | suspended tenant | 403 | |
//! | the verifier's backend does not answer | 503 | |
//! | no `CredentialLayer` outside | 500 | |
//!
//! The first row's cases get the same response; the log tells them apart. Their times may differ, as SECURITY.md says.
//!
//! # Where it stands
//!
//! Inside `CredentialLayer`, outside everything that needs to know the caller.
//!
//! # Examples
//!
//! ```
//! use tollgate::{Environment, KeyFormat, KeyVerifier, MemoryKeys, Principal, VerifyLayer};
//!
//! let format = KeyFormat::new("sk")?;
//! let keys = MemoryKeys::new();
//! let key = keys.issue(&format, Environment::Live, Principal::new("key_1"))?;
//!
//! let layer = VerifyLayer::new(KeyVerifier::new(format, keys));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A verifier of one's own, which asks a service and so answers later, for live keys only:
//!
//! ```
//! use std::sync::Arc;
//! use tollgate::{
//!     Answer, Denial, DenialKind, Environment, Principal, VerifyLayer,
//!     verify::{Verify, VerifyRequest},
//! };
//!
//! #[derive(Clone)]
//! struct Accounts; // a client of the service
//!
//! impl Accounts {
//!     async fn find(&self, token: &str) -> std::io::Result<Option<String>> {
//!         # let _ = token;
//!         Ok(None)
//!     }
//! }
//!
//! impl Verify for Accounts {
//!     fn verify(&self, presented: &VerifyRequest<'_>) -> Answer<Result<Arc<Principal>, Denial>> {
//!         // What is waited for must own what it needs.
//!         let (accounts, credential) = (self.clone(), presented.credential.clone());
//!         Answer::later(async move {
//!             match accounts.find(credential.expose_secret()).await {
//!                 Ok(Some(id)) => Ok(Arc::new(Principal::new(id).with_environment(Environment::Live))),
//!                 Ok(None) => Err(Denial::new(DenialKind::KeyUnknown)),
//!                 Err(error) => Err(Denial::unavailable(format!("the account service: {error}"))),
//!             }
//!         })
//!     }
//! }
//!
//! let layer = VerifyLayer::new(Accounts).with_environment(Environment::Live);
//! ```
//!
//! # Security
//!
//! Fails closed: without an answer no request passes. Whatever a verifier answers, a principal that has expired or that its store
//! has ended is refused; after a wait, by the new instant.

use std::{fmt, sync::Arc};

use tollgate_core::{
    denial::{Denial, DenialKind},
    key::Environment,
    verify::{Verify, VerifyRequest},
};

use crate::engine::{Caller, Cx, Flow, Settings, impl_layer};

/// Verifies the credential. See the [module](self).
///
/// ```
/// use tollgate::{CachedKeys, Environment, KeyFormat, KeyVerifier, VerifyLayer, store::KeyStore};
///
/// fn verify(store: impl KeyStore) -> Result<VerifyLayer, tollgate::key::InvalidKeyFormat> {
///     let verifier = KeyVerifier::new(KeyFormat::new("sk")?, CachedKeys::new(store));
///     Ok(VerifyLayer::new(verifier).with_environment(Environment::Live))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct VerifyLayer {
    pub(crate) gate: VerifyGate,
    settings: Settings,
}

impl VerifyLayer {
    /// Asks `verifier` who a credential belongs to.
    pub fn new(verifier: impl Verify) -> Self {
        let gate = VerifyGate { verifier: Arc::new(verifier), environment: None };
        Self { gate, settings: Settings::default() }
    }

    /// Refuses principals of any other environment than this, and those that have none.
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.gate.environment = Some(environment);
        self
    }
}

impl<V: Verify> From<V> for VerifyLayer {
    fn from(verifier: V) -> Self {
        Self::new(verifier)
    }
}

impl_layer!(VerifyLayer, Verify);

pub(crate) const LAYER: &str = "VerifyLayer";

#[derive(Clone)]
pub(crate) struct VerifyGate {
    verifier: Arc<dyn Verify>,
    environment: Option<Environment>,
}

impl VerifyGate {
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let context = &*cx.context;
        // Whatever a layer in report-only mode has decided: a credential is verified.
        let Some(credential) = context.credential() else { return without_credential(&context.caller) };
        let answer = self.verifier.verify(&VerifyRequest::new(credential, cx.head(), context.instant()));
        let environment = self.environment;
        cx.when_answered(answer, move |found, context| {
            let principal = found?;
            let own = principal.environment();
            context.caller = Caller::Authenticated(principal);
            context.check_not_ended()?;
            if environment.is_some() && own != environment {
                return Err(Denial::new(DenialKind::WrongEnvironment));
            }
            Ok(())
        })
    }
}

/// What a request without a credential gets.
#[cold]
fn without_credential(caller: &Caller) -> Result<Flow, Denial> {
    match caller {
        Caller::Anonymous | Caller::Preflight => Ok(Flow::Continue),
        Caller::Waived => Err(Denial::new(DenialKind::CredentialMissing)),
        _ => Err(Denial::misconfigured(
            "VerifyLayer ran before any CredentialLayer: put a CredentialLayer outside it \
             (with axum's Router::layer the last one added is the outermost)",
        )),
    }
}

impl fmt::Debug for VerifyGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyGate").field("environment", &self.environment).finish_non_exhaustive()
    }
}
