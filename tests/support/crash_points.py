"""The points between durable steps at which a test may kill the process (files/crashpoint.py)."""

from __future__ import annotations

POINTS = (
    "submitted",
    "claimed",
    "answered",
    "kept",
    "sidecar_written",
    "sidecar_linked",
    "sidecars_synced",
    "copied",
    "copy_linked",
    "copy_verified",
    "copy_set_aside",
    "audio_moved",
    "published",
    "ended",
)
"""All points of a file's usual path, in order; ``cop…`` are reached if done is on another file system."""

SIDE_POINTS = ("recovered", "held", "taken_back", "error_removed")
"""Points that a file reaches only in special cases: a start after a crash, a held provider, a name taken at
the last moment, a failed file that was moved back."""

COMPANION_POINTS = ("companion_linked", "companion_removed")
"""Further points of a file with companions, beside those in POINTS."""

REMOTE_POINTS = ("uploaded", "job_created", "job_stored", "job_deleted")
"""Further points of a file that a provider processes as a remote job, beside those in POINTS."""
