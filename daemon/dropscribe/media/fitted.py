"""A provider wrapped with one rule's preparation of recordings; long ones are sent piece by piece.

Guarantees: the file itself is never changed; a recording that needs nothing goes to the provider as it is. An
answer to a piece is on disk before the next piece is sent, unless the disk refuses it, and is not paid for
again; a piece that the provider refuses is named as missing, unless it refuses all.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, TypeVar

import structlog

from dropscribe.config.model import FolderRule, ProviderConfig
from dropscribe.core.errors import AudioChanged, AudioRejected
from dropscribe.core.requests.params import ParamValue
from dropscribe.files.audio import AudioFile
from dropscribe.media.fitting import Fit, decide_cuts, decide_fit, is_too_large, is_too_long, too_large
from dropscribe.media.joining import Answered, join
from dropscribe.media.spool import Spool
from dropscribe.native.decoder import Decoder, Source
from dropscribe.native.recording import (
    OTHER_TRACKS,
    WINDOW_SECONDS,
    Piece,
    Recording,
    Survey,
    is_raw,
    raw_form,
)
from dropscribe.providers.base import Provider
from dropscribe.transcripts.model import Transcript

Params = Mapping[str, ParamValue]

log = structlog.get_logger()

Result = TypeVar("Result")

WaitForTurn = Callable[[str], Awaitable[None]]

# Assumed length of an only piece when disk space is checked; a longer one may fill the disk later.
LONGEST_SECONDS = 3600.0
# Limit of the wait for a cancelled thread: it ends with its worker, unless a dead mount blocks it.
_STOPPED_SECONDS = 5.0

NO_SPEECH = "no_speech"


@dataclass(frozen=True, slots=True)
class FittedProvider:
    """See :class:`dropscribe.providers.base.Transcriber`."""

    inner: Provider
    config: ProviderConfig
    rule: FolderRule
    spool: Spool
    wait_for_turn: WaitForTurn

    async def transcribe(self, audio: AudioFile, params: Params) -> Transcript:
        """Make *audio* fit and have it transcribed, in pieces where it must be.

        Also raises AudioRejected ("too_large", "undecodable") where it cannot be made to fit, and OSError for
        the spool's disk.
        """
        decoding = Decoding(audio)
        recording = await _described(decoding)
        if recording is None:
            return await self._as_it_is(audio, params)
        surveys = await self._surveys(recording, decoding)
        if self._is_silent(surveys):
            log.info("recording.silent", folder=self.rule.name, name=os.fsdecode(audio.name))
            end_seconds = surveys[recording.tracks[0]].end_seconds
            transcript = Transcript("", duration=end_seconds, warnings=(NO_SPEECH,))
        else:
            transcript = await self._fitted(recording, surveys, decoding, params)
        return self._annotated(transcript, recording, surveys)

    async def _fitted(
        self, recording: Recording, surveys: Mapping[int, Survey], decoding: Decoding, params: Params
    ) -> Transcript:
        measured = recording
        if (found := surveys.get(recording.tracks[0])) and found.is_whole:
            measured = replace(recording, seconds=found.sound_seconds)
        sources = self._sources(recording, surveys)
        fit = decide_fit(self.rule, self.config, measured, decoding.audio.size_bytes, sources)
        if fit is None:
            return await self._as_it_is(decoding.audio, params)
        sending = PieceSender(self.inner, self.config, self.spool, decoding, fit, self.wait_for_turn)
        return await sending.transcribe(params, measured.seconds, surveys)

    async def _as_it_is(self, audio: AudioFile, params: Params) -> Transcript:
        if is_too_large(self.config, audio.size_bytes):
            raise too_large(self.config, audio.size_bytes)
        return await self.inner.transcribe(audio, params)

    async def _surveys(self, recording: Recording, decoding: Decoding) -> dict[int, Survey]:
        """Survey each track to be transcribed, if the rule needs facts that no header has."""
        may_be_cut = self.rule.prepare != "never" and is_too_long(self.config, recording.seconds)
        needs_all = may_be_cut or self._may_split(recording)
        if not needs_all and self.rule.silence != "skip":
            return {}
        until_dbfs = None if needs_all else self.rule.silence_threshold_dbfs
        survey = partial(decoding.decoder.survey, until_dbfs=until_dbfs)
        return {track: await decoding.run(partial(survey, track)) for track in recording.tracks}

    def _sources(self, recording: Recording, surveys: Mapping[int, Survey]) -> tuple[Source, ...]:
        first = recording.tracks[0]
        if self.rule.tracks == "all" and len(recording.tracks) > 1:
            return tuple(Source(track, None, f"track_{track}") for track in recording.tracks)
        if self._may_split(recording) and surveys[first].channels_differ:
            return tuple(Source(first, channel, f"channel_{channel}") for channel in (0, 1))
        return (Source(first),)

    def _may_split(self, recording: Recording) -> bool:
        return self.rule.channels == "split" and recording.channels == 2

    def _is_silent(self, surveys: Mapping[int, Survey]) -> bool:
        # A recording that cannot be decoded to its end is sent: the sound may come after the damage.
        threshold = self.rule.silence_threshold_dbfs
        is_quiet = all(found.is_whole and found.loudest_dbfs <= threshold for found in surveys.values())
        return self.rule.silence == "skip" and bool(surveys) and is_quiet

    def _annotated(
        self, transcript: Transcript, recording: Recording, surveys: Mapping[int, Survey]
    ) -> Transcript:
        """Add the recording's own metadata to the provider's."""
        told: dict[str, object] = {"recorded_at": recording.recorded_at} if recording.recorded_at else {}
        if surveys and not transcript.text.strip():
            told["loudest_dbfs"] = round(max(found.loudest_dbfs for found in surveys.values()), 1)
        warnings = transcript.warnings
        if self.rule.tracks == "default" and len(recording.tracks) > 1 and OTHER_TRACKS not in warnings:
            warnings = (*warnings, OTHER_TRACKS)
        return replace(transcript, attributes={**told, **transcript.attributes}, warnings=warnings)


async def _described(decoding: Decoding) -> Recording | None:
    """The open recording's description; None if we cannot read it, though the provider may."""
    if is_raw(decoding.audio.suffix, decoding.audio.head):  # FFmpeg's guess would be arbitrary
        return None
    try:
        return await decoding.run(decoding.decoder.describe)
    except AudioRejected:
        return None


class Decoding:
    """Decoding of one open recording for an attempt that may be cancelled at any time.

    A cancelled attempt is left within seconds, and its worker process is ended.
    """

    def __init__(self, audio: AudioFile) -> None:
        self.audio = audio
        self.decoder = Decoder(audio.fileno(), raw_form(audio.suffix, audio.head))

    async def run(self, work: Callable[[], Result]) -> Result:
        """The result of *work* in a thread of the recording's folder; AudioChanged if a change failed it."""
        running = asyncio.get_running_loop().run_in_executor(self.audio.executor, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self.decoder.cancel()
            # The descriptor is closed after this: the thread must not read another file through its number.
            await asyncio.wait([running], timeout=_STOPPED_SECONDS)
            if running.done() and not running.cancelled():
                running.exception()  # retrieved, so that asyncio does not report it
            raise
        except AudioRejected:
            if not self.audio.recheck():  # cut short or rewritten meanwhile: no fault of the audio
                raise AudioChanged(self.audio.name, "changed while it was decoded") from None
            raise


@dataclass(slots=True)
class PieceSender:
    """Sends one recording in pieces, for one attempt."""

    provider: Provider
    config: ProviderConfig
    spool: Spool
    decoding: Decoding
    fit: Fit
    wait_for_turn: WaitForTurn  # Waits until the named provider's rate allows another request
    _parts: list[Answered] = field(default_factory=list)
    _refusal: AudioRejected | None = None
    _has_sent: bool = False

    async def transcribe(
        self, params: Params, seconds: float | None, surveys: Mapping[int, Survey]
    ) -> Transcript:
        """The joined answers.

        Args:
            params: As the provider gets them, for each piece.
            seconds: The length of the first source's track as far as it is known.
            surveys: Earlier surveys of its tracks; a missing one is made here if cuts need it.

        Raises:
            ProviderError: A piece's temporary failure, or the first refusal where all are refused.
            AudioChanged, OSError: As :meth:`Provider.transcribe`, and the spool's disk.
        """
        tracks = {source.track for source in self.fit.sources}
        cuts = {track: await self._cuts(track, seconds, surveys.get(track)) for track in tracks}
        audio = self.decoding.audio
        sha256 = await audio.ensure_sha256()
        audio.progress.pieces = count = sum(len(cuts[source.track]) + 1 for source in self.fit.sources)
        told = {"provider": self.config.name, "name": os.fsdecode(audio.name)}
        log.info("recording.prepared", **told, codec=self.fit.format.codec, pieces=count)
        for source in self.fit.sources:
            await self._send_source(source, cuts[source.track], sha256, params)
        if all(part.answer is None for part in self._parts):
            raise self._refusal or AudioRejected("undecodable", "it is too short to be decoded")
        with contextlib.suppress(OSError):  # unmarked, the answers are only kept longer
            await asyncio.to_thread(self.spool.mark_whole, sha256)
        length = max(part.piece.end for part in self._parts)
        warning = self.decoding.decoder.warning
        return await asyncio.to_thread(join, self._parts, length, [warning] if warning else [])

    async def _cuts(self, track: int, seconds: float | None, found: Survey | None) -> list[float]:
        longest = self.fit.longest_seconds
        is_first = track == self.fit.sources[0].track
        if longest == math.inf or (is_first and seconds is not None and seconds <= longest):
            return []
        # A survey that ended at the first sound does not cover the rest.
        if found is None or not found.is_whole:
            found = await self.decoding.run(partial(self.decoding.decoder.survey, track))
        return decide_cuts(found.loudness, WINDOW_SECONDS, found.sound_seconds, longest)

    async def _send_source(self, source: Source, cuts: list[float], sha256: str, params: Params) -> None:
        keys = [(sha256, self._key(params, source, cuts, number)) for number in range(len(cuts) + 1)]
        stored = await asyncio.to_thread(lambda: [self.spool.read_answer(*key) for key in keys])
        known = {number for number, answer in enumerate(stored) if answer is not None}
        longest = self.fit.longest_seconds if cuts else min(self.fit.longest_seconds, LONGEST_SECONDS)
        most_bytes = self.fit.format.most_bytes(longest)
        make_file = partial(self.spool.new_piece, most_bytes)
        pieces = self.decoding.decoder.encode(source, self.fit.format, cuts, known, make_file)
        count = 0
        try:
            while (made := await self.decoding.run(lambda: next(pieces, None))) is not None:
                piece, file = made
                # A worker that a recording has taken over may repeat a piece, or skip one that is not known.
                is_next = piece.number == count < len(keys)
                if not is_next or (file is None) != (count in known):
                    raise AudioRejected("undecodable", "the decoder gave no usable answer")
                count += 1
                if file is None:
                    self._parts.append(Answered(piece, source, stored[piece.number]))
                else:
                    await self._send(piece, file, source, keys[piece.number], params)
        finally:
            # Not on the event loop: it waits for the end of a worker that is still at work.
            await asyncio.shield(asyncio.to_thread(_close, pieces))

    async def _send(
        self, piece: Piece, file: BinaryIO, source: Source, key: tuple[str, str], params: Params
    ) -> None:
        recording = self.decoding.audio
        name = f"piece-{piece.number + 1}{self.fit.format.suffix}".encode()
        try:
            with file, AudioFile(os.dup(file.fileno()), name, recording.executor) as audio:
                if is_too_large(self.config, audio.size_bytes):
                    raise too_large(self.config, audio.size_bytes)
                recording.progress.piece = len(self._parts) + 1
                if self._has_sent:
                    await self.wait_for_turn(self.config.name)
                self._has_sent = True  # the first piece has waited for the rate limit in the queue
                answer = await self.provider.transcribe(audio, params)
        except AudioRejected as refusal:
            log.warning("piece.refused", provider=self.config.name, code=refusal.code, start=piece.start)
            self._refusal = self._refusal or refusal
            self._parts.append(Answered(piece, source, None, refusal.code))
            return
        if not recording.recheck():
            raise AudioChanged(recording.name, "changed while it was being transcribed")
        self._parts.append(Answered(piece, source, answer))
        try:
            await self.decoding.run(lambda: self.spool.write_answer(*key, answer))
        except OSError as error:
            # The answer is still in memory: only a crash would lose it.
            log.warning("piece.not_kept", provider=self.config.name, reason=error.strerror or str(error))

    def _key(self, params: Params, source: Source, cuts: list[float], number: int) -> str:
        """Digest of all settings that affect the answer to one piece, without its content."""
        settings = (self.config.type, self.config.url, self.config.model, sorted(params.items()))
        part = (self.fit.format.codec, source.track, source.channel)
        shaping = [*settings, *part, cuts[:number][-1:], cuts[number : number + 1]]
        return hashlib.sha256(json.dumps(shaping, default=str).encode()).hexdigest()


def _close(pieces: Generator[object]) -> None:
    with contextlib.suppress(ValueError):  # its thread still runs: it ends with the worker
        pieces.close()
