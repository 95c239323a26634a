"""Finds the first names for a job that are all free in ``done`` or ``failed``."""

from __future__ import annotations

import errno
import os
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from dropscribe.core.naming import first_free, number_names
from dropscribe.files.beneath import closing, open_folder, open_root, stat_at
from dropscribe.files.capabilities import Move, capabilities_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from dropscribe.core.model import OutputNames
    from dropscribe.core.naming import OutputPlan

_NAME_MAX_BYTES = 255


class FreeNames(NamedTuple):
    """Names that were free in ``done`` or ``failed`` when they were looked for.

    Attributes:
        number: Their collision number.
    """

    plan: OutputPlan
    number: int
    names: OutputNames


def find_free_names(plan: OutputPlan, refused: Collection[int] = ()) -> FreeNames:
    """The names of *plan* with the first free collision number.

    Where the folder cannot be read, all names count as free: publishing detects a taken one.

    Args:
        refused: Numbers not to be used: other live jobs have reserved names of theirs.
    """
    folder, name_max_bytes = _open_target(plan.root, plan.path.rpartition(b"/")[0])

    @cache
    def names_of(number: int) -> OutputNames:
        return number_names(plan, number, name_max_bytes)

    def is_free(number: int) -> bool:
        if number in refused:
            return False
        return folder is None or not any(_is_taken(folder, name) for name in names_of(number).all_names)

    try:
        number = first_free(is_free)
    finally:
        if folder is not None:
            os.close(folder)
    return FreeNames(plan, number, names_of(number))


def _open_target(root: bytes, directory: bytes) -> tuple[int | None, int]:
    """(the open folder, or None where there is none; the longest name that fits there)."""
    try:
        above = open_root(root)
        name_max_bytes = _name_max(above)
        if not directory:
            return above, name_max_bytes
        with closing(above):
            try:
                return open_folder(above, directory), name_max_bytes
            except OSError:
                return None, name_max_bytes
    except FileNotFoundError:
        parent = os.path.dirname(root.rstrip(b"/"))
        return None, _open_target(parent, b"\0")[1] if parent != root else _NAME_MAX_BYTES
    except OSError:
        return None, _NAME_MAX_BYTES


def _name_max(folder: int) -> int:
    try:
        return os.fpathconf(folder, "PC_NAME_MAX")
    except OSError:
        return _NAME_MAX_BYTES


def _is_taken(folder: int, name: bytes) -> bool:
    try:
        return stat_at(folder, name) is not None
    except OSError:
        return False


def check_destination(root: bytes) -> None:
    """Check, before anything is paid for, that files can be put below *root*; it is not made.

    Raises:
        OSError: Nothing can be made there, or no file can be given a name there.
    """
    try:
        folder = open_root(root)
    except FileNotFoundError:
        parent = os.path.dirname(root.rstrip(b"/"))
        if parent == root:
            raise
        check_destination(parent)
        return
    with closing(folder):
        try:
            can = capabilities_of(folder)
        except OSError as error:
            error.filename = os.fsdecode(root)
            raise
        if can.move is Move.NONE:
            reason = "no file can be renamed or linked there"
            raise OSError(errno.EOPNOTSUPP, reason, os.fsdecode(root))
