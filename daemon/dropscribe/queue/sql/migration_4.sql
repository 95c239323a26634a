-- Version 3 → 4: the fence; what a job's end lets go of, and an answer that is replaced, in the same statement.

-- Raised at each claim: what an earlier claim of the same job still has to say is late.
ALTER TABLE jobs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER jobs_ended_lets_go AFTER UPDATE OF state ON jobs
    WHEN new.ended_at IS NOT NULL AND old.ended_at IS NULL BEGIN
    DELETE FROM answers WHERE job_id = new.id;
    DELETE FROM reservations WHERE job_id = new.id;
END;

CREATE TRIGGER ledger_replaced AFTER UPDATE OF document ON ledger BEGIN
    UPDATE ledger_total SET bytes = bytes + length(new.document) - length(old.document);
END;
