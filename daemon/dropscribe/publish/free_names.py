"""Finds the first names for a job that are all free in ``done`` or ``failed``."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from dropscribe.core.naming import first_free, number_names
from dropscribe.files.beneath import stat_at
from dropscribe.publish.places import open_target

if TYPE_CHECKING:
    from collections.abc import Collection

    from dropscribe.core.model import OutputNames
    from dropscribe.core.naming import OutputPlan
    from dropscribe.publish.places import Target


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
    target = open_target(plan.root, plan.path.rpartition(b"/")[0])
    try:
        return free_names_in(target, plan, refused)
    finally:
        target.close()


def free_names_in(target: Target, plan: OutputPlan, refused: Collection[int] = ()) -> FreeNames:
    """As :func:`find_free_names`, in the open *target* of *plan*."""
    folder = target.folder

    @cache
    def names_of(number: int) -> OutputNames:
        return number_names(plan, number, target.name_max_bytes)

    def is_free(number: int) -> bool:
        if number in refused:
            return False
        return folder is None or not any(_is_taken(folder, name) for name in names_of(number).all_names)

    number = first_free(is_free)
    return FreeNames(plan, number, names_of(number))


def _is_taken(folder: int, name: bytes) -> bool:
    try:
        return stat_at(folder, name) is not None
    except OSError:
        return False
