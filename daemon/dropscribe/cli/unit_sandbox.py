"""Restrictions of the installed systemd unit, for a ``check`` that runs outside the unit."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from dropscribe.config.model import Config, FolderRule

UNIT = "dropscribe.service"
_ASK_SECONDS = 5.0
_PROPERTIES = (
    "LoadState,Environment,ProtectSystem,ProtectHome,PrivateTmp,ReadWritePaths,BindPaths,StateDirectory,"
    "MemoryDenyWriteExecute"
)
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - named, not used


@dataclass(frozen=True, slots=True)
class UnitSandbox:
    """The settings of a unit that decide which folders it can use (systemd.exec(5))."""

    config: str  # The config file that the unit's environment names, or ""
    is_read_only: bool  # Whether all folders but *writable* are read-only (``ProtectSystem=strict``)
    hides_homes: bool  # Whether /home, /root and /run/user are hidden or read-only
    has_own_tmp: bool  # ``PrivateTmp=``: its /tmp and /var/tmp are not those of the machine
    writable: tuple[str, ...]  # Paths of ``ReadWritePaths=``, ``BindPaths=`` and ``StateDirectory=``
    bound: tuple[str, ...]  # Paths of ``BindPaths=`` alone
    forbids_machine_code: bool  # ``MemoryDenyWriteExecute=``, under which the embedded engine cannot run

    def refusal(self, path: Path) -> str:
        """Reason why the unit cannot write to *path*, with the remedy; "" if it can."""
        text = os.path.normpath(path)
        if self.hides_homes and _is_below(text, _HOMES) and not _is_below(text, self.bound):
            return (
                f"the unit {UNIT} hides {path} (ProtectHome=): systemctl edit dropscribe, "
                f"and write ProtectHome=tmpfs and BindPaths={path.parent} below [Service]"
            )
        if self.has_own_tmp and _is_below(text, _TEMPORARY) and not _is_below(text, self.bound):
            return f"the unit {UNIT} has a /tmp of its own (PrivateTmp=) without {path}: use another folder"
        if self.is_read_only and not _is_below(text, self.writable):
            return (
                f"the unit {UNIT} may not write to {path}: systemctl edit dropscribe, "
                f"and write ReadWritePaths={path.parent} below [Service]"
            )
        return ""


def unit_refusals(config: Config, served: Iterable[FolderRule]) -> Iterator[str]:
    """Yield each need of *config* that the installed unit forbids; none if no unit runs this config.

    Args:
        served: The rules whose folders this machine uses.
    """
    sandbox = read_sandbox()
    try:
        if sandbox is None or not os.path.samefile(sandbox.config, config.path or ""):
            return
    except OSError:  # the unit names no config, or one that is not there
        return
    for rule in served:
        for path in rule.paths.values():
            if refusal := sandbox.refusal(path):
                yield f"folder {rule.name}: {refusal}"
    if refusal := sandbox.refusal(config.state_dir):
        yield f"state_dir: {refusal}"
    local = [provider.name for provider in config.providers.values() if provider.type == "local"]
    if local and sandbox.forbids_machine_code:
        yield (
            f"provider {local[0]}: the unit {UNIT} forbids the machine code that the embedded engine makes: "
            "install the drop-in local-engine.conf (systemd/dropscribe.service.d)"
        )


def read_sandbox() -> UnitSandbox | None:
    """The unit's settings as systemd has them; None where there is no unit, or no systemd."""
    try:
        shown = subprocess.run(  # noqa: S603 - a fixed command
            ["systemctl", "show", UNIT, "--property", _PROPERTIES],  # noqa: S607 - found in PATH
            capture_output=True,
            timeout=_ASK_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return parse_sandbox(shown.stdout.decode("utf-8", "surrogateescape"))


def parse_sandbox(shown: str) -> UnitSandbox | None:
    """The settings that ``systemctl show`` prints; None for a unit that is not installed."""
    values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if values.get("LoadState") != "loaded":
        return None
    # An entry is source:target:options, or one path for both.
    entries = [entry.lstrip("-").split(":") for entry in values.get("BindPaths", "").split()]
    bound = tuple(parts[1] if len(parts) > 1 and parts[1] else parts[0] for parts in entries)
    writable = tuple(path.lstrip("-+") for path in values.get("ReadWritePaths", "").split())
    state = tuple(f"/var/lib/{name}" for name in values.get("StateDirectory", "").split())
    environment = dict(part.split("=", 1) for part in values.get("Environment", "").split() if "=" in part)
    return UnitSandbox(
        config=environment.get("DROPSCRIBE_CONFIG", ""),
        is_read_only=values.get("ProtectSystem") == "strict",
        hides_homes=values.get("ProtectHome") in {"yes", "tmpfs", "read-only"},
        has_own_tmp=values.get("PrivateTmp") == "yes",
        writable=writable + bound + state,
        bound=bound + (writable if values.get("ProtectHome") == "read-only" else ()),
        forbids_machine_code=values.get("MemoryDenyWriteExecute") == "yes",
    )


def _is_below(path: str, roots: tuple[str, ...]) -> bool:
    return any(os.path.commonpath((path, root)) == os.path.normpath(root) for root in roots if root)
