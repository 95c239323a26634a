"""Recordings that were answered before: found by content and settings, never by name.

Only a file of exactly the size of a known one is hashed, so that other files are not read an extra time.
"""

from __future__ import annotations

import hashlib
import json
from os.path import splitext
from typing import TYPE_CHECKING

from dropscribe.core.budget import AnswerKey
from dropscribe.core.errors import AudioError
from dropscribe.core.links import is_link
from dropscribe.core.requests.params import effective_params
from dropscribe.core.text.printing import path_text, utc_text
from dropscribe.queue.sql import result_cache

if TYPE_CHECKING:
    from dropscribe.config.model import FolderRule, ProviderConfig
    from dropscribe.files.audio import AudioFile
    from dropscribe.pipeline.handler import Claim
    from dropscribe.queue.engine import Engine
    from dropscribe.queue.model import CachedResult
    from dropscribe.transcripts.model import Transcript

_SHAPING = ("prepare", "silence", "silence_threshold_dbfs", "channels", "tracks")
"""Settings of a rule that change the answer when recordings are prepared."""


async def find_answer(queue: Engine, claim: Claim, audio: AudioFile) -> CachedResult | None:
    """The answer that the same content got before under the same settings, if it may be used."""
    keep_seconds = _keep_seconds(claim)
    if not claim.job.may_be_cached or not keep_seconds or claim.rule.duplicates == "transcribe":
        return None
    try:
        sha256 = await audio.ensure_sha256()
    except (AudioError, OSError):
        return None  # sending it meets the same error, and handles it
    key, since = AnswerKey(sha256, claim.settings), queue.now() - keep_seconds
    return await queue.database.do(lambda db: result_cache.read_answer(db, key, since))


def answer_key(claim: Claim, transcript: Transcript, sha256: str) -> AnswerKey | None:
    """The key of an answer in the result cache; None if it must not be reused, or its content is unknown."""
    if transcript.missing or not sha256 or not _keep_seconds(claim):
        return None
    return AnswerKey(sha256, claim.settings)


def _keep_seconds(claim: Claim) -> float:
    """Seconds for which an answer may be reused; 0 for a link, because its target may change."""
    is_link_file = claim.rule.links and is_link(splitext(path_text(claim.job.path))[1].lower())
    return 0.0 if is_link_file else claim.config.ledger_keep_seconds


def settings_digest(rule: FolderRule, provider: ProviderConfig) -> str:
    """A digest of all that shapes an answer: another language is another answer."""
    shaping = {
        "type": provider.type,
        "url": provider.url,
        "model": provider.model,
        "params": effective_params(provider.type, rule.params_for(provider.name)),
        **({name: getattr(rule, name) for name in _SHAPING} if rule.reads_media else {}),
    }
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def origin_words(known: CachedResult) -> str:
    """Origin of the cached answer, as words."""
    place = path_text(known.filed) if known.filed else f"a file of {known.folder} that is not filed"
    # A name that is not UTF-8 has no place in a text column.
    place = place.encode("utf-8", "backslashreplace").decode()
    return f"{place}, answered {utc_text(known.kept_at)}"
