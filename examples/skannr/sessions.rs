//! Sessions: what a sign-in begins, with an access token of 15 minutes and a refresh token of 7 days.
//!
//! A refresh token is used once, and replaced by a new one: all tokens of a session are one family. If one that was used before is
//! presented again, two parties have it, and one of them has stolen it. The service cannot know which one, so it ends the session,
//! with its valid refresh token and its access tokens (RFC 9700 section 4.14.2). The user signs in again.
//!
//! That also holds for a client that presents one refresh token twice at the same time: exactly one request is answered with new
//! tokens, and the other one ends the session. A client whose answer was lost signs in again, too.
//!
//! A refresh token is `<family>.<secret>`. The family is the same for the whole session; the database has only the digests of the
//! family and of the current secret. So a session is one row, however often it is refreshed.

use std::time::Duration;

use sqlx::{SqlitePool, query, query_scalar};
use support::clock::ServiceClock;
use tollgate::{clock::Clock as _, denial::Unavailable, key::Digest};

use crate::{
    error::unavailable,
    random,
    tokens::{self, Tokens},
};

pub(crate) const REFRESH_TOKEN_LIFETIME: Duration = Duration::from_hours(7 * 24);

/// How many sessions an account has at most. One more ends the oldest one.
const MAX_SESSIONS: u32 = 100;

#[derive(Clone)]
pub(crate) struct Sessions {
    database: SqlitePool,
    tokens: Tokens,
    clock: ServiceClock,
}

/// What a sign-in or a refresh answers.
pub(crate) struct TokenPair {
    pub(crate) account: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

/// Why a refresh token is refused, for the log.
pub(crate) enum Refusal {
    Unknown,
    Expired,
    UsedBefore,
}

impl Sessions {
    pub(crate) fn new(database: SqlitePool, tokens: Tokens, clock: ServiceClock) -> Self {
        Self { database, tokens, clock }
    }

    /// Begins a session.
    pub(crate) async fn begin(&self, account: &str) -> Result<TokenPair, Unavailable> {
        let (sessions, account) = (self.clone(), account.to_owned());
        to_completion(async move {
            let token = RefreshToken::new(random::text());
            let insert = query("INSERT INTO sessions (id, account, secret, expires_at) VALUES (?, ?, ?, ?)");
            let insert = insert.bind(token.session()).bind(&account).bind(token.digest());
            insert.bind(sessions.expiry()).execute(&sessions.database).await.map_err(unavailable)?;
            sessions.end_surplus(&account).await?;
            Ok(sessions.pair(account, &token))
        })
        .await
    }

    /// Exchanges a refresh token for new tokens.
    pub(crate) async fn refresh(&self, token: &str) -> Result<Result<TokenPair, Refusal>, Unavailable> {
        let Some(used) = RefreshToken::parse(token) else { return Ok(Err(Refusal::Unknown)) };
        let sessions = self.clone();
        to_completion(async move {
            let next = RefreshToken::new(used.family.clone());
            // One statement compares and replaces, so that of concurrent requests with one token exactly one succeeds.
            let sql = "UPDATE sessions SET secret = ?, expires_at = ? \
                       WHERE id = ? AND secret = ? AND expires_at > ? RETURNING account";
            let replace = query_scalar::<_, String>(sql).bind(next.digest()).bind(sessions.expiry());
            let replace = replace.bind(used.session()).bind(used.digest()).bind(sessions.now());
            match replace.fetch_optional(&sessions.database).await.map_err(unavailable)? {
                Some(account) => Ok(Ok(sessions.pair(account, &next))),
                None => sessions.end_family(&used).await.map(Err),
            }
        })
        .await
    }

    /// Ends the session of a refresh token that is not its current one, or has expired.
    async fn end_family(&self, token: &RefreshToken) -> Result<Refusal, Unavailable> {
        let find = query_scalar::<_, i64>("SELECT expires_at FROM sessions WHERE id = ?");
        let found = find.bind(token.session()).fetch_optional(&self.database).await.map_err(unavailable)?;
        let Some(expires_at) = found else { return Ok(Refusal::Unknown) };
        self.end(&token.session()).await?;
        let is_expired = expires_at <= self.now();
        Ok(if is_expired { Refusal::Expired } else { Refusal::UsedBefore })
    }

    /// Ends the oldest sessions above the limit, and deletes those that have expired.
    async fn end_surplus(&self, account: &str) -> Result<(), Unavailable> {
        let delete = query("DELETE FROM sessions WHERE expires_at <= ?").bind(self.now());
        delete.execute(&self.database).await.map_err(unavailable)?;
        let sql = "SELECT id FROM sessions WHERE account = ? ORDER BY rowid DESC LIMIT -1 OFFSET ?";
        let surplus = query_scalar::<_, String>(sql).bind(account).bind(MAX_SESSIONS);
        for session in surplus.fetch_all(&self.database).await.map_err(unavailable)? {
            self.end(&session).await?;
        }
        Ok(())
    }

    /// Ends a session. First its access tokens: if that fails, the session is still there, and its end can be repeated.
    async fn end(&self, session: &str) -> Result<(), Unavailable> {
        self.tokens.end_session(session, self.clock.now())?;
        let delete = query("DELETE FROM sessions WHERE id = ?").bind(session);
        delete.execute(&self.database).await.map(|_| ()).map_err(unavailable)
    }

    fn pair(&self, account: String, token: &RefreshToken) -> TokenPair {
        let access_token = self.tokens.mint(&account, &token.session(), self.clock.now());
        TokenPair { account, access_token, refresh_token: token.to_text() }
    }

    fn now(&self) -> i64 {
        tokens::seconds(self.clock.now())
    }

    fn expiry(&self) -> i64 {
        tokens::seconds(self.clock.now() + REFRESH_TOKEN_LIFETIME)
    }
}

/// A refresh token: a secret that is used once.
struct RefreshToken {
    family: String,
    secret: String,
}

impl RefreshToken {
    fn new(family: String) -> Self {
        Self { family, secret: random::text() }
    }

    fn parse(text: &str) -> Option<Self> {
        let (family, secret) = text.split_once('.')?;
        Some(Self { family: family.to_owned(), secret: secret.to_owned() })
    }

    fn to_text(&self) -> String {
        format!("{}.{}", self.family, self.secret)
    }

    /// The session's identifier, which access tokens show. The family cannot be found from it.
    fn session(&self) -> String {
        random::encode(Digest::of(&self.family).as_bytes())
    }

    fn digest(&self) -> Vec<u8> {
        Digest::of(&self.secret).as_bytes().to_vec()
    }
}

/// Runs a change in a task of its own: a caller that hangs up must not stop it between the end of the access tokens and the change in
/// the database.
async fn to_completion<T: Send + 'static>(
    change: impl Future<Output = Result<T, Unavailable>> + Send + 'static,
) -> Result<T, Unavailable> {
    let failed = |_| Err(Unavailable::new("the task that changes a session panicked"));
    tokio::spawn(change).await.unwrap_or_else(failed)
}
