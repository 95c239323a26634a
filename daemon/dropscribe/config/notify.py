"""The section ``notify``: who is told, and whether the apprise library is there and knows the urls."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dropscribe.config import model as m
from dropscribe.config.credentials import find_secret, written_secret
from dropscribe.config.quantities import is_loopback

if TYPE_CHECKING:
    from dropscribe.config import service_keys as k
    from dropscribe.config.credentials import Surroundings
    from dropscribe.config.secret import Secret
    from dropscribe.config.yaml_document import Document
    from dropscribe.config.yaml_document import Path as KeyPath

_PATH = ("notify",)


def build_notify(keys: k.NotifyKeys, document: Document, around: Surroundings) -> m.NotifyConfig:
    """Make the daemon's section of the file's; what is wrong is reported."""
    urls = _urls(keys, document, around)
    if not keys.urls and keys.webhook is None and not document.has_problem_below(_PATH):
        document.report(_PATH, "nobody is told", "add urls: […] or webhook: {…}", on_key=True, warning=True)
    return m.NotifyConfig(
        urls=urls,
        batch_seconds=keys.batch,
        quiet_hours=keys.quiet_hours,
        webhook=_webhook(keys.webhook, document, around) if keys.webhook else None,
    )


def has_apprise() -> bool:
    """Whether the extra ``notify`` is installed; nothing of it is loaded."""
    return importlib.util.find_spec("apprise") is not None


def _urls(keys: k.NotifyKeys, document: Document, around: Surroundings) -> tuple[Secret, ...]:
    path = (*_PATH, "urls")
    if keys.urls and not has_apprise():
        hint = "pip install 'dropscribe[notify]'"
        document.report(path, "the apprise library is not installed", hint, on_key=True)
        return ()
    is_list = isinstance(document.data["notify"].get("urls"), list)
    places: list[KeyPath] = [(*path, index) if is_list else path for index in range(len(keys.urls))]
    for url, place in zip(keys.urls, places, strict=True):
        if not _is_known(url):
            hint = "each service has a form of its own: see apprise's documentation"
            document.report(place, "apprise does not know this kind of url, or misses a part of it", hint)
    pairs = zip(keys.urls, places, strict=True)
    return tuple(written_secret(url, place, document, around) for url, place in pairs)


def _is_known(url: Secret) -> bool:
    import apprise  # noqa: PLC0415 - the extra `notify`, loaded only where urls are given

    return apprise.Apprise.instantiate(url.reveal()) is not None


def _webhook(keys: k.WebhookKeys, document: Document, around: Surroundings) -> m.WebhookConfig | None:
    path = (*_PATH, "webhook")
    secret = find_secret(keys.secret, keys.secret_file, (*path, "secret"), document, around)
    if secret is None:
        if not document.has_problem_below(path):
            document.report(
                path, "there is no secret", "add secret: ${NAME}, or secret_file: PATH", on_key=True
            )
        return None
    if keys.url.startswith("http:") and not is_loopback(urlsplit(keys.url).hostname or ""):
        document.report((*path, "url"), "what is told travels unencrypted", "use https", warning=True)
    return m.WebhookConfig(url=keys.url, secret=secret)
