//! The tokens to try it with.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use tollgate::{ApiKey, Environment, KeyFormat, MemoryKeys, Plan, Principal, Scopes};

use crate::tiers::{BASIC, PRO, TINY};

const A_MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Issues one of each kind, as of `now`, and tells their names.
pub(crate) fn issue(
    format: &KeyFormat,
    keys: &MemoryKeys,
    now: SystemTime,
) -> Result<Vec<(String, ApiKey)>, Box<dyn Error>> {
    let read = Scopes::new(["read"])?;
    let read_and_write = Scopes::new(["read", "write"])?;
    // A token for which no scopes are requested may read.
    let token = |name: &str, account: &str, plan: Plan| {
        Principal::new(name).with_tenant(account).with_plan(plan).with_scopes(read.clone())
    };
    let tokens = [
        token("basic", "ada", Plan::active(BASIC)),
        token("basic_write", "ada", Plan::active(BASIC)).with_scopes(read_and_write.clone()),
        token("expired", "ada", Plan::active(BASIC)).with_expiry(now - A_MONTH),
        token("revoked", "ada", Plan::active(BASIC)),
        token("pro", "grace", Plan::active(PRO)).with_scopes(read_and_write.clone()),
        token("tiny", "barbara", Plan::active(TINY)),
        token("lapsed", "edsger", Plan::lapsed(PRO)).with_scopes(read_and_write),
    ];
    let issue = |token: Principal| -> Result<_, Box<dyn Error>> {
        let name = token.id().to_owned();
        Ok((name, keys.issue(format, Environment::Live, token)?))
    };
    let issued = tokens.into_iter().map(issue).collect();
    keys.revoke("revoked");
    issued
}
