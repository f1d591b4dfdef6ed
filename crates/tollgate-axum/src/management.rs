//! Key management as JSON routes, for an application to mount behind its own session.
//!
//! | route | action | response |
//! |---|---|---|
//! | `GET /` | lists keys, newest first: `limit` (1 to 1,000, default 100), `after`, `status`, `search` | 200 `{"items": […], "next": …}` |
//! | `POST /` | issues a key: `name`, optional `scopes`, `expires_at` and `allowed_networks` | 201, the key and its `secret` |
//! | `GET /{id}` | shows a key | 200 |
//! | `PATCH /{id}` | renames a key: `name` | 200 |
//! | `POST /{id}/revoke` | revokes a key; its record and its history are kept | 200 |
//! | `POST /{id}/rotate` | gives a key a new secret; the former secret stays valid for `overlap_s` seconds, default 0 | 200, the key and its `secret` |
//! | `DELETE /{id}` | deletes a key and its record | 204 |
//! | `GET /{id}/history` | lists the events of a key, latest first, even if the key is deleted: `limit`, `after` | 200 `{"items": […], "next": …}` |
//!
//! A key has this form. Timestamps are RFC 3339, in UTC, and before the year 9999. The status is `active`, `expired`, `revoked` or
//! `suspended`:
//!
//! ```json
//! {
//!   "id": "key_01990c2f6d7b7a53b1f0c2a4d1e6f788",
//!   "name": "nightly build",
//!   "prefix": "sk_live_3Fq9",
//!   "tenant": "acme",
//!   "scopes": ["jobs:read"],
//!   "plan": { "tier": "pro", "active": true },
//!   "allowed_networks": ["198.51.100.0/24"],
//!   "environment": "live",
//!   "status": "active",
//!   "created_at": "2026-03-01T22:58:30Z",
//!   "expires_at": null,
//!   "last_used_at": null,
//!   "revoked_at": null,
//!   "former_until": null
//! }
//! ```
//!
//! The plan is the one that applies: the key's own, or else its tenant's. Without `allowed_networks`, a key may be used from anywhere.
//!
//! The secret is only in the responses of the routes that create one. All responses carry `Cache-Control: no-store`.
//!
//! A page may be shorter than its limit, even empty, although more pages follow. Continue until `next` is `null`.
//!
//! # Refusals
//!
//! | condition | status | code |
//! |---|---|---|
//! | refused by the application's [authorization](Authorize) | its denial's | its denial's |
//! | a page of another site sends a change | 403 | `cross_origin` |
//! | the body, the query or a value in it is invalid or unknown; the `detail` names it | 400 | `invalid_request` |
//! | `after` is not the `next` of a previous page | 400 | `invalid_cursor` |
//! | the key does not exist, or belongs to another tenant | 404 | `not_found` |
//! | the path does not exist | 404 | `not_found` |
//! | the method does not exist; `Allow` lists those that do | 405 | `method_not_allowed` |
//! | another key has this name | 409 | `name_taken` |
//! | the key is revoked | 409 | `revoked` |
//! | the body is longer than 64 KiB | 413 | `too_large` |
//! | the `Content-Type` of the body is not JSON | 415 | `unsupported_media_type` |
//! | the store does not answer. Whether the change was made is unknown: check before you try again | 503 | `unavailable` |
//!
//! An invalid value is a 400, like an unreadable body, and not a 422: callers can handle both in the same way.
//!
//! # Examples
//!
//! ```
//! use axum::{Router, http::request::Parts};
//! use tollgate::{
//!     Denial, DenialKind, KeyFormat, MemoryKeys, Scopes,
//!     manage::{Actor, KeyManager},
//! };
//! use tollgate_axum::management::{Action, KeyRouter};
//!
//! /// The owner of the session. The application knows it.
//! async fn authorize(head: Parts, _action: Action) -> Result<Actor, Denial> {
//!     match head.headers.get("cookie").map(|cookie| cookie.as_bytes()) {
//!         Some(b"session=17") => Ok(Actor::of_tenant("ada", "acme")),
//!         _ => Err(Denial::new(DenialKind::CredentialMissing)),
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = KeyManager::new(KeyFormat::new("sk")?, MemoryKeys::new())
//!     .with_known_scopes(Scopes::new(["jobs:read", "jobs:create"])?);
//! let app: Router = Router::new().nest("/account/keys", KeyRouter::new(manager, authorize).into_router());
//! # use tower::ServiceExt;
//! # let request = http::Request::post("/account/keys").header("cookie", "session=17");
//! # let request = request.header("content-type", "application/json").body(axum::body::Body::from(r#"{"name":"build"}"#))?;
//! # assert_eq!(app.clone().oneshot(request).await?.status(), 201);
//! # let request = http::Request::get("/account/keys").body(axum::body::Body::empty())?;
//! # assert_eq!(app.oneshot(request).await?.status(), 401);
//! # Ok(())
//! # }
//! ```
//!
//! All keys of an account have its [plan](tollgate::manage::KeyManager::set_tenant_plan), and an account without an active plan gets no
//! new ones. Refusals have the application's format:
//!
//! ```
//! use axum::http::request::Parts;
//! use tollgate::{
//!     Denial, DenialKind,
//!     manage::{Actor, KeyManager},
//!     respond::Json,
//! };
//! use tollgate_axum::management::{Action, KeyRouter};
//!
//! # struct Session { user: String, account: String, is_subscribed: bool }
//! # async fn session_of(_head: &Parts) -> Result<Session, Denial> { Err(DenialKind::CredentialMissing.into()) }
//! async fn authorize(head: Parts, action: Action) -> Result<Actor, Denial> {
//!     let Session { user, account, is_subscribed } = session_of(&head).await?;
//!     if action == Action::Create && !is_subscribed {
//!         return Err(DenialKind::EntitlementInactive.into());
//!     }
//!     Ok(Actor::of_tenant(user, account))
//! }
//!
//! # fn routes(manager: KeyManager) -> axum::Router {
//! KeyRouter::new(manager, authorize)
//!     .with_responder(Json::new(|denial| serde_json::json!({ "error": denial.code() })))
//!     .into_router()
//! # }
//! ```
//!
//! # Security
//!
//! The router has no sessions: it permits what your [authorization](Authorize) permits. It calls the authorization for every
//! request to an existing route, before it reads the body or the store, and passes the action and the key. The router itself
//! protects:
//!
//! - **Tenants.** [`Actor::of_tenant`](tollgate::manage::Actor::of_tenant) restricts an actor to one tenant: keys of other tenants
//!   answer 404, like keys that do not exist.
//! - **Privileges.** A caller who may issue keys chooses a name, an expiry, networks, and scopes that the application has
//!   [listed](KeyRouter::with_scopes), by default the manager's [known](tollgate::manage::KeyManager::with_known_scopes) ones without
//!   wildcards; but never plan, quotas, environment, role, metadata or tenant. Restrict them for some users with
//!   [`Grant::with_new_key`]. An existing key can only be renamed, unless you enable
//!   [more](KeyRouter::with_rights_updates). A caller who may rotate a key gets a secret with all of its rights, also those that
//!   the caller could not choose for a new key: permit [`Action::Rotate`] for keys that are the caller's.
//! - **Pages of other sites.** A body must be JSON by its `Content-Type`, which no HTML form can send. A change is refused if the browser
//!   reports (`Sec-Fetch-Site`, or else `Origin`) that a page of another origin sends it. Clients that are not browsers send
//!   neither header and are accepted. Nevertheless, set `HttpOnly`, `Secure` and `SameSite=Lax` on the session cookie.
//! - **Memory.** What a caller can have stored is [bounded](tollgate::bounds), and so is a page of a list. The number of keys is not
//!   bounded: your authorization can count them before it permits [`Action::Create`].
//! - **Secrets.** They are never in the log or in the history.
//!
//! The application must provide the session itself, limits for attempts and for issued keys, and TLS. An API key is not a session:
//! if your authorization accepts one, a leaked key can issue more keys.

mod authorize;
mod body;
mod describe;
mod origin;
mod refused;
mod routes;
mod scopes;

use std::{fmt, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{get, post},
};
use http::{HeaderValue, header::CACHE_CONTROL};
use tollgate::{
    RequestContext, Scopes,
    manage::KeyManager,
    respond::{Respond, refuse},
};

pub use authorize::{Action, Authorize, Grant};

use origin::Origins;
use refused::Refused;
use scopes::Choice;

use crate::{RecordedRouter, RefusalLayer};

/// The name in the log of refusals.
const NAME: &str = "KeyRouter";

/// Larger than any valid request.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Key management as JSON routes. See the [module](self).
#[derive(Clone)]
pub struct KeyRouter {
    manager: KeyManager,
    authorize: Arc<dyn Authorize>,
    responder: Option<Arc<dyn Respond>>,
    trusted: Origins,
    scopes: Choice,
    updates_all: bool,
    shows_metadata: bool,
}

impl KeyRouter {
    /// Manages the keys of `manager` for requests that `authorize` permits. `authorize` is an async function of the request's head and
    /// the action, or any other implementation of [`Authorize`].
    pub fn new(manager: KeyManager, authorize: impl Authorize) -> Self {
        Self {
            manager,
            authorize: Arc::new(authorize),
            responder: None,
            trusted: Origins::default(),
            scopes: Choice::default(),
            updates_all: false,
            shows_metadata: false,
        }
    }

    /// Sets the responder for refusals. Default: the responder of the outer layers, or else RFC 9457 problems.
    pub fn with_responder(mut self, responder: impl Respond) -> Self {
        self.responder = Some(Arc::new(responder));
        self
    }

    /// Accepts changes from pages of this origin, such as `https://app.example.com`. Default: only from the router's own origin.
    pub fn with_trusted_origin(mut self, origin: impl Into<String>) -> Self {
        self.trusted.add(origin.into());
        self
    }

    /// Sets the scopes that callers may choose for keys. A wildcard, such as `jobs:*`, must be listed itself. Default: the
    /// [known scopes](KeyManager::with_known_scopes) of the manager without wildcards; none if it has no known scopes. The manager
    /// must know them as well.
    ///
    /// This restricts the scopes in request bodies. It does not restrict the manager's default scopes, nor the scopes that
    /// [`Grant::with_new_key`] sets.
    pub fn with_scopes(mut self, scopes: Scopes) -> Self {
        self.scopes = Choice::Listed(scopes);
        self
    }

    /// Allows callers to choose every scope that the manager allows, including wildcards. If the manager has no [known
    /// scopes](KeyManager::with_known_scopes), a caller can issue a key with the scope `*`.
    pub fn dangerous_any_scope(mut self) -> Self {
        self.scopes = Choice::Any;
        self
    }

    /// Allows `PATCH` to change `scopes`, `expires_at` and `allowed_networks` of existing keys, by the rules for new keys.
    /// `"expires_at": null` removes the expiry, and `"allowed_networks": []` the restriction to networks. To restrict this for some
    /// users, use [`Grant::with_update`].
    pub fn with_rights_updates(mut self) -> Self {
        self.updates_all = true;
        self
    }

    /// Includes each key's `metadata` in responses. Not included by default, because it may contain data that the key's owner
    /// must not see.
    pub fn with_metadata(mut self) -> Self {
        self.shows_metadata = true;
        self
    }

    /// The routes, relative to the path where they are mounted: `app.nest("/account/keys", router)`.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        self.into_recorded_router().into_router()
    }

    /// The routes, to be nested in a router that records its own.
    pub fn into_recorded_router<S: Clone + Send + Sync + 'static>(self) -> RecordedRouter<S> {
        let keys = Arc::new(self);
        RecordedRouter::new()
            .route("/", get(routes::list).post(routes::issue))
            .route("/{key_id}", get(routes::show).patch(routes::update).delete(routes::delete))
            .route("/{key_id}/revoke", post(routes::revoke))
            .route("/{key_id}/rotate", post(routes::rotate))
            .route("/{key_id}/history", get(routes::history))
            .fallback(async || Refused::no_such_path())
            .method_not_allowed_fallback(async || Refused::no_such_method())
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(RefusalLayer::new().with_name(NAME))
            .layer(from_fn_with_state(Arc::clone(&keys), guard))
            .with_state(keys)
    }
}

type Keys = State<Arc<KeyRouter>>;

/// Common to all routes: refuses changes from pages of other sites, and prevents caching.
async fn guard(State(keys): Keys, mut request: Request, next: Next) -> Response {
    if let Some(responder) = &keys.responder {
        RequestContext::set_responder(request.extensions_mut(), Arc::clone(responder));
    }
    let (mut head, body) = request.into_parts();
    let mut response = if keys.trusted.allows(&head) {
        next.run(Request::from_parts(head, body)).await
    } else {
        refuse(NAME, Refused::cross_origin().0, &mut head)
    };
    let headers = response.headers_mut();
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

impl fmt::Debug for KeyRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRouter")
            .field("manager", &self.manager)
            .field("trusted", &self.trusted)
            .field("scopes", &self.scopes)
            .field("updates_all", &self.updates_all)
            .field("shows_metadata", &self.shows_metadata)
            .finish_non_exhaustive()
    }
}
