"""Checks without the daemon whether a file of an inbox is complete.

Guarantees: nothing is changed; no symlink is followed below the inbox; a writer is not held up.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from dropscribe.core.settling import Completeness, Lease, Seen, Wait, decide
from dropscribe.files.mounts import MountCache, ignore_sigio
from dropscribe.intake.probe import OpenInbox
from dropscribe.reports.patience import ask_disk

if TYPE_CHECKING:
    from dropscribe.config.model import FolderRule
    from dropscribe.intake.probe import ProbeResult


def unsettled_words(rule: FolderRule, path: bytes) -> str | None:
    """Reason why the file is not taken even when its quiet time is over; None if there is none.

    Raises:
        AudioError: It may not be read, is gone, or is no regular file any more.
        OSError: The file system's error.
    """
    if signal.getsignal(signal.SIGIO) is not signal.SIG_IGN:
        ignore_sigio()

    def look() -> tuple[ProbeResult, tuple[bytes, str] | None]:
        with OpenInbox(os.fsencode(rule.inbox)) as inbox:
            return inbox.probe(path, MountCache()), inbox.find_download_file(path)

    seen, download = ask_disk(rule.inbox, look)
    verdict = decide(seen.signs(Seen.FOUND), 0.0, rule.quiet_times)
    seconds = verdict.needed_seconds if isinstance(verdict, Wait) else 0.0
    if seen.lease is Lease.WRITER:
        when = f"after {seconds:g} s without a change" if seconds else "when they close it"
        return f"somebody has it open for writing: it is taken {when}"
    if download is not None:
        return f"{os.fsdecode(download[0])!r} beside it says that {download[1]} has not finished"
    if seen.snapshot.size_bytes == 0:
        return f"it is empty: if it stays so for {seconds:g} s it goes to failed, unsent"
    if seen.completeness is Completeness.INCOMPLETE:
        return (
            f"its header says that more is to come: it is taken after {seconds:g} s of quiet, as incomplete"
        )
    return None
