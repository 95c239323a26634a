-- Version 2 → 3: the outbox.

-- Notifications that are not delivered yet (outbox.py): one row for each recipient.
CREATE TABLE outbox (
    id        INTEGER PRIMARY KEY,
    recipient TEXT    NOT NULL,             -- service/notifications.py: its name, with no secret in it
    event_id  TEXT    NOT NULL,             -- the same at every try
    at        REAL    NOT NULL,
    due_at    REAL    NOT NULL,
    tries     INTEGER NOT NULL DEFAULT 0,
    content   TEXT    NOT NULL              -- JSON
) STRICT;
CREATE INDEX outbox_due ON outbox (recipient, due_at);
