"""The worker process: ``python -m dropscribe.native REQUESTS LIFE [FOLDER]``."""

from __future__ import annotations

import sys

from dropscribe.native.worker.server import serve

serve(*sys.argv[1:])
