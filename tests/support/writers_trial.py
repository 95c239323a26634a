"""Real writers drop recordings into the inboxes of a running daemon, and what must be true of the end.

Each writer has a rule, an inbox and a provider of its own, so that an upload is known to be of that writer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dropscribe.service.status import read_live
from support.daemon_process import PULSE_PATH, Installation
from support.emulator import Emulator
from support.recording_library import Library
from support.vendors import KEY
from support.writers import Bench, Pace, Writer, servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CAUSES = {
    "a writer has it open": "writer",
    "its header says that more is to come": "incomplete",
    "quiet for": "quiet",
    "it is younger than min_age": "quiet",
    "it is empty": "empty",
}
"""The beginnings of the sentences that ``status`` and ``why`` show, and how they are counted."""

_LOOK_SECONDS = 0.25
_ANSWER_SECONDS = 0.5  # of the vendor: what a writer does after its last byte may come in between
_MOST_SECONDS = 300.0  # that a recording waits after its writer has ended


@dataclass
class Figures:
    """The counts of one writer's recordings.

    Attributes:
        files: Recordings dropped.
        filed: Of them, in done with a transcript of these very bytes.
        sent: Uploads.
        torn: Uploads of other bytes than those of a recording as its writer left it.
        sent_twice: Uploads of one that had been sent.
        warned: Transcripts with ``incomplete_audio``.
        waited: By cause, the files that were seen waiting for it.
        missing: Recordings that are not filed, or more than once.
    """

    files: int
    filed: int
    sent: int
    torn: int
    sent_twice: int
    warned: int
    waited: dict[str, int]
    missing: list[str]

    def breaches(self, writer: Writer) -> list[str]:
        """The figures that differ from the documented ones."""
        found = [f"not filed: {', '.join(self.missing)}"] if self.missing else []
        if not writer.is_hole and (self.torn or self.sent_twice):
            found.append(f"{self.torn} torn, {self.sent_twice} sent twice")
        if writer.warned is not None and self.warned != (self.files if writer.warned else 0):
            found.append(f"{self.warned} with the warning incomplete_audio")
        return found


@dataclass
class Stand:
    """One writer at work; *folder* is the name of its rule and of its provider."""

    folder: str
    writer: Writer
    bench: Bench
    vendor: Emulator
    done: Path

    def figures(self, waited: dict[str, int]) -> Figures:
        """The counts of its recordings, once the inbox is empty."""
        expected = self.bench.expected
        whole = [(name, digest) for name, digest in self._filed() if expected.get(name, "") in {None, digest}]
        times = Counter(name for name, _ in whole)
        digests = {digest for _, digest in whole}
        sent = Counter(request.audio_sha256 for request in self.vendor.requests)
        documents = [json.loads(path.read_text()) for path in self.done.glob("*.json")]
        return Figures(
            files=len(expected),
            filed=times.total(),
            sent=sent.total(),
            torn=sum(count for sha256, count in sent.items() if sha256 not in digests),
            sent_twice=sum(count - 1 for count in sent.values()),
            warned=sum("incomplete_audio" in document["warnings"] for document in documents),
            waited=waited,
            missing=[name for name in expected if times[name] != 1],
        )

    def _filed(self) -> Iterator[tuple[str, str]]:
        """Name in the inbox and digest of each recording in done whose transcript is of these very bytes."""
        for path in self.done.glob("*.json"):
            source = json.loads(path.read_text())["source"]
            digest = hashlib.sha256(path.with_suffix(Path(source["path"]).suffix).read_bytes()).hexdigest()
            if digest == source["sha256"]:
                yield source["path"], digest


class WaitWatch:
    """Notes the causes for which each file is seen waiting, from the daemon's own report."""

    def __init__(self, state_dir: Path) -> None:
        self._seen: set[tuple[str, str, str]] = set()
        self._state_dir = state_dir
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def counts(self, folder: str) -> dict[str, int]:
        """Files of *folder* by cause."""
        return dict(Counter(cause for name, _, cause in self._seen if name == folder))

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            for folder, live in read_live(self._state_dir).get("folders", {}).items():
                for path, words in live["waiting"].items():
                    causes = (cause for start, cause in _CAUSES.items() if words.startswith(start))
                    self._seen |= {(folder, path, cause) for cause in causes}


@dataclass
class WritersTrial:
    """So many *files* of each writer, in an empty folder *root* on a local file system."""

    root: Path
    files: int
    pace: Pace = field(default_factory=Pace)
    rule: dict[str, Any] = field(default_factory=dict)
    stands: list[Stand] = field(default_factory=list)

    def run(self, writers: Sequence[Writer]) -> dict[str, Figures]:
        """Let all *writers* whose programs are installed drop their recordings; the figures by writer."""
        library = Library(self.root / "library", self.files)
        library.encode()
        chosen = [writer for writer in writers if writer.is_available]
        share = self.root / "share"
        with contextlib.ExitStack() as stack:
            ports = stack.enter_context(servers(self.root, library, share, chosen))
            for number, writer in enumerate(chosen):
                folder = f"w{number:02}"
                inbox, spool = (self.root / where / folder for where in ("share", "spool"))
                bench = Bench(inbox, spool, share, self.root / "ssh", ports, library, self.pace)
                vendor = stack.enter_context(Emulator())
                vendor.delay_seconds = _ANSWER_SECONDS
                self.stands.append(Stand(folder, writer, bench, vendor, self.root / "done" / folder))
            process = stack.enter_context(self._site().start())
            process.until_logged("inbox.available", len(chosen))
            watch = stack.enter_context(WaitWatch(self.root / "state"))
            with ThreadPoolExecutor(len(chosen)) as pool:
                list(pool.map(lambda stand: stand.writer.drop(stand.bench), self.stands))
            process.until(self._is_over, "the end", _MOST_SECONDS)
            process.stop()
        return {stand.writer.name: stand.figures(watch.counts(stand.folder)) for stand in self.stands}

    def _site(self) -> Installation:
        provider = {"type": "pulse", "api_key": KEY, "requests_per_minute": 60_000, "concurrency": 2}
        providers, rules = {}, {}
        for stand in self.stands:
            stand.bench.inbox.mkdir(parents=True)
            stand.bench.spool.mkdir(parents=True)
            providers[stand.folder] = provider | {"url": stand.vendor.url + PULSE_PATH}
            places = {"inbox": str(stand.bench.inbox), "done": str(stand.done)}
            failed = str(self.root / "failed" / stand.folder)
            rules[stand.folder] = {
                **places, "failed": failed, "provider": stand.folder, **self.rule, **stand.writer.rule
            }  # fmt: skip
        return Installation(self.root, "", extra={"providers": providers, "folders": rules})

    def _is_over(self) -> bool:
        """Whether nothing is left in any inbox but what broken transfers left under hidden names."""
        names = (path.name for stand in self.stands for path in stand.bench.inbox.iterdir())
        return all(name.startswith(".") for name in names)
