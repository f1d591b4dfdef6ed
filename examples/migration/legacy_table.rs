//! The table of a service that has issued tokens since 2020, and the columns that Tollgate needs in addition.

use std::time::Duration;

use sqlx::{
    ConnectOptions as _, SqlitePool, query, raw_sql,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

/// As the old service created it.
const TABLE: &str = "
    CREATE TABLE api_tokens (
        id         TEXT PRIMARY KEY,
        customer   TEXT NOT NULL,
        plan       TEXT NOT NULL,
        scopes     TEXT NOT NULL,
        prefix     TEXT NOT NULL, -- of the token, up to its full stop
        hash       TEXT NOT NULL, -- of the whole token
        created_at TEXT NOT NULL,
        revoked_at TEXT
    )";

/// The whole migration. The old service keeps working without a change.
const MIGRATION: &str = "
    ALTER TABLE api_tokens ADD COLUMN digest BLOB;
    ALTER TABLE api_tokens ADD COLUMN generation INTEGER NOT NULL DEFAULT 0; -- increases with each change of the row
    CREATE UNIQUE INDEX api_tokens_by_digest ON api_tokens (digest);
    CREATE INDEX api_tokens_by_prefix ON api_tokens (prefix)";

/// A token and its row. The secret is here so that you can try it; a real service does not know it.
pub(crate) struct OldToken {
    pub(crate) name: &'static str,
    pub(crate) secret: &'static str,
    id: &'static str,
    customer: &'static str,
    scopes: &'static str,
    hash: &'static str,
    created_at: &'static str,
    revoked_at: Option<&'static str>,
}

/// The old service has used three hash functions over the years. Their cost is lower than in production, because debug builds
/// hash slowly. If all hashes were plain SHA-256, `UPDATE api_tokens SET digest = unhex(hash)` would upgrade every token at
/// once.
pub(crate) const TOKENS: [OldToken; 5] = [
    OldToken {
        name: "sha256",
        secret: "G9nvgbOQ.DSiZwDGpl7uc6v6epAnF76ycjH3bbMEN",
        id: "tok_0017",
        customer: "ada",
        scopes: "invoices:read,invoices:write",
        hash: "3f60bfefc5611f6fa46fc378b62969a5f31c0c91f7110f835c0f48d0c4dd3c81",
        created_at: "2020-02-11 09:14:02",
        revoked_at: None,
    },
    OldToken {
        name: "bcrypt",
        secret: "Lv57ecMu.1KEYOb5AR9isYZbtoHmqjHfVTVDHf2uK",
        id: "tok_0344",
        customer: "grace",
        scopes: "invoices:read,invoices:write",
        hash: "$2b$06$GTjhrnWlcSDIUOZkQRVIpe.nuZzBHxpJYt.LZJ4qDRepRFaMeO5km",
        created_at: "2021-06-30 17:40:55",
        revoked_at: None,
    },
    OldToken {
        name: "argon2",
        secret: "SyQmbUGY.s5gTpPy4VNsit5UweYwjEbX37UT67bYy",
        id: "tok_1208",
        customer: "barbara",
        scopes: "invoices:read",
        hash: "$argon2id$v=19$m=1024,t=1,p=1$epcLyd15RpNAMC3LI0QwYQ$tvLFbv6YRTCGvaGIuO/hknLaVwG/yaKv6REu0ZvC2io",
        created_at: "2024-09-03 08:21:37",
        revoked_at: None,
    },
    OldToken {
        name: "revoked",
        secret: "K3ONUfxi.o4ZgKrr0ZuwL5sU1l69CpQ0Dwq5d01GB",
        id: "tok_0345",
        customer: "edsger",
        scopes: "invoices:read",
        hash: "$2b$06$iSAX9.Bq0givWDWabpWOxuWi8fF/QBQuy9IyZadZQ/VjhvVFNmmhi",
        created_at: "2021-07-01 10:02:19",
        revoked_at: Some("2023-01-20 12:00:00"),
    },
    OldToken {
        name: "operator",
        secret: "pml3eSe0.YdU8aJW9xm98sV65CnF3goOZPJik11xy",
        id: "tok_0343",
        customer: "the house",
        scopes: "tokens:manage",
        hash: "$2b$06$PsYC3d6ssGiFkZ6A8E6NQuKEGEzLx06e4NYssh0MXTEO21UyFc5iy",
        created_at: "2021-06-30 17:22:10",
        revoked_at: None,
    },
];

/// The part of a legacy token that its row stores in plain text.
pub(crate) fn prefix(secret: &str) -> Option<&str> {
    secret.split_once('.').map(|(prefix, _)| prefix)
}

/// The old service's database, migrated. It is in memory, so every start begins from the same rows.
pub(crate) async fn database() -> Result<SqlitePool, sqlx::Error> {
    let options = "sqlite::memory:".parse::<SqliteConnectOptions>()?.disable_statement_logging();
    let database = SqlitePoolOptions::new()
        // An in-memory database exists only as long as its connection.
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        // A request that waits longer is answered with 503.
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options)
        .await?;
    raw_sql(TABLE).execute(&database).await?;
    for token in &TOKENS {
        let sql = "INSERT INTO api_tokens (id, customer, plan, scopes, prefix, hash, created_at, revoked_at) \
                   VALUES (?, ?, 'standard', ?, ?, ?, ?, ?)";
        let row = query(sql).bind(token.id).bind(token.customer).bind(token.scopes);
        let row =
            row.bind(prefix(token.secret)).bind(token.hash).bind(token.created_at).bind(token.revoked_at);
        row.execute(&database).await?;
    }
    raw_sql(MIGRATION).execute(&database).await?;
    Ok(database)
}
