//! Key management as JSON routes, for an application to mount behind its own session.
//!
//! | route | does | answers |
//! |---|---|---|
//! | `GET /` | lists keys, the newest first: `limit` (1 to 1,000, 100 if absent), `after`, `status`, `search` | 200 `{"items": […], "next": …}` |
//! | `POST /` | issues a key: `name`, and if you like `scopes` and `expires_at` | 201, the key and its `secret` |
//! | `GET /{id}` | shows a key | 200 |
//! | `PATCH /{id}` | renames a key: `name` | 200 |
//! | `POST /{id}/revoke` | revokes a key; its record and its history are kept | 200 |
//! | `POST /{id}/rotate` | gives a key another secret; the former one is good for `overlap_s` seconds more, 0 if absent | 200, the key and its `secret` |
//! | `DELETE /{id}` | deletes a key and its record | 204 |
//! | `GET /{id}/history` | what happened to a key, the latest first, also if it was deleted: `limit`, `after` | 200 `{"items": […], "next": …}` |
//!
//! A key looks like this. Instants are RFC 3339, in UTC; the status is `active`, `expired`, `revoked` or `suspended`:
//!
//! ```json
//! {
//!   "id": "key_01990c2f6d7b7a53b1f0c2a4d1e6f788",
//!   "name": "nightly build",
//!   "prefix": "sk_live_3Fq9",
//!   "tenant": "acme",
//!   "scopes": ["jobs:read"],
//!   "plan": { "tier": "pro", "active": true },
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
//! The secret is in the answers to the requests that make one, and nowhere else. No answer may be stored by caches.
//!
//! A page of a list may be shorter than its limit, even empty, and more may come: whoever wants all goes on until `next` is
//! `null`.
//!
//! # What is refused
//!
//! | condition | status | code |
//! |---|---|---|
//! | whatever the application's [authorization](Authorize) refuses | its denial's | its denial's |
//! | a page of another site sends a change | 403 | `cross_origin` |
//! | a body, a query or a value of them is not understood, unknown or makes no sense: the `detail` names it | 400 | `invalid_request` |
//! | `after` is no `next` of the page before | 400 | `invalid_cursor` |
//! | no such key, or none of the actor's tenant | 404 | `not_found` |
//! | no such path | 404 | `not_found` |
//! | no such method, which `Allow` lists | 405 | `method_not_allowed` |
//! | another key has this name | 409 | `name_taken` |
//! | the key is revoked | 409 | `revoked` |
//! | more than 64 KiB | 413 | `too_large` |
//! | a body that is not JSON by its `Content-Type` | 415 | `unsupported_media_type` |
//! | the store does not answer. Whether a change was made is not known then: look before trying again | 503 | `unavailable` |
//!
//! A value that makes no sense is a 400 like a body that cannot be read, and no 422: callers can do the same about both.
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
//! /// Whose session this is. Here it is the application that knows.
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
//! The account's plan goes into its keys, and without an active one there are none. Refusals have the application's own shape:
//!
//! ```
//! use axum::http::request::Parts;
//! use tollgate::{
//!     Denial, DenialKind, Plan,
//!     manage::{Actor, KeyManager},
//!     respond::Json,
//! };
//! use tollgate_axum::management::{Action, Grant, KeyRouter};
//!
//! # struct Session { user: String, account: String, plan: Plan }
//! # async fn session_of(_head: &Parts) -> Result<Session, Denial> { Err(DenialKind::CredentialMissing.into()) }
//! async fn authorize(head: Parts, action: Action) -> Result<Grant, Denial> {
//!     let Session { user, account, plan } = session_of(&head).await?;
//!     if action == Action::Create && !plan.is_active() {
//!         return Err(DenialKind::EntitlementInactive.into());
//!     }
//!     Ok(Grant::to(Actor::of_tenant(user, account)).with_new_key(|key| Ok(key.with_plan(plan))))
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
//! The router knows no session: whoever your [authorization](Authorize) lets pass, passes. So it is asked for every request to a
//! route that exists, before anything of the body or the store is read, and it is told what is to be done to which key. What the
//! router guards itself:
//!
//! - **Tenants.** [`Actor::of_tenant`](tollgate::manage::Actor::of_tenant) confines: other tenants' keys answer 404 like none at all.
//! - **Privileges.** Whoever may issue keys chooses a name, an expiry, and any scopes that the manager
//!   [knows](tollgate::manage::KeyManager::with_known_scopes): never plan, quotas, environment, role, metadata or tenant. Narrow the scopes
//!   by [`Grant::with_new_key`]. A key that exists is only renamed, unless you ask for
//!   [more](KeyRouter::with_updates_of_scopes_and_expiry).
//! - **Pages of other sites.** Bodies must be JSON by their `Content-Type`, which no form can send, and a change is refused of which the
//!   browser says (`Sec-Fetch-Site`, or else `Origin`) that a page of another origin sends it. Programs that are no browsers send
//!   neither and pass. Let the session's cookie be `HttpOnly`, `Secure` and `SameSite=Lax` all the same.
//! - **Secrets.** The log and the history see none.
//!
//! What is left to the application: the session itself, how often one may try or issue, and TLS. An API key is no session: if your
//! authorization accepts one, a key that leaks can issue others.

mod authorize;
mod body;
mod describe;
mod origin;
mod refused;
mod routes;

use std::{fmt, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderValue, header::CACHE_CONTROL};
use tollgate::{
    RequestContext,
    manage::KeyManager,
    respond::{Respond, refuse},
};

pub use authorize::{Action, Authorize, Grant};

use origin::Origins;
use refused::Refused;

/// More than any request has a use for.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Key management as JSON routes. See the [module](self).
#[derive(Clone)]
pub struct KeyRouter {
    manager: KeyManager,
    authorize: Arc<dyn Authorize>,
    responder: Option<Arc<dyn Respond>>,
    trusted: Origins,
    updates_all: bool,
    shows_metadata: bool,
}

impl KeyRouter {
    /// Manages the keys of `manager` for whom `authorize` lets pass: a function of a request's head and of what is to be done, or
    /// whatever else [authorizes](Authorize).
    pub fn new(manager: KeyManager, authorize: impl Authorize) -> Self {
        Self {
            manager,
            authorize: Arc::new(authorize),
            responder: None,
            trusted: Origins::default(),
            updates_all: false,
            shows_metadata: false,
        }
    }

    /// Turns refusals into responses. By default it is the responder of the layers outside, or else RFC 9457 problems.
    pub fn with_responder(mut self, responder: impl Respond) -> Self {
        self.responder = Some(Arc::new(responder));
        self
    }

    /// Takes changes from pages of this origin, too: `https://app.example.com`. By default only from pages of the router's own.
    pub fn with_trusted_origin(mut self, origin: impl Into<String>) -> Self {
        self.trusted.add(origin.into());
        self
    }

    /// Lets `PATCH` change `scopes` and `expires_at` of keys that exist, too, by the rules for new ones; `"expires_at": null` is
    /// never. What a tenant's users may not do, the [grant](Grant::with_update) refuses.
    pub fn with_updates_of_scopes_and_expiry(mut self) -> Self {
        self.updates_all = true;
        self
    }

    /// Shows each key's `metadata`, too. By default it is not shown, since an application may keep there what is not for the
    /// key's owner.
    pub fn with_metadata(mut self) -> Self {
        self.shows_metadata = true;
        self
    }

    /// The routes, relative to where they are mounted: `app.nest("/account/keys", router)`.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let keys = Arc::new(self);
        Router::new()
            .route("/", get(routes::list).post(routes::issue))
            .route("/{key_id}", get(routes::show).patch(routes::update).delete(routes::delete))
            .route("/{key_id}/revoke", post(routes::revoke))
            .route("/{key_id}/rotate", post(routes::rotate))
            .route("/{key_id}/history", get(routes::history))
            .fallback(async || Refused::no_such_path())
            .method_not_allowed_fallback(async || Refused::no_such_method())
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .layer(from_fn_with_state(Arc::clone(&keys), guard))
            .with_state(keys)
    }
}

type Keys = State<Arc<KeyRouter>>;

/// What all routes have in common: pages of other sites change nothing, caches keep nothing, and refusals get their form here.
async fn guard(State(keys): Keys, mut request: Request, next: Next) -> Response {
    if let Some(responder) = &keys.responder {
        RequestContext::set_responder(request.extensions_mut(), Arc::clone(responder));
    }
    let (mut head, body) = request.into_parts();
    let mut response = if keys.trusted.let_pass(&head) {
        next.run(Request::from_parts(head.clone(), body)).await
    } else {
        Refused::cross_origin().into_response()
    };
    if let Some(Refused(denial)) = response.extensions_mut().remove() {
        response = refuse("KeyRouter", denial, &mut head).map(Body::from);
    }
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
            .field("updates_all", &self.updates_all)
            .field("shows_metadata", &self.shows_metadata)
            .finish_non_exhaustive()
    }
}
