"""The long trial of real writers: ``python tests/system/writers_trial.py --files 30``.

Needs ffmpeg; writers whose other programs are not installed (sox, sftp and sshd, rsync, smbd and smbclient,
curl) are left out. Prints a table; exit code 1 where a promise was broken, and then the folder is kept.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.writers import WRITERS  # the path comes first
from support.writers_trial import Figures, WritersTrial


def main() -> int:
    """Run one trial."""
    parser = argparse.ArgumentParser(
        description="let real programs drop recordings, and look at what was sent"
    )
    parser.add_argument("--files", type=int, default=30, help="of each writer")
    parser.add_argument("--only", metavar="NAME", default="", help="writers whose name contains this")
    given = parser.parse_args()
    chosen = [writer for writer in WRITERS if given.only in writer.name]
    if not chosen or shutil.which("ffmpeg") is None:
        parser.error("ffmpeg is not installed" if chosen else f"no writer is called {given.only!r}")
    root, began = Path(tempfile.mkdtemp(prefix="dropscribe-writers-")), time.monotonic()
    figures = WritersTrial(root, given.files).run(chosen)
    print("| writer | files | filed | torn | sent twice | with `incomplete_audio` | waited |")  # noqa: T201
    print("|---|---|---|---|---|---|---|")  # noqa: T201
    for name, found in figures.items():
        print(_row(name, found))  # noqa: T201
    left_out = [writer.name for writer in chosen if writer.name not in figures]
    print(f"{time.monotonic() - began:.0f} s; left out: {', '.join(left_out) or 'none'}")  # noqa: T201
    broken = [
        f"BROKEN: {each.name}: {what}"
        for each in chosen
        if each.name in figures
        for what in figures[each.name].breaches(each)
    ]
    if broken:
        print("\n".join(broken), f"kept: {root}", sep="\n")  # noqa: T201
        return 1
    shutil.rmtree(root)
    return 0


def _row(name: str, found: Figures) -> str:
    waited = ", ".join(f"{count} {cause}" for cause, count in sorted(found.waited.items()))
    cells = (name, found.files, found.filed, found.torn, found.sent_twice, found.warned, waited)
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    sys.exit(main())
