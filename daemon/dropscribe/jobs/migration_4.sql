-- Version 3 → 4: the fence.

-- Raised at each claim: what an earlier claim of the same job still has to say is late.
ALTER TABLE jobs ADD COLUMN fence INTEGER NOT NULL DEFAULT 0;
