"""Restrictions of the installed systemd unit, for a ``check`` that runs outside the unit."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from dropscribe.config.find import absolute_path
from dropscribe.config.model import Config, FolderRule

UNIT = "dropscribe.service"
_ASK_SECONDS = 5.0
_PROPERTIES = (
    "LoadState,User,Environment,ProtectSystem,ProtectHome,PrivateTmp,ReadWritePaths,BindPaths,BindReadOnlyPaths,"
    "StateDirectory,RuntimeDirectory,CacheDirectory,LogsDirectory,MemoryDenyWriteExecute"
)
_OWN_FOLDERS = {
    "StateDirectory": "/var/lib",
    "RuntimeDirectory": "/run",
    "CacheDirectory": "/var/cache",
    "LogsDirectory": "/var/log",
}
"""Setting of a folder that systemd makes for the unit → where it makes it."""

_ELSEWHERE = "move it, to /etc/dropscribe for example"
_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - named, not used


@dataclass(frozen=True, slots=True)
class UnitSandbox:
    """The settings of a unit that decide which folders it can use (systemd.exec(5))."""

    config: str  # The config file that the unit's environment names, or ""
    user: str  # ``User=``, or ""
    is_read_only: bool  # Whether all folders but *writable* are read-only (``ProtectSystem=strict``)
    hides_homes: bool  # Whether /home, /root and /run/user are hidden or read-only
    shows_homes: bool  # Whether they are read-only
    has_own_tmp: bool  # ``PrivateTmp=``: its /tmp and /var/tmp are not those of the machine
    writable: tuple[str, ...]  # Paths of ``ReadWritePaths=``, ``BindPaths=`` and the unit's own folders
    bound: tuple[str, ...]  # Paths of ``BindPaths=`` alone
    bound_read_only: tuple[str, ...]  # Paths of ``BindReadOnlyPaths=``
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

    def hiding(self, path: Path) -> str:
        """Reason why the unit cannot read the file at *path*, with the remedy; "" if it can."""
        text = os.path.normpath(path)
        if _is_below(text, self.bound + self.bound_read_only):
            return ""
        if self.hides_homes and not self.shows_homes and _is_below(text, _HOMES):
            return f"the unit {UNIT} hides {path} (ProtectHome=): {_ELSEWHERE}"
        if self.has_own_tmp and _is_below(text, _TEMPORARY):
            return f"the unit {UNIT} has a /tmp of its own (PrivateTmp=) without {path}: {_ELSEWHERE}"
        return ""


def unit_refusals(config: Config, served: Iterable[FolderRule]) -> Iterator[str]:
    """Yield each need of *config* that the installed unit forbids; none if no unit runs this config.

    Args:
        served: The rules whose folders this machine uses.
    """
    sandbox = _sandbox_of(config)
    if sandbox is None:
        return
    written = ((name, sandbox.refusal(path)) for name, path in _written_by(config, served))
    read = ((name, sandbox.hiding(path)) for name, path in _read_by(config))
    yield from (f"{name}: {refusal}" for name, refusal in chain(written, read) if refusal)
    local = [provider.name for provider in config.providers.values() if provider.type == "local"]
    if local and sandbox.forbids_machine_code:
        yield (
            f"provider {local[0]}: the unit {UNIT} forbids the machine code that the embedded engine makes: "
            "install the drop-in local-engine.conf (systemd/dropscribe.service.d)"
        )


def unit_user(config: Config) -> str:
    """The user as whom the installed unit runs *config*; "" if that is not known, or no unit does."""
    sandbox = _sandbox_of(config)
    return sandbox.user if sandbox else ""


def _sandbox_of(config: Config) -> UnitSandbox | None:
    """The sandbox of the installed unit, if that runs *config*."""
    sandbox = read_sandbox()
    try:
        is_its_config = sandbox is not None and os.path.samefile(sandbox.config, config.path or "")
    except OSError:  # the unit names no config, or one that is not there
        return None
    return sandbox if is_its_config else None


def _written_by(config: Config, served: Iterable[FolderRule]) -> Iterator[tuple[str, Path]]:
    """The files and folders that are written under *config*, each with a name for it."""
    yield from ((f"folder {rule.name}", path) for rule in served for path in rule.paths.values())
    yield "state_dir", config.state_dir
    if config.metrics:
        yield "metrics.file", config.metrics.file
    if config.http and config.http.socket:
        yield "http.listen", config.http.socket


def _read_by(config: Config) -> Iterator[tuple[str, Path]]:
    """The files that are read or run under *config*, each with its key."""
    yield from _files_named(config.source, Path(config.path or "").parent)
    for name, rule in config.folders.items():
        if rule.template:
            yield f"folders.{name}.template", rule.template
    for event, (program, *_) in config.hooks.commands.items() if config.hooks else ():
        if "/" in program:
            yield f"hooks.on_{event}", Path(program)


def _files_named(section: Mapping[str, object], folder: Path, above: str = "") -> Iterator[tuple[str, Path]]:
    """The values of keys that end in ``_file``, in *section* and below; not of a provider's parameters."""
    for key, value in section.items():
        if isinstance(value, Mapping) and key != "params":
            yield from _files_named(value, folder, f"{above}{key}.")
        elif key.endswith("_file") and isinstance(value, str):
            yield f"{above}{key}", absolute_path(value, folder, os.environ)


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

    def bound_by(name: str) -> tuple[str, ...]:
        # An entry is source:target:options, or one path for both.
        entries = [entry.lstrip("-").split(":") for entry in values.get(name, "").split()]
        return tuple(parts[1] if len(parts) > 1 and parts[1] else parts[0] for parts in entries)

    bound = bound_by("BindPaths")
    writable = tuple(path.lstrip("-+") for path in values.get("ReadWritePaths", "").split())
    own = tuple(
        f"{above}/{entry.partition(':')[0]}"
        for name, above in _OWN_FOLDERS.items()
        for entry in values.get(name, "").split()
    )
    environment = dict(part.split("=", 1) for part in values.get("Environment", "").split() if "=" in part)
    return UnitSandbox(
        config=environment.get("DROPSCRIBE_CONFIG", ""),
        user=values.get("User", ""),
        is_read_only=values.get("ProtectSystem") == "strict",
        hides_homes=values.get("ProtectHome") in {"yes", "tmpfs", "read-only"},
        shows_homes=values.get("ProtectHome") == "read-only",
        has_own_tmp=values.get("PrivateTmp") == "yes",
        writable=writable + bound + own,
        bound=bound + (writable if values.get("ProtectHome") == "read-only" else ()),
        bound_read_only=bound_by("BindReadOnlyPaths"),
        forbids_machine_code=values.get("MemoryDenyWriteExecute") == "yes",
    )


def _is_below(path: str, roots: tuple[str, ...]) -> bool:
    return any(os.path.commonpath((path, root)) == os.path.normpath(root) for root in roots if root)
