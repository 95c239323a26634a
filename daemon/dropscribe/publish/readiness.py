"""Opens recordings that are to be sent, after a check that they can be published once they are paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dropscribe.files.audio import AudioFile
from dropscribe.publish.free_names import free_names_in
from dropscribe.publish.places import Places

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from dropscribe.core.naming import OutputPlan
    from dropscribe.publish.free_names import FreeNames


class OpenRequest(NamedTuple):
    """A recording to be opened.

    Attributes:
        inbox: Its inbox.
        path: Below the inbox.
        done: The folder of the rule's transcripts.
        plan: Of its files; None where their names are known only with the answer.
        executor: For later reads.
    """

    inbox: bytes
    path: bytes
    done: bytes
    plan: OutputPlan | None
    executor: Executor


class Opened(NamedTuple):
    """A recording that may be sent.

    Attributes:
        free: Names that are free for its files, where they are known.
    """

    audio: AudioFile
    free: FreeNames | None


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
