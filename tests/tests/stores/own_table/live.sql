CREATE TABLE api_tokens (
    id text PRIMARY KEY,
    customer text NOT NULL,
    digest bytea NOT NULL UNIQUE,
    revoked_at timestamptz
);

CREATE FUNCTION notify_api_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('api_tokens', coalesce(NEW.id, OLD.id));
    RETURN NULL;
END $$;

CREATE TRIGGER notify_api_tokens AFTER INSERT OR UPDATE OR DELETE ON api_tokens
    FOR EACH ROW EXECUTE FUNCTION notify_api_tokens();
