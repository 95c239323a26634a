"""Waiting on a condition, with a bound."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Return once *condition* holds.

    Raises:
        TimeoutError: It did not within *seconds*.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # a condition on disk or in another process has no Event
            await asyncio.sleep(0.01)


def until_true(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return once *condition* holds; for tests without an event loop.

    Raises:
        TimeoutError: It did not within *seconds*.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
