"""Dropped link files, from the inbox to done or failed, by the whole command."""

from __future__ import annotations

import plistlib

import pytest

from dropscribe.config.load import parse_config
from dropscribe.core.errors import ConfigError
from support.daemon_process import Installation
from support.emulator import Emulator, Fault
from support.house import digest, read_json, tree

URL = "https://media.example.com/talk.mp3?sig=SECRET"
LINKS = {"links": True, "link_hosts": ["media.example.com"]}


def shortcut(url: str) -> bytes:
    """What Windows writes when a url is dragged into a folder."""
    return f"[InternetShortcut]\r\nURL={url}\r\n".encode()


@pytest.fixture
def emulator():
    """The vendors."""
    with Emulator() as running:
        yield running


def test_link_files_become_transcripts(tmp_path, emulator):
    """Each kind of link file, beside plain audio: the provider gets the url, the file itself is kept."""
    house = Installation(tmp_path, emulator.url, rule=LINKS)
    house.drop("2026/talk.url", shortcut(URL))
    house.drop("mac.webloc", plistlib.dumps({"URL": URL}, fmt=plistlib.FMT_BINARY))
    house.drop("kde.desktop", f"[Desktop Entry]\nType=Link\nURL={URL}\n".encode())
    house.drop("call.wav", b"plain audio")

    assert house.run_once() == 0
    assert tree(house.inbox) == set()
    assert (house.done / "2026/talk.url").read_bytes() == shortcut(URL)
    document = read_json(house.done / "2026/talk.json")
    assert document["attributes"]["link"] == "https://media.example.com/talk.mp3"
    assert (document["source"]["file"], document["source"]["sha256"]) == ("talk.url", digest(shortcut(URL)))
    assert sorted(request.link for request in emulator.requests) == ["", URL, URL, URL]
    assert "link" not in read_json(house.done / "call.json")["attributes"]
    assert {"mac.webloc", "mac.json", "kde.desktop", "kde.json"} <= tree(house.done)


@pytest.mark.slow
def test_the_same_link_is_sent_again(tmp_path, emulator):
    """Its target may be another recording by now, so no answer is reused."""
    house = Installation(tmp_path, emulator.url, rule=LINKS)
    for name in ("monday.url", "tuesday.url"):
        house.drop(name, shortcut(URL))
        assert house.run_once() == 0

    assert [request.link for request in emulator.requests] == [URL, URL]


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/a.mp3?sig=SECRET",
        "http://127.0.0.1/a.mp3",
        "https://u:p@media.example.com/a",
        "file:///etc/passwd",
    ],
)
def test_a_refused_link_is_told_to_nobody(tmp_path, emulator, url):
    """It fails with the reason; no provider hears of it, and no query is kept."""
    house = Installation(tmp_path, emulator.url, rule=LINKS)
    house.drop("talk.url", shortcut(url))

    assert house.run_once() == 3
    document = read_json(house.failed / "talk.error.json")
    assert (document["code"], document["attempts"]) == ("link_refused", [])
    assert "SECRET" not in (house.failed / "talk.error.json").read_text()
    assert emulator.requests == []


def test_plan_foretells_a_refused_link(tmp_path, emulator):
    """With the reason, and without the url's query; one that is allowed is counted as sent."""
    house = Installation(tmp_path, emulator.url, rule=LINKS)
    house.drop("bad.url", shortcut("https://elsewhere.example/talk.mp3?sig=SECRET"))
    house.drop("empty.webloc", b"no property list")
    house.drop("good.url", shortcut(URL))
    folder = house.ask("plan")["folders"]["calls"]
    bad, empty, good = folder["files"]
    assert "elsewhere.example" in bad["reason"]
    assert all(file["reason"].endswith("it goes to failed, unsent") for file in (bad, empty))
    assert "failed" not in (good["reason"] or "")
    assert (folder["totals"]["files"], "SECRET" in str(folder)) == (1, False)


def test_a_provider_that_takes_no_links_is_not_asked(tmp_path, emulator):
    """The file fails with that reason; nothing is sent."""
    reson8 = {"type": "reson8", "url": emulator.url + "/v1/speech-to-text/prerecorded"}
    house = Installation(tmp_path, emulator.url, provider=reson8, rule=LINKS)
    house.drop("talk.url", shortcut(URL))

    assert house.run_once() == 3
    assert read_json(house.failed / "talk.error.json")["code"] == "links_not_supported"
    assert emulator.requests == []


def test_a_failure_tells_the_url_without_its_query(tmp_path, emulator):
    """A provider's own words about the link are kept without what may be a signature."""
    house = Installation(tmp_path, emulator.url, rule=LINKS)
    emulator.fail(Fault(status=400, body={"errors": f"could not download {URL}", "status": "error"}))
    house.drop("talk.url", shortcut(URL))

    assert house.run_once() == 3
    kept = (house.failed / "talk.error.json").read_text() + (tmp_path / "run-1.log").read_text()
    assert "could not download https://media.example.com/talk.mp3" in kept
    assert "SECRET" not in kept


@pytest.mark.slow
def test_without_links_they_are_left_alone(tmp_path, emulator):
    """Off is the default: a link file is no audio."""
    house = Installation(tmp_path, emulator.url)
    house.drop("talk.url", shortcut(URL))

    assert house.run_once() == 0
    assert tree(house.inbox) == {"talk.url"}
    assert emulator.requests == []


CONFIG = """\
providers:
  main: {type: %s, api_key: x}
folders:
  talks:
    inbox: in
    provider: main
    %s
"""


@pytest.mark.parametrize(
    ("kind", "keys", "place", "message"),
    [
        ("pulse", "links: true", "7:12", "links needs link_hosts"),
        ("pulse", 'links: true\n    link_hosts: ["*"]', "8:", "is not a host"),
        ("pulse", "links: true\n    link_hosts: [https://a.example/]", "8:", "is not a host"),
        ("pulse", "links: maybe", "7:", "neither true nor false"),
        ("reson8", "links: true\n    link_hosts: [a.example]", "7:12", "takes no links"),
        ("openai", "links: true\n    link_hosts: [a.example]", "7:12", "takes no links"),
        (
            "pulse",
            "links: true\n    link_hosts: [a.example]\n    params: {model: pulse-pro}",
            "7:12",
            "Pro takes no",
        ),
    ],
)
def test_bad_keys_are_refused_at_their_place(tmp_path, kind, keys, place, message):
    """No list of hosts, a list that allows everything, and (a warning) a provider that cannot."""
    try:
        problems = parse_config(CONFIG % (kind, keys), folder=tmp_path, environ={})[1]
    except ConfigError as error:
        problems = error.problems
    (problem,) = problems
    assert message in problem.message
    assert f"{problem.line}:{problem.column}".startswith(place)
