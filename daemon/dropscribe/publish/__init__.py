"""Transcripts → files: sidecars first, then the audio, never over anything, safe to repeat."""
