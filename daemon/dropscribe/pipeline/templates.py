"""Text outputs by a rule's template, rendered by a process of its own with bounded work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from dropscribe.config.sections.templates import read_template
from dropscribe.core.errors import DropscribeError
from dropscribe.core.text.printing import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

RENDER_SECONDS = 60.0
"""Longest time for one render, on a machine that has much else to do."""

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")


class TemplateFailed(DropscribeError):
    """Raised with the reason, in words for people, when a template gives no text."""


def render_by_template(path: Path, document: Mapping[str, Any], audio: str) -> str:
    """The text that the template at *path* makes of *document*.

    Args:
        audio: The name that the recording gets in ``done``.

    Raises:
        TemplateFailed: It cannot be read, is wrong, or takes too long.
    """
    try:
        request = json.dumps({"template": read_template(path), "document": document, "audio": audio}).encode()
        done = subprocess.run(
            [sys.executable, "-P", "-m", "dropscribe.transcripts.template"],
            input=request,
            capture_output=True,
            timeout=RENDER_SECONDS,
            check=False,
            env={name: value for name, value in os.environ.items() if name in _PASSED_ON},
            cwd="/",
        )
    except subprocess.TimeoutExpired:
        raise TemplateFailed(f"it was not rendered within {RENDER_SECONDS:g} s") from None
    except (OSError, ValueError) as error:
        raise TemplateFailed(str(error)) from error
    if done.returncode:
        raise TemplateFailed(_reason(done.returncode, done.stderr))
    return done.stdout.decode()


def _reason(code: int, said: bytes) -> str:
    if code in {-signal.SIGXCPU, -signal.SIGKILL}:
        return "it takes too much work"
    return one_line(said.decode(errors="replace"))[-500:] or f"exit status {code}"
