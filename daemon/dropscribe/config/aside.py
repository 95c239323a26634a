"""The config read in a process of its own, for a process that stays.

pydantic, PyYAML and the models they fill take some 12 MiB that nothing gives back, for a tenth of a second
of use; and at start the other process reads the config while this one still imports the daemon.

Guarantees: what comes of it is what :func:`~dropscribe.config.load.load_config` gives or raises here; where
no second process can be had (a sandbox, no memory), this one reads the config itself. Secrets pass through a
pipe between the two and through nothing else.
"""

from __future__ import annotations

import gc
import io
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropscribe.config.secret import Secret
from dropscribe.core.errors import ConfigError

if TYPE_CHECKING:
    from dropscribe.config.model import Config
    from dropscribe.core.errors import Problem

    Read = tuple[Config, tuple[Problem, ...]]

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from dropscribe.config.aside import answer; answer(sys.argv[1])"
)


class ReadAside:
    """The config at *path* as this process's environment has it, being read from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # -P: nothing is imported from the working directory unless this process does so too.
        command = [sys.executable, "-P", "-c", _PROGRAM, os.fspath(path), *sys.path]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603 - ourselves
        except OSError:
            return

    def result(self) -> Read:
        """Wait for it.

        Raises:
            ConfigError: As :func:`~dropscribe.config.load.load_config` does.
        """
        answered = b"" if self._process is None else self._process.communicate()[0]
        if self._process is None or self._process.returncode:
            return _read_here(self._path)
        found = pickle.loads(answered)  # noqa: S301 - our own program's words, by a pipe of our own
        if isinstance(found, ConfigError):
            raise found
        read: Read = found
        return read


def answer(path: str) -> None:
    """The other process: read the config at *path* and write what came of it to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ^C in a terminal comes to both
    gc.disable()  # it is over before there is any garbage to speak of
    found: Any
    try:
        found = _read_here(Path(path))
    except ConfigError as error:
        found = error
    sys.stdout.buffer.write(_pickled(found))
    gc.freeze()  # nor does the interpreter look for any as it ends


def _read_here(path: Path) -> Read:
    from dropscribe.config.load import load_config  # noqa: PLC0415  # what this module keeps out

    return load_config(path, environ=os.environ)


class _Pickler(pickle.Pickler):
    """Takes secrets along, which refuse that everywhere else."""

    def reducer_override(self, value: Any) -> Any:
        return (Secret, (value.reveal(), value.origin)) if type(value) is Secret else NotImplemented


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()
