"""A real PostgreSQL, started by the tests as an ordinary user, on a port of its own.

Guarantees: it listens on the loopback alone, unless asked for more, and has no socket in the file system;
what is committed is synced; :meth:`Postgres.crash` and :meth:`Postgres.restart` keep its port, so that
clients find it again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from functools import cache
from pathlib import Path
from typing import Any

_USER = "dropscribe"
_START_SECONDS = 60.0
_PORTS = range(20_000, 32_000)
"""Below the ephemeral ports: while the server is down no connection elsewhere takes its place."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "authentication_timeout": "5s",  # a connection that says nothing holds up a crash for so long
    "log_min_messages": "warning",
}

_EMPTY = """
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid();
SET session_replication_role = replica;
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables
        WHERE schemaname = 'dropscribe' AND tablename NOT IN ('schema_version', 'ledger_total') LOOP
        EXECUTE format('DELETE FROM dropscribe.%I', name);
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'dropscribe' LOOP
        EXECUTE format('ALTER SEQUENCE dropscribe.%I RESTART', name);
    END LOOP;
    UPDATE dropscribe.ledger_total SET bytes = 0;
END $$
"""


@cache
def why_no_postgres() -> str | None:
    """Why none can be started here, or None where it can."""
    if _folder_of_binaries() is None:
        return "PostgreSQL is not installed: no initdb on PATH, by pg_config or in /usr/lib/postgresql"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (extra `cluster`)"
    return None


@cache
def _folder_of_binaries() -> Path | None:
    """The folder with both initdb and postgres: in PATH, by pg_config, or Debian's newest."""
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else []
    if config := shutil.which("pg_config"):
        said = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False).stdout
        candidates.append(Path(said.strip()))
    versions = (path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal())
    candidates += sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
    wanted = ("initdb", "postgres")
    return next((each for each in candidates if all((each / name).is_file() for name in wanted)), None)


class Postgres:
    """One server; stopped, crashed and started again at will.

    Args:
        listens_to: An address besides the loopback's.
        trusts: A network that may come in by it.

    Attributes:
        port: The same from the first start on.
    """

    def __init__(self, listens_to: str = "", trusts: str = "") -> None:
        self._listens_to = listens_to
        self._trusts = trusts
        self.port = 0
        self._directory = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._queue_dsn: str | None = None

    @property
    def dsn(self) -> str:
        """Of the database that every server has; tests take one of :meth:`new_database`."""
        return self._dsn_of("postgres")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """The server's log so far."""
        return (self._directory / "server.log").read_text("utf-8", "replace")

    def start(self, directory: Path) -> None:
        """Make a cluster below *directory* and serve it.

        Where the tests run as root, *directory* is given to an ordinary user, who must be able to reach
        it: a folder below ``tmp_path`` is none of these.

        Raises:
            RuntimeError: It does not start; with what it said.
        """
        self._directory = directory
        if os.geteuid() == 0:
            ordinary = _ordinary_user()
            os.chown(directory, ordinary.pw_uid, ordinary.pw_gid)
        options = ("-U", _USER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        made = self._run("initdb", *options, "-D", str(self._data), stdout=subprocess.PIPE)
        said, _ = made.communicate()
        if made.returncode != 0:
            raise RuntimeError(said.decode("utf-8", "replace"))
        if self._trusts:
            with (self._data / "pg_hba.conf").open("a") as rules:
                rules.write(f"host all all {self._trusts} trust\n")
        self._serve_on_some_port()

    def stop(self) -> None:
        """Orderly: connections are cut, all is written."""
        self._end(signal.SIGINT)

    def crash(self) -> None:
        """At once, nothing written: the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Serve again, on the same port, after an orderly stop where it runs.

        Raises:
            RuntimeError: It does not start; with what it said.
        """
        self.stop()
        if not self._serves():
            raise RuntimeError(self.log)

    def new_database(self) -> str:
        """The dsn of an empty database of its own."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return self._dsn_of(name)

    def queue_database(self) -> str:
        """The dsn of a database with a cluster's tables and no rows: always the same one, emptied each time.

        To make a database takes fifty times as long.
        """
        from dropscribe.queue.cluster.postgres import MountMap
        from dropscribe.queue.cluster.store import ClusterStore

        if self._queue_dsn is None:
            self._queue_dsn = self.new_database()
            with contextlib.closing(ClusterStore(self._queue_dsn, MountMap({}), "maker")):
                pass
        for change in ("ALLOW_CONNECTIONS true", "RESET ALL"):
            self.execute(f"ALTER DATABASE {self._queue_dsn.rpartition('/')[2]} {change}")
        self.execute(_EMPTY, self._queue_dsn)
        return self._queue_dsn

    def drop_database(self, dsn: str) -> None:
        """Drop what :meth:`new_database` made, whoever is still connected."""
        self.execute(f"DROP DATABASE IF EXISTS {dsn.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, statement: str, dsn: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement outside of any transaction; its rows, if it has any."""
        import psycopg

        with psycopg.connect(dsn or self.dsn, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _dsn_of(self, database: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def _serve_on_some_port(self) -> None:
        for port in random.SystemRandom().sample(_PORTS, 20):
            if _is_free(port):
                self.port = port
                if self._serves():
                    return
        raise RuntimeError(self.log)

    def _serves(self) -> bool:
        """Start the server and wait until it answers; False where it ended instead."""
        addresses = ",".join(filter(None, (_SETTINGS["listen_addresses"], self._listens_to)))
        settings = [
            f"-c{name}={value}" for name, value in {**_SETTINGS, "listen_addresses": addresses}.items()
        ]
        with (self._directory / "server.log").open("ab") as log:
            self._process = self._run(
                "postgres", "-D", str(self._data), f"-p{self.port}", *settings, stdout=log
            )
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if not self.is_running:
                return False
            if time.monotonic() > until:
                self.crash()
                raise RuntimeError(f"no answer in {_START_SECONDS} s: {self.log}")
            time.sleep(0.02)
        return True

    def _answers(self) -> bool:
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(number)
        self._process.wait(_START_SECONDS)

    def _run(self, program: str, *arguments: str, stdout: Any) -> subprocess.Popen[bytes]:
        """Start *program* as an ordinary user, out of reach of the terminal's Ctrl-C."""
        folder = _folder_of_binaries()
        if folder is None:
            raise RuntimeError(why_no_postgres())
        user = _ordinary_user() if os.geteuid() == 0 else None
        return subprocess.Popen(
            [str(folder / program), *arguments],
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user.pw_uid if user else None,
            group=user.pw_gid if user else None,
            extra_groups=[] if user else None,
        )


def _ordinary_user() -> pwd.struct_passwd:
    """The user of the server if the tests run as root: it refuses to run as root."""
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
