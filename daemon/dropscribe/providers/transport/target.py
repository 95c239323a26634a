"""The target of a request: a URL in the forms of the HTTP library and of its connections."""

from __future__ import annotations

import binascii
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from dropscribe.core.errors import ProviderUnusable
from dropscribe.providers.transport.http_library import httpcore, httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

HIGHEST_PORT = 65_535


class Target(NamedTuple):
    """The target of a request.

    Attributes:
        at: The same URL for httpcore.
        host: The header of that name.
        login: Header for a user and password that the URL has.
    """

    url: httpx.URL
    at: httpcore.URL
    host: str
    login: Mapping[str, str]


@lru_cache(maxsize=64)  # a provider is asked again and again at one URL
def target_of(address: str) -> Target:
    """The target that a URL names.

    Raises:
        ProviderUnusable: It is no URL of an HTTP server.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        raise ProviderUnusable("bad_url", "the provider's url is invalid") from None
    if (url.port or 0) > HIGHEST_PORT:
        raise ProviderUnusable("bad_url", f"the provider's url has a port above {HIGHEST_PORT}")
    if url.scheme not in {"http", "https"} or not url.host:
        raise ProviderUnusable("bad_url", "the provider's url is neither http nor https")
    at = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    login = {}
    if url.username or url.password:
        user = f"{url.username}:{url.password}".encode()
        login["Authorization"] = "Basic " + binascii.b2a_base64(user, newline=False).decode()
    return Target(url, at, url.netloc.decode("ascii"), login)
