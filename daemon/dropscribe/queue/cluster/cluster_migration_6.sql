-- Version 5 → 6: one index of the queued jobs, by which claims find the oldest due ones. The three before were
-- for tickets that named a job; a claim sorted all waiting rows.
DROP INDEX jobs_claimable;
DROP INDEX jobs_waiting;
DROP INDEX jobs_fed;
CREATE INDEX jobs_claimable ON jobs (folder, pin, due_at, id) WHERE state = 'queued';

-- No statement needs it. Without statistics PostgreSQL took it to look up a file's place, and read all live rows.
DROP INDEX jobs_live;

-- The tables of version 3, see cluster_migration_4.sql.
DROP TABLE search_transcripts;
DROP TABLE search_progress;

-- "ticket" is the number of the claim that took the job. "lane" is not used any more; it stays for nodes of
-- version 5, and a later migration drops it.
