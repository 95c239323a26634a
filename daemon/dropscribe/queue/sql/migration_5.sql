-- Version 4 → 5: jobs that a provider works on by itself, failures of our own, pauses that providers asked for.

-- Attempts that a bug of dropscribe ended.
ALTER TABLE jobs ADD COLUMN internal_errors INTEGER NOT NULL DEFAULT 0;

-- The provider's id of the job that it runs for this one; '' where the provider answers in the request.
-- While it is set and the state is 'transcribing', due_at is the time of the next poll.
ALTER TABLE jobs ADD COLUMN remote_id TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN remote_at REAL;
CREATE INDEX jobs_at_provider ON jobs (due_at, id) WHERE remote_id <> '';

-- Pauses that providers asked for (Retry-After, 429, 503).
CREATE TABLE pauses (
    provider TEXT PRIMARY KEY,
    since    REAL NOT NULL,
    until    REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- Jobs that have ended here and must still be deleted at their provider.
CREATE TABLE remote_deletions (
    id        INTEGER PRIMARY KEY,
    provider  TEXT NOT NULL,
    remote_id TEXT NOT NULL,
    due_at    REAL NOT NULL DEFAULT 0,
    tries     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TRIGGER jobs_left_provider AFTER UPDATE OF remote_id ON jobs
WHEN old.remote_id <> '' AND new.remote_id <> old.remote_id BEGIN
    INSERT INTO remote_deletions (provider, remote_id) VALUES (old.provider, old.remote_id);
END;
