//! Verifies the credential: from here on the request has a principal.
//!
//! # What is refused
//!
//! | condition | status | challenge |
//! |---|---|---|
//! | unknown, revoked or expired key; another environment's key; a key outside its [networks](Principal::with_allowed_networks) | 401 | `Bearer error="invalid_token"` |
//! | suspended tenant | 403 | |
//! | the verifier's backend does not answer | 503 | |
//! | no `CredentialLayer` outside | 500 | |
//! | a key is restricted to networks, and the client's address is not known | 500 | |
//!
//! All cases of the first row get the same response; the log shows the reason. Their response times may differ, as SECURITY.md says.
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
//! Keys may be restricted to networks. Then the layer needs the client's address:
//!
//! ```
//! use std::net::IpAddr;
//!
//! use tollgate::{ClientAddress, Environment, KeyFormat, KeyVerifier, MemoryKeys, Principal, VerifyLayer, network::Networks};
//!
//! # #[derive(Clone)]
//! # struct Peer(IpAddr);
//! let format = KeyFormat::new("sk")?;
//! let keys = MemoryKeys::new();
//! let office = Principal::new("key_1").with_allowed_networks(Networks::new(["198.51.100.0/24"])?);
//! let key = keys.issue(&format, Environment::Live, office)?;
//!
//! // With axum: ClientAddress::of_peer(tollgate_axum::peer_address)
//! let address = ClientAddress::of_peer(|head| head.extensions.get::<Peer>().map(|peer| peer.0));
//! let layer = VerifyLayer::new(KeyVerifier::new(format, keys)).with_client_address(address);
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
//! Fails closed: without an answer no request passes. Whatever a verifier answers, a principal that has expired or that its store has
//! ended is refused; after a wait, by the new instant. A principal that is restricted to networks is refused from other addresses,
//! and from every address if the client's address is not known. A refusal from another address does not show that the key exists, nor
//! that its tenant is suspended.

use std::{fmt, net::IpAddr, sync::Arc};

use tollgate_core::{
    answer::Answer,
    denial::{Denial, DenialKind},
    key::Environment,
    request::RequestHead,
    verify::{Principal, Verify, VerifyRequest},
};

use crate::{
    ClientAddress,
    engine::{Caller, Cx, Flow, Settings, impl_layer},
};

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
        let gate = VerifyGate { verifier: Arc::new(verifier), environment: None, client_address: None };
        Self { gate, settings: Settings::default() }
    }

    /// Refuses principals of any other environment than this, and those that have none.
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.gate.environment = Some(environment);
        self
    }

    /// Finds the client's address by `address`, for principals that are [restricted to
    /// networks](Principal::with_allowed_networks). Without it, they are refused with 500, and the log names this method.
    pub fn with_client_address(mut self, address: ClientAddress) -> Self {
        self.gate.client_address = Some(address);
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
    client_address: Option<ClientAddress>,
}

impl VerifyGate {
    pub(crate) fn check<B>(&self, cx: &mut Cx<'_, B>) -> Result<Flow, Denial> {
        let context = &*cx.context;
        // Whatever a layer in report-only mode has decided: a credential is verified.
        let Some(credential) = context.credential() else { return without_credential(&context.caller) };
        let answer = self.verifier.verify(&VerifyRequest::new(credential, cx.head(), context.instant()));
        let text = self.verifier.refusal_text(credential);
        let (environment, client) = (self.environment, self.client(&answer, cx.head()));
        // Before the answer: the words hold for whatever refuses this credential from here on.
        cx.context.refusal_text = text;
        cx.when_answered(answer, move |found, context| {
            let principal = found?;
            let own = principal.environment();
            // First, and while the caller is not known: a refusal from another address must not show that the key exists.
            check_networks(&principal, client)?;
            context.set_principal(principal);
            context.check_not_ended()?;
            if environment.is_some() && own != environment {
                return Err(Denial::new(DenialKind::WrongEnvironment));
            }
            Ok(())
        })
    }

    /// The client, for a principal that is restricted to networks. Read before a wait, since the head is not available after it.
    #[inline]
    fn client(&self, answer: &Verified, head: RequestHead<'_>) -> Client {
        match (&self.client_address, answer) {
            (None, _) => Client::NotConfigured,
            (Some(_), Answer::Now(Ok(principal))) if principal.allowed_networks().is_anywhere() => {
                Client::Unknown
            }
            (Some(address), _) => address.find_exact(head).map_or(Client::Unknown, Client::At),
        }
    }
}

type Verified = Answer<Result<Arc<Principal>, Denial>>;

/// What is known of the client's address.
#[derive(Clone, Copy)]
enum Client {
    NotConfigured,
    Unknown,
    At(IpAddr),
}

/// Refuses a client outside the networks of its key.
#[inline]
fn check_networks(principal: &Principal, client: Client) -> Result<(), Denial> {
    let networks = principal.allowed_networks();
    match client {
        _ if networks.is_anywhere() => Ok(()),
        Client::At(address) if networks.allows(address) => Ok(()),
        client => Err(outside(principal, client)),
    }
}

#[cold]
fn outside(principal: &Principal, client: Client) -> Denial {
    match client {
        Client::At(address) => Denial::new(DenialKind::NetworkNotAllowed).with_log_detail(format!(
            "client {address} is in none of the {} networks from which the key {} may be used",
            principal.allowed_networks().iter().count(),
            principal.id()
        )),
        Client::Unknown => Denial::misconfigured(
            "a key may be used from some networks only, and the client's address is unknown: let the server attach the address of \
             the peer (axum: serve the router with into_make_service_with_connect_info::<SocketAddr>()), and give \
             ClientAddress::of_peer a function that reads it",
        ),
        Client::NotConfigured => Denial::misconfigured(
            "a key may be used from some networks only, and VerifyLayer does not know the client's address: add \
             VerifyLayer::with_client_address",
        ),
    }
}

/// What a request without a credential gets.
#[cold]
fn without_credential(caller: &Caller) -> Result<Flow, Denial> {
    match caller {
        Caller::Anonymous | Caller::Exempt => Ok(Flow::Continue),
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
