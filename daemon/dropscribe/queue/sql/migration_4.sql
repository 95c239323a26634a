-- Version 3 → 4: the fence; triggers for the end of a job, and for a cached answer that is replaced.

-- Raised at each claim, so that later writes of an earlier claim of the same job are refused.
ALTER TABLE jobs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER jobs_ended_lets_go AFTER UPDATE OF state ON jobs
    WHEN new.ended_at IS NOT NULL AND old.ended_at IS NULL BEGIN
    DELETE FROM answers WHERE job_id = new.id;
    DELETE FROM reservations WHERE job_id = new.id;
END;

CREATE TRIGGER ledger_replaced AFTER UPDATE OF document ON ledger BEGIN
    UPDATE ledger_total SET bytes = bytes + length(new.document) - length(old.document);
END;
