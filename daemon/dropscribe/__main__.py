"""``python -m dropscribe``."""

from __future__ import annotations

import sys

from dropscribe.cli.main import main

sys.exit(main())
