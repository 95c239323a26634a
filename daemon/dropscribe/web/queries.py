"""The filters of a folder's list of files, as they stand in a page's address. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from dropscribe.core.model import JobState
from dropscribe.queue.sql.file_list import FileFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

STATES = {
    "": ("all", ()),
    "waiting": ("waiting", (JobState.QUEUED, JobState.TRANSCRIBED, JobState.REJECTED)),
    "transcribing": ("in flight", (JobState.TRANSCRIBING,)),
    "done": ("done", (JobState.DONE,)),
    "failed": ("failed", (JobState.FAILED,)),
}


def chosen_from(query: Mapping[str, str]) -> dict[str, str]:
    """The filters that an address names; "" for those that it does not."""
    names = ("state", "provider", "code", "since", "before")
    return {name: query.get(name, "")[:200] for name in names} | {"text": query.get("q", "")[:200]}


def filter_of(folder: str, chosen: Mapping[str, str]) -> FileFilter:
    """The jobs that the filters choose; malformed filters are left out."""
    try:
        since = datetime.fromisoformat(chosen["since"]).astimezone().timestamp() if chosen["since"] else None
    except (ValueError, OverflowError):
        since = None
    return FileFilter(
        folders=[folder],
        states=STATES.get(chosen["state"], STATES[""])[1],
        since=since,
        text=chosen["text"],
        provider=chosen["provider"],
        code=chosen["code"],
        before_id=id_of(chosen["before"]),
    )


def id_of(text: str | None) -> int | None:
    """The id of a job in an address; None for anything that the database could not hold."""
    return int(text) if text and text.isdecimal() and len(text) < 19 else None
