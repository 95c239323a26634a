"""Decides how one recording is re-encoded and cut so that its provider accepts it.

Guarantees: pure; the same loudness gives the same cuts, so that stored answers to pieces are found again; no
piece is longer than the limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dropscribe.config.model import FolderRule, ProviderConfig
from dropscribe.config.sections.provider import SHORTEST_PIECE_SECONDS
from dropscribe.core.errors import AudioRejected
from dropscribe.native.decoder import Format, Source
from dropscribe.native.recording import Recording

_PCM = ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_u8", "pcm_f32le")

_TAKEN: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "pulse": {"wav": (*_PCM, "pcm_mulaw", "pcm_alaw"), "mp4": ("aac", "alac")}
    | {"mp3": (), "flac": (), "ogg": ("vorbis", "opus"), "webm": ("vorbis", "opus")},
    "reson8": dict.fromkeys(("wav", "flac", "ogg", "webm", "mp4", "mov", "3gp"), ()),
    "openai": {"wav": _PCM, **dict.fromkeys(("mp3", "flac", "ogg", "mp4", "webm"), ())},
}
"""Type of provider → container → codecs; () is any. From the vendors' lists of formats.
A type that is not here (the embedded engine) takes everything that can be decoded."""

SEARCH_SECONDS = 60.0  # Distance around its target within which a cut looks for a pause; less in short pieces
_PAUSE_WINDOWS = 5  # a cut wants half a second of quiet: the gap inside a word's plosive is shorter


FLAC = Format("flac", "flac", ".flac", 33_000)
# 32 kbit/s: a quarter of a telephone's WAV at 8 kHz, an eighth of one at 16 kHz.
OPUS = Format("ogg", "libopus", ".ogg", 4_400, (("b", "32000"), ("vbr", "off"), ("application", "voip")))


@dataclass(frozen=True, slots=True)
class Fit:
    """The encoding, longest piece and sources of one recording."""

    format: Format
    longest_seconds: float  # Of a piece; infinite where nothing limits it
    sources: tuple[Source, ...] = (Source(),)


def is_taken(provider_type: str, recording: Recording) -> bool:
    """Whether a provider of this type takes *recording*'s container and codec as they are.

    A recording with several audio tracks is not taken, because the provider would choose one of them itself.
    """
    if provider_type not in _TAKEN:
        return True
    if recording.tracks != (0,):
        return False
    if provider_type == "pulse" and (recording.has_video or recording.channels > 1):
        return False
    codecs = _TAKEN[provider_type].get(recording.container)
    return codecs is not None and (not codecs or recording.codec in codecs)


def is_too_large(provider: ProviderConfig, size_bytes: int) -> bool:
    """Whether a file of *size_bytes* is over the provider's ``max_upload``."""
    return provider.max_upload_bytes is not None and size_bytes > provider.max_upload_bytes


def is_too_long(provider: ProviderConfig, seconds: float | None) -> bool:
    """Whether the recording exceeds ``max_duration``, or may do so because its header has no duration."""
    limit = provider.max_duration_seconds
    return limit is not None and (seconds is None or seconds > limit)


def decide_fit(
    rule: FolderRule,
    provider: ProviderConfig,
    recording: Recording,
    size_bytes: int,
    sources: tuple[Source, ...],
) -> Fit | None:
    """Decide how to make *recording* fit; None means that it is sent unchanged.

    *sources* are the parts that are transcribed separately; one if nothing is. Raises AudioRejected
    ("too_large") where no piece would be small enough.
    """
    if len(sources) == 1:
        is_over = is_too_large(provider, size_bytes) or is_too_long(provider, recording.seconds)
        is_small = bool(recording.seconds and size_bytes <= OPUS.most_bytes(recording.seconds))
        is_enough = rule.prepare == "when_needed" or is_small  # else it is made as small as it can be
        if rule.prepare == "never" or (is_enough and not is_over and is_taken(provider.type, recording)):
            return None
    chosen = _format(rule, provider, recording.seconds)
    by_size = math.inf if provider.max_upload_bytes is None else chosen.seconds_in(provider.max_upload_bytes)
    longest_seconds = min(by_size, provider.max_duration_seconds or math.inf)
    if longest_seconds < SHORTEST_PIECE_SECONDS:
        raise too_large(provider, size_bytes)
    return Fit(chosen, longest_seconds, sources)


def too_large(provider: ProviderConfig, size_bytes: int) -> AudioRejected:
    """The refusal of a recording that does not fit."""
    reason = f"{size_bytes} bytes; {provider.name} takes {provider.max_upload_bytes} at most"
    return AudioRejected("too_large", reason)


def _format(rule: FolderRule, provider: ProviderConfig, seconds: float | None) -> Format:
    """FLAC, which is lossless, if its size forces no cut; else, or to save bandwidth, Opus."""
    piece_seconds = min(seconds or math.inf, provider.max_duration_seconds or math.inf)
    if rule.prepare == "always":
        return OPUS
    limit_bytes = provider.max_upload_bytes
    return FLAC if limit_bytes is None or FLAC.seconds_in(limit_bytes) >= piece_seconds else OPUS


def decide_cuts(
    loudness: Sequence[float], window_seconds: float, seconds: float, longest_seconds: float
) -> list[float]:
    """Seconds at which to cut; [] where the whole, of *seconds*, is not longer than *longest_seconds*.

    *loudness* is the mean square of each window of *window_seconds*, many of which make a piece.
    """
    cuts: list[float] = []
    start = 0.0
    while seconds - start > longest_seconds:
        aim = start + (seconds - start) / math.ceil((seconds - start) / longest_seconds)
        reach = min(SEARCH_SECONDS, (aim - start) / 2)
        last = min(aim + reach, start + longest_seconds)
        start = _quietest(loudness, window_seconds, aim - reach, last, aim)
        cuts.append(start)
    return cuts


def _quietest(
    loudness: Sequence[float], window_seconds: float, first: float, last: float, aim: float
) -> float:
    """The middle of the quietest half second in *first* … *last*; of equal ones the nearest to *aim*."""
    from_window = math.ceil(first / window_seconds)
    to_window = min(math.floor(last / window_seconds), len(loudness)) - _PAUSE_WINDOWS
    best = (math.inf, math.inf)
    best_at = min(aim, last)
    for window in range(from_window, to_window + 1):
        middle = (window + _PAUSE_WINDOWS / 2) * window_seconds
        found = (math.fsum(loudness[window : window + _PAUSE_WINDOWS]), abs(middle - aim))
        if found < best:
            best, best_at = found, middle
    return best_at
