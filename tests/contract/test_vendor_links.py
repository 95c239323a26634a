"""Links: what the vendors that fetch audio themselves get to see."""

from __future__ import annotations

import pytest

from dropscribe.core.errors import AudioRejected
from support.emulator import Fault

URL = 'https://media.example.com/a"b.mp3?sig=ab&x=ü'


async def test_pulse_gets_the_url_as_json(bench_of):
    """Its documented second method: the parameters in the query, the url in a JSON body."""
    bench = bench_of("pulse")
    transcript = await bench.provider().transcribe_link(URL, {"language": "de"})
    (request,) = bench.emulator.requests
    assert request.link == URL
    assert dict(request.params) == {"model": "pulse", "word_timestamps": "true", "language": "de"}
    assert transcript.text == f"Heard what is at {URL}"
    assert transcript.words


async def test_a_compatible_server_gets_the_url_as_a_field(bench_of):
    """In a form without a file, beside the parameters."""
    bench = bench_of("openai")
    bench.emulator.vendors.takes_url = True
    transcript = await bench.provider().transcribe_link(URL, {"model": "whisper-large-v3"})
    (request,) = bench.emulator.requests
    assert request.link == URL
    assert dict(request.fields)["model"] == "whisper-large-v3"
    assert transcript.text == f"Heard what is at {URL}"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "no file", "param": "file", "code": None}}),
        (422, {"detail": [{"type": "missing", "loc": ["body", "file"], "msg": "Field required"}]}),
    ],
)
async def test_a_server_without_that_field_says_that_the_file_is_missing(bench_of, status, body):
    """Then the link is what it does not take; neither the rule nor the provider is at fault."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(status=status, body=body))
    with pytest.raises(AudioRejected) as raised:
        await bench.provider().transcribe_link(URL, {"model": "m"})
    assert (raised.value.code, raised.value.maybe_rule) == ("links_not_supported", False)
