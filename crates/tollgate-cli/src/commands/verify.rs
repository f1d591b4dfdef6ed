//! The command `verify`.

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

/// The result of a verification.
struct Verdict {
    /// Why the key is invalid; `None` if it is valid.
    denial: Option<Denial>,
    /// The key, if the store has it.
    details: Option<KeyDetails>,
    /// Notes about a valid key.
    remarks: Vec<String>,
}

pub(super) async fn run(command: Verify, secret: &[u8], session: Session) -> Result<Exit, Failure> {
    let verdict = show_waiting("Verifying", check(&command, secret, &session)).await?;
    let is_valid = verdict.denial.is_none();
    if session.is_json {
        output::json(&json!({
            "valid": is_valid,
            "reason": verdict.denial.as_ref().map(|denial| denial.kind().reason()),
            "detail": verdict.explanation(command.environment),
            "remarks": verdict.remarks,
            "key": verdict.details.as_ref().map(|details| describe::key(details, now())),
        }))?;
    } else {
        output::result(&verdict.to_text(command.environment))?;
    }
    Ok(if is_valid { Exit::Done } else { Exit::No })
}

async fn check(command: &Verify, secret: &[u8], session: &Session) -> Result<Verdict, Failure> {
    let formats = formats(command);
    let denial = verify(formats.clone(), secret, session).await;
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
    let valid = details.iter().filter(|_| denial.is_none());
    let remarks = valid.flat_map(|details| remarks(details, begins)).collect();
    Ok(Verdict { denial, details, remarks })
}

fn formats(command: &Verify) -> Vec<KeyFormat> {
    let format = |format: &KeyFormat| {
        let format = format.clone();
        if command.without_checksum { format.without_checksum() } else { format }
    };
    command.prefix.iter().map(format).collect()
}

/// Verifies the key by the verifier that services use, and returns its environment.
async fn verify(
    formats: Vec<KeyFormat>,
    secret: &[u8],
    session: &Session,
) -> Result<Option<Environment>, Denial> {
    let mut formats = formats.into_iter();
    let first = formats.next().unwrap_or_else(KeyFormat::opaque);
    let Ok(value) = HeaderValue::from_bytes(secret) else {
        // A service cannot receive it.
        let reason =
            first.parse(secret).err().map_or("it cannot be a header value", |malformed| malformed.reason());
        return Err(Denial::new(DenialKind::CredentialMalformed).with_log_detail(reason));
    };
    let verifier = KeyVerifier::new(first, session.store.keys.clone());
    let verifier = formats.fold(verifier, KeyVerifier::with_format);
    let credential = Credential::new(value, 0, CredentialSource::Bearer);
    let request = Request::new(());
    let answer = verifier.verify(&VerifyRequest::new(&credential, RequestHead::of(&request), now()));
    let principal = answer.await?;
    match principal.ended(now()) {
        // The layers check this after the verifier.
        Some(EndReason::Expired) => Err(Denial::new(DenialKind::KeyExpired)),
        Some(EndReason::TenantSuspended) => Err(Denial::new(DenialKind::TenantSuspended)),
        Some(_) => Err(Denial::new(DenialKind::KeyRevoked)),
        None => Ok(principal.environment()),
    }
}

async fn details(secret: &[u8], session: &Session) -> Result<Option<KeyDetails>, Failure> {
    let digests = Peppers::none().all(secret);
    let found = session.store.keys.find(&KeyLookup::new(&digests, now()));
    let Some(record) = found.await? else { return Ok(None) };
    match session.keyless_manager().show(record.principal().id(), &session.actor).await {
        Err(KeyAdminError::NotFound) => Ok(None),
        details => Ok(Some(details?)),
    }
}

/// Notes about a valid key. `begins` is the display prefix of the given secret.
fn remarks(details: &KeyDetails, begins: Option<&str>) -> Vec<String> {
    let lapsed = details.effective_plan().filter(|plan| !plan.is_active()).map(|plan| {
        format!("its plan {} has lapsed: routes that require a plan refuse it", output::visible(plan.tier()))
    });
    let is_former = begins.is_some_and(|begins| *begins != *details.display_prefix);
    let former = details.former_until.filter(|_| is_former).map(|until| {
        let until = table::instant(Some(until));
        format!(
            "this is the former secret, which is valid until {until}: replace it with the one that begins with {}",
            output::visible(&details.display_prefix)
        )
    });
    let networks = &details.allowed_networks;
    let networks = (!networks.is_anywhere()).then(|| format!("it may be used only from {networks}"));
    lapsed.into_iter().chain(former).chain(networks).collect()
}

impl Verdict {
    /// Why the key is invalid, and since when.
    fn explanation(&self, asked_for: Option<Environment>) -> Option<String> {
        let denial = self.denial.as_ref()?;
        let details = self.details.as_ref();
        let at = |instant| match instant {
            Some(_) => format!(" at {}", table::instant(instant)),
            None => String::new(),
        };
        Some(match denial.kind() {
            DenialKind::CredentialMalformed => format!("it is malformed: {}", denial.log_detail()),
            DenialKind::KeyUnknown => "it is unknown: this database has no such key".to_owned(),
            DenialKind::KeyRevoked => format!("it was revoked{}", at(details.and_then(|key| key.revoked_at))),
            DenialKind::KeyExpired => {
                let expires_at =
                    details.and_then(|key| key.expires_at).filter(|expires_at| *expires_at <= now());
                match details.and_then(|key| key.former_until).filter(|_| expires_at.is_none()) {
                    Some(until) => format!("it is a former secret, which was valid until{}", at(Some(until))),
                    None => format!("it expired{}", at(expires_at)),
                }
            }
            DenialKind::TenantSuspended => match details.and_then(|key| key.tenant.as_deref()) {
                Some(tenant) => format!("its tenant {} is suspended", output::visible(tenant)),
                None => "its tenant is suspended".to_owned(),
            },
            // Its prefix and its record disagree.
            DenialKind::WrongEnvironment if !denial.log_detail().is_empty() => denial.log_detail().to_owned(),
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
        let verdict = match self.explanation(asked_for) {
            None => "The key is valid.".to_owned(),
            Some(explanation) => format!("The key is invalid: {explanation}."),
        };
        let remarks = self.remarks.iter().map(|remark| format!("Note: {remark}."));
        let details =
            self.details.iter().map(|details| format!("\n{}", table::key(details, now(), Stream::Out)));
        [verdict].into_iter().chain(remarks).chain(details).collect::<Vec<_>>().join("\n")
    }
}
