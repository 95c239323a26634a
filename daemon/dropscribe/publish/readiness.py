"""Checks that recordings can be published, finds free names for their files, and opens them to be sent."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from dropscribe.core.naming import first_free, number_names
from dropscribe.files.audio import AudioFile
from dropscribe.files.beneath import stat_at
from dropscribe.publish.places import Places, open_target

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from concurrent.futures import Executor

    from dropscribe.core.model import OutputNames
    from dropscribe.core.naming import OutputPlan
    from dropscribe.publish.places import Target


class FreeNames(NamedTuple):
    """Names that were free in ``done`` or ``failed`` when they were looked for."""

    plan: OutputPlan
    number: int  # Their collision number
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


class OpenRequest(NamedTuple):
    """A recording to be opened."""

    inbox: bytes  # Its inbox
    path: bytes  # Below the inbox
    done: bytes  # The folder of the rule's transcripts
    plan: OutputPlan | None  # Of its files; None where their names are known only with the answer
    executor: Executor  # For later reads


class Opened(NamedTuple):
    """A recording that may be sent."""

    audio: AudioFile
    free: FreeNames | None  # Names that are free for its files, where they are known


def open_together(requests: Sequence[OpenRequest]) -> list[Opened | Exception]:
    """Open several recordings of one rule.

    Returns:
        For each, in order, the result or an exception: those of
        :func:`~dropscribe.publish.places.check_places` and of :meth:`AudioFile.open`.
    """
    with Places() as places:
        return [_outcome(request, places) for request in requests]


def _outcome(request: OpenRequest, places: Places) -> Opened | Exception:
    try:
        target = places.target(request.done, request.path.rpartition(b"/")[0])
        folder = places.source(request.inbox, request.path)
        free = None if request.plan is None else free_names_in(target, request.plan)
        return Opened(AudioFile.open(request.inbox, request.path, request.executor, folder), free)
    except Exception as error:  # noqa: BLE001  # it is this recording's alone
        return error
