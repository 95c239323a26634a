"""Writes, names and withdraws the sidecars of one job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dropscribe.files.crashpoint import reached
from dropscribe.files.moves import FileName
from dropscribe.files.own_file import write_all
from dropscribe.publish.publication import NameTaken

if TYPE_CHECKING:
    from dropscribe.files.capabilities import Capabilities
    from dropscribe.files.own_file import OwnFile
    from dropscribe.files.permissions import Permissions
    from dropscribe.publish.publication import PublishRequest


def write_sidecars(
    request: PublishRequest,
    folder: int,
    can: Capabilities,
    permissions: Permissions,
    *,
    missing_alone: bool = False,
) -> None:
    """Write the sidecars that are not there yet into the open target *folder*; names are not synced.

    Args:
        missing_alone: The audio is in place already: existing files keep their names.

    Raises:
        NameTaken: Another file has one of the names.
    """
    for (sidecar, content), (name, _) in zip(request.sidecars(folder, can), request.files, strict=True):
        if missing_alone and FileName(folder, name).status() is not None:
            continue
        _write_one(sidecar, content, permissions)
        try:
            sidecar.place()
        except FileExistsError:
            raise NameTaken(request.output_names.path(name)) from None
        reached("sidecar_linked")


def _write_one(sidecar: OwnFile, content: bytes, permissions: Permissions) -> None:
    def fill(descriptor: int) -> None:
        permissions.apply(descriptor)  # before there is anything to read
        write_all(descriptor, content)

    sidecar.write(fill, permissions.mode & 0o666)
    reached("sidecar_written")


def withdraw_sidecars(request: PublishRequest, folder: int, can: Capabilities) -> bool:
    """Remove the sidecars of this job that stand in the open *folder*; whether any was removed."""
    removed = [sidecar.withdraw() for sidecar, _ in request.sidecars(folder, can)]
    return any(removed)
