-- Version 3 → 4: the index of finished transcripts with words in another form: with their vowel signs, and
-- with "lodz" for "Łódź". Nodes of version 3 keep tables of their own, because they write words in their form.
-- The tables of version 3 stay, for its nodes; a later migration drops them.
CREATE TABLE indexed_transcripts (
    job_id   BIGINT PRIMARY KEY,
    ended_at DOUBLE PRECISION NOT NULL,
    passages BYTEA NOT NULL,
    words    TSVECTOR NOT NULL
);
CREATE INDEX indexed_transcripts_words ON indexed_transcripts USING gin (words);
CREATE TABLE indexing_progress (
    node     TEXT PRIMARY KEY,
    ended_at DOUBLE PRECISION NOT NULL,
    swept_id BIGINT NOT NULL,
    swept_at DOUBLE PRECISION NOT NULL
);
