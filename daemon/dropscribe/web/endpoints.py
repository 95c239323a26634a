"""The endpoints for programs: /metrics, /healthz, /readyz, /status."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

ANSWER_SECONDS = 10.0
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Endpoints for health, readiness, metrics and status.

    Attributes:
        metrics: The body of /metrics.
        status: The object of /status and of ``status --json``.
        find_stuck: "" while the loop and intake live, else the stuck part: /healthz is 503 then.
        find_unready: "" once everything is watched and served, else the missing part: /readyz is 503 then.
    """

    metrics: Callable[[], Awaitable[bytes]]
    status: Callable[[], Awaitable[Mapping[str, Any]]]
    find_stuck: Callable[[], str]
    find_unready: Callable[[], str]

    def routes(self) -> list[Route]:
        """Routes for a Starlette application."""
        return [
            Route("/metrics", self._metrics),
            Route("/status", self._status),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
        ]

    async def _metrics(self, _request: Request) -> Response:
        async with asyncio.timeout(ANSWER_SECONDS):
            body = await self.metrics()
        return Response(body, headers={"Content-Type": _METRICS_TYPE})

    async def _status(self, _request: Request) -> Response:
        async with asyncio.timeout(ANSWER_SECONDS):
            document = await self.status()
        return Response(json.dumps(document).encode() + b"\n", media_type="application/json")

    async def _healthz(self, _request: Request) -> Response:
        return _health(self.find_stuck())

    async def _readyz(self, _request: Request) -> Response:
        return _health(self.find_unready())


def _health(trouble: str) -> Response:
    status = HTTPStatus.SERVICE_UNAVAILABLE if trouble else HTTPStatus.OK
    text = (trouble or "ok").encode("utf-8", "backslashreplace").decode() + "\n"
    return PlainTextResponse(text, status)
