"""Recognises network addresses. Pure."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Whether *host*, without brackets, is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether *host*, without brackets, can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
