"""Full-text search in the transcripts of finished files."""
