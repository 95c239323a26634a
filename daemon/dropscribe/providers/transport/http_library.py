"""The HTTP library: httpx2 over httpcore2, or httpx over httpcore where only those are packaged.

The two pairs have one API; every module that needs it takes the names from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpcore2 as httpcore
    import httpx2 as httpx
else:
    try:
        import httpcore2 as httpcore
        import httpx2 as httpx
    except ImportError:
        import httpcore
        import httpx

__all__ = ["httpcore", "httpx"]
