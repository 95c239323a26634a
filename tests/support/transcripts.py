"""Facts for documents, as one finished job would have them."""

from typing import Any

from dropscribe.transcripts.document import TranscriptFacts


def facts(path: bytes = b"2026/call.wav", **more: Any) -> TranscriptFacts:
    """One job of the rule "calls"."""
    return TranscriptFacts(
        path=path,
        size_bytes=465740,
        sha256="ab" * 32,
        modified_at=1_790_000_000.25,
        provider_name="mine",
        provider_type="pulse",
        params={"model": "pulse", "word_timestamps": True},
        folder="calls",
        attempts=1,
        received_at=1_790_000_001.0,
        transcribed_at=1_790_000_004.2,
        elapsed_seconds=3.20049,
        **more,
    )
