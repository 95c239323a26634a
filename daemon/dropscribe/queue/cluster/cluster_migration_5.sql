-- Version 4 → 5: the digest of the bytes that a provider works on by itself, so that its answer is told
-- from one to other bytes, and the recording is not needed for polls.
ALTER TABLE jobs ADD COLUMN sent_sha256 TEXT NOT NULL DEFAULT '';
