-- Version 2 → 3: lists of files and the chart of the last days (../sql/migration_6.sql), and the index of
-- finished transcripts.
CREATE INDEX jobs_listed ON jobs (folder, state, id);

CREATE TABLE ended (
    quarter BIGINT NOT NULL,
    folder  TEXT   NOT NULL,
    state   TEXT   NOT NULL,
    files   BIGINT NOT NULL,
    seconds DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (quarter, folder, state)
);
INSERT INTO ended
    SELECT floor(ended_at / 900)::bigint, folder, state, count(*), 0 FROM jobs
    WHERE ended_at >= extract(epoch FROM now()) - 15 * 86400 AND state IN ('done', 'failed') GROUP BY 1, 2, 3;

-- Both may be emptied at any time: they are filled anew from the files in the done folders.
CREATE TABLE search_transcripts (
    job_id   BIGINT PRIMARY KEY,
    ended_at DOUBLE PRECISION NOT NULL,
    passages BYTEA NOT NULL,
    words    TSVECTOR NOT NULL
);
CREATE INDEX search_transcripts_words ON search_transcripts USING gin (words);
CREATE TABLE search_progress (
    node     TEXT PRIMARY KEY,
    ended_at DOUBLE PRECISION NOT NULL,
    swept_id BIGINT NOT NULL,
    swept_at DOUBLE PRECISION NOT NULL
);
