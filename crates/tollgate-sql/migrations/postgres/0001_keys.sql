-- Tollgate schema, version 1: keys, their history and their usage.
-- Run this file in one transaction. Timestamps are microseconds since 1970-01-01 UTC. Collation "C" compares texts byte
-- by byte, as SQLite does, so an index serves searches by prefix.

-- A tenant gets a row with its first key or its first suspension. Each change of a key locks the row of its tenant,
-- so generations rise within a tenant.
CREATE TABLE tollgate_tenants (
  tenant TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  is_suspended BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  -- Principals that were read before this generation have ended.
  ended BIGINT NOT NULL
);

CREATE TABLE tollgate_keys (
  id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  name TEXT COLLATE "C" NOT NULL,
  display_prefix TEXT COLLATE "C" NOT NULL,
  tenant TEXT COLLATE "C" REFERENCES tollgate_tenants (tenant),
  scopes TEXT COLLATE "C" NOT NULL,
  plan TEXT COLLATE "C",
  plan_is_active BIGINT,
  environment TEXT COLLATE "C" NOT NULL,
  role TEXT COLLATE "C",
  quotas TEXT COLLATE "C" NOT NULL,
  metadata TEXT COLLATE "C" NOT NULL,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT,
  former_until BIGINT,
  generation BIGINT NOT NULL,
  -- Principals that were read before this generation have ended.
  ended BIGINT NOT NULL
);
CREATE UNIQUE INDEX tollgate_keys_name ON tollgate_keys (tenant, name);
CREATE UNIQUE INDEX tollgate_keys_name_of_nobody ON tollgate_keys (name) WHERE tenant IS NULL;
CREATE INDEX tollgate_keys_newest ON tollgate_keys (created_at, id);
CREATE INDEX tollgate_keys_newest_of_tenant ON tollgate_keys (tenant, created_at, id);
CREATE INDEX tollgate_keys_newest_revoked ON tollgate_keys (created_at, id) WHERE revoked_at IS NOT NULL;
-- For searches by prefix.
CREATE INDEX tollgate_keys_by_name ON tollgate_keys (name);
CREATE INDEX tollgate_keys_by_display_prefix ON tollgate_keys (display_prefix);

-- The digests of secrets. After a rotation, the former secret of a key has a `valid_until`.
CREATE TABLE tollgate_digests (
  digest BYTEA NOT NULL,
  -- -1 is SHA-256 without a pepper.
  pepper BIGINT NOT NULL,
  key_id TEXT COLLATE "C" NOT NULL REFERENCES tollgate_keys (id) ON DELETE CASCADE,
  valid_until BIGINT,
  PRIMARY KEY (digest, pepper)
);
CREATE INDEX tollgate_digests_of_key ON tollgate_digests (key_id);

-- The audit log of changes. It outlives the keys. The number of an entry is the generation of its change.
CREATE TABLE tollgate_history (
  generation BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at BIGINT NOT NULL,
  operator TEXT COLLATE "C" NOT NULL,
  action TEXT COLLATE "C" NOT NULL,
  key_id TEXT COLLATE "C",
  tenant TEXT COLLATE "C",
  -- Why principals of earlier generations ended; NULL if they did not.
  ended TEXT COLLATE "C",
  detail TEXT COLLATE "C" NOT NULL
);
CREATE INDEX tollgate_history_of_key ON tollgate_history (key_id, generation);
CREATE INDEX tollgate_history_of_tenant ON tollgate_history (tenant, generation);

CREATE TABLE tollgate_usage (
  key_id TEXT COLLATE "C" NOT NULL REFERENCES tollgate_keys (id) ON DELETE CASCADE,
  hour BIGINT NOT NULL,
  requests BIGINT NOT NULL,
  PRIMARY KEY (key_id, hour)
);

-- Not a column of tollgate_keys, so writing usage never blocks a revocation.
CREATE TABLE tollgate_last_uses (
  key_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES tollgate_keys (id) ON DELETE CASCADE,
  at BIGINT NOT NULL
);

-- The number of the last usage batch that was added for each writer.
CREATE TABLE tollgate_usage_writers (
  writer TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  number BIGINT NOT NULL,
  updated_at BIGINT NOT NULL
);

-- The versions that were applied. Last, so an interrupted run leaves no version behind.
CREATE TABLE tollgate_schema (version BIGINT NOT NULL PRIMARY KEY);
INSERT INTO tollgate_schema (version) VALUES (1);
