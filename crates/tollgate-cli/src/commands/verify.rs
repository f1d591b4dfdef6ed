//! `verify`.

use http::{HeaderValue, Request};
use serde_json::json;
use tollgate::{
    Denial, DenialKind, Environment, KeyFormat, KeyVerifier,
    denial::Outcome,
    key::Peppers,
    manage::{KeyAdminError, KeyDetails},
    request::RequestHead,
    store::{EndReason, KeyLookup},
    verify::{Credential, CredentialSource, Verify as _, VerifyRequest},
};

use super::{Session, now};
use crate::{
    arguments::Verify,
    failure::{Exit, Failure},
    output::{
        self, describe,
        table::{self, Stream},
    },
    store::show_waiting,
};

/// What is found out about a key.
struct Verdict {
    /// Why it is not good.
    denial: Option<Denial>,
    /// What there is to know of it, if it is known at all.
    details: Option<KeyDetails>,
    /// What else there is to say of one that is good.
    remarks: Vec<String>,
}

pub(super) async fn run(command: Verify, secret: &[u8], session: Session) -> Result<Exit, Failure> {
    let verdict = show_waiting("Verifying", judge(&command, secret, &session)).await?;
    let is_good = verdict.denial.is_none();
    if session.is_json {
        output::json(&json!({
            "good": is_good,
            "reason": verdict.denial.as_ref().map(|denial| denial.kind().reason()),
            "detail": verdict.why_not(command.environment),
            "remarks": verdict.remarks,
            "key": verdict.details.as_ref().map(|details| describe::key(details, now())),
        }))?;
    } else {
        output::result(&verdict.to_text(command.environment))?;
    }
    Ok(if is_good { Exit::Done } else { Exit::No })
}

async fn judge(command: &Verify, secret: &[u8], session: &Session) -> Result<Verdict, Failure> {
    let formats = formats(command);
    let denial = ask(formats.clone(), secret, session).await;
    let denial = match denial {
        Err(denial) if denial.outcome() != Outcome::Denied => {
            return Err(Failure::new(Exit::Database, denial.log_detail()));
        }
        Err(denial) => Some(denial),
        Ok(environment) => {
            let is_other = command.environment.is_some() && command.environment != environment;
            is_other.then(|| Denial::new(DenialKind::WrongEnvironment))
        }
    };
    let details = match &denial {
        Some(denial) if matches!(denial.kind(), DenialKind::CredentialMalformed | DenialKind::KeyUnknown) => {
            None
        }
        _ => details(secret, session).await?,
    };
    let begins =
        formats.iter().find_map(|format| format.parse(secret).ok()).map(|parsed| parsed.display_prefix());
    let good = details.iter().filter(|_| denial.is_none());
    let remarks = good.flat_map(|details| remarks(details, begins)).collect();
    Ok(Verdict { denial, details, remarks })
}

fn formats(command: &Verify) -> Vec<KeyFormat> {
    let format = |format: &KeyFormat| {
        let format = format.clone();
        if command.without_checksum { format.without_checksum() } else { format }
    };
    command.prefix.iter().map(format).collect()
}

/// Asks as a service does, by the very verifier that it asks, and gives the key's environment.
async fn ask(
    formats: Vec<KeyFormat>,
    secret: &[u8],
    session: &Session,
) -> Result<Option<Environment>, Denial> {
    let mut formats = formats.into_iter();
    let first = formats.next().unwrap_or_else(KeyFormat::opaque);
    let Ok(value) = HeaderValue::from_bytes(secret) else {
        // No header can hold it, so that no service ever sees it.
        let reason =
            first.parse(secret).err().map_or("no header can hold it", |malformed| malformed.reason());
        return Err(Denial::new(DenialKind::CredentialMalformed).with_log_detail(reason));
    };
    let verifier = KeyVerifier::new(first, session.store.keys.clone());
    let verifier = formats.fold(verifier, KeyVerifier::with_format);
    let credential = Credential::new(value, 0, CredentialSource::Bearer);
    let request = Request::new(());
    let answer = verifier.verify(&VerifyRequest::new(&credential, RequestHead::of(&request), now()));
    let principal = answer.wait().await?;
    match principal.ended(now()) {
        // As the layers do: a verifier need not look at the clock.
        Some(EndReason::Expired) => Err(Denial::new(DenialKind::KeyExpired)),
        Some(EndReason::TenantSuspended) => Err(Denial::new(DenialKind::TenantSuspended)),
        Some(_) => Err(Denial::new(DenialKind::KeyRevoked)),
        None => Ok(principal.environment()),
    }
}

async fn details(secret: &[u8], session: &Session) -> Result<Option<KeyDetails>, Failure> {
    let digests = Peppers::none().all(secret);
    let found = session.store.keys.find(&KeyLookup::new(&digests, now()));
    let Some(record) = found.wait().await? else { return Ok(None) };
    match session.keeper().show(record.principal().id(), &session.actor).await {
        Err(KeyAdminError::NotFound) => Ok(None),
        details => Ok(Some(details?)),
    }
}

/// What there is to say of a key besides whether it is good. `begins` is how the secret at hand begins.
fn remarks(details: &KeyDetails, begins: Option<&str>) -> Vec<String> {
    let lapsed = details.plan.as_ref().filter(|plan| !plan.is_active()).map(|plan| {
        format!(
            "its plan {} has lapsed: a service that asks for a plan refuses it",
            table::visible(plan.tier())
        )
    });
    let is_former = begins.is_some_and(|begins| *begins != *details.display_prefix);
    let former = details.former_until.filter(|_| is_former).map(|until| {
        let until = table::instant(Some(until));
        format!(
            "this is the former secret, which ends at {until}: replace it by the one that begins with {}",
            details.display_prefix
        )
    });
    lapsed.into_iter().chain(former).collect()
}

impl Verdict {
    /// Why it is not good, and when that came about.
    fn why_not(&self, asked_for: Option<Environment>) -> Option<String> {
        let denial = self.denial.as_ref()?;
        let details = self.details.as_ref();
        let at = |instant| match instant {
            Some(_) => format!(" at {}", table::instant(instant)),
            None => String::new(),
        };
        Some(match denial.kind() {
            DenialKind::CredentialMalformed => format!("it is malformed: {}", denial.log_detail()),
            DenialKind::KeyUnknown => {
                "it is unknown: this database has no such key, or has it no more".to_owned()
            }
            DenialKind::KeyRevoked => format!("it was revoked{}", at(details.and_then(|key| key.revoked_at))),
            DenialKind::KeyExpired => {
                let expires_at =
                    details.and_then(|key| key.expires_at).filter(|expires_at| *expires_at <= now());
                match details.and_then(|key| key.former_until).filter(|_| expires_at.is_none()) {
                    Some(until) => format!("it is a former secret, which ended{}", at(Some(until))),
                    None => format!("it expired{}", at(expires_at)),
                }
            }
            DenialKind::TenantSuspended => match details.and_then(|key| key.tenant.as_deref()) {
                Some(tenant) => format!("its tenant {} is suspended", table::visible(tenant)),
                None => "its tenant is suspended".to_owned(),
            },
            DenialKind::WrongEnvironment => {
                let own = details.map_or("another environment".to_owned(), |key| key.environment.to_string());
                let asked_for =
                    asked_for.map_or(String::new(), |environment| format!(", not for {environment}"));
                format!("it is for {own}{asked_for}")
            }
            _ => denial.to_string(),
        })
    }

    fn to_text(&self, asked_for: Option<Environment>) -> String {
        let verdict = match self.why_not(asked_for) {
            None => "The key is good.".to_owned(),
            Some(why_not) => format!("The key is not good: {why_not}."),
        };
        let remarks = self.remarks.iter().map(|remark| format!("Note: {remark}."));
        let details =
            self.details.iter().map(|details| format!("\n{}", table::key(details, now(), Stream::Out)));
        [verdict].into_iter().chain(remarks).chain(details).collect::<Vec<_>>().join("\n")
    }
}
