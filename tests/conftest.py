"""Fixtures of every test: a clean environment, and a predictable asyncio loop."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
import structlog

from dropscribe.files.mounts import ignore_sigio
from dropscribe.queue.embedded import store
from support.postgres import Postgres, why_no_postgres
from support.ready_queue import make_ready_file

ignore_sigio()

# jsonschema would compile its grammars of URLs, for three seconds in each worker; no test checks formats.
sys.modules.setdefault("rfc3987_syntax", None)

# The commands that tests start compile our modules once, not each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_VENDORS = ("SMALLEST_", "RESON8_", "OPENAI_")
_OURS = (*_VENDORS, "DROPSCRIBE_", "NOTIFY_SOCKET", "WATCHDOG_", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "PG")


SLOW_SECONDS = 600

# Before any test is imported: a test takes the profile of the moment at which it is decorated. No test fails
# because the cores are loaded.
hypothesis.settings.register_profile(
    "loaded cores", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("loaded cores")


OWN_FOLDER = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Give this run a folder of its own, unless one is named.

    The one that a user's runs share is closed to other users whenever a run begins: a test of another run may
    have become one of them.
    """
    if config.option.basetemp is None and not hasattr(config, "workerinput"):
        config.option.basetemp = config.stash[OWN_FOLDER] = tempfile.mkdtemp(prefix="dropscribe-")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """Remove the run's own folder, unless a test has failed."""
    folder = session.config.stash.get(OWN_FOLDER, None)
    if folder and exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Give the slow ones time."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_SECONDS))


def pytest_collection_finish():
    """Thousands of tests and their modules stay to the end: no search for garbage looks at them again."""
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config):
    """Say what was left out, and how to run it."""
    left_out = len(terminalreporter.stats.get("deselected", ()))
    if left_out and config.option.markexpr == "not slow":
        terminalreporter.write_line(
            f"left out: {left_out} slow tests, which boot systems, run clusters, kill for minutes or build"
            " packages; pytest -m 'slow or not slow' runs them too, as .ci/run does"
        )


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path_factory):
    """No key, proxy or service manager of the machine reaches a test, and no test writes to the home.

    None logs at the level and to the stream of the test before it.
    """
    structlog.reset_defaults()
    monkeypatch.setattr(store, "make_private_file", make_ready_file)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state-home"))
    for name in list(os.environ):
        if name.startswith(_OURS) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def scene(tmp_path):
    """One rule `calls` on one provider, with its folders."""
    from support.scene import Scene

    return Scene(tmp_path)


@pytest.fixture
def other_file_system(tmp_path):
    """A folder on another file system than tmp_path's."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no other file system that may be written: there is no move between two")
    folder = Path(tempfile.mkdtemp(prefix="dropscribe-test-", dir=memory))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of this session's own (of this worker's, where tests are spread over several)."""
    if (reason := why_no_postgres()) is not None:
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="dropscribe-pg-"))
    server = Postgres()
    try:
        server.start(directory)
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.fixture
def postgres_dsn(postgres):
    """An empty database; the server runs, whatever the test before did to it."""
    if not postgres.is_running:
        postgres.restart()
    dsn = postgres.new_database()
    yield dsn
    if not postgres.is_running:
        postgres.restart()
    postgres.drop_database(dsn)


@pytest.fixture
def queue_dsn(postgres):
    """A database with the tables of a cluster's queue, all empty."""
    if not postgres.is_running:
        postgres.restart()
    return postgres.queue_database()
