"""Routes each folder's jobs to a provider, given the current holds.

With a list of providers a job goes to the first that is not held. A job assigned by an ambiguous attempt
stays with its provider. Held providers are still probed, with one file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

BACKLOG = "?backlog"
"""The assigned provider of a job that waits for ``dropscribe release``; no provider can have this name."""


@dataclass(frozen=True, slots=True)
class Route:
    """One folder's jobs as one provider may see them."""

    folder: str
    serves_unassigned: bool  # jobs without an assigned provider are served too, beside those assigned to it


def routes_for(
    provider: str,
    chains: Mapping[str, Sequence[str]],
    held_providers: Collection[str],
    closed_folders: Collection[str],
    strict_order: Collection[str] = (),
) -> list[Route]:
    """The folders that *provider* serves now; while it is held, those with jobs that may probe it.

    Args:
        chains: Folder → its providers in order.
        closed_folders: Folders from which nothing may be claimed (unavailable, stuck, held).
        strict_order: Folders in strict order: their jobs wait for the first provider, even if it is held.
    """
    probing = provider in held_providers

    def is_for_all(folder: str, chain: Sequence[str]) -> bool:
        if folder in strict_order:
            return provider == chain[0]
        return probing or _first_open(chain, held_providers) == provider

    return [
        Route(folder, serves_unassigned=is_for_all(folder, chain))
        for folder, chain in chains.items()
        if provider in chain and folder not in closed_folders
    ]


def provider_for(
    assigned: str, chain: Sequence[str], held_providers: Collection[str], *, is_strict: bool = False
) -> str | None:
    """The provider that a waiting job goes to; None if it waits for a hold or a release."""
    if assigned:
        return None if assigned == BACKLOG or assigned in held_providers else assigned
    return _first_open(chain[:1] if is_strict else chain, held_providers)


def next_after_refusal(
    chain: Sequence[str], refused: Collection[str], held_providers: Collection[str]
) -> str | None:
    """The next provider for a file that *refused* have refused: the first that is not held, else the first.

    None if all have refused.
    """
    left = [name for name in chain if name not in refused]
    return _first_open(left, held_providers) or next(iter(left), None)


def _first_open(chain: Sequence[str], held_providers: Collection[str]) -> str | None:
    return next((name for name in chain if name not in held_providers), None)
