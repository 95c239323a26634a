"""Jobs, their states and allowed transitions, and the snapshot that identifies a file: frozen data."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.core.naming import Companion


class JobState(enum.StrEnum):
    """State of a job."""

    QUEUED = "queued"  # settled; due at due_at (in the future: deferred)
    TRANSCRIBING = "transcribing"  # an attempt runs; it was counted before the upload began
    TRANSCRIBED = "transcribed"  # the answer and the names of its files are stored; no file touched yet
    REJECTED = "rejected"  # it can never be transcribed, or time is up; not moved yet
    DONE = "done"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"  # the user took the file away, or it changed

    @property
    def is_live(self) -> bool:
        """True while the job has not ended."""
        return self in LIVE_STATES

    @property
    def has_result(self) -> bool:
        """True while a stored result waits to be published."""
        return self in {JobState.TRANSCRIBED, JobState.REJECTED}


LIVE_STATES = frozenset({JobState.QUEUED, JobState.TRANSCRIBING, JobState.TRANSCRIBED, JobState.REJECTED})

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.TRANSCRIBING, JobState.WITHDRAWN}),
    JobState.TRANSCRIBING: frozenset(
        {JobState.TRANSCRIBED, JobState.QUEUED, JobState.REJECTED, JobState.WITHDRAWN}
    ),
    JobState.TRANSCRIBED: frozenset({JobState.DONE, JobState.REJECTED, JobState.QUEUED, JobState.WITHDRAWN}),
    JobState.REJECTED: frozenset({JobState.FAILED, JobState.QUEUED, JobState.WITHDRAWN}),
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.WITHDRAWN: frozenset(),
}
"""A file back in an inbox is a new job (a new generation), so ended states lead nowhere."""


@dataclass(frozen=True, slots=True)
class FileSnapshot:
    """The result of ``fstat`` for one file at one instant."""

    device: int  # not part of the identity: it changes at a remount
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int = 0  # used for settling, not for the identity (chmod and link change it)

    def same_audio(self, other: FileSnapshot, *, stable_inodes: bool = True) -> bool:
        """Whether *other* is the same content in the same file, as far as metadata can tell."""
        return (
            self.size_bytes == other.size_bytes
            and self.mtime_ns == other.mtime_ns
            and (not stable_inodes or self.inode == other.inode)
        )


def identity(path: bytes, snapshot: FileSnapshot, *, stable_inodes: bool) -> bytes:
    """The key that is unique among a folder's live jobs.

    (inode, size, mtime) where inodes are stable, so that a rename is no new file; else
    (path, size, mtime). Never the path alone: a recorder may reuse one name for new files.
    """
    who = b"i%d" % snapshot.inode if stable_inodes else b"p" + path
    return b"%s:%d:%d" % (who, snapshot.size_bytes, snapshot.mtime_ns)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A settled file on its way into the queue."""

    folder: str  # the rule's name
    path: bytes  # relative to the rule's inbox
    snapshot: FileSnapshot  # as it was when it settled
    # Unix seconds when intake first saw the file; of one that was at rest, its last change before that.
    received_at: float
    incomplete: bool = False  # its own header says that data is missing (→ warning ``incomplete_audio``)
    stable_inodes: bool = True  # False on FUSE and network file systems, where inode numbers may change

    @property
    def identity(self) -> bytes:
        """See :func:`identity`."""
        return identity(self.path, self.snapshot, stable_inodes=self.stable_inodes)


@dataclass(frozen=True, slots=True)
class OutputNames:
    """The names of one job's output files, chosen before any is written."""

    root: bytes  # absolute path of ``done`` or ``failed``
    directory: bytes  # relative to *root*, b"" for *root* itself
    audio: bytes  # its file name
    sidecars: tuple[tuple[str, bytes], ...]  # (format, file name), in the order in which they are written
    companions: tuple[Companion, ...] = ()  # the files from the inbox that go with the audio

    @property
    def folder(self) -> bytes:
        """Absolute path of the folder of the files."""
        return self.root + b"/" + self.directory if self.directory else self.root

    @property
    def all_names(self) -> tuple[bytes, ...]:
        """Every name, the audio's first."""
        return (self.audio, *(name for _, name in self.sidecars), *(each.name for each in self.companions))

    def path(self, name: bytes) -> bytes:
        """Absolute path of one of the names."""
        return self.folder + b"/" + name


@dataclass(frozen=True, slots=True)
class StoredResult:
    """An answer and the names of its files, stored before any file is touched."""

    document: bytes  # the transcript's or the error's whole JSON, from which all sidecars can be rendered
    sha256: str  # hex digest of the audio as it was uploaded; "" for a rejection before the upload
    output_names: OutputNames
    # (file name, content) of the sidecars; None after a restart, when they are rendered again.
    files: tuple[tuple[bytes, bytes], ...] | None = field(default=None, compare=False, repr=False)
    # The document as built; None after a restart, when it is parsed from ``document``.
    content: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """A provider's own job for one of our jobs, stored before its first poll."""

    id: str
    created_at: float  # Unix seconds when the id was stored
    sha256: str = ""  # Hex digest of the bytes that were sent; "" if it is not known


@dataclass(frozen=True, slots=True)
class Job:
    """One recording in the queue: the fields of its row."""

    id: int  # row id; grows with time
    folder: str
    path: bytes
    snapshot: FileSnapshot
    stable_inodes: bool
    incomplete: bool
    state: JobState
    received_at: float
    due_at: float  # Unix seconds
    attempts: int = 0  # attempts that count, begun so far; 1-based while one runs
    ambiguous: int = 0  # of these, sent whole with no usable answer (limit: ``retry.max_ambiguous``)
    crashes: int = 0  # attempts in a row cut off by the daemon's own end (limit: ``retry.max_crashes``)
    # Attempts' durations and planned waits so far; ``give_up_after`` limits it. Time in a hold, with an
    # unavailable folder or without a running daemon does not count.
    spent_seconds: float = 0.0
    provider: str = ""  # the provider of the running attempt; for a waiting job its assigned provider, or ""
    result: StoredResult | None = None  # set in the states transcribed and rejected
    may_be_cached: bool = False  # at the claim, the result cache had an answer to audio of exactly this size
    # Fencing token: the number of claims of this job so far; results of earlier claims are ignored.
    fence: int = 0
    internal_errors: int = 0  # attempts and publications that a bug of dropscribe ended
    # Set while the provider works on the audio: an attempt polls and uploads nothing.
    remote: RemoteJob | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one provider, for ``why`` and the error sidecar."""

    at: float  # Unix seconds when it was claimed
    provider: str
    seconds: float | None = None  # None while it runs or when the daemon ended first
    status: int | None = None
    code: str = ""  # "" for success; else the error's code; "interrupted" when the daemon ended first
    reason: str = ""
    counted: bool = True  # whether it counts towards give_up_after and max_ambiguous
    refused: bool = False  # the provider refused the file itself, and the next provider in the list was tried


class ScopeKind(enum.StrEnum):
    """The kind of object that a hold stops."""

    PROVIDER = "provider"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Scope:
    """A provider or a folder rule that can be held."""

    kind: ScopeKind
    name: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold of a provider or rule."""

    scope: Scope
    code: str
    reason: str
    since: float  # Unix seconds of the first failure of this hold
    next_probe_at: float  # Unix seconds; from then on one file at a time is tried
    wait_seconds: float  # the wait that led to next_probe_at; doubles at each failed probe


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """The end of an attempt, written in the same transaction as the job's next state."""

    seconds: float
    status: int | None = None
    code: str = ""
    reason: str = ""
    counted: bool = True
    ambiguous: bool = False
    refused: bool = False
    internal: bool = False  # a bug of dropscribe ended it


@dataclass(frozen=True, slots=True)
class Published:
    """A recording was filed at *path* (absolute); *suspect* if its transcript has a warning."""

    path: bytes
    is_suspect: bool = False
    audio_seconds: float = 0.0  # 0 where it is not known


@dataclass(frozen=True, slots=True)
class ResultStored:
    """The answer is stored: publish *job* next, outside the provider's slot."""

    job: Job


@dataclass(frozen=True, slots=True)
class Retry:
    """Call again after *after_seconds*."""

    after_seconds: float
    code: str
    reason: str
    # How the attempt ended; None when none was made (publishing, a missing file).
    attempt: AttemptEnd | None = None
    spent_seconds: float = 0.0  # seconds to add to the job's spent time
    # Provider to stay with after an ambiguous attempt, or to ask after a refusal, or "".
    assigned_provider: str = ""

    @property
    def ends_attempt(self) -> bool:
        """Whether the attempt is over; else it is polled or published again as it is."""
        return self.attempt is not None and not self.attempt.internal


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The file is gone or is no longer the one that settled; the job ends, intake looks again."""

    reason: str
    attempt: AttemptEnd | None = None


@dataclass(frozen=True, slots=True)
class AtProvider:
    """The provider has the audio and works on it: call the attempt again after *poll_after_seconds*.

    The id is durable before the next call, which finds it in :attr:`Job.remote`. Meanwhile the job holds no
    upload slot. A poll that finds nothing new returns the same id again.
    """

    remote_id: str
    poll_after_seconds: float
    sha256: str = ""  # Hex digest of the bytes that were sent, with a new id


Outcome = Published | ResultStored | Retry | Withdrawn | AtProvider


class LiveRow(NamedTuple):
    """The fields of a live job that a listing of its directory needs."""

    name: bytes  # the file's name within the directory
    inode: int
    # st_dev at the last look. Another number for the directory means a remount or another folder at its path:
    # then a missing file does not count as gone.
    device: int
    stable_inodes: bool  # False where only the name can be compared


@dataclass(frozen=True, slots=True)
class Submitted:
    """The result of ``submit`` for one file."""

    is_new: bool  # a row was made
    live_path: bytes | None = None  # for a file that has a live job: the path in the row of that job
    # An earlier state of the file is being transcribed or filed: submit it again later.
    is_in_flight: bool = False
