"""The document of ``check``: folders, state directory, queue, providers and the limits of the system."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dropscribe.cli.unit_sandbox import unit_refusals, unit_user
from dropscribe.config.model import Config, FolderRule, ProviderConfig
from dropscribe.core.errors import StoreError
from dropscribe.core.text.printing import shell_word
from dropscribe.files.beneath import closing, open_root
from dropscribe.files.capabilities import Move, capabilities_of
from dropscribe.files.mounts import MountKind, mount_of, require_proc
from dropscribe.files.permissions import is_kept_in_place
from dropscribe.queue.embedded.store import open_for_reading
from dropscribe.reports.inbox_reader import unavailable_reason
from dropscribe.reports.queue_reader import is_running_here
from dropscribe.reports.timed_calls import ask_disk, ask_disk_or
from dropscribe.reports.wording import bytes_words
from dropscribe.web.unix_socket import has_listener

CHECK_SCHEMA = "dropscribe.check/1"
_LITTLE_ROOM_BYTES = 100_000_000
_CHECK_SECONDS = 10.0
"""Limit in seconds for all checks of one folder, including the trial of publishing there."""

_INBOX_FACTS: Sequence[str] = ("exists", "readable", "writable", "watch", "file_system")
_TARGET_FACTS: Sequence[str] = ("exists", "writable", "same_mount")


@dataclass(slots=True)
class Findings:
    """Problems found: *errors* make ``run`` impossible, *warnings* do not."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_document(config: Config, findings: Findings) -> dict[str, Any]:
    """The object of ``check --json``, before the verdict; problems are added to *findings*."""
    state_dir = _check_state_dir(config, findings)
    _check_listener(config, findings)
    _check_metrics_file(config, findings)
    served = [rule for rule in config.folders.values() if config.queue is None or config.queue.serves(rule)]
    folders = {rule.name: _check_folder(rule, findings) for rule in served}
    _check_between([rule for rule in served if folders[rule.name]["inbox"]["readable"]], findings)
    _warn_of_root(config, findings)
    findings.errors.extend(unit_refusals(config, served))
    return {
        "schema": CHECK_SCHEMA,
        "config": str(config.path),
        "state_dir": state_dir,
        "queue": _check_queue(config, findings),
        "folders": folders,
        "providers": {name: _provider_object(provider) for name, provider in config.providers.items()},
    }


def _provider_object(provider: ProviderConfig) -> dict[str, Any]:
    """One provider of ``check --json``: never its key, nor its URL's query, which may hold one."""
    limits = ("concurrency", "requests_per_minute", "timeout_seconds", "max_upload_bytes")
    place, mark, _ = (provider.url or "").partition("?")
    return {
        "type": provider.type,
        "url": provider.url and (f"{place}?…" if mark else place),
        "key_from": provider.api_key.origin if provider.api_key else None,
        **{key: getattr(provider, key) for key in limits},
        "expressions": provider.answer and provider.answer.expressions(),
        "online": None,
        "answer": None,
    }


def _check_folder(rule: FolderRule, findings: Findings) -> dict[str, dict[str, Any]]:
    """The folders of a rule, by name; results of checks are None where the file system does not answer."""
    parts: dict[str, dict[str, Any]] = {}
    for part, path in rule.paths.items():
        found = Findings()
        look = partial(_check_inbox, rule, found)
        if part != "inbox":
            look = partial(_check_target, rule, part, found, has_inbox=bool(parts["inbox"]["exists"]))
        facts = _INBOX_FACTS if part == "inbox" else _TARGET_FACTS
        results: tuple[object, ...] = (None,) * len(facts)
        try:
            results = ask_disk(path, look, seconds=_CHECK_SECONDS)
        except OSError as error:
            found = Findings(warnings=[f"{part} {path}: {error.strerror}; until then it waits"])
        findings.errors += [f"folder {rule.name}: {error}" for error in found.errors]
        findings.warnings += [f"folder {rule.name}: {warning}" for warning in found.warnings]
        parts[part] = {"path": str(path), **dict(zip(facts, results, strict=True))}
    return parts


def _check_inbox(rule: FolderRule, findings: Findings) -> tuple[object, ...]:
    exists, warn = os.path.isdir(rule.inbox), findings.warnings.append
    if reason := unavailable_reason(rule):
        warn(f"{reason}; until then it waits, the others do not")
        return exists, False, False, None, None
    mount = mount_of(os.fsencode(rule.inbox))
    if rule.watch == "native" and not mount.gives_events:
        warn(f"watch: native on {mount.name} does not see what other machines write; use auto or poll")
    is_writable = _is_writable(rule.inbox)
    if not is_writable:
        closed = f"{rule.inbox} may not be written by {_who()}"
        warn(f"{closed}, so that audio could not be moved out of it; {_grant(rule.inbox)}")
    automatic = "native" if mount.gives_events else "poll"
    return exists, True, is_writable, automatic if rule.watch == "auto" else rule.watch, mount.name


def _check_target(rule: FolderRule, part: str, findings: Findings, *, has_inbox: bool) -> tuple[object, ...]:
    path = rule.paths[part]
    place, warn = _nearest(path), findings.warnings.append
    is_writable = _is_writable(place)
    same_mount = _mount_key(place) == _mount_key(rule.inbox) if has_inbox else None
    if not os.path.isdir(place):
        warn(f"{part} cannot be made: {place} is not a folder")
    elif not is_writable:
        warn(f"{part} {_cannot(path, place)}; {_grant(place)}")
    else:
        if same_mount is False:
            move = "each file is copied and verified there, not renamed"
            warn(f"{part} is on another mount than the inbox: {move}")
        _check_moves(part, place, findings)
    return place == path and os.path.isdir(path), is_writable, same_mount


def _check_moves(part: str, place: Path, findings: Findings) -> None:
    """Try on the mount the system calls that publishing needs."""
    try:
        with closing(open_root(os.fsencode(place))) as folder:
            can = capabilities_of(folder)
    except OSError as error:
        findings.warnings.append(f"{part}: nothing can be made in {place}: {error.strerror or error}")
        return
    if can.move is Move.NONE:
        cannot = f"files can be neither linked nor renamed on this {can.file_system}"
        findings.errors.append(f"{part}: {cannot}, so nothing is sent; use another file system")
    elif not can.is_safe:
        lack = f"this {can.file_system} has no move that never overwrites"
        why = "(neither links nor exclusive renames): another program should not write files there"
        findings.warnings.append(f"{part}: {lack} {why}")


def _is_writable(path: Path) -> bool:
    is_open = os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK, effective_ids=True)
    return is_open and not _is_kept_in_place(path)


def _is_kept_in_place(path: Path) -> bool:
    try:
        with closing(open_root(os.fsencode(path))) as folder:
            return is_kept_in_place(folder)
    except OSError:
        return False


def _cannot(path: Path, place: Path) -> str:
    if place == path:
        return f"{path} may not be written by {_who()}"
    return f"{path} is not there and cannot be made in {place} by {_who()}"


def _who() -> str:
    try:
        return f"{pwd.getpwuid(os.geteuid()).pw_name} (uid {os.geteuid()})"
    except KeyError:
        return f"uid {os.geteuid()}"


def _grant(path: Path) -> str:
    """The command that gives access; in systemd's sandbox a drop-in, because modes do not help there."""
    if _is_kept_in_place(path):
        return f"it is immutable or append-only: chattr -i -a {shell_word(str(path))}"
    if not os.access(path, os.W_OK, effective_ids=True) and os.statvfs(path).f_flag & os.ST_RDONLY:
        return "it is read-only here: remount it, or name it in ReadWritePaths= (systemctl edit dropscribe)"
    return f"give it access: setfacl -m u:{os.geteuid()}:rwx {shell_word(str(path))}, or a common group"


def _nearest(path: Path) -> Path:
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def _mount_key(path: Path) -> tuple[int, int] | None:
    """(st_dev, mount id): renames work between equal keys; bind mounts share only st_dev."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    with closing(descriptor):
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii").splitlines()
        numbers = [int(line.split()[1]) for line in lines if line.startswith("mnt_id:")]
        return os.fstat(descriptor).st_dev, numbers[0] if numbers else 0


def _check_state_dir(config: Config, findings: Findings) -> dict[str, Any]:
    """Check that the state directory is local, writable and has room; and whether a daemon uses it."""
    path, fail = config.state_dir, findings.errors.append
    place = _nearest(path)
    is_writable = _is_writable(place)
    disk = place if os.path.exists(place) else place.parent  # a link whose target is away
    mount, free_bytes = mount_of(os.fsencode(disk)), shutil.disk_usage(disk).free
    try:
        require_proc()
    except OSError as error:
        fail(f"{error.filename} {error.strerror}")
    if mount.kind is MountKind.REMOTE:
        fail(f"state_dir {path} is on a network file system ({mount.name}); use a local disk")
    elif not os.path.isdir(place):
        what = "is not a folder" if disk == place else "is a link to a folder that is not there"
        fail(f"state_dir {path} cannot be made: {place} {what}")
    elif not is_writable:
        fail(f"state_dir {_cannot(path, place)}; run this as the daemon's user, or set another state_dir")
    else:
        if free_bytes < _LITTLE_ROOM_BYTES:
            findings.warnings.append(f"state_dir {path}: only {bytes_words(free_bytes)} are free")
        try:  # the queue's database, if there is one, must be one that this version can open
            if connection := open_for_reading(path):
                connection.close()
        except StoreError as error:
            fail(f"{error.path}: {error.reason}" + (f"; {error.remedy}" if error.remedy else ""))
    return {
        "path": str(path),
        "exists": disk == path,
        "writable": is_writable,
        "file_system": mount.name,
        "free_bytes": free_bytes,
        "running": is_running_here(config),
    }


def _check_queue(config: Config, findings: Findings) -> dict[str, Any] | None:
    """The object ``queue`` of ``check --json``, without the dsn itself; None for the embedded engine."""
    if (queue := config.queue) is None:
        return None
    roots = {}
    for name, path in queue.roots.items():
        exists = ask_disk_or(False, path, path.is_dir)
        roots[name] = {"path": str(path), "exists": exists}
        if not exists:
            missing = f"queue: the root {name}, {path}, is not there"
            findings.warnings.append(f"{missing}; mount it: until then its files wait")
    return {
        "type": queue.type,
        "role": queue.role,
        "node": queue.node,
        "dsn_from": queue.dsn.origin,
        "roots": roots,
        "left_to_others": [rule.name for rule in config.folders.values() if not queue.serves(rule)],
        "online": None,
        "answer": None,
    }


def _warn_of_root(config: Config, findings: Findings) -> None:
    """Warn that root can do everything, so that this check proves little for the daemon's user."""
    if os.geteuid() != 0:
        return
    try:
        owner = pwd.getpwuid(os.stat(config.state_dir).st_uid).pw_name
    except (OSError, KeyError):  # before the first start
        owner = unit_user(config)
    if owner not in {"", "root"}:
        remedy = f"as the daemon's user: sudo -u {owner} dropscribe check"
        findings.warnings.append(f"checked as root, who may do everything; {remedy}")


def _check_listener(config: Config, findings: Findings) -> None:
    """Check that ``http.listen`` is free, unless a running daemon of ours has it."""
    http = config.http
    if http is None or is_running_here(config) is not False:
        return
    try:
        if http.socket:
            _try_socket(http.socket)
        elif http.port:
            _try_port(http.host, http.port)
    except OSError as error:
        words = f"http.listen {http.listen}: {error.strerror}"
        findings.errors.append(f"{words}; choose another address, or free this one")


def _try_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


def _try_socket(path: Path) -> None:
    """Raise OSError if *path* is another program's socket, or its folder may not be written."""
    if has_listener(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if path.parent.is_dir() and not _is_writable(path.parent):
        raise OSError(errno.EACCES, f"{path.parent} may not be written by {_who()}")


def _check_metrics_file(config: Config, findings: Findings) -> None:
    """Warn of a folder in which the metrics file cannot be replaced; a missing one is an error already."""
    folder = config.metrics and config.metrics.file.parent
    if folder and ask_disk_or(False, folder, lambda: folder.is_dir() and not _is_writable(folder)):
        findings.warnings.append(f"metrics.file: {_cannot(folder, folder)}; {_grant(folder)}")


def _check_between(rules: Sequence[FolderRule], findings: Findings) -> None:
    """Report one inbox under two names (bind mounts)."""
    found = {rule.name: ask_disk_or(None, rule.inbox, partial(os.stat, rule.inbox)) for rule in rules}
    places = {name: (status.st_dev, status.st_ino) for name, status in found.items() if status}
    counts = Counter(places.values())
    findings.errors += [
        f"folder {rule.name}: another rule's inbox is the same folder ({rule.inbox}); one rule, one inbox"
        for rule in rules
        if rule.name in places and counts[places[rule.name]] > 1
    ]
