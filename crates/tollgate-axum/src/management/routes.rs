//! The routes.

use std::time::Duration;

use axum::{
    Json,
    extract::{FromRequestParts, RawPathParams, Request, State},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};
use serde_json::Value;
use tollgate::{
    bounds::{MAX_ID_BYTES, MAX_PAGE_ITEMS},
    manage::{HistoryQuery, IssuedKey, KeyAdminError, KeyDetails, KeyQuery, KeyState, KeyUpdate, NewKey},
    network::Networks,
};

use super::{
    Action, Grant, KeyRouter, Keys,
    body::{self, EmptyBody, EventsQuery, Instant, IssueBody, ListQuery, RenameBody, RotateBody, UpdateBody},
    describe::{describe_event, describe_page},
    refused::Refused,
};

type Answered = Result<Response, Refused>;

pub(super) async fn list(State(keys): Keys, head: Parts) -> Answered {
    let uri = head.uri.clone();
    let Grant { actor, .. } = keys.authorized(head, Action::List).await?;
    let ListQuery { limit, after, status, search } = body::query(&uri)?;
    let mut query = KeyQuery::all().with_limit(page_size(limit)?);
    query.after = printable("after", after)?;
    query.search = printable("search", search)?;
    let state = status.as_deref().map(state_of_name).transpose()?;
    query.status = state.and_then(KeyState::status);

    let mut page = keys.manager.list(query, &actor).await?;
    if let Some(state) = state {
        // The store does not filter by expiry, because it depends on the current time.
        let now = keys.manager.now();
        page.items.retain(|details| details.state(now) == state);
    }
    Ok(Json(describe_page(&page, |details| keys.describe(details))).into_response())
}

pub(super) async fn issue(State(keys): Keys, head: Parts, request: Request) -> Answered {
    let grant = keys.authorized(head, Action::Create).await?;
    let body: IssueBody = body::read(request).await?;
    let mut key = NewKey::named(body.name);
    if let Some(scopes) = body.scopes {
        key = key.with_scopes(keys.scopes.read(scopes, &keys.manager)?);
    }
    if let Some(Instant(expires_at)) = body.expires_at {
        key = key.with_expiry(expires_at);
    }
    if let Some(networks) = body.allowed_networks {
        key = key.with_allowed_networks(networks_of(networks)?);
    }
    if let Some(complete) = grant.new_key {
        key = complete(key)?;
    }
    let issued = keys.manager.issue(key, &grant.actor).await?;
    Ok((StatusCode::CREATED, keys.show_once(&issued)).into_response())
}

pub(super) async fn show(State(keys): Keys, KeyId(id): KeyId, head: Parts) -> Answered {
    let grant = keys.authorized(head, Action::Show { id: id.clone() }).await?;
    Ok(keys.show(&keys.manager.show(&id, &grant.actor).await?))
}

pub(super) async fn update(State(keys): Keys, KeyId(id): KeyId, head: Parts, request: Request) -> Answered {
    let grant = keys.authorized(head, Action::Update { id: id.clone() }).await?;
    let mut update = if keys.updates_all {
        keys.changes(body::read(request).await?)?
    } else {
        let RenameBody { name } = body::read(request).await?;
        KeyUpdate::new().with_name(name)
    };
    if let Some(check) = grant.update {
        update = check(update)?;
    }
    Ok(keys.show(&keys.manager.update(&id, update, &grant.actor).await?))
}

pub(super) async fn revoke(State(keys): Keys, KeyId(id): KeyId, head: Parts, request: Request) -> Answered {
    let grant = keys.authorized(head, Action::Revoke { id: id.clone() }).await?;
    let EmptyBody {} = body::read_optional(request).await?;
    Ok(keys.show(&keys.manager.revoke(&id, &grant.actor).await?))
}

pub(super) async fn rotate(State(keys): Keys, KeyId(id): KeyId, head: Parts, request: Request) -> Answered {
    let grant = keys.authorized(head, Action::Rotate { id: id.clone() }).await?;
    let RotateBody { overlap_s } = body::read_optional(request).await?;
    let overlap = overlap_s.map(Duration::from_secs);
    let issued = keys.manager.rotate(&id, overlap, &grant.actor).await?;
    Ok(keys.show_once(&issued).into_response())
}

pub(super) async fn delete(State(keys): Keys, KeyId(id): KeyId, head: Parts) -> Answered {
    let grant = keys.authorized(head, Action::Delete { id: id.clone() }).await?;
    keys.manager.delete(&id, &grant.actor).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn history(State(keys): Keys, KeyId(id): KeyId, head: Parts) -> Answered {
    let uri = head.uri.clone();
    let Grant { actor, .. } = keys.authorized(head, Action::History { id: id.clone() }).await?;
    let EventsQuery { limit, after } = body::query(&uri)?;
    let mut query = HistoryQuery::of_key(id.clone()).with_limit(page_size(limit)?);
    query.after = printable("after", after)?;
    let is_first = query.after.is_none();
    let page = keys.manager.history(query, &actor).await?;
    if is_first && page.items.is_empty() {
        // Distinguishes a key without stored history from a key that does not exist.
        keys.manager.show(&id, &actor).await?;
    }
    Ok(Json(describe_page(&page, describe_event)).into_response())
}

impl KeyRouter {
    async fn authorized(&self, head: Parts, action: Action) -> Result<Grant, Refused> {
        Ok(self.authorize.authorize(head, action).await?)
    }

    fn changes(&self, body: UpdateBody) -> Result<KeyUpdate, Refused> {
        let UpdateBody { name, scopes, expires_at, allowed_networks } = body;
        let mut update = KeyUpdate::new();
        update.name = name.map(Into::into);
        update.scopes = scopes.map(|scopes| self.scopes.read(scopes, &self.manager)).transpose()?;
        update.expires_at = expires_at.map(|expires_at| expires_at.map(|Instant(at)| at));
        update.allowed_networks = allowed_networks.map(networks_of).transpose()?;
        Ok(update)
    }

    fn show(&self, details: &KeyDetails) -> Response {
        Json(self.describe(details)).into_response()
    }

    fn show_once(&self, issued: &IssuedKey) -> Json<Value> {
        Json(self.describe_issued(issued))
    }
}

/// The identifier in the path: the last parameter. Earlier ones belong to the path where the router is mounted.
pub(super) struct KeyId(Box<str>);

impl<S: Send + Sync> FromRequestParts<S> for KeyId {
    type Rejection = Refused;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Refused> {
        let parameters = RawPathParams::from_request_parts(head, state).await.ok();
        let id = parameters.as_ref().and_then(|parameters| parameters.iter().last()).map(|(_, id)| id);
        // Some stores fail on invalid identifiers instead of finding nothing.
        id.filter(|id| id.len() <= MAX_ID_BYTES && !id.contains(char::is_control))
            .map(|id| Self(id.into()))
            .ok_or_else(|| KeyAdminError::NotFound.into())
    }
}

fn networks_of(networks: Vec<String>) -> Result<Networks, Refused> {
    Networks::new(networks).map_err(|error| Refused::invalid(format!("`allowed_networks`: {error}")))
}

fn page_size(limit: Option<u32>) -> Result<u32, Refused> {
    match limit {
        None => Ok(0), // the default
        Some(limit @ 1..=MAX_PAGE_ITEMS) => Ok(limit),
        Some(_) => Err(Refused::invalid("`limit` must be 1 to 1000")),
    }
}

fn state_of_name(name: &str) -> Result<KeyState, Refused> {
    let unknown = || Refused::invalid("`status` must be `active`, `expired`, `revoked` or `suspended`");
    KeyState::from_name(name).ok_or_else(unknown)
}

/// Checks a text before it is passed to a store.
fn printable(name: &str, text: Option<String>) -> Result<Option<Box<str>>, Refused> {
    match text {
        Some(text) if text.contains(char::is_control) => {
            Err(Refused::invalid(format!("`{name}` must not contain control characters")))
        }
        text => Ok(text.map(Into::into)),
    }
}
