"""Reads secrets from the config, a file, a systemd credential or the environment.

Guarantees: no problem reported here shows a secret; each :class:`Secret` states its origin.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dropscribe.config.disk_reads import read_small_file
from dropscribe.config.notation.field_types import parse_secret
from dropscribe.config.notation.secret import Secret
from dropscribe.core.text.printing import shell_word

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.document import Document, KeyPath
    from dropscribe.config.keys import SectionRead
    from dropscribe.config.sections.provider_types import ProviderFacts

_LONGEST_KEY_BYTES = 16_384
NO_KEY = "there is no api_key"


def find_api_key(read: SectionRead, facts: ProviderFacts, url: str | None) -> Secret | None:
    """The key of a provider that has none in the file; a missing key is reported if one is needed.

    *url* is None for the vendor's own endpoint. The key comes from the credential with the provider's name,
    else from the vendor's usual environment variable. The variable is used only for the vendor's own domain,
    so that no other server gets the key.
    """
    path, environ = read.path, read.document.environ
    where = Path(environ.get("CREDENTIALS_DIRECTORY") or "/nonexistent", f"key_{path[-1]}")
    if os.path.lexists(where):
        return _from_file(where, f"credential {where.name}", (*path, "api_key_credential"), read.document)
    host = facts.key_domain if url is None else urlsplit(url).hostname or ""
    is_vendor = bool(facts.key_domain) and f".{host}".endswith(f".{facts.key_domain}")
    written = environ.get(facts.key_variable)
    if written and is_vendor:
        try:
            return parse_secret(written, f"environment {facts.key_variable}")
        except ValueError as error:
            read.report("", f"the key in {facts.key_variable} {error.args[0]}", error.args[1], on_key=True)
    elif (is_vendor or (facts.key_variable and not facts.is_key_optional)) and not read.has_problem_in():
        hint = f"write api_key: ${{{facts.key_variable}}}, or api_key_file: PATH"
        read.report("", NO_KEY, hint, on_key=True)
    return None


def find_named(given: Mapping[str, Any], name: str, path: KeyPath, document: Document) -> Secret | None:
    """The secret *name* of the section at *path*; None if it is not given, or invalid, which is reported.

    *given* holds the section's values of *name*, *name*_file and *name*_credential.
    """
    if len(given) > 1:
        first, second, *_ = given
        document.report((*path, second), f"{first} is given too", "keep one of them", on_key=True)
        return None
    for key, value in given.items():
        here = (*path, key)
        if key == name:
            try:
                return with_origin(parse_secret(value), here, document)
            except ValueError as error:
                document.refuse(here, value, *error.args)
        elif not isinstance(value, str) or not value:
            document.refuse(here, value, "is not a name", "put it in quotes")
        elif key == f"{name}_credential":
            return _named_credential(value, here, document)
        else:
            where = document.absolute(value)
            return _from_file(where, f"file {where}", here, document)
    return None


def with_origin(secret: Secret, path: KeyPath, document: Document) -> Secret:
    """*secret* from the config at *path* with its origin; a warning if others can read it."""
    if variables := document.variables.get(path):
        return Secret(secret.reveal(), f"environment {', '.join(variables)}")
    if document.status is not None:
        _warn_if_open("this key", document.file, document.status, path, document)
    return secret


def _warn_if_open(what: str, file: object, status: os.stat_result, path: KeyPath, document: Document) -> None:
    """Warn if others may read *file*. Group access to a file of root does not count: it is for a service."""
    readers = stat.S_IROTH if status.st_uid == 0 else stat.S_IROTH | stat.S_IRGRP
    if status.st_mode & readers:
        message = f"others on this machine can read {what} (mode {stat.S_IMODE(status.st_mode):04o})"
        document.report(path, message, f"chmod 600 {shell_word(str(file))}", warning=True)


def _from_file(where: Path, origin: str, path: KeyPath, document: Document) -> Secret | None:
    try:
        content, status = read_small_file(where, _LONGEST_KEY_BYTES)
        if not str(path[-1]).endswith("_credential"):
            _warn_if_open(str(where), where, status, path, document)
        return parse_secret(content.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r"), origin)
    except OSError as error:
        document.report(path, f"{where} cannot be read: {error.strerror}", _remedy(error))
    except ValueError as error:
        document.report(path, f"the key in the file {error.args[0]}", error.args[1])
    return None


def _remedy(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "write the key into it, and chmod 600"
    if isinstance(error, PermissionError):
        return f"it must be readable by the user that runs dropscribe (uid {os.geteuid()} here)"
    return "it must be a file with the key and nothing else"


def _named_credential(name: str, path: KeyPath, document: Document) -> Secret | None:
    folder = document.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        hint = f"systemd sets it where the unit says LoadCredential={name}:/path"
        document.report(path, "$CREDENTIALS_DIRECTORY is not set", hint)
        return None
    try:
        there = sorted(os.listdir(folder))
    except OSError as error:
        # systemd 252 shows credentials to ExecStart alone, and not to the check of ExecReload.
        document.report(path, f"{folder} cannot be read: {error.strerror}", _remedy(error))
        return None
    for found in (name, f"key_{name}"):
        if found in there:
            return _from_file(Path(folder, found), f"credential {found}", path, document)
    hint = f"there are: {', '.join(there)}" if there else "$CREDENTIALS_DIRECTORY is empty"
    document.report(path, f"no credential called '{name}'", hint)
    return None
