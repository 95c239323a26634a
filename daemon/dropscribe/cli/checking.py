"""``check`` of the folders, the state directory and the limits of the system."""

from __future__ import annotations

import os
import pwd
import socket
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropscribe.core.errors import StoreError
from dropscribe.core.rules import taking_of
from dropscribe.files.beneath import closing, open_root
from dropscribe.files.capabilities import Move, capabilities_of
from dropscribe.files.mounts import Mount, MountKind, mount_of, require_proc
from dropscribe.queue.embedded.store import open_for_reading
from dropscribe.reports.inbox_reader import unavailable_reason
from dropscribe.reports.patience import LISTING_SECONDS, ask_disk, ask_disk_or
from dropscribe.reports.queue_reader import is_running_here
from dropscribe.reports.wording import bytes_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dropscribe.config.model import Config, FolderRule

_LITTLE_ROOM_BYTES = 100_000_000
_CHECK_SECONDS = 10.0
"""Limit in seconds for all checks of one folder, including the trial of publishing there."""

_MOST_FOLDERS_COUNTED = 200_000
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


@dataclass(slots=True)
class Findings:
    """Problems found: *errors* make ``run`` impossible, *warnings* do not."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_folder(rule: FolderRule, findings: Findings) -> dict[str, dict[str, Any]]:
    """The three folders of a rule, by name: ``path``, ``exists`` and the results of their checks."""
    inbox = _in_time(rule, "inbox", findings, lambda found: _check_inbox(rule, found))
    inbox = inbox or _no_answer(rule.inbox, "readable", "writable", "watch", "file_system")
    parts = {"inbox": inbox}
    for name, path in (("done", rule.done), ("failed", rule.failed)):
        look = partial(_check_target, rule, name, path, has_inbox=bool(inbox["exists"]))
        parts[name] = _in_time(rule, name, findings, look) or _no_answer(path, "writable", "same_mount")
    return parts


def _in_time(
    rule: FolderRule, part: str, findings: Findings, look: Callable[[Findings], dict[str, Any]]
) -> dict[str, Any] | None:
    """The result of *look*; None if the folder's file system does not answer."""
    found = Findings()
    path: Path = getattr(rule, part)
    facts = None
    try:
        facts = ask_disk(path, lambda: look(found), seconds=_CHECK_SECONDS)
    except OSError as error:
        found = Findings(warnings=[f"{part} {path}: {error.strerror}; until then it waits"])
    findings.errors += [f"folder {rule.name}: {error}" for error in found.errors]
    findings.warnings += [f"folder {rule.name}: {warning}" for warning in found.warnings]
    return facts


def _no_answer(path: Path, *keys: str) -> dict[str, Any]:
    return {"path": str(path), "exists": None, **dict.fromkeys(keys)}


def _check_inbox(rule: FolderRule, findings: Findings) -> dict[str, Any]:
    reason = unavailable_reason(rule)
    facts: dict[str, Any] = {
        "path": str(rule.inbox),
        "exists": os.path.isdir(rule.inbox),
        "readable": reason is None,
        "writable": reason is None and os.access(rule.inbox, os.W_OK | os.X_OK, effective_ids=True),
        "watch": None,
        "file_system": None,
    }
    if reason:
        findings.warnings.append(f"{reason}; until then it waits, the others do not")
        return facts
    mount = mount_of(os.fsencode(rule.inbox))
    facts["file_system"] = mount.name
    facts["watch"] = _watch(rule, mount, findings)
    if not facts["writable"]:
        findings.warnings.append(
            f"{rule.inbox} may not be written by {_who()}, so that audio could not be moved out of it; "
            f"{_grant(rule.inbox)}"
        )
    return facts


def _watch(rule: FolderRule, mount: Mount, findings: Findings) -> str:
    if rule.watch == "native" and not mount.gives_events:
        findings.warnings.append(
            f"watch: native on {mount.name} does not see what other machines write; use auto or poll"
        )
    if rule.watch != "auto":
        return rule.watch
    return "native" if mount.gives_events else "poll"


def _check_target(
    rule: FolderRule, name: str, path: Path, findings: Findings, has_inbox: bool
) -> dict[str, Any]:
    place = nearest(path)
    writable = os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK, effective_ids=True)
    same_mount = has_inbox and mount_key(place) == mount_key(rule.inbox)
    if not writable:
        findings.warnings.append(
            f"{name} {_cannot(path, place)}; {_grant(place)}"
            if os.path.isdir(place)
            else f"{name} cannot be made: {place} is not a folder"
        )
    elif has_inbox and not same_mount:
        findings.warnings.append(
            f"{name} is on another mount than the inbox: each file is copied and verified there, not renamed"
        )
    if writable:
        _check_moves(name, place, findings)
    return {
        "path": str(path),
        "exists": place == path and os.path.isdir(path),
        "writable": writable,
        "same_mount": same_mount if has_inbox else None,
    }


def _check_moves(name: str, place: Path, findings: Findings) -> None:
    """Try on the mount the system calls that publishing needs."""
    try:
        with closing(open_root(os.fsencode(place))) as folder:
            can = capabilities_of(folder)
    except OSError as error:
        findings.warnings.append(f"{name}: nothing can be made in {place}: {error.strerror or error}")
        return
    if can.move is Move.NONE:
        findings.errors.append(
            f"{name}: files can be neither linked nor renamed on this {can.file_system}, so nothing is sent; "
            "use another file system"
        )
    elif not can.is_safe:
        findings.warnings.append(
            f"{name}: this {can.file_system} has no move that never overwrites (neither links nor exclusive "
            "renames): another program should not write files there"
        )


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
    if not os.access(path, os.W_OK, effective_ids=True) and os.statvfs(path).f_flag & os.ST_RDONLY:
        return "it is read-only here: remount it, or name it in ReadWritePaths= (systemctl edit dropscribe)"
    return f"give it access: setfacl -m u:{os.geteuid()}:rwx {path}, or a common group"


def nearest(path: Path) -> Path:
    """*path*, or its nearest parent that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def mount_key(path: Path) -> tuple[int, int] | None:
    """(st_dev, mount id): renames work between equal keys; bind mounts share only st_dev."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii").splitlines()
        numbers = [int(line.split()[1]) for line in lines if line.startswith("mnt_id:")]
        return os.fstat(descriptor).st_dev, numbers[0] if numbers else 0
    finally:
        os.close(descriptor)


def check_state_dir(config: Config, findings: Findings) -> dict[str, Any]:
    """Check that the state directory is local, writable and has room; and whether a daemon uses it."""
    path = config.state_dir
    place = nearest(path)
    writable = os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK, effective_ids=True)
    mount = mount_of(os.fsencode(place))
    room = os.statvfs(place)
    free_bytes = room.f_bavail * room.f_frsize
    try:
        require_proc()
    except OSError as error:
        findings.errors.append(f"{error.filename} {error.strerror}")
    if mount.kind is MountKind.REMOTE:
        findings.errors.append(
            f"state_dir {path} is on a network file system ({mount.name}); use a local disk"
        )
    elif not writable:
        findings.errors.append(
            f"state_dir {_cannot(path, place)}; run this as the daemon's user, or set another state_dir"
        )
    else:
        if free_bytes < _LITTLE_ROOM_BYTES:
            findings.warnings.append(f"state_dir {path}: only {bytes_words(free_bytes)} are free")
        _check_database(path, findings)
    return {
        "path": str(path),
        "exists": place == path,
        "writable": writable,
        "file_system": mount.name,
        "free_bytes": free_bytes,
        "running": is_running_here(config),
    }


def _check_database(state_dir: Path, findings: Findings) -> None:
    """Check that the queue's database, if there is one, can be opened by this version."""
    try:
        if connection := open_for_reading(state_dir):
            connection.close()
    except StoreError as error:
        findings.errors.append(
            f"{error.path}: {error.reason}" + (f"; {error.remedy}" if error.remedy else "")
        )


def warn_of_root(config: Config, findings: Findings) -> None:
    """Warn that root can do everything, so that this check proves little for the daemon's user."""
    try:
        owner = pwd.getpwuid(os.stat(config.state_dir).st_uid).pw_name
    except (OSError, KeyError):
        return
    if os.geteuid() == 0 and owner != "root":
        findings.warnings.append(
            f"checked as root, who may do everything; as the daemon's user: sudo -u {owner} dropscribe check"
        )


def check_listener(config: Config, findings: Findings) -> None:
    """Check that ``http.listen`` is free, unless a running daemon of ours has it."""
    if config.http is None or config.http.port == 0 or is_running_here(config) is not False:
        return
    family = socket.AF_INET6 if ":" in config.http.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.http.host, config.http.port))
        except OSError as error:
            findings.errors.append(
                f"http.listen {config.http.listen}: {error.strerror}; choose another port, or free it"
            )


def check_between(rules: Sequence[FolderRule], findings: Findings) -> None:
    """Report one inbox under two names (bind mounts), and more folders than may be watched.

    Args:
        rules: The rules with an inbox that can be listed.
    """
    places = {rule.name: _place(rule) for rule in rules}
    counts = Counter(places.values())
    for rule in rules:
        if places[rule.name] and counts[places[rule.name]] > 1:
            findings.warnings.append(
                f"folder {rule.name}: another rule's inbox is the same folder ({rule.inbox})"
            )
    folders = sum(_count_folders(rule) for rule in rules)
    limit = _watch_limit()
    if limit is not None and folders > limit:
        findings.warnings.append(
            f"{folders:,} folders are to be watched and fs.inotify.max_user_watches is {limit:,}: "
            f"the rest is polled; sysctl fs.inotify.max_user_watches={2 * folders}"
        )


def _place(rule: FolderRule) -> tuple[int, int] | None:
    status = ask_disk_or(None, rule.inbox, lambda: os.stat(rule.inbox))
    return (status.st_dev, status.st_ino) if status else None


def _watch_limit() -> int | None:
    try:
        return int(_WATCHES.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _count_folders(rule: FolderRule) -> int:
    if not rule.recursive or rule.watch == "poll":
        return 1
    return ask_disk_or(0, rule.inbox, lambda: _count(rule), seconds=LISTING_SECONDS)


def _count(rule: FolderRule) -> int:
    taking = taking_of(rule)
    count = 0
    for _, below, _ in os.walk(os.fsencode(rule.inbox)):
        below[:] = [name for name in below if taking.enters(name)]
        count += 1
        if count == _MOST_FOLDERS_COUNTED:
            break
    return count
