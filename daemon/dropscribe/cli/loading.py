"""Imports modules that stay loaded as long as the process runs."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def loading_for_good() -> Iterator[None]:
    """Exempt the modules that are imported inside from all later garbage collections.

    Collections during the imports and at the exit take a tenth of a short command's time. Only for a process
    of our own: all its other objects are frozen too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
