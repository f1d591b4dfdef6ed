//! `credits grant`, `credits show` and the other commands about credits.

use serde_json::json;
use tollgate::{
    credits::{self, CreditAdminError, LedgerQuery, NewGrant, WithdrawGrant},
    manage::{Command, Page},
};

use super::{Session, now};
use crate::{
    arguments::credits::{Credits, Grant, History},
    failure::{Exit, Failure},
    input,
    output::{
        self, describe,
        table::{self, Stream},
    },
    store::show_waiting,
};

/// The largest page that a store returns.
const LARGEST_PAGE: u32 = 100;

pub(super) async fn run(command: Credits, session: Session) -> Result<Exit, Failure> {
    match command {
        Credits::Grant(grant) => self::grant(grant, &session).await,
        Credits::Show { tenant } => show(&tenant, &session).await,
        Credits::History(history) => self::history(history, &session).await,
        Credits::Withdraw { tenant, grant, yes } => withdraw(&tenant, &grant, yes, &session).await,
        Credits::Check { tenant } => check(&tenant, &session).await,
        Credits::Sweep => sweep(&session).await,
    }
}

async fn grant(grant: Grant, session: &Session) -> Result<Exit, Failure> {
    let now = now();
    let Grant { tenant, amount, priority, refill, note, .. } = grant;
    let mut new = NewGrant::new(tenant, amount).with_priority(priority).with_note(note);
    new.id = grant.id.map(Into::into);
    new.refill = refill;
    new.expires_at = match grant.expires_in {
        Some(duration) => Some(now.checked_add(duration).ok_or_else(too_late)?),
        None => grant.expires,
    };
    let command = Command::new(new, session.actor.clone(), now);
    let work = session.store.credits.grant(command).into_future();
    let granted = show_waiting("Granting", work).await?;
    let (id, tenant) = (output::visible(&granted.id), output::visible(&granted.account));
    let message = if granted.granted_at == now {
        format!("Granted {} credits to {tenant} as {id}.", granted.amount)
    } else {
        let since = table::instant(Some(granted.granted_at));
        format!(
            "{tenant} has the grant {id} of {} credits since {since}. Nothing was changed.",
            granted.amount
        )
    };
    report(&message, &granted, session)
}

fn too_late() -> Failure {
    Failure::new(
        Exit::Refused,
        "the expiry is too far in the future: leave out --expires-in for a grant that never expires",
    )
}

async fn show(tenant: &str, session: &Session) -> Result<Exit, Failure> {
    let now = now();
    let store = &session.store.credits;
    let reading = async {
        let balance = store.balance(tenant, now).await?;
        Ok::<_, CreditAdminError>((balance, store.grants(tenant, now).await?))
    };
    let (balance, grants) = show_waiting("Reading", reading).await?;
    if session.is_json {
        output::json(&describe::credits(tenant, &balance, &grants))?;
        return Ok(Exit::Done);
    }
    let shown = table::balance(tenant, &balance, Stream::Out);
    if grants.is_empty() {
        output::result(&shown)?;
        output::note(&format!("{} has no grants.", output::visible(tenant)));
    } else {
        output::result(&format!("{shown}\n\n{}", table::grants(&grants, Stream::Out)))?;
    }
    Ok(Exit::Done)
}

async fn history(history: History, session: &Session) -> Result<Exit, Failure> {
    let mut query =
        LedgerQuery::new(&*history.tenant).with_limit(if history.all { LARGEST_PAGE } else { history.limit });
    query.after = history.after.map(Into::into);
    let mut read = Page::new(Vec::new(), None);
    loop {
        let page = session.store.credits.ledger(&query).into_future();
        let page = show_waiting("Reading", page).await?;
        read.items.extend(page.items);
        match page.next {
            Some(next) if history.all => query.after = Some(next),
            next => {
                read.next = next;
                break;
            }
        }
    }
    if session.is_json {
        let items: Vec<_> = read.items.iter().map(describe::ledger_entry).collect();
        output::json(&json!({ "items": items, "next": read.next }))?;
    } else if read.items.is_empty() {
        output::note("No entries found.");
    } else {
        output::result(&table::ledger(&read.items, Stream::Out))?;
    }
    if let (Some(next), false) = (&read.next, session.is_json) {
        output::note(&format!(
            "There are more entries: continue with --after {}, or show all with --all",
            output::visible(next)
        ));
    }
    Ok(Exit::Done)
}

async fn withdraw(tenant: &str, id: &str, yes: bool, session: &Session) -> Result<Exit, Failure> {
    if !yes {
        let question = format!("Withdraw the grant {} of {}?", output::visible(id), output::visible(tenant));
        if !input::confirm(&question).await? {
            output::note("Nothing was withdrawn.");
            return Ok(Exit::No);
        }
    }
    let command = Command::new(WithdrawGrant::new(tenant, id), session.actor.clone(), now());
    let work = session.store.credits.withdraw(command).into_future();
    let withdrawn = show_waiting("Withdrawing", work).await?;
    let (id, tenant) = (output::visible(id), output::visible(tenant));
    report(&format!("The grant {id} of {tenant} has ended, and nothing is left of it."), &withdrawn, session)
}

async fn check(tenant: &str, session: &Session) -> Result<Exit, Failure> {
    let work = session.store.credits.check(tenant).into_future();
    let checked = show_waiting("Adding up", work).await?;
    if session.is_json {
        output::json(&describe::ledger_check(tenant, &checked))?;
    } else {
        let tenant = output::visible(tenant);
        let credits::LedgerCheck { available, owed, net_by_ledger, .. } = checked;
        let verdict = if checked.agrees { "agree" } else { "differ" };
        output::result(&format!(
            "The credits of {tenant} and its ledger {verdict}: {available} available, {owed} owed, {net_by_ledger} by the ledger."
        ))?;
    }
    Ok(if checked.agrees { Exit::Done } else { Exit::No })
}

async fn sweep(session: &Session) -> Result<Exit, Failure> {
    let work = session.store.credits.sweep(now()).into_future();
    let released = show_waiting("Sweeping", work).await?;
    if session.is_json {
        output::json(&json!({ "released": released }))?;
    } else {
        output::result(&format!("Released {released} expired reservations."))?;
    }
    Ok(Exit::Done)
}

/// Writes the grant: as JSON, or as a message.
fn report(message: &str, grant: &credits::Grant, session: &Session) -> Result<Exit, Failure> {
    if session.is_json {
        output::json(&describe::grant(grant))?;
    } else {
        output::result(message)?;
    }
    Ok(Exit::Done)
}
