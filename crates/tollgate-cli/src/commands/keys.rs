//! `keys create`, `keys list` and the other commands about keys.

use std::time::SystemTime;

use serde_json::json;
use tollgate::{
    KeyFormat, Plan, Quota, Scopes,
    manage::{
        Actor, HistoryQuery, IssuedKey, KeyAction, KeyAdminError, KeyDetails, KeyManager, KeyQuery, KeyState,
        KeyUpdate, NewKey, Page,
    },
    network::Networks,
};

use super::{Session, now, usage};
use crate::{
    arguments::keys::{Create, Keys, List, Rotate, Terms, Update},
    failure::{Exit, Failure},
    input,
    output::{
        self, describe,
        table::{self, Stream},
    },
    store::show_waiting,
};

/// The largest page that a store returns.
const LARGEST_PAGE: u32 = 1_000;

pub(super) async fn run(command: Keys, session: Session) -> Result<Exit, Failure> {
    match command {
        Keys::Create(create) => self::create(*create, &session).await,
        Keys::List(list) => self::list(list, &session).await,
        Keys::Show { id } => show(&id, &session).await,
        Keys::Rename { id, name } => {
            let manager = session.keyless_manager();
            let work = manager.rename(&id, &name, &session.actor);
            let renamed = show_waiting("Renaming", work).await.map_err(|error| about(error, &id))?;
            let message =
                format!("{} was renamed to {}.", output::visible(&renamed.id), quoted(&renamed.name));
            report(&message, &renamed, &session)
        }
        Keys::Update(update) => self::update(*update, &session).await,
        Keys::Rotate(rotate) => self::rotate(rotate, &session).await,
        Keys::Revoke { id } => {
            let manager = session.keyless_manager();
            let work = manager.revoke(&id, &session.actor);
            let revoked = show_waiting("Revoking", work).await.map_err(|error| about(error, &id))?;
            let at = table::instant(revoked.revoked_at);
            let message =
                format!("{} {} is revoked since {at}.", output::visible(&revoked.id), quoted(&revoked.name));
            report(&message, &revoked, &session)
        }
        Keys::Delete { id, yes } => delete(&id, yes, &session).await,
        Keys::Usage(usage) => usage::run(usage, &session).await,
    }
}

async fn create(create: Create, session: &Session) -> Result<Exit, Failure> {
    let mut manager = session.manager(create.prefix.clone());
    if let Some(known) = create.terms.known_scopes.clone() {
        manager = manager.with_known_scopes(known);
    }
    let work = new_key(create)?;
    let issued = show_waiting("Creating", manager.issue(work, &session.actor)).await?;
    write_issued(&issued, "created", session)
}

fn new_key(create: Create) -> Result<NewKey, Failure> {
    let Create { name, tenant, environment, terms, role, .. } = create;
    let mut key = NewKey::named(name).with_environment(environment).with_scopes(scopes(&terms));
    if let Some(tenant) = tenant {
        key = key.with_tenant(tenant);
    }
    if let Some(plan) = plan(&terms) {
        key = key.with_plan(plan);
    }
    if let Some(role) = role {
        key = key.with_role(role);
    }
    if let Some(expires_at) = expiry(&terms)? {
        key = key.with_expiry(expires_at);
    }
    key = key.with_allowed_networks(networks(&terms)?);
    if let Some(metadata) = terms.metadata {
        key = key.with_metadata(metadata);
    }
    Ok(merged(terms.quota).into_iter().fold(key, |key, (policy, quota)| key.with_quota(policy, quota)))
}

async fn update(update: Update, session: &Session) -> Result<Exit, Failure> {
    let mut manager = session.keyless_manager();
    if let Some(known) = update.terms.known_scopes.clone() {
        manager = manager.with_known_scopes(known);
    }
    let id = update.id.clone();
    let work = manager.update(&id, changes(update)?, &session.actor);
    let updated = show_waiting("Updating", work).await.map_err(|error| about(error, &id))?;
    let message = format!("The key was updated:\n\n{}", table::key(&updated, now(), Stream::Out));
    report(&message, &updated, session)
}

fn changes(update: Update) -> Result<KeyUpdate, Failure> {
    let Update { name, terms, no_scopes, no_plan, no_expiry, no_quotas, no_networks, no_metadata, .. } =
        update;
    let mut changes = KeyUpdate::new();
    changes.name = name.map(Into::into);
    if no_scopes || !terms.scope.is_empty() {
        changes = changes.with_scopes(scopes(&terms));
    }
    if no_plan || terms.plan.is_some() {
        changes = changes.with_plan(plan(&terms));
    }
    let expires_at = expiry(&terms)?;
    if no_expiry || expires_at.is_some() {
        changes = changes.with_expiry(expires_at);
    }
    if no_networks || !terms.network.is_empty() {
        changes = changes.with_allowed_networks(networks(&terms)?);
    }
    if no_metadata || terms.metadata.is_some() {
        changes = changes.with_metadata(terms.metadata.unwrap_or_default());
    }
    if no_quotas || !terms.quota.is_empty() {
        let quotas = merged(terms.quota).into_iter().map(|(policy, quota)| (policy.into(), quota));
        changes = changes.with_quotas(quotas.collect());
    }
    Ok(changes)
}

fn scopes(terms: &Terms) -> Scopes {
    terms.scope.iter().flat_map(Scopes::iter).cloned().collect()
}

fn networks(terms: &Terms) -> Result<Networks, Failure> {
    let networks = Networks::new(terms.network.iter().map(ToString::to_string));
    networks.map_err(|error| Failure::new(Exit::Refused, error.to_string()))
}

fn plan(terms: &Terms) -> Option<Plan> {
    let tier = terms.plan.as_deref()?;
    Some(if terms.lapsed { Plan::lapsed(tier) } else { Plan::active(tier) })
}

fn expiry(terms: &Terms) -> Result<Option<SystemTime>, Failure> {
    let Some(duration) = terms.expires_in else { return Ok(terms.expires) };
    let too_late = || {
        Failure::new(
            Exit::Refused,
            "the expiry is too far in the future: leave out --expires-in for a key that never expires",
        )
    };
    now().checked_add(duration).map(Some).ok_or_else(too_late)
}

/// Combines several quotas of one policy: all of them apply.
fn merged(quotas: Vec<(String, Quota)>) -> Vec<(String, Quota)> {
    let mut merged: Vec<(String, Quota)> = Vec::new();
    for (policy, quota) in quotas {
        match merged.iter_mut().find(|(known, _)| *known == policy) {
            Some((_, known)) => *known = known.clone().and(quota),
            None => merged.push((policy, quota)),
        }
    }
    merged
}

async fn rotate(rotate: Rotate, session: &Session) -> Result<Exit, Failure> {
    let id = &rotate.id;
    let format = match rotate.prefix {
        Some(format) => format,
        None => format_of(&find(id, session).await?)?,
    };
    let work = async { session.manager(format).rotate(id, rotate.overlap, &session.actor).await };
    let issued = show_waiting("Rotating", work).await.map_err(|error| about(error, id))?;
    write_issued(&issued, "rotated", session)
}

/// The format of the present secret of a key.
fn format_of(details: &KeyDetails) -> Result<KeyFormat, Failure> {
    let environment = format!("_{}_", details.environment);
    let prefix = details.display_prefix.rsplit_once(&environment).map(|(prefix, _)| prefix);
    prefix.and_then(|prefix| KeyFormat::new(prefix).ok()).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "cannot read the prefix of the present secret: set --prefix for the new one",
        )
    })
}

/// Writes the secret to standard output and the key to standard error; with `--json`, both as one document.
fn write_issued(issued: &IssuedKey, done: &str, session: &Session) -> Result<Exit, Failure> {
    let IssuedKey { details, secret, .. } = issued;
    let written = if session.is_json {
        output::secret_json(&describe::issued(issued, now()))
    } else {
        if let Some(file) = &session.new_file {
            let file = file.to_string_lossy();
            output::note(&format!("Created a new database: {}", output::visible(&file)));
        }
        output::note(&format!("The key was {done}:\n\n{}\n", table::key(details, now(), Stream::Err)));
        output::note("Copy the secret now. It is not shown again:");
        output::secret(secret.expose_secret())
    };
    written.map_err(|error| {
        let message = format!(
            "{} was {done}, but its secret could not be written ({error}): `tollgate keys rotate {}` creates another one",
            details.id, details.id,
        );
        Failure::new(Exit::Output, message)
    })?;
    Ok(Exit::Done)
}

async fn list(list: List, session: &Session) -> Result<Exit, Failure> {
    let mut query = KeyQuery::all().with_limit(if list.all { LARGEST_PAGE } else { list.limit });
    query.tenant = list.tenant.map(Into::into);
    query.search = list.search.map(Into::into);
    query.after = list.after.map(Into::into);
    // Stores do not filter by expiry: that is done below.
    query.status = list.status.and_then(KeyState::status);
    let manager = session.keyless_manager();
    let mut listed = Page::new(Vec::new(), None);
    loop {
        let page = show_waiting("Listing", manager.list(query.clone(), &session.actor)).await?;
        let now = now();
        let is_wanted = |key: &KeyDetails| list.status.is_none_or(|state| key.state(now) == state);
        listed.items.extend(page.items.into_iter().filter(is_wanted));
        match page.next {
            Some(next) if list.all => query.after = Some(next),
            next => {
                listed.next = next;
                break;
            }
        }
    }
    if session.is_json {
        let items: Vec<_> = listed.items.iter().map(|key| describe::key(key, now())).collect();
        output::json(&json!({ "items": items, "next": listed.next }))?;
    } else if listed.items.is_empty() {
        output::note("No keys found.");
    } else {
        output::result(&table::keys(&listed.items, now(), Stream::Out))?;
    }
    if let (Some(next), false) = (&listed.next, session.is_json) {
        output::note(&format!(
            "There may be more keys: continue with --after {}, or list all with --all",
            output::visible(next)
        ));
    }
    Ok(Exit::Done)
}

async fn show(id: &str, session: &Session) -> Result<Exit, Failure> {
    let details = find(id, session).await?;
    let query = HistoryQuery::of_key(id).with_limit(LARGEST_PAGE);
    let manager = session.keyless_manager();
    let history = show_waiting("Reading", manager.history(query, &session.actor)).await?;
    if session.is_json {
        let events = history.items.iter().map(describe::event).collect::<Vec<_>>();
        output::json(&describe::with(describe::key(&details, now()), "history", events.into()))?;
    } else {
        let key = table::key(&details, now(), Stream::Out);
        output::result(&format!("{key}\n\n{}", table::events(&history.items, Stream::Out)))?;
    }
    Ok(Exit::Done)
}

async fn delete(id: &str, yes: bool, session: &Session) -> Result<Exit, Failure> {
    if !yes {
        let details = find(id, session).await?;
        let question = format!("Delete {} {} permanently?", output::visible(id), quoted(&details.name));
        if !input::confirm(&question).await? {
            output::note("Nothing was deleted.");
            return Ok(Exit::No);
        }
    }
    let manager = session.keyless_manager();
    let deleted = manager.delete(id, &session.actor);
    let deleted = show_waiting("Deleting", deleted).await.map_err(|error| about(error, id))?;
    let message = format!("{} {} was deleted.", output::visible(id), quoted(&deleted.name));
    report(&message, &deleted, session)
}

/// Finds a key. If it was deleted, the message says when, and which user did it.
pub(super) async fn find(id: &str, session: &Session) -> Result<KeyDetails, Failure> {
    let manager = session.keyless_manager();
    match show_waiting("Reading", manager.show(id, &session.actor)).await {
        Err(KeyAdminError::NotFound) => Err(not_found(id, &manager, &session.actor).await),
        found => Ok(found?),
    }
}

async fn not_found(id: &str, manager: &KeyManager, actor: &Actor) -> Failure {
    let latest = manager.history(HistoryQuery::of_key(id).with_limit(1), actor).await;
    let deleted = latest.ok().and_then(|page| page.items.into_iter().next());
    match deleted.filter(|event| event.action == KeyAction::Deleted) {
        Some(event) => {
            let (at, by) = (table::instant(Some(event.at)), output::visible(&event.actor));
            Failure::new(Exit::NotFound, format!("{by} deleted {id} at {at}"))
        }
        None => Failure::no_such_key(id),
    }
}

/// The failure of an operation on a key.
fn about(error: KeyAdminError, id: &str) -> Failure {
    match error {
        KeyAdminError::NotFound => Failure::no_such_key(id),
        error => error.into(),
    }
}

/// Writes the key after a change: as JSON, or as a message.
fn report(message: &str, details: &KeyDetails, session: &Session) -> Result<Exit, Failure> {
    if session.is_json {
        output::json(&describe::key(details, now()))?;
    } else {
        output::result(message)?;
    }
    Ok(Exit::Done)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", output::visible(name))
}
