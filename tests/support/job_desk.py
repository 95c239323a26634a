"""The uploads and jobs of an emulated vendor with jobs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.received import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class VendorJob:
    """One job as the vendor has it."""

    id: str
    upload: str
    heard: str
    sha256: str
    options: dict[str, Any]
    polls_left: int


@dataclass
class JobDesk:
    """The uploads and jobs of the vendors with jobs.

    Attributes:
        polls: Polls that find a new job still in work.
        failure: The reason with which new jobs fail; "" lets them succeed.
        refusal: Status and body with which a creation is refused, or None.
        uploads: Uploads on which a job can be made, by id: the text that is heard, and the audio's digest.
        created: Every job that was ever created, oldest first: each is paid for.
    """

    polls: int = 1
    failure: str = ""
    refusal: tuple[int, Any] | None = None
    uploads: dict[str, tuple[str, str]] = field(default_factory=dict)
    jobs: dict[str, VendorJob] = field(default_factory=dict)
    created: list[VendorJob] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    _upload_numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def paid_again(self) -> int:
        """Jobs on audio that an earlier job had."""
        return len(self.created) - len({job.sha256 for job in self.created})

    def keep(self, heard: str, sha256: str) -> str:
        """Take an upload in; returns its id."""
        name = f"up-{next(self._upload_numbers)}"
        self.uploads[name] = (heard, sha256)
        return name

    def create(self, upload: str, options: dict[str, Any]) -> VendorJob:
        """A new job on an upload."""
        heard, sha256 = self.uploads[upload]
        job = VendorJob(f"job-{len(self.created) + 1}", upload, heard, sha256, options, self.polls)
        self.jobs[job.id] = job
        self.created.append(job)
        return job

    def job(self, job_id: str, missing: Any) -> VendorJob:
        """The job of that id; *missing* is the body of the 404 where there is none."""
        if job_id not in self.jobs:
            raise Refused(404, missing)
        return self.jobs[job_id]

    def is_working(self, job: VendorJob) -> bool:
        """Whether *job* needs more time; each call is one poll."""
        job.polls_left -= 1
        return job.polls_left >= 0

    def delete(self, job_id: str) -> None:
        """Forget a job."""
        del self.jobs[job_id]
        self.deleted.append(job_id)
