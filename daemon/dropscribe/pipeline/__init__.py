"""Jobs → transcripts: one attempt a call, the verdict on each failure, the holds."""
