-- The embedded queue. One row a job for as long as its history is kept; paths are bytes.
-- Times are Unix seconds. The schema's version is PRAGMA user_version (store.py: MIGRATIONS).

CREATE TABLE jobs (
    id            INTEGER PRIMARY KEY,
    folder        TEXT    NOT NULL,
    directory     BLOB    NOT NULL,             -- relative to the inbox, x'' for the inbox itself
    name          BLOB    NOT NULL,
    identity      BLOB    NOT NULL,             -- core.model.identity: unique among the folder's live jobs
    stable_inodes INTEGER NOT NULL,
    device        INTEGER NOT NULL,
    inode         INTEGER NOT NULL,
    size_bytes    INTEGER NOT NULL,
    mtime_ns      INTEGER NOT NULL,
    incomplete    INTEGER NOT NULL DEFAULT 0,
    state         TEXT    NOT NULL,
    provider      TEXT    NOT NULL DEFAULT '',  -- of the attempt that runs or ran last
    pin           TEXT    NOT NULL DEFAULT '',  -- stays with this provider (after an ambiguous attempt)
    received_at   REAL    NOT NULL,
    due_at        REAL    NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    ambiguous     INTEGER NOT NULL DEFAULT 0,
    crashes       INTEGER NOT NULL DEFAULT 0,   -- in a row
    spent_seconds REAL    NOT NULL DEFAULT 0,
    code          TEXT    NOT NULL DEFAULT '',
    reason        TEXT    NOT NULL DEFAULT '',
    ended_at      REAL,
    filed         BLOB                          -- absolute path of the audio in done or failed
) STRICT;

CREATE UNIQUE INDEX jobs_live_identity ON jobs (folder, identity)
    WHERE state IN ('queued', 'transcribing', 'transcribed', 'rejected');
CREATE INDEX jobs_live_place ON jobs (folder, directory, name)
    WHERE state IN ('queued', 'transcribing', 'transcribed', 'rejected');
CREATE INDEX jobs_claimable ON jobs (folder, pin, due_at, id) WHERE state = 'queued';
CREATE INDEX jobs_publishable ON jobs (due_at, id) WHERE state IN ('transcribed', 'rejected');
CREATE INDEX jobs_place ON jobs (folder, directory, name, id);
CREATE INDEX jobs_failed ON jobs (folder, size_bytes, mtime_ns) WHERE state = 'failed';
CREATE INDEX jobs_filed ON jobs (filed) WHERE filed IS NOT NULL;
CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;

-- Answers that have arrived, kept until their files are in place, so that no crash loses one.
CREATE TABLE answers (
    job_id    INTEGER PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
    document  BLOB NOT NULL,
    sha256    TEXT NOT NULL,
    root      BLOB NOT NULL,
    directory BLOB NOT NULL,
    audio     BLOB NOT NULL,
    sidecars  BLOB NOT NULL                     -- form NUL name, separated by "/"; companions too
) STRICT;

-- Names chosen by live rows; two jobs never publish to one name.
CREATE TABLE reservations (
    path   BLOB PRIMARY KEY,
    job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX reservations_job ON reservations (job_id);

CREATE TABLE attempts (
    id       INTEGER PRIMARY KEY,
    job_id   INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    at       REAL    NOT NULL,
    provider TEXT    NOT NULL,
    seconds  REAL,                              -- NULL while it runs
    status   INTEGER,
    code     TEXT    NOT NULL DEFAULT '',       -- '' is success (or still running)
    reason   TEXT    NOT NULL DEFAULT '',
    counted  INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX attempts_job ON attempts (job_id);

CREATE TABLE holds (
    kind          TEXT NOT NULL,
    name          TEXT NOT NULL,
    code          TEXT NOT NULL,
    reason        TEXT NOT NULL,
    since         REAL NOT NULL,
    next_probe_at REAL NOT NULL,
    wait_seconds  REAL NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

-- Kept by triggers, so that status costs the same after a million files as after ten.
CREATE TABLE counts (
    folder TEXT    NOT NULL,
    state  TEXT    NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (folder, state)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER jobs_counted AFTER INSERT ON jobs BEGIN
    INSERT INTO counts VALUES (new.folder, new.state, 1)
        ON CONFLICT (folder, state) DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER jobs_recounted AFTER UPDATE OF state ON jobs WHEN old.state <> new.state BEGIN
    INSERT INTO counts VALUES (new.folder, new.state, 1)
        ON CONFLICT (folder, state) DO UPDATE SET n = n + 1;
    UPDATE counts SET n = n - 1 WHERE folder = old.folder AND state = old.state;
END;

CREATE TABLE facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
