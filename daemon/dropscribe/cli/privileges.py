"""Makes commands run by root act with the rights of the state directory's owner."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def act_as_owner(state_dir: Path) -> None:
    """Give up root's rights for good, for those of the owner of *state_dir*.

    Droppers may write in the folders that a command works in; with root's rights a race that they win
    would reach any file of the machine. Nothing changes for other users, or where no daemon has run yet.
    """
    if os.geteuid() != 0:
        return
    try:
        owner = os.stat(state_dir)
    except OSError:
        return
    if owner.st_uid == 0:
        return
    try:
        user = pwd.getpwuid(owner.st_uid)
    except KeyError:
        os.setgroups([])
        group = owner.st_gid
    else:
        group = user.pw_gid
        os.initgroups(user.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
