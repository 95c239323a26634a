"""A provider wrapped with one rule's preparation of recordings.

Guarantees: the file itself is never changed; a recording that needs nothing goes to the provider as it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from dropscribe.core.errors import AudioRejected
from dropscribe.media.fitting import decide_fit, is_too_large, is_too_long, too_large
from dropscribe.media.sending import Decoding, PieceSender, WaitForTurn
from dropscribe.native.decoder import Source
from dropscribe.native.recording import OTHER_TRACKS, Recording, Survey, is_raw
from dropscribe.transcripts.model import Transcript

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import FolderRule, ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.media.spool import Spool
    from dropscribe.providers.base import Provider

    Params = Mapping[str, ParamValue]

log = structlog.get_logger()

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
