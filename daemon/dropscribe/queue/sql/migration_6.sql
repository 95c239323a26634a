-- Version 5 → 6: lists of files that cost the same whatever else there is; how many files ended and how long
-- they were, for the chart of the last days.
CREATE INDEX jobs_listed ON jobs (folder, state, id);

CREATE TABLE ended (
    quarter INTEGER NOT NULL,                   -- of an hour: Unix seconds / 900
    folder  TEXT    NOT NULL,
    state   TEXT    NOT NULL,
    files   INTEGER NOT NULL,
    seconds REAL    NOT NULL,                   -- of audio, as far as it is known
    PRIMARY KEY (quarter, folder, state)
) STRICT, WITHOUT ROWID;
INSERT INTO ended
    SELECT CAST(ended_at / 900 AS INTEGER), folder, state, count(*), 0 FROM jobs
    WHERE ended_at >= strftime('%s', 'now') - 15 * 86400 AND state IN ('done', 'failed') GROUP BY 1, 2, 3;
