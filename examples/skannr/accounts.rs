//! Accounts: who may sign in, what they have bought, and their second factor.

use std::sync::Arc;

use sqlx::{Row as _, SqlitePool, query, sqlite::SqliteRow};
use tollgate::{Answer, Plan, Principal, denial::Unavailable, verify::Entitlements};

use crate::error::unavailable;

/// How many accounts the service keeps at most.
const MAX_ACCOUNTS: u32 = 10_000;

#[derive(Clone)]
pub(crate) struct Accounts {
    database: SqlitePool,
}

pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) email: String,
    /// The hash of its password.
    pub(crate) password: Option<String>,
    pub(crate) plan: Plan,
    pub(crate) totp_secret: Option<Vec<u8>>,
    pub(crate) is_mfa_enabled: bool,
}

/// Why an account was not created.
pub(crate) enum NotCreated {
    EmailTaken,
    TooMany,
    Database(sqlx::Error),
}

impl Accounts {
    pub(crate) fn new(database: SqlitePool) -> Self {
        Self { database }
    }

    /// Creates an account. Its e-mail must be in lower case.
    pub(crate) async fn create(&self, account: &Account) -> Result<(), NotCreated> {
        let sql = "INSERT INTO accounts (id, name, email, password, plan, is_paid) \
                   SELECT ?, ?, ?, ?, ?, ? WHERE (SELECT count(*) FROM accounts) < ?";
        let row = query(sql).bind(&account.id).bind(&account.name).bind(&account.email);
        let row = row.bind(&account.password).bind(account.plan.tier()).bind(account.plan.is_active());
        match row.bind(MAX_ACCOUNTS).execute(&self.database).await {
            Ok(done) if done.rows_affected() == 0 => Err(NotCreated::TooMany),
            Ok(_) => Ok(()),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(NotCreated::EmailTaken),
            Err(error) => Err(NotCreated::Database(error)),
        }
    }

    pub(crate) async fn find(&self, id: &str) -> Result<Option<Account>, sqlx::Error> {
        self.find_by("SELECT * FROM accounts WHERE id = ?", id).await
    }

    pub(crate) async fn find_by_email(&self, email: &str) -> Result<Option<Account>, sqlx::Error> {
        self.find_by("SELECT * FROM accounts WHERE email = ?", email).await
    }

    async fn find_by(&self, sql: &'static str, value: &str) -> Result<Option<Account>, sqlx::Error> {
        let row = query(sql).bind(value).fetch_optional(&self.database).await?;
        row.map(|row| to_account(&row)).transpose()
    }

    /// Changes the plan. The new one is paid for.
    pub(crate) async fn set_plan(&self, id: &str, tier: &str) -> Result<(), sqlx::Error> {
        let change = query("UPDATE accounts SET plan = ?, is_paid = 1 WHERE id = ?");
        change.bind(tier).bind(id).execute(&self.database).await.map(|_| ())
    }

    /// Stores a new TOTP secret. Returns `false` if MFA is enabled: its secret stays.
    pub(crate) async fn set_totp_secret(&self, id: &str, secret: &[u8]) -> Result<bool, sqlx::Error> {
        let change = query("UPDATE accounts SET totp_secret = ? WHERE id = ? AND NOT is_mfa_enabled");
        is_changed(change.bind(secret).bind(id).execute(&self.database).await)
    }

    /// Enables MFA. Returns `false` if it is enabled already, or if the secret was replaced.
    pub(crate) async fn enable_mfa(&self, id: &str, secret: &[u8], step: i64) -> Result<bool, sqlx::Error> {
        let sql = "UPDATE accounts SET is_mfa_enabled = 1, totp_step = ? \
                   WHERE id = ? AND totp_secret = ? AND NOT is_mfa_enabled";
        is_changed(query(sql).bind(step).bind(id).bind(secret).execute(&self.database).await)
    }

    /// Marks the code of a time step as used. Returns `false` if this or a later one was used before: a code is accepted once
    /// (RFC 6238 section 5.2).
    pub(crate) async fn use_totp_step(&self, id: &str, step: i64) -> Result<bool, sqlx::Error> {
        let sql = "UPDATE accounts SET totp_step = ? WHERE id = ? AND is_mfa_enabled AND totp_step < ?";
        is_changed(query(sql).bind(step).bind(id).bind(step).execute(&self.database).await)
    }

    /// Disables MFA. Returns `false` if it is not enabled.
    pub(crate) async fn disable_mfa(&self, id: &str) -> Result<bool, sqlx::Error> {
        let sql =
            "UPDATE accounts SET totp_secret = NULL, is_mfa_enabled = 0 WHERE id = ? AND is_mfa_enabled";
        is_changed(query(sql).bind(id).execute(&self.database).await)
    }
}

/// The plan is looked up at every request, so that a changed plan applies from the next request on.
impl Entitlements for Accounts {
    fn plan(&self, principal: &Arc<Principal>) -> Answer<Result<Option<Arc<Plan>>, Unavailable>> {
        let (accounts, principal) = (self.clone(), Arc::clone(principal));
        Answer::later(async move {
            let sql = "SELECT plan, is_paid FROM accounts WHERE id = ?";
            let row = query(sql).bind(principal.tenant()).fetch_optional(&accounts.database).await;
            let plan = row.and_then(|row| row.as_ref().map(to_plan).transpose());
            Ok(plan.map_err(unavailable)?.map(Arc::new))
        })
    }
}

fn to_account(row: &SqliteRow) -> Result<Account, sqlx::Error> {
    Ok(Account {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        email: row.try_get("email")?,
        password: row.try_get("password")?,
        plan: to_plan(row)?,
        totp_secret: row.try_get("totp_secret")?,
        is_mfa_enabled: row.try_get("is_mfa_enabled")?,
    })
}

fn to_plan(row: &SqliteRow) -> Result<Plan, sqlx::Error> {
    let tier: String = row.try_get("plan")?;
    Ok(if row.try_get("is_paid")? { Plan::active(tier) } else { Plan::lapsed(tier) })
}

fn is_changed(done: Result<sqlx::sqlite::SqliteQueryResult, sqlx::Error>) -> Result<bool, sqlx::Error> {
    Ok(done?.rows_affected() == 1)
}
