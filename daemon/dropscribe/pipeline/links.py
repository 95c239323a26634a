"""Link files: their refusals, and the provider that fetches the target of a link.

Guarantees: the daemon itself fetches nothing. A link that the rule refuses is sent nowhere. Urls are
stored and logged without their query.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from dropscribe.core.errors import AudioRejected, ProviderError
from dropscribe.core.links import LinkRefused, check_link, is_link, read_link, why_no_links, without_query

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dropscribe.config.model import Config, FolderRule, ProviderConfig
    from dropscribe.core.requests.params import ParamValue
    from dropscribe.files.audio import AudioFile
    from dropscribe.providers.base import LinkProvider, Provider
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


def add_link_providers(
    config: Config, providers: Mapping[str, Provider], decorated: dict[tuple[str, str], Provider]
) -> None:
    """Put a :class:`WithLinks` around each provider of each rule with ``links``.

    Args:
        providers: As they were built: they get the links.
        decorated: (folder, provider) → the provider that gets the rule's audio; changed here.
    """
    for folder, rule in config.folders.items():
        for name in rule.providers if rule.links else ():
            place = (folder, name)
            decorated[place] = WithLinks(decorated.get(place, providers[name]), providers[name], rule)


class WithLinks:
    """A provider of one rule: *fetching* fetches the targets of link files, *inner* gets all other files."""

    def __init__(self, inner: Provider, fetching: Provider, rule: FolderRule) -> None:
        self._inner = inner
        self._fetching = fetching
        self._rule = rule

    async def transcribe(self, audio: AudioFile, params: Mapping[str, ParamValue]) -> Transcript:
        """See :class:`dropscribe.providers.base.Provider`.

        A link file must have passed :func:`link_refusal`.
        """
        if not is_link(audio.suffix):
            return await self._inner.transcribe(audio, params)
        url = _link_in(audio, self._rule)
        try:
            transcript = await cast("LinkProvider", self._fetching).transcribe_link(url, params)
        except ProviderError as error:
            error.reason = without_query(error.reason)
            raise
        return replace(transcript, attributes={**transcript.attributes, "link": without_query(url)})

    async def probe(self) -> str:
        """See :class:`dropscribe.providers.base.Provider`."""
        return await self._inner.probe()

    async def close(self) -> None:
        """See :class:`dropscribe.providers.base.Provider`."""
        await self._inner.close()


def _link_in(audio: AudioFile, rule: FolderRule) -> str:
    # The head holds more than a link file may have.
    return check_link(read_link(audio.suffix, audio.head), rule.link_hosts)
