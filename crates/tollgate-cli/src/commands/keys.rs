//! `keys`.

use std::time::SystemTime;

use serde_json::json;
use tollgate::{
    KeyFormat, Plan, Quota, Scopes,
    manage::{
        Actor, HistoryQuery, IssuedKey, KeyAction, KeyAdminError, KeyDetails, KeyManager, KeyQuery, KeyState,
        KeyUpdate, NewKey, Page,
    },
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

/// The most keys and events that a store gives at once.
const LARGEST_PAGE: u32 = 1_000;

pub(super) async fn run(command: Keys, session: Session) -> Result<Exit, Failure> {
    match command {
        Keys::Create(create) => self::create(*create, &session).await,
        Keys::List(list) => self::list(list, &session).await,
        Keys::Show { id } => show(&id, &session).await,
        Keys::Rename { id, name } => {
            let manager = session.keeper();
            let work = manager.rename(&id, &name, &session.actor);
            let renamed = show_waiting("Renaming", work).await.map_err(|error| about(error, &id))?;
            let said = format!("{} is called {} now.", renamed.id, quoted(&renamed.name));
            tell(&said, &renamed, &session)
        }
        Keys::Update(update) => self::update(*update, &session).await,
        Keys::Rotate(rotate) => self::rotate(rotate, &session).await,
        Keys::Revoke { id } => {
            let manager = session.keeper();
            let work = manager.revoke(&id, &session.actor);
            let revoked = show_waiting("Revoking", work).await.map_err(|error| about(error, &id))?;
            let at = table::instant(revoked.revoked_at);
            let said = format!("{} {} is revoked, since {at}.", revoked.id, quoted(&revoked.name));
            tell(&said, &revoked, &session)
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
    let work = wanted(create)?;
    let issued = show_waiting("Issuing", manager.issue(work, &session.actor)).await?;
    hand_over(&issued, "issued", session)
}

fn wanted(create: Create) -> Result<NewKey, Failure> {
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
    if let Some(metadata) = terms.metadata {
        key = key.with_metadata(metadata);
    }
    Ok(merged(terms.quota).into_iter().fold(key, |key, (policy, quota)| key.with_quota(policy, quota)))
}

async fn update(update: Update, session: &Session) -> Result<Exit, Failure> {
    let mut manager = session.keeper();
    if let Some(known) = update.terms.known_scopes.clone() {
        manager = manager.with_known_scopes(known);
    }
    let id = update.id.clone();
    let work = manager.update(&id, changes(update)?, &session.actor);
    let updated = show_waiting("Changing", work).await.map_err(|error| about(error, &id))?;
    let said = format!("The key is changed:\n\n{}", table::key(&updated, now(), Stream::Out));
    tell(&said, &updated, session)
}

fn changes(update: Update) -> Result<KeyUpdate, Failure> {
    let Update { name, terms, no_scopes, no_plan, no_expiry, no_quotas, no_metadata, .. } = update;
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

fn plan(terms: &Terms) -> Option<Plan> {
    let tier = terms.plan.as_deref()?;
    Some(if terms.lapsed { Plan::lapsed(tier) } else { Plan::active(tier) })
}

fn expiry(terms: &Terms) -> Result<Option<SystemTime>, Failure> {
    let Some(duration) = terms.expires_in else { return Ok(terms.expires) };
    let too_late = || {
        Failure::new(Exit::Refused, "the expiry lies too far ahead: leave it out, and the key never expires")
    };
    now().checked_add(duration).map(Some).ok_or_else(too_late)
}

/// What is said of one policy twice holds at once.
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
    hand_over(&issued, "rotated", session)
}

/// How secrets look that begin as a key's present one does.
fn format_of(details: &KeyDetails) -> Result<KeyFormat, Failure> {
    let environment = format!("_{}_", details.environment);
    let prefix = details.display_prefix.rsplit_once(&environment).map(|(prefix, _)| prefix);
    prefix.and_then(|prefix| KeyFormat::new(prefix).ok()).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            "what the key begins with does not tell its prefix: say --prefix for the new one",
        )
    })
}

/// Writes the secret to the standard output, and what else there is to say to the standard error; or both as one JSON document.
fn hand_over(issued: &IssuedKey, done: &str, session: &Session) -> Result<Exit, Failure> {
    let IssuedKey { details, secret, .. } = issued;
    let written = if session.is_json {
        output::secret(&describe::issued(issued, now()).to_string())
    } else {
        output::note(&format!("The key is {done}:\n\n{}\n", table::key(details, now(), Stream::Err)));
        output::note("Copy the secret now, it is not shown again:");
        output::secret(secret.expose_secret())
    };
    written.map_err(|error| {
        let sentence = format!(
            "{} was {done}, but its secret could not be written ({error}): get another one by `tollgate keys rotate {}`",
            details.id, details.id,
        );
        Failure::new(Exit::Output, sentence)
    })?;
    Ok(Exit::Done)
}

async fn list(list: List, session: &Session) -> Result<Exit, Failure> {
    let mut query = KeyQuery::all().with_limit(if list.all { LARGEST_PAGE } else { list.limit });
    query.tenant = list.tenant.map(Into::into);
    query.search = list.search.map(Into::into);
    query.after = list.after.map(Into::into);
    // Stores know when a key expires, not whether it has: that is looked at here.
    query.status = list.status.and_then(KeyState::status);
    let manager = session.keeper();
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
        output::note("There are no such keys.");
    } else {
        output::result(&table::keys(&listed.items, now(), Stream::Out))?;
    }
    if let (Some(next), false) = (&listed.next, session.is_json) {
        output::note(&format!("There may be more: --after {next}, or --all"));
    }
    Ok(Exit::Done)
}

async fn show(id: &str, session: &Session) -> Result<Exit, Failure> {
    let details = find(id, session).await?;
    let query = HistoryQuery::of_key(id).with_limit(LARGEST_PAGE);
    let manager = session.keeper();
    let history = show_waiting("Looking", manager.history(query, &session.actor)).await?;
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
        let question = format!("Delete {id} {} for good?", quoted(&details.name));
        if !input::confirm(&question).await? {
            output::note("Nothing was deleted.");
            return Ok(Exit::No);
        }
    }
    let manager = session.keeper();
    let deleted = manager.delete(id, &session.actor);
    let deleted = show_waiting("Deleting", deleted).await.map_err(|error| about(error, id))?;
    let said = format!("{id} {} is deleted.", quoted(&deleted.name));
    tell(&said, &deleted, session)
}

/// A key that must be there. Of one that was deleted, it is told when.
pub(super) async fn find(id: &str, session: &Session) -> Result<KeyDetails, Failure> {
    let manager = session.keeper();
    match show_waiting("Looking", manager.show(id, &session.actor)).await {
        Err(KeyAdminError::NotFound) => Err(what_became_of(id, &manager, &session.actor).await),
        found => Ok(found?),
    }
}

async fn what_became_of(id: &str, manager: &KeyManager, actor: &Actor) -> Failure {
    let latest = manager.history(HistoryQuery::of_key(id).with_limit(1), actor).await;
    let deleted = latest.ok().and_then(|page| page.items.into_iter().next());
    match deleted.filter(|event| event.action == KeyAction::Deleted) {
        Some(event) => {
            let (at, by) = (table::instant(Some(event.at)), table::visible(&event.actor));
            Failure::new(Exit::NotFound, format!("{by} deleted {id} at {at}"))
        }
        None => Failure::no_such_key(id),
    }
}

/// An error about one key says which.
fn about(error: KeyAdminError, id: &str) -> Failure {
    match error {
        KeyAdminError::NotFound => Failure::no_such_key(id),
        error => error.into(),
    }
}

/// Says what was done to a key.
fn tell(said: &str, details: &KeyDetails, session: &Session) -> Result<Exit, Failure> {
    if session.is_json {
        output::json(&describe::key(details, now()))?;
    } else {
        output::result(said)?;
    }
    Ok(Exit::Done)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", table::visible(name))
}
