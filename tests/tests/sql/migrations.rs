//! Schema versions, and separate migrations.

use sqlx::{Connection as _, PgConnection, Row as _, SqliteConnection};
use tests::postgres::Postgres;
use tollgate::{
    Plan,
    manage::{KeyAdmin as _, KeyChange, KeyQuery, KeyUpdate, TenantChange},
    network::Networks,
    store::{KeyLookup, KeyStatus, KeyStore as _},
};
use tollgate_sql::{ConnectError, DatabaseKind, migrations};

use super::{Folder, at, builder, change, digest, execute, find, issue, key, on_each_shared, revoke, tenant};

/// The statements by which the first release, which had no migration files, created its tables.
fn first_release(url: &str) -> &'static str {
    match kind_of(url) {
        DatabaseKind::Postgres => include_str!("first_release/postgres.sql"),
        _ => include_str!("first_release/sqlite.sql"),
    }
}

fn kind_of(url: &str) -> DatabaseKind {
    if url.starts_with("postgres") { DatabaseKind::Postgres } else { DatabaseKind::Sqlite }
}

/// The newest schema version.
fn newest() -> i64 {
    migrations(DatabaseKind::Sqlite).last().unwrap().version
}

#[tokio::test]
async fn a_database_of_the_first_release_works() {
    on_each_shared(async |url| {
        execute(&url, first_release(&url)).await;
        execute(
            &url,
            "INSERT INTO tollgate_keys (id, name, display_prefix, scopes, environment, quotas, metadata, created_at, \
             generation, ended) VALUES ('old', 'old', 'sk_live_old', '', 'live', '{}', '{}', 0, 1, 1)",
        )
        .await;
        for builder in [builder(), builder().without_migration()] {
            let keys = builder.connect(&url).await.unwrap();
            issue(&keys, key("new", Some("acme"))).await.unwrap();
            assert!(find(&keys, "new").await.is_some());
            change(&keys, KeyChange::Delete { id: "new".into() }).await.unwrap();
            keys.close().await;
        }
        let keys = builder().connect(&url).await.unwrap();
        assert_eq!(revoke(&keys, "old").await.unwrap().status, KeyStatus::Revoked);
        let migrated = builder().migrate(&url).await.unwrap();
        assert_eq!((migrated.from, migrated.to), (newest(), newest()), "there is nothing to do");
    })
    .await;
}

/// Records of the first release stay unchanged, and the new columns can be set on them.
#[tokio::test]
async fn a_migration_keeps_the_keys_and_tenants_of_the_first_release() {
    on_each_shared(async |url| {
        execute(&url, first_release(&url)).await;
        execute(
            &url,
            "INSERT INTO tollgate_tenants VALUES ('acme', 0, 3, 0), ('held', 1, 4, 4); \
             INSERT INTO tollgate_keys (id, name, display_prefix, tenant, scopes, plan, plan_is_active, environment, quotas, \
             metadata, created_at, generation, ended) VALUES \
             ('own', 'own', 'sk_live_own', 'acme', 'read', 'basic', 1, 'live', '{}', '{}', 0, 1, 1), \
             ('plain', 'plain', 'sk_live_pla', 'acme', 'read', NULL, NULL, 'live', '{}', '{}', 0, 2, 2), \
             ('held', 'held', 'sk_live_hel', 'held', 'read', NULL, NULL, 'live', '{}', '{}', 0, 4, 4)",
        )
        .await;
        let migrated = builder().migrate(&url).await.unwrap();
        assert_eq!((migrated.from, migrated.to), (1, newest()));

        let keys = builder().without_migration().connect(&url).await.unwrap();
        let shown = async |id: &str| {
            keys.list(&KeyQuery::one(id)).await.unwrap().items.remove(0)
        };
        let own = shown("own").await;
        assert_eq!((own.plan.clone(), own.tenant_plan.clone()), (Some(Plan::active("basic")), None));
        assert!(own.allowed_networks.is_anywhere());
        assert_eq!(shown("held").await.status, KeyStatus::TenantSuspended);
        let held = keys.tenant("held").await.unwrap();
        assert_eq!((held.is_suspended, held.plan, held.generation), (true, None, 4));

        tenant(&keys, TenantChange::SetPlan { tenant: "acme".into(), plan: Some(Plan::active("pro")) }).await;
        assert_eq!(shown("own").await.effective_plan(), Some(&Plan::active("basic")));
        assert_eq!(shown("plain").await.effective_plan(), Some(&Plan::active("pro")));
        let networks = Networks::new(["10.0.0.0/8"]).unwrap();
        let update = Box::new(KeyUpdate::new().with_allowed_networks(networks.clone()));
        change(&keys, KeyChange::Update { id: "plain".into(), update }).await.unwrap();
        assert_eq!(shown("plain").await.allowed_networks, networks);
        assert_eq!(shown("held").await.tenant_plan, None);
    })
    .await;
}

/// A restriction that cannot be read does not become "anywhere".
#[tokio::test]
async fn a_key_with_unreadable_networks_is_refused() {
    on_each_shared(async |url| {
        let keys = builder().connect(&url).await.unwrap();
        issue(&keys, key("key", None)).await.unwrap();
        for sql in [
            "UPDATE tollgate_keys SET allowed_networks = ''",
            "UPDATE tollgate_keys SET allowed_networks = '10.0.0.0/8 x'",
        ] {
            execute(&url, sql).await;
            let found = keys.find(&KeyLookup::new(&[digest("key")], at(3))).await;
            assert!(found.is_err(), "{sql}: {found:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_migration_makes_the_tables_of_the_first_release() {
    let (folders, postgres) = ([Folder::new(), Folder::new()], Postgres::start().await);
    let databases = [
        [folders[0].url(), folders[1].url()],
        [postgres.fresh_database().await, postgres.fresh_database().await],
    ];
    for [before, now] in databases {
        execute(&before, first_release(&before)).await;
        execute(&now, migrations(kind_of(&now))[0].sql).await;
        let (before, now) = (schema(&before).await, schema(&now).await);
        assert!(before.len() > 40, "{before:?}");
        assert_eq!(before, now);
    }
}

#[tokio::test]
async fn migrations_that_another_tool_has_run_are_recognized() {
    on_each_shared(async |url| {
        let missing = builder().without_migration().connect(&url).await.unwrap_err();
        assert_eq!(missing, ConnectError::MissingSchema { expected: newest(), is_empty: true });
        assert!(missing.to_string().contains("run `tollgate migrate`"), "{missing}");
        for migration in migrations(kind_of(&url)) {
            execute(&url, migration.sql).await;
        }
        let keys = builder().without_migration().connect(&url).await.unwrap();
        issue(&keys, key("key", Some("acme"))).await.unwrap();
        assert!(find(&keys, "key").await.is_some());
    })
    .await;
}

#[tokio::test]
async fn migrate_creates_the_tables_once() {
    on_each_shared(async |url| {
        let first = builder().migrate(&url).await.unwrap();
        assert_eq!((first.from, first.to), (0, newest()));
        let again = builder().migrate(&url).await.unwrap();
        assert_eq!((again.from, again.to), (newest(), newest()));
        builder().without_migration().connect(&url).await.unwrap().close().await;
    })
    .await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_unchanged() {
    on_each_shared(async |url| {
        builder().connect(&url).await.unwrap().close().await;
        execute(&url, "INSERT INTO tollgate_schema (version) VALUES (99)").await;
        let before = schema(&url).await;
        let newer = ConnectError::NewerSchema { found: 99, expected: newest() };
        assert_eq!(builder().connect(&url).await.unwrap_err(), newer);
        assert_eq!(builder().without_migration().connect(&url).await.unwrap_err(), newer);
        assert_eq!(builder().migrate(&url).await.unwrap_err(), newer);
        assert!(newer.to_string().contains("upgrade this program"), "{newer}");
        assert_eq!(schema(&url).await, before);
    })
    .await;
}

/// The tables, columns and indexes of the store, as the database describes them.
async fn schema(url: &str) -> Vec<String> {
    if kind_of(url) == DatabaseKind::Postgres {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let sql = "SELECT concat_ws(' ', table_name, column_name, data_type, collation_name, is_nullable, is_identity) \
                   FROM information_schema.columns WHERE table_name LIKE 'tollgate%' \
                   UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'tollgate%' \
                   UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint \
                   WHERE conrelid::regclass::text LIKE 'tollgate%' ORDER BY 1";
        return sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
    }
    let mut connection = SqliteConnection::connect(url).await.unwrap();
    let sql = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name";
    let mut schema = Vec::new();
    for row in sqlx::query(sql).fetch_all(&mut connection).await.unwrap() {
        let (name, sql) = (row.get::<String, _>(0), row.get::<String, _>(1));
        // SQLite keeps the text of the statement, with its comments.
        let lines = sql.lines().filter(|line| !line.trim_start().starts_with("--"));
        schema.extend(lines.map(|line| format!("{name}: {line}")));
    }
    schema
}
