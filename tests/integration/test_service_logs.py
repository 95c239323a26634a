"""Log lines: their form by destination, nothing secret in them, nothing forged by a file's name."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from dropscribe.core.model import JobState
from dropscribe.service import logs
from dropscribe.service.logs import LogCleaner, _LibraryBridge, configure_logging

SOURCE = str(Path(logs.__file__).parents[2])
CANARY = 'sk-canary "quoted\\slash" ü'
EVIL_NAME = b"call\n2026-01-01 level=info event=job.done \x1b[2J\xff\xe2\x80\xae.wav"


@pytest.fixture(autouse=True)
def _reset_logging():
    before = structlog.get_config()
    handlers, level = list(logging.root.handlers), logging.root.level
    yield
    configure_logging()  # lets go of the test's stream
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def logged(form: str, event: str = "job.queued", *, secrets=(), level: str = "info", **fields) -> str:
    """What one event looks like in *form*."""
    stream = io.StringIO()
    configure_logging(level, form, stream, secrets)
    structlog.get_logger().info(event, **fields)
    return stream.getvalue()


def test_logfmt_line():
    """The head, then the fields in their order; quotes only where they are needed."""
    line = logged("auto", folder="calls", path=b"2026/a b.wav", attempt=2, ok=True, hold=None)
    head, _, rest = line.partition(" ")
    assert head.startswith("timestamp=20")
    assert rest == (
        'level=info event=job.queued folder=calls path="2026/a b.wav" attempt=2 ok=true hold=null\n'
    )


def test_json_line():
    """One object a line, with the types kept."""
    line = json.loads(logged("json", attempt=2, paths=[b"a\xff", Path("/x")], hold=None))
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "event": "job.queued",
        "attempt": 2,
        "paths": ["a\udcff", "/x"],
        "hold": None,
    }


def test_console_line():
    """Time, level, event, fields; no colour where the stream is no terminal."""
    line = logged("console", folder="calls")
    assert line[8:] == " info     job.queued  folder=calls\n"


@pytest.mark.parametrize("form", ["console", "logfmt", "json"])
def test_a_name_cannot_forge_a_line(form):
    """Newlines, terminal escapes, direction marks and broken UTF-8 in a name are shown, never sent."""
    line = logged(form, path=EVIL_NAME)
    assert line.count("\n") == 1
    assert line.strip("\n").isprintable()
    assert "\\udcff" in line
    assert line.encode()


def test_a_key_cannot_forge_a_line():
    """Keys come from us, but may be a folder's name in a dict: they cannot break the line either."""
    assert logged("logfmt", **{"a b\n=": 1}).endswith(" a_b__=1\n")


@pytest.mark.parametrize("form", ["console", "logfmt", "json", "journal"])
@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": "other"},
        {"headers": {"Authorization": "Bearer other"}},
        {"request": {"x-api-key": "other", "deep": [{"auth_token": "other"}]}},
        {"reason": f"refused {CANARY}!"},
        {"reason": f"refused {CANARY!r}!"},
        {"reason": json.dumps({"key": CANARY})},
        {"error": ValueError(CANARY)},
        {CANARY: 1},
        {"url": "https://h/x?key=other#frag"},
        {"url": "GET https://user:other@proxy:80/x?key=other failed"},
    ],
)
def test_no_secret_in_any_line(form, fields):
    """Neither by key, nor by value, nor by form, nor in a URL does a secret reach a line."""
    line = logged(form, secrets=[CANARY], **fields)
    assert "other" not in line
    assert "canary" not in line
    assert "***" in line or "https://h/x" in line


@pytest.mark.parametrize("form", ["console", "logfmt", "json"])
def test_no_secret_in_a_traceback(form):
    """Exception text passes the redactor; the traceback itself stays readable."""
    stream = io.StringIO()
    configure_logging("info", form, stream, [CANARY])
    try:
        int(CANARY)
    except ValueError:
        structlog.get_logger().exception("loop.crashed")
    assert "ValueError: invalid literal for int() with base 10: '***'" in stream.getvalue()
    assert "test_no_secret_in_a_traceback" in stream.getvalue()


def test_a_secret_stays_secret_after_a_reload():
    """An attempt may end after the reload that changed its key."""
    redactor = LogCleaner()
    redactor.learn(["old-key-1"])
    redactor.learn(["new-key-2"])
    assert redactor.clean_text("old-key-1 new-key-2") == "*** ***"


def test_a_word_of_an_enumeration_is_plain_text():
    """Also without any secret: the text forms print only plain strings without quotes."""
    assert type(LogCleaner().clean(JobState.DONE)) is str


def test_tiny_keys_do_not_mask_everything():
    """A local server's key "x" leaves words alone; ordinary fields that count tokens are shown."""
    redactor = LogCleaner()
    redactor.learn(["x", ""])
    assert redactor.clean_fields({"text": "xylophone", "tokens": 3}) == {"text": "xylophone", "tokens": 3}


def test_a_reload_reaches_every_logger():
    """Level, form and stream change under a logger that was used before, as each module's is."""
    first, second = io.StringIO(), io.StringIO()
    configure_logging("warning", "logfmt", first)
    log = structlog.get_logger()
    log.info("a.dropped")
    log.warning("b.kept")
    configure_logging("debug", "json", second)
    log.debug("c.kept")
    log.info("d.kept")
    assert [line.split()[2] for line in first.getvalue().splitlines()] == ["event=b.kept"]
    assert [json.loads(line)["event"] for line in second.getvalue().splitlines()] == ["c.kept", "d.kept"]


def test_warnings_of_libraries_are_lines_of_ours():
    """INFO of httpx (which would print URLs) is dropped; its warnings come through, redacted."""
    stream = io.StringIO()
    configure_logging("debug", "logfmt", stream, [CANARY])
    logging.getLogger("httpx2").info("HTTP Request: GET https://h/?key=1")
    logging.getLogger("watchdog.x").warning("lost %s", CANARY)
    lines = [line.partition("event=")[2] for line in stream.getvalue().splitlines()]
    assert lines == [
        'library.logged library=watchdog.x text="lost ***"',
    ]


def test_a_librarys_wrong_arguments_raise_nothing():
    """The message stands as it was written."""
    stream = io.StringIO()
    configure_logging("debug", "logfmt", stream)
    fields = {"name": "watchdog.x", "levelno": 30, "msg": "lost %(what)s", "args": {"which": 1}}
    _LibraryBridge().emit(logging.makeLogRecord(fields))
    assert stream.getvalue().endswith('event=library.logged library=watchdog.x text="lost %(what)s"\n')


def test_a_stream_that_went_away_never_raises():
    """`dropscribe run 2>&1 | head` must not end the daemon."""
    code = "import structlog, dropscribe.service.logs as l; l.configure_logging();"
    code += "structlog.get_logger().info('job.queued'); print('alive')"
    read, write = os.pipe()
    os.close(read)
    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        stderr=write,
        check=False,
    )
    os.close(write)
    assert out.stdout == b"alive\n"


def test_a_closed_stream_never_raises(tmp_path):
    """Nor does a standard error that somebody closed."""
    with (tmp_path / "log").open("w") as gone:
        configure_logging("info", "logfmt", gone)
    structlog.get_logger().info("job.queued")


def test_rich_stays_out():
    """Rich is not loaded with the logs: a daemon would pay for it at each start."""
    code = "import sys, dropscribe.service.logs as l; l.configure_logging(); print('rich' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": SOURCE}, capture_output=True, check=True
    )
    assert out.stdout == b"False\n"


# The journal ----------------------------------------------------------------------------------------


@pytest.fixture
def journald(tmp_path):
    """A socket that stands where journald's would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "journal"))
        server.settimeout(5)
        yield server


def receive_entry(server: socket.socket) -> dict[str, bytes]:
    """The next entry."""
    return parse_entry(server.recv(1 << 20))


def parse_entry(data: bytes) -> dict[str, bytes]:
    """The fields of one entry of the native protocol."""
    entry = {}
    while data:
        name, separator, _ = data.partition(b"\n")
        if b"=" in name:
            key, _, value = name.partition(b"=")
            data = data[len(name) + 1 :]
        else:
            start = len(name) + len(separator) + 8
            (size,) = struct.unpack("<Q", data[start - 8 : start])
            key, value, data = name, data[start : start + size], data[start + size + 1 :]
        entry[key.decode()] = value
    return entry


def test_journal_fields(journald, tmp_path):
    """An event arrives as native fields under our own prefix, its message readable by itself."""
    writer = logs.JournalWriter(io.StringIO(), str(tmp_path / "journal"))
    writer.write(
        {"event": "file.done", "level": "warning", "timestamp": "t", "folder": "calls", "n-o.x": [1]}
    )
    assert receive_entry(journald) == {
        "MESSAGE": b"file.done folder=calls n-o.x=[1]",
        "PRIORITY": b"4",
        "SYSLOG_IDENTIFIER": b"dropscribe",
        "DROPSCRIBE_EVENT": b"file.done",
        "DROPSCRIBE_FOLDER": b"calls",
        "DROPSCRIBE_N_O_X": b"[1]",
    }


def test_journal_traceback_and_evil_names(journald, tmp_path):
    """A traceback keeps its lines; a name cannot add one, nor a field of its own."""
    writer = logs.JournalWriter(io.StringIO(), str(tmp_path / "journal"))
    path = "a\nPRIORITY=0\nb\udcff"
    writer.write({"event": "e.x", "level": "error", "path": path, "exception": "Trace\n  line\n"})
    entry = receive_entry(journald)
    assert entry["PRIORITY"] == b"3"
    assert entry["DROPSCRIBE_PATH"] == b"a\\nPRIORITY=0\\nb\\udcff"
    assert entry["MESSAGE"].split(b"\n")[1:] == [b"    Trace", b"      line"]


def test_a_huge_entry_goes_to_the_stream(journald, tmp_path):
    """No datagram can hold it; journald reads the stream too."""
    fallback = io.StringIO()
    writer = logs.JournalWriter(fallback, str(tmp_path / "journal"))
    writer.write({"event": "e.x", "level": "error", "reason": "x" * 700_000})
    assert fallback.getvalue() == f"<3>e.x reason={'x' * 700_000}\n"


def test_without_journald_the_line_goes_to_the_stream(tmp_path):
    """The fallback has the priority where journald and the kernel read it: at the line's start."""
    fallback = io.StringIO()
    writer = logs.JournalWriter(fallback, str(tmp_path / "nobody"))
    writer.write({"event": "e.x", "level": "error", "exception": "Trace"})
    assert fallback.getvalue() == "<3>e.x\n<3>    Trace\n"


def test_the_journal_is_recognised_by_device_and_inode(tmp_path):
    """JOURNAL_STREAM counts only for the very stream it names: a redirected one is text again."""
    with (tmp_path / "stderr").open("w") as stream:
        status = os.fstat(stream.fileno())
        mine = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert logs.is_journal(stream, mine)
        assert not logs.is_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not logs.is_journal(stream, {})
    assert not logs.is_journal(io.StringIO(), mine)


def test_names_of_fields_are_cleaned_once(monkeypatch):
    """Every line has the same few; to clean them for each doubles what a line costs."""
    redactor, cleaned, clean_text = LogCleaner(), [], LogCleaner.clean_text
    monkeypatch.setattr(
        LogCleaner, "clean_text", lambda self, text: cleaned.append(text) or clean_text(self, text)
    )
    for number in range(3):
        redactor.clean_fields({"folder": number, "attempts": number})
    assert cleaned == ["folder", "attempts"]
    redactor.learn(["attempts"])
    assert redactor.clean_fields({"attempts": 1}) == {"***": 1}
