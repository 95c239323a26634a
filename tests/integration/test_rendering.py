"""Documents are built, parsed and rendered beside the event loop, unless they are short."""

from __future__ import annotations

import threading

import pytest

from dropscribe.core.model import Retry
from dropscribe.pipeline import rendering, results
from dropscribe.pipeline.publisher import Publisher
from support.house import House, make_config, tree

BOUND_SECONDS = 30.0
"""For a call on the event loop, which would wait for the loop itself."""


class Blocked:
    """A function in the place of another one, which goes on only when the event loop says so."""

    def __init__(self, original):
        self.original = original
        self.has_begun, self.may_go_on = threading.Event(), threading.Event()

    def __call__(self, *arguments, **keywords):
        self.has_begun.set()
        if not self.may_go_on.wait(BOUND_SECONDS):
            raise TimeoutError("the event loop did not go on")
        return self.original(*arguments, **keywords)


async def _goes_on(house, blocked):
    await house.until(blocked.has_begun.is_set, BOUND_SECONDS)
    blocked.may_go_on.set()
    await house.rest(BOUND_SECONDS)


@pytest.fixture
def _long(monkeypatch):
    """All documents are long."""
    monkeypatch.setattr(rendering, "_SHORT_VALUES", 0)


@pytest.mark.usefixtures("_long")
@pytest.mark.parametrize("step", ["transcript_document", "RENDERERS"])
async def test_the_loop_goes_on_while_a_transcript_is_made(tmp_path, monkeypatch, step):
    """An answer that takes minutes to render holds up no other upload, no signal and no health check."""
    if step == "RENDERERS":
        blocked = Blocked(rendering.RENDERERS["txt"])
        monkeypatch.setitem(rendering.RENDERERS, "txt", blocked)
    else:
        blocked = Blocked(results.transcript_document)
        monkeypatch.setattr(results, step, blocked)
    async with House(make_config(tmp_path)) as house:
        await house.drop("call.wav")
        await _goes_on(house, blocked)
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


@pytest.mark.usefixtures("_long")
async def test_the_loop_goes_on_while_an_earlier_answer_is_read(tmp_path, monkeypatch):
    """Also for a recording whose answer is known, which is parsed again."""
    async with House(make_config(tmp_path, ledger_keep_seconds=3600.0)) as house:
        await house.drop("first.wav")
        await house.rest()
        blocked = Blocked(results.reused_document)
        monkeypatch.setattr(results, "reused_document", blocked)
        await house.drop("second.wav")
        await _goes_on(house, blocked)
    assert {"second.wav", "second.json", "second.txt"} < tree(tmp_path / "done")


@pytest.mark.usefixtures("_long")
async def test_the_loop_goes_on_while_a_stored_answer_is_read_after_a_restart(tmp_path, monkeypatch):
    """Thousands of answers may wait for a full disk when the daemon starts."""

    async def later(*_):
        return Retry(0.0, "test", "the files are not written yet")

    with monkeypatch.context() as held:
        held.setattr(Publisher, "publish", later)
        async with House(make_config(tmp_path)) as house:
            await house.drop("call.wav")
            await house.until(lambda: _is_publishing(house))
    blocked = Blocked(rendering.unpacked)
    monkeypatch.setattr(rendering, "unpacked", blocked)
    async with House(make_config(tmp_path)) as house:
        await _goes_on(house, blocked)
    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}


async def _is_publishing(house):
    return (await house.stats()).publishing == 1


@pytest.mark.parametrize(
    ("document", "is_short"),
    [
        ({"text": "A sentence.", "words": [{"word": "A"}] * 20}, True),
        ({"text": "word " * 10_000, "words": []}, False),
        ({"text": "", "words": [{"word": "A"}] * 1_000}, False),
        ({"text": "", "raw": {"k" * 100_000: 1}}, False),
        ({"text": "", "raw": {"a": {"b": [{"c": list(range(1_000))}]}}}, False),
    ],
)
def test_a_short_document_is_told_by_all_its_values(document, is_short):
    """What a provider sends along counts too: it is written into the sidecar."""
    assert rendering._is_short(document) is is_short
