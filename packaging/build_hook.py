"""Hatchling's hook: man pages and completion are made when a wheel is built, and laid under share/."""

# ruff: noqa: INP001  # a script, no package
from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class DocsHook(BuildHookInterface[Any]):
    """Runs make_docs.py; an editable install goes without."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add what was made to *build_data*."""
        if version == "editable":
            return
        self._made = tempfile.TemporaryDirectory(prefix="dropscribe-docs-")
        share = Path(self._made.name)
        command = [sys.executable, str(Path(self.root, "packaging", "make_docs.py")), str(share)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # ours
        for page in share.rglob("*"):
            # Debian's folder for zsh is for the Debian package alone.
            if page.is_file() and "vendor-completions" not in page.parts:
                build_data["shared_data"][str(page)] = f"share/{page.relative_to(share)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made."""
        del build_data, artifact_path
        if version != "editable":
            self._made.cleanup()
