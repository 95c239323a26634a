"""Takes one failed recording back into its inbox, where the daemon finds it like any other file.

Guarantees: nothing is overwritten; its companions are in the inbox, durably, before the audio, and the
audio before its error file goes. The error file is reached by descriptor, and no link is followed; nothing
but a regular file is read.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Collection, Mapping

from dropscribe.config.model import FolderRule
from dropscribe.core.naming import companion_name, free_name, spellings, split_name
from dropscribe.files.beneath import (
    closing,
    make_folder,
    open_at,
    open_file,
    open_folder,
    open_root,
    stat_at,
    sync,
)
from dropscribe.files.capabilities import Capabilities, capabilities_of
from dropscribe.files.mounts import require_mount
from dropscribe.files.moves import FileName, IsExpected, move_new, remove_if
from dropscribe.files.own_file import OwnFile, copy_verified, sha256_of

ERROR_ENDING = b".error.json"
_MOST_BYTES = 16 * 1024 * 1024


def return_to_inbox(rule: FolderRule, path: bytes, new_name: bytes) -> bytes:
    """Move the companions and the audio *path* of the failed folder, then remove its error file.

    Returns where the audio stands: its *new_name* in the inbox, or that with the next free number. After an
    OSError it stays where it is.
    """
    directory, _, name = path.rpartition(b"/")
    inbox, failed = os.fsencode(rule.inbox), os.fsencode(rule.failed)
    with contextlib.ExitStack() as opened:
        inbox_root = opened.enter_context(closing(open_root(inbox)))
        source = FileName(opened.enter_context(closing(open_at(failed, directory))), name)
        target = opened.enter_context(closing(make_folder(inbox_root, directory)))
        new_name = _place(source, target, rule, new_name)
        sync(target)
        sync(source.folder)
    # The daemon, which may have found the audio meanwhile, removes it too.
    remove_error_file(failed, path)
    return os.path.join(inbox, directory, new_name)


def _place(source: FileName, target: int, rule: FolderRule, wanted: bytes) -> bytes:
    """Move the files under the first free name in the open *target* folder; returns the audio's name."""
    while True:
        companions = [found for each in rule.companions if (found := _spelling_of(source, each))]

        def is_free(audio: bytes, companions: list[bytes] = companions) -> bool:
            names = (audio, *(companion_name(pattern, audio) for pattern in companions))
            return all(stat_at(target, name) is None for name in names)

        free = free_name(wanted, is_free)
        # The name may be taken meanwhile; then the next one is tried.
        with contextlib.suppress(FileExistsError):
            for pattern in companions:
                old = source.beside(companion_name(pattern, source.name))
                _move_one(old, FileName(target, companion_name(pattern, free)))
            sync(target)
            _move_one(source, FileName(target, free))
            return free


def _spelling_of(audio: FileName, pattern: str) -> bytes | None:
    """The spelling of *pattern* by which *audio* has a companion beside it."""
    for spelling in spellings(pattern):
        status = audio.beside(companion_name(spelling, audio.name)).status()
        if status is not None and stat.S_ISREG(status.st_mode):
            return spelling
    return None


def _move_one(source: FileName, target: FileName) -> None:
    status = source.status()
    if status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")

    def is_audio(name: FileName) -> bool:
        found = name.status()
        if found is None or (can.links and not os.path.samestat(found, status)):
            return False
        return (found.st_size, found.st_mtime_ns) == (status.st_size, status.st_mtime_ns)

    can = capabilities_of(target.folder)
    hidden = b".dropscribe-retry-%s.tmp" % secrets.token_hex(8).encode()
    try:
        move_new(source, target, can, hidden, is_audio)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_one(source, target, hidden, is_audio, can)


def _copy_one(
    source: FileName, target: FileName, hidden: bytes, is_audio: IsExpected, can: Capabilities
) -> None:
    """Another mount: the original is removed only when the copy has been read back."""
    with closing(open_file(source.folder, source.name)) as descriptor:
        copy = OwnFile(target, hidden, sha256_of(descriptor), can)
        try:
            copy.write(lambda new: copy_verified(descriptor, new))
            copy.place()
            sync(target.folder)
        finally:
            copy.finish()
    if not remove_if(source, hidden, is_audio):
        raise OSError(errno.ESTALE, "was copied, but another file stands at its old name by now")


def read_error(
    folder: int, name: bytes, trusted_uids: Collection[int] | None = None
) -> dict[str, object] | None:
    """The error document *name* in *folder*, if one of *trusted_uids* owns it (None: anybody); else None."""
    try:
        with closing(open_file(folder, name)) as descriptor:
            if trusted_uids is not None and os.fstat(descriptor).st_uid not in trusted_uids:
                return None
            with open(descriptor, "rb", closefd=False) as file:
                document = json.loads(file.read(_MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(document, dict) and str(document.get("schema", "")).startswith("dropscribe.error/"):
        return document
    return None


def find_error(
    folder: int, audio: bytes, trusted_uids: Collection[int] | None = None
) -> tuple[bytes, dict[str, object]]:
    """Name and document of the error file of *audio* in the open *folder*; b"" and {} if there is none.

    It is named by the audio's stem or by its full name. *trusted_uids* as above.
    """
    stem, suffix = split_name(audio)
    for name in (stem + ERROR_ENDING, audio + ERROR_ENDING):
        document = read_error(folder, name, trusted_uids) or {}
        original = original_name(document)
        # call.error.json may as well be that of another call: call.mp3 beside call.wav.
        if original is not None and split_name(original)[1] == suffix:
            return name, document
    return b"", {}


def original_name(document: Mapping[str, object]) -> bytes | None:
    """The audio's name in its inbox, as the error *document* has it; None for a path or a hidden name."""
    written = str(document.get("file") or ".")
    if written.startswith(".") or not {"/", "\0"}.isdisjoint(written):
        return None
    try:
        return os.fsencode(written)
    except UnicodeEncodeError:  # a lone surrogate, which no file name has
        return None


def remove_error_file(root: bytes, path: bytes) -> bool:
    """Remove the error file beside the audio *path* below ``failed``; False while the audio may be there."""
    directory, _, name = path.rpartition(b"/")
    try:
        require_mount(root)
        with closing(open_root(root)) as opened:
            try:
                folder = open_folder(opened, directory)
            except FileNotFoundError:
                return True
            with closing(folder):
                if stat_at(folder, name) is not None:
                    return False
                error, _ = find_error(folder, name)
                status = stat_at(folder, error) if error else None
                if status is not None and stat.S_ISREG(status.st_mode):
                    os.unlink(error, dir_fd=folder)
    except OSError:
        return False
    return True
