-- Tollgate schema, version 3: accounts of credits.
-- Run this file in one transaction. Timestamps are microseconds since 1970-01-01 UTC.

-- An account gets a row with its first grant. Each change of an account locks its row first.
CREATE TABLE tollgate_credit_accounts (
  account TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  owed BIGINT NOT NULL,
  -- What its open reservations hold, and how many these are.
  reserved BIGINT NOT NULL,
  open_reservations BIGINT NOT NULL,
  -- The number of its entries in the ledger.
  entries BIGINT NOT NULL
);

-- Grants are never deleted: one that has ended is not made again.
CREATE TABLE tollgate_credit_grants (
  account TEXT COLLATE "C" NOT NULL REFERENCES tollgate_credit_accounts (account),
  id TEXT COLLATE "C" NOT NULL,
  amount BIGINT NOT NULL,
  -- What is left and not reserved.
  remaining BIGINT NOT NULL,
  priority BIGINT NOT NULL,
  granted_at BIGINT NOT NULL,
  expires_at BIGINT,
  -- `daily`, `monthly:31`; NULL: never filled up again.
  refill TEXT COLLATE "C",
  note TEXT COLLATE "C" NOT NULL,
  -- The start of the period for which it was filled up last, in seconds since 1970-01-01 UTC.
  period BIGINT NOT NULL,
  has_ended BIGINT NOT NULL,
  PRIMARY KEY (account, id)
);
CREATE INDEX tollgate_credit_grants_live ON tollgate_credit_grants (account, expires_at) WHERE has_ended = 0;

CREATE TABLE tollgate_credit_reservations (
  id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  account TEXT COLLATE "C" NOT NULL REFERENCES tollgate_credit_accounts (account),
  amount BIGINT NOT NULL,
  -- The grants from which it was taken, as JSON: `[["grant", period, amount]]`. Empty unless it is held.
  parts TEXT COLLATE "C" NOT NULL,
  expires_at BIGINT NOT NULL,
  -- SHA-256 of the caller's idempotency key, which may contain personal data.
  idempotency_key BYTEA,
  fingerprint BYTEA,
  -- `held`, `expired`, `committed`, `released`.
  state TEXT COLLATE "C" NOT NULL,
  charged BIGINT NOT NULL,
  uncharged BIGINT NOT NULL,
  settled_at BIGINT,
  -- Unless it is held, it is deleted at any time from then on.
  forgotten_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX tollgate_credit_reservations_key ON tollgate_credit_reservations (account, idempotency_key)
  WHERE idempotency_key IS NOT NULL;
CREATE INDEX tollgate_credit_reservations_held ON tollgate_credit_reservations (account, expires_at) WHERE state = 'held';
CREATE INDEX tollgate_credit_reservations_ended ON tollgate_credit_reservations (account, forgotten_at)
  WHERE state <> 'held';

-- Rows are only added. The entries of an account are numbered from 1, without gaps.
CREATE TABLE tollgate_credit_ledger (
  account TEXT COLLATE "C" NOT NULL REFERENCES tollgate_credit_accounts (account),
  number BIGINT NOT NULL,
  at BIGINT NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  amount BIGINT NOT NULL,
  -- NULL: a change of the debt.
  grant_id TEXT COLLATE "C",
  reservation TEXT COLLATE "C",
  actor TEXT COLLATE "C",
  note TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (account, number)
);

INSERT INTO tollgate_schema (version) VALUES (3);
