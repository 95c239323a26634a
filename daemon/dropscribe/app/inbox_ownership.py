"""Before a start: does a daemon of another machine have one of the inboxes?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from dropscribe.core.errors import StoreInUse
from dropscribe.intake.ownership import REMEDY, START_SECONDS, find_live_owner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import FolderRule
    from dropscribe.files.owner_file import Sighting

_HANGS_SECONDS = START_SECONDS + 3


async def refuse_owned(rules: Mapping[str, FolderRule], *, exclusive: bool = True) -> None:
    """Refuse to start where another daemon's owner file beats; a fresh start is not held up.

    An owner that is silent for so long does not hold up the start any longer: its inbox is unavailable until
    it beats again or is taken over. So is an inbox whose mount hangs.

    Args:
        rules: Of the config that is to run.
        exclusive: As :class:`~dropscribe.app.inboxes.Inboxes` gets it.

    Raises:
        StoreInUse: Nothing has been done yet.
    """
    watches = {os.fspath(rule.inbox): _watch(rule, trusts_lock=exclusive) for rule in rules.values()}
    if not watches:
        return
    await asyncio.wait(watches.values(), timeout=_HANGS_SECONDS)
    for inbox, watch in watches.items():
        if watch.done() and (owner := watch.result()):
            raise StoreInUse(inbox, f"another dropscribe has it ({owner})", REMEDY)


def _watch(rule: FolderRule, *, trusts_lock: bool) -> asyncio.Future[Sighting | None]:
    """Its own thread, and no pool's: a mount that hangs must not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sighting | None] = loop.create_future()

    def tell(owner: Sighting | None) -> None:
        if not future.done():
            future.set_result(owner)

    def look() -> None:
        owner = find_live_owner(os.fsencode(rule.inbox), trusts_lock=trusts_lock)
        with contextlib.suppress(RuntimeError):  # the loop has closed
            loop.call_soon_threadsafe(tell, owner)

    threading.Thread(target=look, name=f"owner of {rule.name}", daemon=True).start()
    return future
