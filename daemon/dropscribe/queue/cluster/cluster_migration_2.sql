-- Version 1 → 2: jobs that a provider works on by itself, failures of our own, the begin of a pause.
-- What each column means stands in ../sql/migration_5.sql.
ALTER TABLE jobs ADD COLUMN internal_errors BIGINT NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN remote_id TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN remote_at DOUBLE PRECISION;
CREATE INDEX jobs_at_provider ON jobs (due_at, id) WHERE remote_id <> '';

CREATE TABLE pauses (
    provider TEXT PRIMARY KEY,
    since    DOUBLE PRECISION NOT NULL,
    until    DOUBLE PRECISION NOT NULL
);

-- A job that is put off loses its ticket: it is fed again when it is due.
CREATE FUNCTION void_ticket() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    new.ticket := NULL;
    new.lane := '';
    RETURN new;
END $$;
CREATE TRIGGER jobs_put_off BEFORE UPDATE OF due_at ON jobs
    FOR EACH ROW WHEN (new.ticket IS NOT NULL AND (new.state IN ('queued', 'transcribing') OR new.state = old.state))
    EXECUTE FUNCTION void_ticket();
