"""``dropscribe``, the installed command, and ``python -m dropscribe``."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; an interrupt ends it without a traceback, also while it is imported."""
    try:
        from dropscribe.cli.main import main as run_command  # noqa: PLC0415

        return run_command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
