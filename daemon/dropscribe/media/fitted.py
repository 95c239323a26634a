"""A provider with what one rule wants done with its recordings before they are sent.

Guarantees: the file itself is never changed; a recording that needs nothing goes to the provider as it is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from dropscribe.media.fitting import decide_fit, is_too_large, is_too_long, too_large
from dropscribe.media.recording import read_recording
from dropscribe.media.sending import PieceByPiece
from dropscribe.media.survey import survey
from dropscribe.media.threaded import Decoding
from dropscribe.transcripts.model import Transcript

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import FolderRule, ProviderConfig
    from dropscribe.core.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.media.recording import Recording
    from dropscribe.media.spool import Spool
    from dropscribe.media.survey import Survey
    from dropscribe.providers.base import Provider

log = structlog.get_logger()

NO_SPEECH = "no_speech"
RAW_SUFFIXES = frozenset({".pcm", ".raw"})
"""Samples without a header: what FFmpeg would see in them is chance."""


@dataclass(frozen=True, slots=True)
class FittedProvider:
    """See :class:`dropscribe.providers.base.Provider`."""

    inner: Provider
    config: ProviderConfig
    rule: FolderRule
    spool: Spool

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """Make *audio* fit and have it transcribed, in pieces where it must be.

        Raises:
            AudioRejected: Also "too_large" and "undecodable", where it cannot be made to fit.
            OSError: The spool's disk.
        """
        decoding = Decoding(audio)
        recording = await self._recording(decoding)
        if recording is None:
            return await self._as_it_is(audio, params)
        found = await self._survey(recording, decoding)
        if found is not None and self._is_silent(found):
            log.info("recording.silent", folder=self.rule.name, name=os.fsdecode(audio.name))
            silence = Transcript("", duration=found.seconds, warnings=(NO_SPEECH,))
            return _with_its_own_words(silence, recording)
        is_split = self._may_split(recording) and found is not None and found.channels_differ
        measured = replace(recording, seconds=found.seconds) if found and found.is_whole else recording
        fit = decide_fit(self.rule, self.config, measured, audio.size_bytes, is_split=is_split)
        if fit is None:
            return _with_its_own_words(await self._as_it_is(audio, params), recording)
        sending = PieceByPiece(self.inner, self.config, self.spool, decoding, fit)
        return _with_its_own_words(await sending.transcribe(params, measured.seconds, found), recording)

    async def probe(self) -> str:
        """As the provider itself."""
        return await self.inner.probe()

    async def close(self) -> None:
        """Nothing to let go of: the provider is closed by whoever made it."""

    async def _recording(self, decoding: Decoding) -> Recording | None:
        audio = decoding.audio
        if audio.suffix in RAW_SUFFIXES:
            return None
        return await decoding.run(lambda: read_recording(audio.reader(), audio.head))

    async def _as_it_is(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        if is_too_large(self.config, audio.size_bytes):
            raise too_large(self.config, audio.size_bytes)
        return await self.inner.transcribe(audio, params)

    async def _survey(self, recording: Recording, decoding: Decoding) -> Survey | None:
        """A look through the whole, where the rule asks what no header tells."""
        reader = decoding.audio.reader()
        if self._may_split(recording) or self._may_be_cut(recording):
            return await decoding.run(lambda: survey(reader, decoding.stop))
        if self.rule.silence == "skip":
            until_dbfs = self.rule.silence_threshold_dbfs
            return await decoding.run(lambda: survey(reader, decoding.stop, until_dbfs=until_dbfs))
        return None

    def _may_split(self, recording: Recording) -> bool:
        return self.rule.channels == "split" and recording.channels == 2

    def _may_be_cut(self, recording: Recording) -> bool:
        return self.rule.prepare != "never" and is_too_long(self.config, recording.seconds)

    def _is_silent(self, found: Survey) -> bool:
        # What cannot be decoded to its end is sent: the sound may be behind the damage.
        is_quiet = found.loudest_dbfs <= self.rule.silence_threshold_dbfs
        return self.rule.silence == "skip" and found.is_whole and is_quiet


def _with_its_own_words(transcript: Transcript, recording: Recording) -> Transcript:
    """What the recording says of itself, beside what the provider says of it."""
    if recording.recorded_at is None:
        return transcript
    return replace(transcript, attributes={"recorded_at": recording.recorded_at, **transcript.attributes})
