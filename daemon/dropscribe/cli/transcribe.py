"""``dropscribe transcribe FILE``: one file through one provider to standard output; no folder involved."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING

from dropscribe.cli import exit_codes
from dropscribe.cli.messages import say, show_path
from dropscribe.cli.options import log_to_stderr, named, read_config
from dropscribe.cli.progress import Progress
from dropscribe.config.build import has_local_engine
from dropscribe.config.find import find_config
from dropscribe.config.load import parse_config
from dropscribe.core.errors import AudioChanged, AudioRejected, ConfigError, Problem
from dropscribe.files.audio import AudioFile
from dropscribe.providers.build import build_provider
from dropscribe.transcripts.document import TranscriptFacts, transcript_document
from dropscribe.transcripts.render import RENDERERS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping
    from typing import Any

    from dropscribe.config.model import Config, ProviderConfig

_LOCAL_ALONE = "providers: {local: {type: local}}\n"


def execute(options: argparse.Namespace) -> int:
    """Transcribe and print; 3 where the provider would not."""
    provider = _provider(options)
    log_to_stderr([provider])
    # Given on the command line, a symlink is what the user means.
    path = os.path.realpath(os.fsencode(options.file))
    with AudioFile.open(os.path.dirname(path), os.path.basename(path)) as audio:
        _refuse_unsendable(audio, provider)
        document = asyncio.run(_transcribe(audio, provider, options.format))
    rendered = RENDERERS[options.format](document)
    if rendered is None:
        say(f"dropscribe: {show_path(path)}: the answer has no times, which {options.format} needs")
        return exit_codes.SOME_FAILED
    sys.stdout.buffer.write(rendered)
    sys.stdout.buffer.flush()
    return exit_codes.OK


def _provider(options: argparse.Namespace) -> ProviderConfig:
    """The one that is named, else the first.

    Raises:
        ConfigError: There is none of that name, or none at all.
    """
    config = _config(options)
    if options.provider:
        return named(config.providers, "provider", options.provider, config)
    first = next(iter(config.providers.values()), None)
    if first is None:
        raise ConfigError((Problem("the config names no provider", file=str(config.path or "")),))
    return first


def _config(options: argparse.Namespace) -> Config:
    """The config; without any, the embedded engine with its defaults, where it is installed."""
    try:
        find_config(options.config)
    except ConfigError:
        if options.config or os.environ.get("DROPSCRIBE_CONFIG") or not has_local_engine():
            raise
        from pathlib import Path  # noqa: PLC0415  # for this case alone

        return parse_config(_LOCAL_ALONE, folder=Path.cwd(), environ=os.environ)[0]
    return read_config(options, keys_needed=True)


def _refuse_unsendable(audio: AudioFile, provider: ProviderConfig) -> None:
    if audio.size_bytes == 0:
        raise AudioRejected("empty_file", "the file is empty")
    limit_bytes = provider.max_upload_bytes
    if limit_bytes is not None and audio.size_bytes > limit_bytes:
        raise AudioRejected("too_large", f"{audio.size_bytes} bytes; max_upload is {limit_bytes}")


async def _transcribe(audio: AudioFile, config: ProviderConfig, form: str) -> Mapping[str, Any]:
    provider = build_provider(config)
    began_at = time.time()
    try:
        with Progress(f"{show_path(audio.name)}: with {config.name}"):
            transcript = await provider.transcribe(audio, config.params)
        sha256 = await audio.ensure_sha256()
    finally:
        await provider.close()
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
    )
    return transcript_document(transcript, facts, outputs=(form,))
