-- Tollgate schema, version 2: plans of tenants, and networks from which a key may be used.
-- Run this file in one transaction.

-- The plan of all keys of the tenant that have none of their own.
ALTER TABLE tollgate_tenants ADD COLUMN plan TEXT;
ALTER TABLE tollgate_tenants ADD COLUMN plan_is_active BIGINT;

-- Separated by spaces. NULL: the key may be used from anywhere.
ALTER TABLE tollgate_keys ADD COLUMN allowed_networks TEXT;

INSERT INTO tollgate_schema (version) VALUES (2);
