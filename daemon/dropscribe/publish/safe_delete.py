"""The original of a copied audio, removed only if it still is the file that was copied.

Between a check of a name and its unlink a recorder may rename a new file over it. So the name is first
moved aside, and what stands there then is what is judged.

Guarantees: a file that is not the expected one goes back to its name, or keeps the hidden one where the
name was taken again meanwhile; it is never removed. Safe to repeat after a crash at any point.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from dropscribe.files import writing
from dropscribe.files.audio import snapshot_of
from dropscribe.files.crashpoint import reached

if TYPE_CHECKING:
    from collections.abc import Callable

    from dropscribe.core.model import FileSnapshot

    IsExpected = Callable[[FileSnapshot], bool]


def let_go(folder: int, name: bytes, aside: bytes, is_expected: IsExpected) -> bool:
    """Remove *name* from the open *folder* if it is the expected file.

    Args:
        aside: Hidden name in the same folder, this job's alone.

    Returns:
        False where another file, or none, stood at the name; it stands there still.
    """
    try:
        writing.move_new(folder, name, writing.path_in(folder, aside))
    except FileNotFoundError:
        return False
    reached("copy_source_aside")
    return clear_aside(folder, name, aside, is_expected)


def clear_aside(folder: int, name: bytes, aside: bytes, is_expected: IsExpected) -> bool:
    """End what :func:`let_go` began, maybe before a crash; whether the expected file was removed."""
    try:
        status = os.stat(aside, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if is_expected(snapshot_of(status)):
        os.unlink(aside, dir_fd=folder)
        return True
    with contextlib.suppress(FileExistsError):
        writing.move_new(folder, aside, writing.path_in(folder, name))
    return False
