"""Renders one template with one transcript, in a process of its own.

``python -m dropscribe.transcripts.template`` reads ``{"template": …, "document": …, "audio": …}`` from
standard input and writes the text to standard output; mistakes in the template are written to standard error.

Guarantees: the template sees the transcript and nothing else: no file, no environment, no include, and no
attribute that Jinja's sandbox calls unsafe. Its work, memory and output are bounded by the system, so that no
loop in it and no multiplication can hold up the daemon.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dropscribe.core.text.printing import plain_text
from dropscribe.transcripts.paragraphs import paragraphs_of
from dropscribe.transcripts.render import clock, escape, title_of, warning_lines

CPU_SECONDS = 10
MEMORY_BYTES = 1 << 30
OUTPUT_CHARACTERS = 16 << 20
FAILED = 3  # Exit code for a template that cannot be rendered


def render_template(source: str, document: Mapping[str, Any], audio: str) -> str:
    """The text that the template *source* makes of a ``dropscribe.transcript/1`` document.

    A template has ``transcript`` (the document without ``raw``), ``audio`` (the recording's name in
    ``done``), ``title``, ``paragraphs`` (``text``, ``start``, ``speaker``) and ``warnings`` (sentences), and
    the filters ``clock`` and ``markdown``. Raises TemplateError where it is wrong, names something that is
    not there, or writes more than any transcript needs.
    """
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"clock": clock, "markdown": escape}
    names = {
        "transcript": {key: value for key, value in document.items() if key != "raw"},
        "audio": audio,
        "title": title_of(document),
        "paragraphs": paragraphs_of(document),
        "warnings": warning_lines(document),
    }
    parts: list[str] = []
    length = 0
    for part in environment.from_string(source).generate(names):
        parts.append(part)
        length += len(part)
        if length > OUTPUT_CHARACTERS:
            raise TemplateError(f"it writes more than {OUTPUT_CHARACTERS} characters")
    return "".join(parts).rstrip("\n") + "\n"


def _main() -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.load(sys.stdin.buffer)
    try:
        text = render_template(request["template"], request["document"], request["audio"])
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        sys.stderr.write(f"line {line}: {error}" if line else str(error))
        return FAILED
    except MemoryError:
        sys.stderr.write("it needs too much memory")
        return FAILED
    except Exception as error:  # noqa: BLE001 - a template can raise anything
        sys.stderr.write(f"{type(error).__name__}: {error}")
        return FAILED
    # File names and companions may contain terminal control sequences.
    sys.stdout.buffer.write(plain_text(text).encode("utf-8", "replace"))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
