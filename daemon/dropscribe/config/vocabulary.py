"""The keys ``vocabulary`` and ``vocabulary_file``: words and names that are likely to be said."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dropscribe.config.credentials import Surroundings
    from dropscribe.config.keys import FolderKeys, ProviderKeys
    from dropscribe.config.yaml_document import Document
    from dropscribe.config.yaml_document import Path as KeyPath

_LONGEST_BYTES = 100_000


def read_vocabulary(
    keys: ProviderKeys | FolderKeys, path: KeyPath, document: Document, around: Surroundings
) -> tuple[str, ...]:
    """The words written at *path* and those in its file, each once; problems are reported."""
    words = list(keys.vocabulary)
    if keys.vocabulary_file is not None:
        where = around.absolute(keys.vocabulary_file)
        try:
            text = _text_of(os.fspath(where))
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            document.report((*path, "vocabulary_file"), f"{where} cannot be read: {said}")
        else:
            lines = (line.strip() for line in text.splitlines())
            words += [line for line in lines if line and not line.startswith("#")]
    return tuple(dict.fromkeys(words))


def _text_of(where: str) -> str:
    """Raises OSError or ValueError. A FIFO or a device is refused and not waited for."""
    descriptor = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        content = file.read(_LONGEST_BYTES + 1)
    if len(content) > _LONGEST_BYTES:
        raise ValueError(f"it is longer than {_LONGEST_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
