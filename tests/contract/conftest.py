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


REPRESENTATIVES = {"openai", "pulse"}
"""A form and a plain body: the quick tests try the common transport with these, the slow ones with all."""


@pytest.hookimpl(tryfirst=True)  # before the choice of the quick ones
def pytest_collection_modifyitems(items):
    """Tests of the transport that all adapters share are slow, but for those of two adapters."""
    for item in items:
        named = getattr(item, "callspec", None)
        kind = named and (named.params.get("bench") or named.params.get("any_bench"))
        shared = "test_network_failures" in item.nodeid or "a_status_decides_whatever" in item.nodeid
        if shared and isinstance(kind, str) and kind not in REPRESENTATIVES:
            item.add_marker(pytest.mark.slow)


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
