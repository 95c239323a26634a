"""One search of atheris, which ends its process; run.py starts it with a target and libFuzzer's options."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))

with atheris.instrument_imports(include=["dropscribe", "plistlib", "yaml"]):
    import plistlib  # noqa: F401  # the program imports it only where such a file comes

    from fuzz.targets import TARGETS

atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
atheris.Fuzz()
