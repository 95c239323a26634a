-- Version 6 → 7: a step of a live job leaves alone the indexes whose entries stay as they are.

-- An end and an ended state go together; other programs may have written other rows.
UPDATE jobs SET ended_at = CASE WHEN ended_at IS NULL THEN received_at END
    WHERE (ended_at IS NULL) <> (state IN ('queued', 'transcribing', 'transcribed', 'rejected'));

DROP INDEX jobs_live_identity;
DROP INDEX jobs_live_place;
CREATE UNIQUE INDEX jobs_live_identity ON jobs (folder, identity) WHERE ended_at IS NULL;
CREATE INDEX jobs_live_place ON jobs (folder, directory, name) WHERE ended_at IS NULL;

-- No DO UPDATE: for its sake SQLite would keep a journal of the statement (rows.py: UPDATE_STATE).
DROP TRIGGER jobs_recounted;
CREATE TRIGGER jobs_recounted AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
    INSERT INTO counts VALUES (new.folder, new.state, 0) ON CONFLICT DO NOTHING;
    UPDATE counts SET n = n + 1 WHERE folder = new.folder AND state = new.state;
    UPDATE counts SET n = n - 1 WHERE folder = old.folder AND state = old.state;
END;
