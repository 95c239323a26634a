"""Parses the command line, runs the command, and turns errors into messages and exit codes.

Commands are imported on demand, so that ``--help`` loads argparse alone.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING

from dropscribe import __version__
from dropscribe.cli import exit_codes
from dropscribe.cli.loading import loading_for_good
from dropscribe.cli.streams import discard_unwritten_output, prepare_standard_streams

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def build_parser() -> argparse.ArgumentParser:
    """The whole parser, also for the man page and completion."""
    parser = argparse.ArgumentParser(
        prog="dropscribe",
        description="Turns drop folders of audio into transcripts, and loses nothing.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dropscribe {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        _ARGUMENTS[name](command)
    return parser


def _config_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("-c", "--config", metavar="CONFIG", help="the config file")


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="one JSON object with stable keys")


def _run_arguments(command: argparse.ArgumentParser) -> None:
    _config_option(command)
    command.add_argument("--once", action="store_true", help="work until nothing more can be done, then exit")


def _check_arguments(command: argparse.ArgumentParser) -> None:
    _config_option(command)
    _json_option(command)
    command.add_argument("--online", action="store_true", help="ask each provider, without paying for audio")
    command.add_argument("-q", "--quiet", action="store_true", help="print problems only")


def _json_arguments(command: argparse.ArgumentParser) -> None:
    _config_option(command)
    _json_option(command)


def _why_arguments(command: argparse.ArgumentParser) -> None:
    _json_arguments(command)
    command.add_argument("file", metavar="FILE", help="a file in an inbox, in done or in failed")


def _list_arguments(command: argparse.ArgumentParser) -> None:
    _json_arguments(command)
    command.add_argument("--failed", action="store_true", help="files that failed")
    command.add_argument("--waiting", action="store_true", help="files that are not finished")
    command.add_argument("--done", action="store_true", help="files that were transcribed")
    command.add_argument(
        "--suspect",
        action="store_true",
        help="files that were transcribed with a warning in their .json: no words found, incomplete audio, …",
    )
    command.add_argument("--folder", metavar="NAME", help="files of this rule only")
    command.add_argument(
        "--since", metavar="AGE", type=_age_seconds, help="files of the last 30min, 12h, 2d, …"
    )
    command.add_argument(
        "--limit", metavar="N", type=_positive, default=100, help="at most N files; default: 100"
    )


def _search_arguments(command: argparse.ArgumentParser) -> None:
    _json_arguments(command)
    command.add_argument(
        "words",
        nargs="+",
        metavar="WORDS",
        help="words that a transcript must all contain, or a quoted phrase",
    )
    command.add_argument("--folder", metavar="NAME", help="files of this rule only")
    command.add_argument(
        "--limit", metavar="N", type=_positive, default=20, help="at most N files; default: 20"
    )


def _age_seconds(text: str) -> float:
    from dropscribe.config.notation.quantities import parse_duration  # noqa: PLC0415  # not paid for by --help

    try:
        return parse_duration(text)
    except ValueError as error:
        words = ", ".join(str(part) for part in error.args if part)
        raise argparse.ArgumentTypeError(f"{text!r} {words}") from error


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _retry_arguments(command: argparse.ArgumentParser) -> None:
    _config_option(command)
    command.add_argument("files", nargs="*", metavar="FILE", help="audio files in a failed folder")
    command.add_argument("--folder", metavar="NAME", help="every failed file of this rule")
    command.add_argument("--all", action="store_true", help="every failed file of every rule")


def _release_arguments(command: argparse.ArgumentParser) -> None:
    _config_option(command)
    command.add_argument("--folder", metavar="NAME", required=True, help="the rule whose files are released")


def _forget_arguments(command: argparse.ArgumentParser) -> None:
    _config_option(command)
    command.add_argument(
        "recordings", nargs="+", metavar="FILE|SHA256", help="an audio file in any folder, or its digest"
    )


def _transcribe_arguments(command: argparse.ArgumentParser) -> None:
    _config_option(command)
    command.add_argument(
        "files", nargs="+", metavar="FILE", help="audio files, which are not moved; - is standard input"
    )
    command.add_argument(
        "--provider", metavar="NAME", help="default: the only one, or the first in the config"
    )
    command.add_argument(
        "--format", choices=("txt", "json", "srt", "vtt", "md"), default="txt", help="default: txt"
    )
    command.add_argument("--output", metavar="DIR", help="write into DIR instead of standard output")


def _schema_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--transcript", action="store_true", help="print the schema of a transcript's JSON instead"
    )


def _init_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "directory", nargs="?", default=".", metavar="DIR", help="default: the current folder"
    )


_ARGUMENTS = {
    "run": _run_arguments,
    "check": _check_arguments,
    "plan": _json_arguments,
    "status": _json_arguments,
    "list": _list_arguments,
    "search": _search_arguments,
    "why": _why_arguments,
    "retry": _retry_arguments,
    "release": _release_arguments,
    "forget": _forget_arguments,
    "transcribe": _transcribe_arguments,
    "init": _init_arguments,
    "schema": _schema_arguments,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    prepare_standard_streams()
    options = build_parser().parse_args(arguments)
    try:
        from dropscribe.service.identity import take_on_identity  # noqa: PLC0415  # not paid for by --help

        take_on_identity(os.environ)
        # A caller that passes arguments shares its process with us.
        with contextlib.nullcontext() if arguments is not None else loading_for_good():
            command = importlib.import_module(f"dropscribe.cli.commands.{options.command}")
        code = int(command.execute(options))
        sys.stdout.flush()
    except BrokenPipeError:
        discard_unwritten_output()  # the reader has gone: `| head`
        return exit_codes.OK
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  # the outermost edge: every error becomes words
        from dropscribe.cli.messages import explain  # noqa: PLC0415  # not paid for by --help

        discard_unwritten_output()
        return explain(error)
    return code
