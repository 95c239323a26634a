"""Link files (``.url``, ``.webloc``, ``.desktop``): reads the url and checks that a rule allows it.

Guarantees: pure; no host is looked up and nothing is fetched. For any content the result is a url that all
url parsers read alike, to a host that the rule names, or :class:`LinkRefused`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection
from urllib.parse import urlsplit, urlunsplit

from dropscribe.core.hosts import HOST_NAME, is_address, is_exact_host, matches_host

_SECTIONS = {".url": "[internetshortcut]", ".desktop": "[desktop entry]"}
"""The section with the url, in lower case."""

LINK_SUFFIXES = frozenset({*_SECTIONS, ".webloc"})  # of link files; a rule with ``links`` takes them too
_EXPANDED = "[$e]"  # KDE's mark of a value with variables, in which a dollar sign is doubled
_FETCHERS = frozenset({"deepgram", "elevenlabs", "openai", "pulse"})
"""Types of providers that can fetch audio themselves."""

MAX_LINK_BYTES = 64 * 1024
_LONGEST_URL = 8192

_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")
"""Characters on which url parsers differ: some drop them, cut there, or read them as a slash."""

_URL_QUERY = re.compile(r"([a-z][a-z0-9+.-]{0,20}://[^\s?#\"'<>]*)[?#][^\s\"'<>]*", re.IGNORECASE)


class LinkRefused(Exception):
    """Raised with the reason, in words, why a link file's url is not sent."""


def read_link(suffix: str, content: bytes) -> str:
    """The url in a link file with a *suffix* of :func:`is_link`; *content* is all of it, or too much.

    Raises:
        LinkRefused: It is too large, or holds no url.
    """
    if len(content) > MAX_LINK_BYTES:
        raise LinkRefused(f"more than {MAX_LINK_BYTES} bytes: no link file is so long")
    if suffix == ".webloc":
        return _property_list_url(content).strip()
    text = _text_of(content)
    if suffix == ".desktop" and _entry(text, _SECTIONS[suffix], "type") != "Link":
        raise LinkRefused("the desktop entry is no link (Type=Link)")
    return _entry(text, _SECTIONS[suffix], "url")


def is_link(suffix: str) -> bool:
    """Whether *suffix* (lower case, with its dot) is a link file's."""
    return suffix in LINK_SUFFIXES


def why_no_links(kind: str, url: str | None, model: object) -> str:
    """Reason why a provider of type *kind* at *url* (None: the vendor's) takes no links; "" if it may."""
    if kind not in _FETCHERS:
        return f"a provider of type {kind} takes no links"
    if kind == "openai" and (url is None or urlsplit(url).hostname == "api.openai.com"):
        return "OpenAI itself takes no links"
    return "Pulse Pro takes no links" if kind == "pulse" and model == "pulse-pro" else ""


def check_link(url: str, hosts: Collection[str]) -> str:
    """*url* as it may be sent: without its fragment, which is never sent to servers.

    *hosts* are patterns (:func:`~dropscribe.core.hosts.parse_host_pattern`). An address or a name of the
    local network is allowed like any other host: if it is listed.

    Raises:
        LinkRefused: The reason names the host, never the query.
    """
    if len(url) > _LONGEST_URL or _AMBIGUOUS.search(url) or not url.isprintable():
        raise LinkRefused("the url is too long, or holds a space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").removesuffix(".")
        is_whole = bool(host) and parts.port != 0
    except ValueError:
        raise LinkRefused("the url is malformed") from None
    if parts.scheme not in {"http", "https"} or not is_whole:
        raise LinkRefused("the url is neither http nor https")
    if "@" in parts.netloc:
        raise LinkRefused("the url holds a user or a password")
    if not host.isascii():
        raise LinkRefused("the url's host must be written in ASCII (xn--…)")
    is_name = is_address(host) or HOST_NAME.fullmatch(host)
    if not is_name or not is_exact_host(parts.netloc, parts.hostname or ""):
        raise LinkRefused("the url's host is not a host name")
    if not any(matches_host(host, pattern) for pattern in hosts):
        raise LinkRefused(f"the rule's link_hosts does not list {host}")
    return urlunsplit(parts._replace(fragment=""))


def without_query(text: str) -> str:
    """*text* with every url in it cut before its query, because queries can hold signatures and tokens."""
    return _URL_QUERY.sub(r"\1", text)


def _property_list_url(content: bytes) -> str:
    import plistlib  # noqa: PLC0415 - with its XML parser, only where such a file comes
    from xml.parsers.expat import ExpatError  # noqa: PLC0415

    broken = (plistlib.InvalidFileException, ExpatError, ValueError, LookupError, TypeError, RecursionError)
    try:
        found = plistlib.loads(content)
    except (*broken, AttributeError, ArithmeticError):  # the latter two for invalid dates
        raise LinkRefused("the file is no property list") from None
    url = found.get("URL") if isinstance(found, dict) else None
    if not isinstance(url, str):
        raise LinkRefused("the file holds no url")
    return url


def _text_of(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _entry(text: str, section: str, key: str) -> str:
    """The value of *key* in *section*, compared in lower case; the first if there are two."""
    current = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            current = line.lower()
        name, equals, value = line.partition("=")
        name, value = name.strip().lower(), value.strip()
        if current == section and equals and name in {key, key + _EXPANDED}:
            return value if name == key else value.replace("$$", "$")
    raise LinkRefused("the file holds no url" if key == "url" else f"the file says no {key}")
