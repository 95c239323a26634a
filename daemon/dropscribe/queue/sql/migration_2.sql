-- Version 1 → 2: the cache of answers and the usage of budgets. Existing rows stay as they are.

-- Answers by content and settings: the same recording is paid for once. Its job may be long gone.
CREATE TABLE ledger (
    id         INTEGER PRIMARY KEY,
    sha256     TEXT    NOT NULL,
    settings   TEXT    NOT NULL,
    size_bytes INTEGER NOT NULL,                -- of the audio
    kept_at    REAL    NOT NULL,
    folder     TEXT    NOT NULL,
    job_id     INTEGER NOT NULL,
    document   BLOB    NOT NULL                 -- zlib
) STRICT;
CREATE UNIQUE INDEX ledger_answer ON ledger (sha256, settings);
CREATE INDEX ledger_twin ON ledger (size_bytes);
CREATE INDEX ledger_age ON ledger (kept_at);

-- One row, kept by triggers, so that the bound costs no sum over the table.
CREATE TABLE ledger_total (bytes INTEGER NOT NULL) STRICT;
INSERT INTO ledger_total VALUES (0);
CREATE TRIGGER ledger_entered AFTER INSERT ON ledger BEGIN
    UPDATE ledger_total SET bytes = bytes + length(new.document);
END;
CREATE TRIGGER ledger_forgotten AFTER DELETE ON ledger BEGIN
    UPDATE ledger_total SET bytes = bytes - length(old.document);
END;

-- The spending: one row for each day and scope, the day in the configured time zone.
CREATE TABLE spending (
    kind    TEXT    NOT NULL,                   -- provider | folder
    name    TEXT    NOT NULL,
    day     TEXT    NOT NULL,                   -- 2026-11-21
    money   REAL    NOT NULL,
    seconds REAL    NOT NULL,                   -- of audio
    unknown INTEGER NOT NULL,                   -- files whose length nobody could tell
    at      REAL    NOT NULL,                   -- of the last entry
    PRIMARY KEY (kind, name, day)
) STRICT, WITHOUT ROWID;

-- Whether the provider refused the file itself, so that the next in the list was asked.
ALTER TABLE attempts ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
