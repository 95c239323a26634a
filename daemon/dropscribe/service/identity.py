"""The user and group of the process in a container: PUID, PGID and UMASK, as on NAS devices.

Their shares belong to a user that the image cannot know. Where the container starts as root, the process
becomes that user before it touches anything; a numeric ``user:`` does the same from outside.

Guarantees: does nothing outside our own image, whose environment has :data:`CONTAINER_SIGN`: a PUID that an
admin exports for other containers is ignored by a daemon on the host. Root privileges are
dropped for good, in one step or not at all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dropscribe.config.extras import CONTAINER_SIGN
from dropscribe.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

_HIGHEST_ID = 2**32 - 2  # (uid_t) -1 means "leave it" to the kernel
_HIGHEST_UMASK = 0o777


def switch_user(environ: Mapping[str, str]) -> None:
    """Switch to the user PUID and group PGID, with UMASK; before any file is opened or thread started.

    A PUID without PGID is a group of the same number. Groups that the container was given (``group_add``)
    stay, root's own does not. Without root, PUID and PGID are ignored in favour of ``user:``.

    Args:
        environ: The process's environment.

    Raises:
        ConfigError: One of the three is not a number as chown(1) and umask(1) take it.
    """
    if not environ.get(CONTAINER_SIGN):
        return
    if mask := environ.get("UMASK"):
        os.umask(_number("UMASK", mask, 8, _HIGHEST_UMASK))
    user, group = environ.get("PUID") or "", environ.get("PGID") or ""
    if os.geteuid() != 0 or not (user or group):
        return
    user_id = _number("PUID", user or "0", 10, _HIGHEST_ID)
    _become(user_id, _number("PGID", group or str(user_id), 10, _HIGHEST_ID))


def _number(name: str, text: str, base: int, highest: int) -> int:
    try:
        value = int(text, base) if text.isascii() and text.isdigit() else -1
    except ValueError:  # an 8 or 9 in an octal number
        value = -1
    if 0 <= value <= highest:
        return value
    kind = "an octal mask such as 022" if base == 8 else "a number such as 1000 (`id` shows yours)"
    raise ConfigError((Problem(f"environment {name}: {text!r} is not {kind}"),))


def _become(user_id: int, group_id: int) -> None:
    # The order is forced: without the right to change users, groups cannot be changed either.
    if user_id:
        os.setgroups([group for group in os.getgroups() if group])
    os.setresgid(group_id, group_id, group_id)
    os.setresuid(user_id, user_id, user_id)
