"""The transcript and its pure renderers: json, txt, srt, vtt and md."""
