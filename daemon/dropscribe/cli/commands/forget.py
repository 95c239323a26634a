"""``dropscribe forget``: deletes the stored answers of a recording, with the daemon up or down.

Files in done stay. The answers are deleted from the result cache, which deduplicates recordings, and from the
spool, which may still have the answers to the recording's pieces.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from functools import partial

from dropscribe.cli import exit_codes
from dropscribe.cli.messages import report_file_error, say
from dropscribe.cli.options import act_as_owner, read_config
from dropscribe.core.errors import AudioError
from dropscribe.core.text.printing import plural
from dropscribe.files.audio import open_beneath
from dropscribe.files.beneath import closing
from dropscribe.files.own_file import sha256_of
from dropscribe.media.spool import Spool
from dropscribe.queue.sql import result_cache
from dropscribe.reports.queue_reader import write_queue_once
from dropscribe.reports.timed_calls import ask_disk
from dropscribe.reports.wording import printable_line

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def execute(options: argparse.Namespace) -> int:
    """Delete the answers of each recording; 74 if one of them has none, or cannot be read."""
    config = read_config(options)
    code, digests = exit_codes.OK, {}
    for recording in options.recordings:
        try:
            digests[recording] = _digest(recording)
        except (AudioError, OSError) as error:
            code = report_file_error(os.fsencode(recording), error)
    act_as_owner(config)  # after it: the caller may read files that the owner may not
    for recording, digest in digests.items():
        count = write_queue_once(config, partial(result_cache.forget, sha256=digest)) or 0
        count += Spool(config.state_dir).forget(digest)
        if count:
            sys.stdout.write(f"{printable_line(recording)}: {plural(count, 'answer')} forgotten\n")
        else:
            say(f"dropscribe: {printable_line(recording)}: no answer of it is stored")
            code = exit_codes.IO_ERROR
    return code


def _digest(recording: str) -> str:
    """*recording* if it is a digest, else that of the file; a symlink is followed: the user named it."""
    if _DIGEST.fullmatch(recording) and not os.path.lexists(recording):
        return recording.lower()
    path = ask_disk(os.fsencode(recording), lambda: os.path.realpath(os.fsencode(recording)))
    with closing(ask_disk(path, lambda: open_beneath(*os.path.split(path)))) as descriptor:
        return sha256_of(descriptor)
