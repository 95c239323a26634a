"""Hosts: addresses, names, and the patterns of ``link_hosts`` and ``allowed_hosts``. Pure."""

from __future__ import annotations

import ipaddress
import re

_HOST_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
HOST_NAME = re.compile(rf"{_HOST_LABEL}(?:\.{_HOST_LABEL})*")
"""Checked before the patterns: ``evil%2f.example.com`` ends like a listed host; some parsers decode it."""
_HOST_PATTERN = re.compile(rf"(?:\*\.)?{_HOST_LABEL}(?:\.{_HOST_LABEL})*")


def is_address(host: str) -> bool:
    """Whether *host*, without brackets, is an address and no name."""
    return _as_address(host) is not None


def _as_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether *host*, without brackets, can only be reached from this machine."""
    address = _as_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def is_exact_host(netloc: str, host: str) -> bool:
    """Whether *netloc*, of a url without its login, is *host* and perhaps a port, for every url parser.

    ``urlsplit`` drops what stands around brackets: its host of ``a.example[::1]+:`` is ``::1``.
    """
    name = f"[{host}]" if ":" in host else host
    return re.fullmatch(rf"{re.escape(name)}(?::[0-9]*)?", netloc, re.IGNORECASE) is not None


def parse_host_pattern(text: str) -> str:
    """A host of ``link_hosts`` or ``allowed_hosts``, lower case: a name, an address, or ``*.`` and a name.

    An address is in its shortest form.

    Raises:
        ValueError: It is none of these; the second argument is a hint.
    """
    pattern = text.lower().removesuffix(".")
    if address := _as_address(pattern.strip("[]")):
        return str(address)
    has_letter = any(mark.isalpha() for mark in pattern.rpartition(".")[2])
    if not _HOST_PATTERN.fullmatch(pattern) or not has_letter:
        raise ValueError("is not a host", 'write example.com, or "*.example.com" for all below it')
    return pattern


def matches_host(host: str, pattern: str) -> bool:
    """Whether *pattern*, from :func:`parse_host_pattern`, matches *host* in lower case."""
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern) and not is_address(host)
    address = _as_address(host)
    return pattern == (host if address is None else str(address))
