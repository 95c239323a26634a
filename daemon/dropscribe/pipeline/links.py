"""Link files: their refusals, and the provider that fetches the target of a link.

Guarantees: the daemon itself fetches nothing. A link that the rule refuses is sent nowhere. Urls are
stored and logged without their query.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from dropscribe.core.errors import AudioRejected, ProviderError
from dropscribe.core.links import LinkRefused, check_link, is_link, read_link, why_no_links, without_query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import FolderRule, ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.base import LinkProvider, Provider, Transcriber
    from dropscribe.transcripts.model import Transcript


def link_refusal(audio: AudioFile, rule: FolderRule, provider: ProviderConfig) -> AudioRejected | None:
    """The reason the link file *audio* fails before it is sent, if any; None for other files."""
    if not rule.links or not is_link(audio.suffix):
        return None
    try:
        _link_in(audio, rule)
    except LinkRefused as refused:
        return AudioRejected("link_refused", str(refused))
    why = why_no_links(provider.type, provider.url, rule.params_for(provider.name).get("model"))
    return AudioRejected("links_not_supported", why) if why else None


@dataclass(frozen=True, slots=True)
class WithLinks:
    """A provider of one rule: *fetching* fetches the targets of link files, *inner* gets all other files."""

    inner: Transcriber
    fetching: Provider
    rule: FolderRule

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """See :class:`dropscribe.providers.base.Transcriber`.

        A link file must have passed :func:`link_refusal`.
        """
        if not is_link(audio.suffix):
            return await self.inner.transcribe(audio, params)
        url = _link_in(audio, self.rule)
        try:
            transcript = await cast("LinkProvider", self.fetching).transcribe_link(url, params)
        except ProviderError as error:
            error.reason = without_query(error.reason)
            raise
        return replace(transcript, attributes={**transcript.attributes, "link": without_query(url)})


def _link_in(audio: AudioFile, rule: FolderRule) -> str:
    # The head holds more than a link file may have.
    return check_link(read_link(audio.suffix, audio.head), rule.link_hosts)
