"""Parses the command line, runs the command, and turns errors into messages and exit codes.

Commands are imported on demand, so that ``--help`` loads argparse alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dropscribe import __version__
from dropscribe.cli import exit_codes
from dropscribe.cli.process import STANDARD_OUTPUT, discard_unwritten_output, prepare_standard_streams

COMMANDS = {
    "run": "run the daemon in the foreground; --once: until nothing more can be done now",
    "check": "check the config and every folder; --online: the providers too",
    "plan": "dry run: list the files that would be taken, their cost, and the others with the reason",
    "status": "show current problems, and the number of waiting, running, held, done and failed files",
    "list": "list files, newest first, with their place or the reason",
    "search": "find words in the transcripts of finished files, with the time of each hit",
    "why": "explain one file: its rule, its state, the reason for its wait, every attempt",
    "retry": "move failed files back into their inbox",
    "release": "start the files that were in an inbox before its rule's first start (backlog: ask)",
    "forget": "delete the stored answers of a recording, given by its file or its SHA-256",
    "transcribe": "transcribe files with one provider, to standard output or into a folder, without a rule",
    "init": "write a commented config and make its folders, ready for run",
    "schema": "print the config's JSON Schema, for editors",
}

EPILOG = """\
The config is -c, else $DROPSCRIBE_CONFIG, else ./dropscribe.yaml (yours or root's, in a folder that nobody
else may write to), else $XDG_CONFIG_HOME/dropscribe/config.yaml, else /etc/dropscribe/config.yaml.

exit codes: 0 all well, 2 usage, 3 some file failed, 69 another daemon has this state directory or
inbox, 70 a bug, 74 input/output, 75 something is left waiting, 78 config
"""


def _age_seconds(text: str) -> float:
    from dropscribe.config.notation.quantities import parse_duration  # noqa: PLC0415  # not paid for by --help

    try:
        return parse_duration(text)
    except ValueError as error:
        words = ", ".join(map(str, filter(None, error.args)))
        raise argparse.ArgumentTypeError(f"{text!r} {words}") from error


def _file_limit(text: str) -> int:
    digits = text.lstrip("0")
    if not text.isdecimal() or not digits:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    # More than any queue has; databases take no integer above 2**63 - 1.
    return int(digits) if len(digits) < 10 else 10**9


def _given(text: str) -> str:
    """The value of an argument; an empty one comes from a script's variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("the value is empty")
    return text


def _argument(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The arguments of one ``add_argument``: of a flag, or with a metavar of a text that is not empty."""
    kind = {"type": _given} if "metavar" in settings else {"action": "store_true"}
    return names, {**kind, **settings}


_CONFIG = _argument("-c", "--config", metavar="CONFIG", help="the config file")
_JSON = _argument("--json", help="one JSON object with stable keys")
_FOLDER = _argument("--folder", metavar="NAME", help="files of this rule only")


def _limit(most: int) -> tuple[tuple[str, ...], dict[str, Any]]:
    words = f"at most N files; default: {most}"
    return _argument("--limit", metavar="N", type=_file_limit, default=most, help=words)


_FORMATS = {"action": "store", "choices": ("txt", "json", "srt", "vtt", "md"), "default": "txt"}
_WORDS = "words that a transcript must all contain, or a quoted phrase"
_SUSPECT = "files that were transcribed with a warning in their .json: no words found, incomplete audio, …"
_OUTPUT = "write into DIR, which is made if missing, instead of standard output"
_RECORDINGS = "an audio file in any folder, or its digest"
_AUDIO = "audio files, which are not moved; - is standard input"

_WITHOUT_CONFIG = {"init", "schema"}
_WITH_JSON = {"check", "plan", "status", "list", "search", "why"}
_ARGUMENTS = {
    "run": [_argument("--once", help="work until nothing more can be done, then exit")],
    "check": [
        _argument("--online", help="ask each provider, without paying for audio"),
        _argument("-q", "--quiet", help="print problems only"),
    ],
    "list": [
        _argument("--failed", help="files that failed"),
        _argument("--waiting", help="files that are not finished"),
        _argument("--done", help="files that were transcribed"),
        _argument("--suspect", help=_SUSPECT),
        _FOLDER,
        _argument("--since", metavar="AGE", type=_age_seconds, help="files of the last 30m, 12h, 2d, …"),
        _limit(100),
    ],
    "search": [_argument("words", nargs="+", metavar="WORDS", help=_WORDS), _FOLDER, _limit(20)],
    "why": [_argument("file", metavar="FILE", help="a file in an inbox, in done or in failed")],
    "retry": [
        _argument("files", nargs="*", metavar="FILE", help="audio files in a failed folder"),
        _argument("--folder", metavar="NAME", help="every failed file of this rule"),
        _argument("--all", help="every failed file of every rule"),
    ],
    "release": [
        _argument("--folder", metavar="NAME", required=True, help="the rule whose files are released")
    ],
    "forget": [_argument("recordings", nargs="+", metavar="FILE|SHA256", help=_RECORDINGS)],
    "transcribe": [
        _argument("files", nargs="+", metavar="FILE", help=_AUDIO),
        _argument("--provider", metavar="NAME", help="default: the only one, or the first in the config"),
        _argument("--format", **_FORMATS, help="default: txt"),
        _argument("--output", metavar="DIR", help=_OUTPUT),
    ],
    "init": [
        _argument("directory", nargs="?", default=".", metavar="DIR", help="default: the current folder")
    ],
    "schema": [_argument("--transcript", help="print the schema of a transcript's JSON instead")],
}
"""Arguments of the commands, beside ``--config`` and ``--json``."""


class _Parser(argparse.ArgumentParser):
    """A parser whose errors print names as text: a pattern of the shell stands for names of any kind."""

    def error(self, message: str) -> NoReturn:
        from dropscribe.core.text.printing import escape_text  # noqa: PLC0415  # not paid for by --help

        super().error(escape_text(message))


def build_parser() -> argparse.ArgumentParser:
    """The whole parser, also for the man page and completion."""
    parser = _Parser(
        prog="dropscribe",
        description="Turns drop folders of audio into transcripts, and loses nothing.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dropscribe {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        shared = [] if name in _WITHOUT_CONFIG else [_CONFIG]
        shared += [_JSON] if name in _WITH_JSON else []
        for names, settings in [*shared, *_ARGUMENTS.get(name, ())]:
            command.add_argument(*names, **settings)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    prepare_standard_streams(is_own_process=arguments is None)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # noqa: BLE001  # the outermost edge: every error becomes words
        if isinstance(error, BrokenPipeError) and error.filename == STANDARD_OUTPUT:
            code = exit_codes.OK  # the reader has gone: `| head`
        else:
            from dropscribe.cli.messages import report_error  # noqa: PLC0415  # not paid for by --help

            code = report_error(error)
    discard_unwritten_output()
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = build_parser().parse_args(arguments)
    except SystemExit as end:  # --help, --version, or a mistake in the arguments
        return int(end.code or exit_codes.OK)
    # Not paid for by --help.
    from dropscribe.service.process import exit_on_stop, prepare_process, switch_user  # noqa: PLC0415

    switch_user(os.environ)
    with contextlib.ExitStack() as stack:
        if options.command == "run":
            prepare_process()  # a SIGHUP is not lost, and ends nothing, while the rest is loaded
            stack.enter_context(exit_on_stop(exit_codes.LEFT_WAITING if options.once else exit_codes.OK))
        command = importlib.import_module(f"dropscribe.cli.commands.{options.command}")
        return int(command.execute(options) or exit_codes.OK)
