"""Waiting on a condition, with a bound."""

from __future__ import annotations

import asyncio
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
