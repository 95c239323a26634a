"""What may be written in the section ``queue``; as ``keys.py``, of which it is a part."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dropscribe.config import field_types as t  # noqa: TC001 - pydantic reads the annotations
from dropscribe.config.section import Keys


class QueueKeys(Keys):
    """Where the queue is."""

    type: Literal["embedded", "postgres"] = Field(
        description="`embedded`: in the state directory, for this machine alone; `postgres`: shared by "
        "several, needs `dropscribe[cluster]`. Changed by a restart, not by a reload."
    )
    dsn: t.SecretText | None = Field(
        default=None,
        description="The database, as libpq takes it, best as `${NAME}`: "
        "`postgresql://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full`.",
    )
    dsn_file: t.Text | None = Field(default=None, description="A file that holds the dsn and nothing else.")
    dsn_credential: t.Text | None = Field(
        default=None, description="The systemd credential (`LoadCredential=`) that holds the dsn."
    )
    role: Literal["all", "watch", "work"] = Field(
        default="all",
        description="What this node does: `watch` the inboxes, `work` on what is queued, or both.",
    )
    roots: dict[t.RootName, t.Text] = Field(
        default={},
        description="The places that nodes share: `{share: /mnt/share}`, the same names on every node. "
        "A folder with inbox, done or failed elsewhere is left to other nodes.",
    )
    node: t.Name | None = Field(
        default=None,
        description="This node's name, which no other node of the cluster may have; default: the host's name "
        "(give containers one).",
    )
