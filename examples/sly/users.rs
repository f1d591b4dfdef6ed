//! Session tokens: the organization and the role of a user are those of the table `user_profiles`, and not claims of the token.

use std::{sync::Arc, time::Duration};

use http::HeaderName;
use sqlx::{
    ConnectOptions as _, SqlitePool, query_as, raw_sql,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tollgate::{
    Denial, DenialKind, Environment, Principal, Scopes, denial::Unavailable, manage::KeyAdmin as _,
};
use tollgate_jwt::{Claims, Issuer, JwtVerifier, profiles_fn};
use tollgate_sql::SqlKeys;

use crate::routes::SCOPES;

/// A user of globex.
pub(crate) const ADA: &str = "6f1c2a52-6d0c-4f0e-9d64-0a8f4d1c7b11";

const TABLE: &str = "
    CREATE TABLE user_profiles (
        user   TEXT PRIMARY KEY, -- `sub` of the tokens
        tenant TEXT NOT NULL,
        role   TEXT NOT NULL
    ) STRICT;
    INSERT INTO user_profiles VALUES
        ('6f1c2a52-6d0c-4f0e-9d64-0a8f4d1c7b11', 'globex', 'admin'),
        ('b7f0a3de-51c4-4a86-8a3f-2c9d7e6b5f22', 'initech', 'member')";

/// Marks a principal that is a user, and not a key.
#[derive(Clone, Copy)]
pub(crate) struct User;

#[derive(Clone)]
pub(crate) struct Users {
    profiles: SqlitePool,
    /// Knows which organizations are suspended.
    keys: SqlKeys,
}

/// Verifies session tokens. What it finds out about a user is cached for 30 seconds; the store's events end that earlier if the
/// organization is suspended.
pub(crate) fn verifier(issuer: Issuer, users: Users, keys: SqlKeys) -> JwtVerifier {
    let profiles = profiles_fn(move |claims: Arc<Claims>| {
        let users = users.clone();
        async move { users.find(&claims).await }
    });
    JwtVerifier::new(issuer)
        .with_profiles(profiles)
        .with_store_events(keys)
        // A key belongs to one environment. A session may act in both, so its request names one. For keys, nothing reads this header.
        .with_environment_header(HeaderName::from_static("x-environment"), Environment::Live)
}

impl Users {
    pub(crate) async fn open(keys: SqlKeys) -> Result<Self, sqlx::Error> {
        let options = "sqlite::memory:".parse::<SqliteConnectOptions>()?.disable_statement_logging();
        let profiles = SqlitePoolOptions::new()
            // An in-memory database exists only as long as its connection.
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            // A request that waits longer is answered with 503.
            .acquire_timeout(Duration::from_secs(5))
            .connect_with(options)
            .await?;
        raw_sql(TABLE).execute(&profiles).await?;
        Ok(Self { profiles, keys })
    }

    async fn find(&self, claims: &Claims) -> Result<Principal, Denial> {
        let principal = claims.to_principal()?;
        let profile: Option<(String, String)> =
            query_as("SELECT tenant, role FROM user_profiles WHERE user = ?")
                .bind(principal.id())
                .fetch_optional(&self.profiles)
                .await
                .map_err(|error| {
                    Unavailable::new("the table user_profiles cannot be read").with_source(error)
                })?;
        let Some((tenant, role)) = profile else {
            return Err(Denial::new(DenialKind::TokenInvalid).with_log_detail("the user has no profile"));
        };
        let organization =
            self.keys.tenant(&tenant).await.map_err(|error| Denial::unavailable(error.to_string()))?;
        if organization.is_suspended {
            return Err(DenialKind::TenantSuspended.into());
        }
        // Sessions are for the dashboard, and have full scopes: what the token says about scopes is not read.
        let scopes = Scopes::new(SCOPES).map_err(|error| Denial::misconfigured(error.to_string()))?;
        Ok(principal.with_tenant(tenant).with_role(role).with_scopes(scopes).with_extension(User))
    }
}
