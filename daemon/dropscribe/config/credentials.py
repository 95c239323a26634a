"""Where a key comes from: the file, a key file, a systemd credential, the environment.

Guarantees: no problem reported here holds a key; each :class:`Secret` says where it came from.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dropscribe.config.field_types import parse_secret
from dropscribe.config.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.keys import RemoteKeys
    from dropscribe.config.section import Keys
    from dropscribe.config.yaml_document import Document
    from dropscribe.config.yaml_document import Path as KeyPath

_LONGEST_KEY_BYTES = 16_384
NO_KEY = "there is no api_key"
_KEY_NAMES = frozenset({"api_key", "api_key_file", "api_key_credential", "token", "token_file"})
_DSN_NAMES = frozenset({"dsn", "dsn_file", "dsn_credential"})
_VENDORS = {
    "pulse": ("SMALLEST_API_KEY", "smallest.ai"),
    "reson8": ("RESON8_API_KEY", "reson8.dev"),
    "openai": ("OPENAI_API_KEY", "openai.com"),
}
"""By type: the vendor's usual variable, and the domain that may be sent what it holds."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the config is read in.

    Attributes:
        folder: The config file's own; relative paths begin there.
        mode: The file's permission bits, or None for text in memory.
    """

    folder: Path
    environ: Mapping[str, str]
    mode: int | None = None
    is_owned_by_root: bool = False

    def absolute(self, text: str) -> Path:
        """*text* as an absolute path; ``~`` is the home of `environ`."""
        home = self.environ.get("HOME")
        if home and (text == "~" or text.startswith("~/")):
            return Path(home, text[2:])
        return self.folder / text


def find_api_key(
    keys: RemoteKeys, kind: str, path: KeyPath, document: Document, around: Surroundings
) -> Secret | None:
    """The key of the provider at *path*, of type *kind*; what is wrong with it is reported."""
    if given_keys(keys, "api_key"):
        return find_named(keys, "api_key", path, document, around)
    found = _unasked(keys, kind, path, document, around)
    if found is None and kind != "openai" and not document.has_problem_below(path):
        variable = _VENDORS[kind][0]
        document.report(path, NO_KEY, f"write api_key: ${{{variable}}}, or api_key_file: PATH", on_key=True)
    return found


def given_keys(keys: Keys, name: str) -> list[str]:
    """Those of *name*, *name*_file and *name*_credential that the section gives."""
    return [key for key in (name, f"{name}_file", f"{name}_credential") if getattr(keys, key) is not None]


def find_named(
    keys: Keys, name: str, path: KeyPath, document: Document, around: Surroundings
) -> Secret | None:
    """The secret *name* of the section at *path*, in the one way in which it is given.

    None where it is given in none, and where something is wrong with it, which is reported.
    """
    given = given_keys(keys, name)
    if len(given) > 1:
        document.report((*path, given[1]), f"{given[0]} is given too", "keep one of them", on_key=True)
        return None
    for key in given:
        here, written = (*path, key), getattr(keys, key)
        if isinstance(written, Secret):
            return written_secret(written, here, document, around)
        if key == f"{name}_credential":
            return _named_credential(written, here, document, around)
        where = around.absolute(written)
        return _from_file(where, f"file {where}", here, document)
    return None


def is_key_path(path: str) -> bool:
    """Whether the dotted *path* is that of a key, or of where one is to be had."""
    return path.rpartition(".")[2] in _KEY_NAMES


def is_dsn_path(path: str) -> bool:
    """Whether the dotted *path* is that of the queue's dsn, or of where it is to be had."""
    return path.startswith("queue.") and path.rpartition(".")[2] in _DSN_NAMES


def find_secret(
    written: Secret | None, file: str | None, path: KeyPath, document: Document, around: Surroundings
) -> Secret | None:
    """The secret at *path* or in the file that the key beside it, with ``_file`` behind its name, says.

    None where neither is given.
    """
    beside = (*path[:-1], f"{path[-1]}_file")
    if written is not None and file is not None:
        document.report(beside, f"{path[-1]} is given too", "keep one of them", on_key=True)
        return None
    if written is not None:
        return written_secret(written, path, document, around)
    if file is None:
        return None
    where = around.absolute(file)
    return _from_file(where, f"file {where}", beside, document)


def written_secret(secret: Secret, path: KeyPath, document: Document, around: Surroundings) -> Secret:
    """*secret* with where it came from; a warning where others can read it in the config."""
    variables = document.variables.get(path)
    if variables:
        return Secret(secret.reveal(), f"environment {', '.join(variables)}")
    if around.mode is not None and _is_open(around.mode, is_owned_by_root=around.is_owned_by_root):
        message = f"others on this machine can read this key (mode {around.mode:04o})"
        document.report(path, message, f"chmod 600 {document.file}", warning=True)
    return Secret(secret.reveal(), "config")


def _is_open(mode: int, *, is_owned_by_root: bool) -> bool:
    """Whether more than the owner may read. A group that root chose is how a service is let in."""
    readers = stat.S_IROTH if is_owned_by_root else stat.S_IROTH | stat.S_IRGRP
    return bool(mode & readers)


def _from_file(where: Path, origin: str, path: KeyPath, document: Document) -> Secret | None:
    try:
        descriptor = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            content = file.read(_LONGEST_KEY_BYTES + 1)
    except OSError as error:
        document.report(path, f"{where} cannot be read: {error.strerror}", _remedy(error))
        return None
    is_open = _is_open(status.st_mode, is_owned_by_root=status.st_uid == 0)
    if is_open and not str(path[-1]).endswith("_credential"):
        message = f"others on this machine can read {where} (mode {stat.S_IMODE(status.st_mode):04o})"
        document.report(path, message, f"chmod 600 {where}", warning=True)
    return _checked(content, origin, path, document)


def _remedy(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "write the key into it, and chmod 600"
    if isinstance(error, PermissionError):
        return f"it must be readable by the user that runs dropscribe (uid {os.geteuid()} here)"
    return ""


def _checked(content: bytes, origin: str, path: KeyPath, document: Document) -> Secret | None:
    if len(content) > _LONGEST_KEY_BYTES:
        document.report(path, "the file is too long for a key", "it must hold the key and nothing else")
        return None
    text = content.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")
    try:
        return Secret(parse_secret(text).reveal(), origin)
    except ValueError as error:
        document.report(path, f"the key in the file {error.args[0]}", error.args[1])
        return None


def _named_credential(name: str, path: KeyPath, document: Document, around: Surroundings) -> Secret | None:
    folder = around.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        hint = f"systemd sets it where the unit says LoadCredential={name}:/path"
        document.report(path, "there is no $CREDENTIALS_DIRECTORY here", hint)
        return None
    if "/" in name or name in {".", ".."}:
        document.report(
            path, "is the name of a credential, not a path", "use the key that ends in _file for a path"
        )
        return None
    try:
        there = sorted(os.listdir(folder))
    except OSError as error:
        # systemd 252 shows credentials to ExecStart alone, and not to the check of ExecReload.
        document.report(path, f"{folder} cannot be read: {error.strerror}", _remedy(error))
        return None
    found = next((each for each in (name, f"key_{name}") if each in there), None)
    if found is None:
        hint = f"there are: {', '.join(there)}" if there else "$CREDENTIALS_DIRECTORY is empty"
        document.report(path, f"no credential called '{name}'", hint)
        return None
    return _from_file(Path(folder, found), f"credential {found}", path, document)


def _unasked(
    keys: RemoteKeys, kind: str, path: KeyPath, document: Document, around: Surroundings
) -> Secret | None:
    """A credential named after the provider, else the vendor's variable.

    The variable only where the request goes to that vendor: a key is not shown to another server.
    """
    where = Path(around.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), f"key_{path[-1]}")
    if os.path.lexists(where):
        return _from_file(where, f"credential {where.name}", (*path, "api_key_credential"), document)
    variable, domain = _VENDORS[kind]
    host = urlsplit(keys.url).hostname or "" if keys.url else domain
    if not around.environ.get(variable) or not f".{host}".endswith(f".{domain}"):
        return None
    try:
        return Secret(parse_secret(around.environ[variable]).reveal(), f"environment {variable}")
    except ValueError as error:
        document.report(path, f"the key in {variable} {error.args[0]}", error.args[1], on_key=True)
        return None
