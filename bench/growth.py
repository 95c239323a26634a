"""Does a file cost more when many wait, or when many are done? Rows alone, so that nothing hides it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from place import Scene, Watched, folder
from results import Curve, Row, at_most

from dropscribe.core.model import AttemptEnd, FileSnapshot, JobState, NewJob, OutputNames, StoredResult
from dropscribe.core.routing import Route
from dropscribe.queue.embedded.store import Store
from dropscribe.queue.sql import claims, intake_queries, result_rows, rows

SIZES = (1_000, 10_000, 100_000)
HISTORY = 1_000_000
FILES = 400
ROUNDS = 5
_FOLDER, _PROVIDER = "calls", "p"
_ENDED = AttemptEnd(0.1)

FILL = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO jobs (folder, directory, name, identity, stable_inodes, device, inode, size_bytes, mtime_ns, state,
                  provider, received_at, due_at, attempts, ended_at, filed)
SELECT 'calls', x'', CAST(printf('old-%08d.wav', n) AS BLOB), CAST(printf('old-%08d', n) AS BLOB), 1, 1, n, 8192,
       n, :state, 'p', :now + n / 1000.0, :now + n / 1000.0, 1, :ended_at, CAST(printf('/done/old-%08d.wav', n) AS BLOB)
FROM numbers
"""


def measure(scale: float) -> tuple[list[Row], list[Curve]]:
    waiting = _curve("queued", "files waiting", [max(100, int(size * scale)) for size in SIZES])
    done = _curve("done", "files done", [max(100, int(size * scale)) for size in SIZES])
    table = [
        _flat("cost of a file's rows as 1k → 10k → 100k wait", waiting),
        _flat("cost of a file's rows as 1k → 10k → 100k are done", done),
        *_history(max(10_000, int(HISTORY * scale))),
    ]
    return table, [waiting, done]


def _flat(name: str, curve: Curve) -> Row:
    first, last = curve.points[0][1], curve.points[-1][1]
    found = " → ".join(f"{milliseconds:.2f}" for _, milliseconds in curve.points) + " ms"
    value = last / first
    return at_most(name, "itself at 1k", value, 1.2, 1.05, f"{value:.2f} ({found})")


def _curve(state: str, unit: str, sizes: list[int]) -> Curve:
    """Interleaved, so that what else the machine does falls on every size alike."""
    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(_filled(size, state)) for size in sizes]
        found: list[list[float]] = [[] for _ in stores]
        for number in range(ROUNDS + 1):
            for store, values in zip(stores, found, strict=True):
                spent = _file_costs(store, number)
                if number:  # the first round warms caches
                    values.append(sum(spent.values()))
    points = zip(sizes, (statistics.median(values) for values in found), strict=True)
    return Curve(f"a file's rows: submit, claim, keep, end; beside so many {unit}", unit, tuple(points))


@contextlib.contextmanager
def _filled(count: int, state: str) -> Iterator[Store]:
    with folder() as root:
        store = Store(root / "state")
        ended_at = time.time() if state == "done" else None
        values = {"count": count, "state": state, "now": time.time() + 3600, "ended_at": ended_at}
        store.call(lambda db: db.execute(FILL, values)).result()
        store.call(lambda db: None).result()
        try:
            yield store
        finally:
            store.close()


def _file_costs(store: Store, batch: int) -> dict[str, float]:
    """Milliseconds a file, by step, each step a transaction of its own."""
    new = [_new_job(batch, number) for number in range(FILES)]
    request = claims.ClaimRequest(_PROVIDER, (Route(_FOLDER, serves_unassigned=True),), 1)

    def step(work: Callable[[sqlite3.Connection], object]) -> object:
        return store.call(work).result()

    spent: dict[str, float] = {}
    with _timed(spent, "submit"):
        for job in new:
            step(lambda db, job=job: intake_queries.submit(db, [job]))
    with _timed(spent, "claim"):
        claimed = [
            step(lambda db: claims.claim_for_provider(db, request, time.time(), has_suspect=False))[0]
            for _ in new
        ]
    with _timed(spent, "keep"):
        stored = [
            step(
                lambda db, job=job: result_rows.store_result(db, job, _kept(job.path), _ENDED, rejected=False)
            )
            for job in claimed
        ]
    with _timed(spent, "publish"):
        for job in stored:
            values = (time.time(), b"/done/" + job.path)
            step(
                lambda db, job=job, values=values: rows.move(
                    db, job, JobState.DONE, "ended_at = ?, filed = ?", values
                )
            )
    return spent


@contextlib.contextmanager
def _timed(spent: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    spent[name] = (time.perf_counter() - began) / FILES * 1_000


def _new_job(batch: int, number: int) -> NewJob:
    snapshot = FileSnapshot(1, 10_000_000 + batch * FILES + number, 8192, time.time_ns())
    return NewJob(_FOLDER, b"new-%d-%d.wav" % (batch, number), snapshot, time.time())


def _kept(path: bytes) -> StoredResult:
    return StoredResult(b"{}" * 300, "0" * 64, OutputNames(b"/done", b"", path, (("json", path + b".json"),)))


def _history(count: int) -> list[Row]:
    with folder() as root, _filled(1, "done") as empty, _filled(count, "done") as full:
        pairs = [(_file_costs(empty, number), _file_costs(full, number)) for number in range(ROUNDS + 1)][1:]
        found = [_status(root, store) for store in (empty, full)]
    name = f"a history of {count:,} done files"
    table = [
        at_most(f"{name}: status (ms)", "–", found[1], 300, None, f"{found[1]:.0f} (empty: {found[0]:.0f})")
    ]
    for step in ("claim", "publish"):
        value = statistics.median(full[step] / empty[step] for empty, full in pairs)
        times = [statistics.median(pair[which][step] for pair in pairs) for which in (0, 1)]
        note = f"{value:.2f} ({times[1]:.3f} ms beside {times[0]:.3f} ms)"
        table.append(at_most(f"{name}: {step}", "an empty store", value, 1.2, None, note))
    return table


def _status(root: Path, store: Store) -> float:
    """Milliseconds of the whole command, process start counted."""
    scene = Scene(root, "http://127.0.0.1:1")
    config = scene.write_config()
    text = config.read_text().replace('"state_dir": "state"', f'"state_dir": "{store.path.parent}"')
    config.write_text(text)
    seconds = []
    for _ in range(ROUNDS):
        with open(os.devnull, "wb") as nowhere:
            run = Watched([sys.executable, "-m", "dropscribe", "status", "-c", str(config)], stdout=nowhere)
            assert run.finish() == 0
        seconds.append(run.wall_seconds)
    return statistics.median(seconds) * 1_000
