"""Facts for documents, as one finished job would have them."""

from typing import Any

from dropscribe.core.model import FileSnapshot, Job, JobState
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


def failed_job(path: bytes, folder: str = "calls", provider: str = "") -> Job:
    """A job whose file goes to failed."""
    snapshot = FileSnapshot(1, 2, 3, 4)
    return Job(1, folder, path, snapshot, True, False, JobState.TRANSCRIBING, 0.0, 0.0, provider=provider)
