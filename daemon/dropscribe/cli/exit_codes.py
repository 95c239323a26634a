"""Exit codes: those of sysexits.h, which systemd shows by name, and 3 for failed files."""

from __future__ import annotations

OK = 0
SOME_FAILED = 3
USAGE = 2
IN_USE = 69
BUG = 70
IO_ERROR = 74
LEFT_WAITING = 75
CONFIG = 78
