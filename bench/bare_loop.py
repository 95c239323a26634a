"""The bare minimum: upload every file of a folder with httpx, N in flight, and look at the answers.

Nothing is written, nothing survives, nothing is retried: what is left when all that dropscribe is for is
taken away. ``bare_loop.py FOLDER URL N``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx


async def main(folder: Path, url: str, in_flight: int) -> None:
    waiting = sorted(folder.iterdir())
    headers = {"Authorization": "Bearer sk_emulator_key", "Content-Type": "audio/wav"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:

        async def work() -> None:
            while waiting:
                answer = await client.post(url, content=waiting.pop().read_bytes())
                assert answer.json()["status"] == "success"

        await asyncio.gather(*(work() for _ in range(in_flight)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
