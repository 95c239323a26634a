"""Each adapter against the emulator; the same promises for all of them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from support.benches import DESCRIBED_JOBS, JOB_PATHS, PATHS, Bench
from support.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

PROXIES = [f"{name}{end}" for name in ("http", "https", "all", "no") for end in ("_proxy", "_PROXY")]


@pytest.fixture
def emulator(monkeypatch) -> Iterator[Emulator]:
    """A running emulator, with no proxy between it and us."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    with Emulator() as running:
        yield running


@pytest.fixture(params=list(PATHS))
async def bench(request, emulator, tmp_path):
    """Every test with a bench runs for every adapter that answers in the request."""
    async with contextlib.AsyncExitStack() as stack:
        yield Bench(request.param, emulator, tmp_path, stack)


@pytest.fixture(params=[*PATHS, *JOB_PATHS, DESCRIBED_JOBS])
async def any_bench(request, emulator, tmp_path):
    """Every test with such a bench runs for every adapter."""
    async with contextlib.AsyncExitStack() as stack:
        yield Bench(request.param, emulator, tmp_path, stack)


@pytest.fixture(params=[*JOB_PATHS, DESCRIBED_JOBS])
async def job_bench(request, emulator, tmp_path):
    """Every test with such a bench runs for every adapter with jobs."""
    async with contextlib.AsyncExitStack() as stack:
        yield Bench(request.param, emulator, tmp_path, stack)


@pytest.fixture
async def bench_of(emulator, tmp_path):
    """A bench for one adapter by its type."""
    async with contextlib.AsyncExitStack() as stack:
        yield lambda kind: Bench(kind, emulator, tmp_path, stack)
