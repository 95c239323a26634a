"""``dropscribe transcribe FILE…``: transcribes files with one provider, without a folder rule.

The transcripts go to standard output, or into a folder. Nothing that is there is overwritten.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dropscribe.cli import exit_codes
from dropscribe.cli.messages import report_file_error, say, showing_progress
from dropscribe.cli.options import log_to_stderr, named, read_config
from dropscribe.cli.process import naming, require_standard_output, write_new
from dropscribe.config.extras import is_installed
from dropscribe.config.find import find_config
from dropscribe.config.load import parse_config
from dropscribe.config.model import ProviderConfig
from dropscribe.config.sections.http_api import AnswerKeys
from dropscribe.core.errors import (
    AudioChanged,
    AudioError,
    AudioRejected,
    AudioUnsafe,
    ConfigError,
    ProviderError,
)
from dropscribe.core.naming import free_name, split_name
from dropscribe.core.text.printing import plural
from dropscribe.files.audio import AudioFile
from dropscribe.files.mounts import require_proc
from dropscribe.providers.base import Provider
from dropscribe.providers.build import build_provider
from dropscribe.providers.values import number
from dropscribe.queue.model import rate_window
from dropscribe.reports.timed_calls import ask_disk
from dropscribe.reports.wording import render_table, show_path
from dropscribe.transcripts.document import TranscriptFacts, transcript_document
from dropscribe.transcripts.render import RENDERERS

_LONGEST_VALUE = 100
_LOCAL_ALONE = "providers: {local: {type: local}}\n"


def execute(options: argparse.Namespace) -> int:
    """Transcribe each file; 3 if a file was refused or its transcript cannot be written in that format."""
    require_proc()
    config = _provider(options)
    log_to_stderr([config])
    output = _output_folder(options.output) if options.output else None
    with asyncio.Runner() as runner:
        provider = build_provider(config)  # one for all files: the embedded engine loads its model once

        begun: list[float] = []  # monotonic times of the requests

        def send(audio: AudioFile) -> Mapping[str, Any]:
            _wait_for_rate(config, begun)
            return runner.run(_transcribe(audio, provider, config, options.format))

        try:
            return max(_transcribe_file(file, options, config, output, send) for file in options.files)
        finally:
            runner.run(provider.close())


def _wait_for_rate(provider: ProviderConfig, begun: list[float]) -> None:
    """Wait until the provider's rate limit allows one more request, and add that to *begun*."""
    if provider.requests_per_minute is not None:
        most, window_seconds = rate_window(provider.requests_per_minute)
        free_at = begun[-most] + window_seconds if len(begun) >= most else 0.0
        if (seconds := free_at - time.monotonic()) > 0:
            with showing_progress(f"waiting {seconds:.0f} s, by requests_per_minute of {provider.name}"):
                time.sleep(seconds)
    begun.append(time.monotonic())


def _transcribe_file(
    file: str,
    options: argparse.Namespace,
    config: ProviderConfig,
    output: bytes | None,
    send: Callable[[AudioFile], Mapping[str, Any]],
) -> int:
    """Write the transcript of one file; returns its exit code."""
    if output is None:
        require_standard_output()  # before its transcript is paid for
    try:
        with _opened(file) as audio:
            name = audio.name
            _refuse_unsendable(audio, config)
            document = send(audio)
        rendered = RENDERERS[options.format](document)
    except (AudioError, ProviderError, OSError) as error:
        if len(options.files) == 1 and not isinstance(error, AudioError):
            raise
        return report_file_error(os.fsencode(file), error)
    if rendered is None:
        reason = "the provider heard no words"
        if document["text"]:
            reason = f"the answer has no times, which {options.format} needs"
        say(f"dropscribe: {show_path(os.fsencode(file))}: {reason}")
        return exit_codes.SOME_FAILED
    _put_out(rendered, name, options.format, output)
    return exit_codes.OK


def _output_folder(name: str) -> bytes:
    """The folder of ``--output``, made with its parents and tried before anything is paid for; or OSError."""
    folder = os.fsencode(name)

    def make() -> None:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass

    try:
        ask_disk(folder, make)
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(error.errno, f"no transcript can be written there: {reason}", name) from error
    return folder


def _put_out(rendered: bytes, name: bytes, form: str, output: bytes | None) -> None:
    """Write to standard output, or to a file with the audio's stem or the next free number in *output*.

    An error ends the command, because the next transcripts would be paid for and lost.
    """
    if output is None:
        sys.stdout.buffer.write(rendered)
        sys.stdout.buffer.flush()
        return
    wanted = split_name(os.path.basename(name))[0] + b"." + form.encode()
    while True:
        free = free_name(wanted, lambda name: not os.path.lexists(os.path.join(output, name)))
        path = os.path.join(output, free)
        with contextlib.suppress(FileExistsError):
            write_new(os.fsdecode(path), rendered)
            break
    sys.stdout.write(show_path(path) + "\n")


@contextlib.contextmanager
def _opened(file: str) -> Iterator[AudioFile]:
    """The audio; ``-`` is standard input, copied into a file that has no name and so never stays behind."""
    if file == "-":
        with naming("the copy of standard input"), tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
            audio = AudioFile(os.dup(copy.fileno()), b"stdin")
    else:
        path = ask_disk(os.fsencode(file), lambda: _resolved(os.fsencode(file)))
        audio = ask_disk(path, lambda: AudioFile.open(*os.path.split(path)))
    with audio:
        yield audio


def _resolved(file: bytes) -> bytes:
    """The path that *file* leads to: a symlink on the command line is followed, since the user named it."""
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.stat(file).st_mode):
            raise AudioUnsafe(file, "a pipe is not a regular file; `-` reads standard input")
    return os.path.realpath(file)


def _provider(options: argparse.Namespace) -> ProviderConfig:
    """The provider that the options name, else the config's first; the embedded engine without any config."""
    try:
        find_config(options.config)
    except ConfigError:
        if options.config or os.environ.get("DROPSCRIBE_CONFIG") or not is_installed("local"):
            raise
        config = parse_config(_LOCAL_ALONE, folder=Path.cwd(), environ=os.environ)[0]
    else:
        config = read_config(options, keys_needed=True)
    name = options.provider or next(iter(config.providers))
    return named(config.providers, "provider", name, config)


def _refuse_unsendable(audio: AudioFile, provider: ProviderConfig) -> None:
    if audio.size_bytes == 0:
        raise AudioRejected("empty_file", "the file is empty")
    most = provider.max_upload_bytes
    if most is not None and audio.size_bytes > most:
        raise AudioRejected("too_large", f"{audio.size_bytes} bytes; max_upload is {most}")


async def _transcribe(
    audio: AudioFile, provider: Provider, config: ProviderConfig, form: str
) -> Mapping[str, Any]:
    began_at = time.time()
    with showing_progress(f"{show_path(audio.name)}: with {config.name}"):
        transcript = await provider.transcribe(audio, config.params)
    if config.answer is not None:
        say(_found_table(config.answer, transcript.raw))
    sha256 = await audio.ensure_sha256()
    if not audio.recheck():
        raise AudioChanged(audio.name, "changed while it was being transcribed")
    answered_at = time.time()
    facts = TranscriptFacts(
        path=audio.name,
        size_bytes=audio.size_bytes,
        sha256=sha256,
        modified_at=audio.snapshot.mtime_ns / 1e9,
        provider_name=config.name,
        provider_type=config.type,
        params=config.params,
        folder=None,
        attempts=1,
        received_at=began_at,
        transcribed_at=answered_at,
        elapsed_seconds=answered_at - began_at,
        outputs=(form,),
    )
    return transcript_document(transcript, facts)


def _found_table(keys: AnswerKeys, answer: Mapping[str, Any]) -> str:
    """Table of the value that each expression of *keys* found in *answer*."""
    from dropscribe.providers.vendors.described import found_values  # noqa: PLC0415 - loads JMESPath

    found, expressions = found_values(keys, answer), keys.expressions()
    rows = [[field, _found_words(value), expressions[field]] for field, value in found.items()]
    return render_table(["FIELD", "FOUND", "BY"], rows)


def _found_words(value: Any) -> str:
    if value is None:
        return "nothing"
    if value == []:
        return plural(0, "item")
    text = json.dumps(value[0] if isinstance(value, list) else value, ensure_ascii=False)
    shown = text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
    if isinstance(value, str):
        return f"{plural(len(value), 'character')}: {shown}"
    if not isinstance(value, list):
        return shown
    return f"{plural(len(value), 'item')}, the first: {shown}{_unread(value[0])}"


def _unread(item: Any) -> str:
    """The parts of a word or segment that cannot be read, as an addition; "" for none."""
    if not isinstance(item, dict):
        return "; it is no object, so it is not read"
    told = {name: item.get(name) for name in ("start", "end", "duration")}
    odd = [name for name, value in told.items() if value is not None and number(value) is None]
    return f"; not read as a time: {', '.join(odd)}" if odd else ""
