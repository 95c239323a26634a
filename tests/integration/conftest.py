"""The conformance of both engines: what these modules claim holds on SQLite and on PostgreSQL."""

import os
import tempfile
from pathlib import Path

import pytest

from support import house

ON_BOTH_ENGINES = {
    "test_backlog",
    "test_broken_rows",
    "test_budgets",
    "test_done_jobs",
    "test_fallback",
    "test_holds",
    "test_places",
    "test_queue_promises",
    "test_remote_jobs",
    "test_reuse",
    "test_work_files",
}


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__.rpartition(".")[2] in ON_BOTH_ENGINES:
        postgres = pytest.param("postgres", marks=pytest.mark.slow)
        metafunc.parametrize("queue_kind", ["embedded", postgres], indirect=True)


@pytest.fixture(autouse=True)
def queue_kind(request, monkeypatch):
    """Which queue a house gets; on PostgreSQL an empty one."""
    kind = getattr(request, "param", "embedded")
    if kind == "postgres":
        house.CLUSTER_DSN.append(request.getfixturevalue("queue_dsn"))
        # A file that is gone is believed to be gone at once: there is no other node here.
        monkeypatch.setattr("dropscribe.queue.sql.intake_queries.YOUNG_SECONDS", 0.0)
    yield kind
    house.CLUSTER_DSN.clear()


@pytest.fixture
def memory_path(tmp_path):
    """A folder in memory where there is one: these tests sync thousands of times."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)
