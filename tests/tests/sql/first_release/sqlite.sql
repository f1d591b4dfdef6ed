CREATE TABLE IF NOT EXISTS tollgate_schema (version BIGINT NOT NULL PRIMARY KEY);
CREATE TABLE tollgate_tenants (
  tenant TEXT NOT NULL PRIMARY KEY,
  is_suspended BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  ended BIGINT NOT NULL
);
CREATE TABLE tollgate_keys (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  display_prefix TEXT NOT NULL,
  tenant TEXT REFERENCES tollgate_tenants (tenant),
  scopes TEXT NOT NULL,
  plan TEXT,
  plan_is_active BIGINT,
  environment TEXT NOT NULL,
  role TEXT,
  quotas TEXT NOT NULL,
  metadata TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT,
  former_until BIGINT,
  generation BIGINT NOT NULL,
  ended BIGINT NOT NULL
);
CREATE UNIQUE INDEX tollgate_keys_name ON tollgate_keys (tenant, name);
CREATE UNIQUE INDEX tollgate_keys_name_of_nobody ON tollgate_keys (name) WHERE tenant IS NULL;
CREATE INDEX tollgate_keys_newest ON tollgate_keys (created_at, id);
CREATE INDEX tollgate_keys_newest_of_tenant ON tollgate_keys (tenant, created_at, id);
CREATE INDEX tollgate_keys_newest_revoked ON tollgate_keys (created_at, id) WHERE revoked_at IS NOT NULL;
CREATE INDEX tollgate_keys_by_name ON tollgate_keys (name);
CREATE INDEX tollgate_keys_by_display_prefix ON tollgate_keys (display_prefix);
CREATE TABLE tollgate_digests (
  digest BLOB NOT NULL,
  pepper BIGINT NOT NULL,
  key_id TEXT NOT NULL REFERENCES tollgate_keys (id) ON DELETE CASCADE,
  valid_until BIGINT,
  PRIMARY KEY (digest, pepper)
) WITHOUT ROWID;
CREATE INDEX tollgate_digests_of_key ON tollgate_digests (key_id);
CREATE TABLE tollgate_history (
  generation INTEGER PRIMARY KEY AUTOINCREMENT,
  at BIGINT NOT NULL,
  operator TEXT NOT NULL,
  action TEXT NOT NULL,
  key_id TEXT,
  tenant TEXT,
  ended TEXT,
  detail TEXT NOT NULL
);
CREATE INDEX tollgate_history_of_key ON tollgate_history (key_id, generation);
CREATE INDEX tollgate_history_of_tenant ON tollgate_history (tenant, generation);
CREATE TABLE tollgate_usage (
  key_id TEXT NOT NULL REFERENCES tollgate_keys (id) ON DELETE CASCADE,
  hour BIGINT NOT NULL,
  requests BIGINT NOT NULL,
  PRIMARY KEY (key_id, hour)
) WITHOUT ROWID;
CREATE TABLE tollgate_last_uses (
  key_id TEXT NOT NULL PRIMARY KEY REFERENCES tollgate_keys (id) ON DELETE CASCADE,
  at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE TABLE tollgate_usage_writers (
  writer TEXT NOT NULL PRIMARY KEY,
  number BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
) WITHOUT ROWID;
INSERT INTO tollgate_schema (version) VALUES (1);
