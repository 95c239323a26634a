"""The hook that writes summaries, against a server that speaks OpenAI's chat completions."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dropscribe.transcripts.document import transcript_document
from dropscribe.transcripts.model import Segment, Transcript
from dropscribe.transcripts.render import RENDERERS
from support.house import tree
from support.speech import SPEECH, likeness, missing_words, needs_engine, needs_speech, references
from support.transcripts import facts

SCRIPT = Path(__file__).parents[2] / "examples" / "summarize.py"


class Chat(http.server.BaseHTTPRequestHandler):
    """Answers with a count, or with the server's status."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, self.headers["Authorization"], json.loads(body)))
        answer = {"choices": [{"message": {"content": f" Summary {len(self.server.asked)}. "}}]}
        content = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def chat():
    """A server on the loopback."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        server.asked, server.status = [], 200
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def summarize(
    chat, transcript: Path | None, *more: object, **options: Any
) -> subprocess.CompletedProcess[str]:
    event = {"event": "done", "transcript": None if transcript is None else str(transcript)}
    url = f"http://127.0.0.1:{chat.server_port}/v1"
    return subprocess.run(
        [sys.executable, str(SCRIPT), url, "a-model", *map(str, more)],
        input=json.dumps(event),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"no_proxy": "127.0.0.1"},
        **options,
    )


def written(folder: Path, transcript: Transcript) -> Path:
    path = folder / "call.json"
    path.write_bytes(RENDERERS["json"](transcript_document(transcript, facts())))
    return path


def test_a_summary_stands_beside_the_transcript(chat, tmp_path):
    """The model gets the text with its speakers; the key comes from a file; nothing else is left behind."""
    segments = (Segment("Hello.", 0.0, 1.0, "Agent"), Segment("Hi.", 1.0, 2.0, "Caller"))
    transcript = written(tmp_path, Transcript("Hello. Hi.", segments=segments))
    key = tmp_path / "chat.key"
    key.write_text("sk-1\n")
    assert summarize(chat, transcript, key).returncode == 0
    ((path, authorization, body),) = chat.asked
    assert (path, authorization) == ("/v1/chat/completions", "Bearer sk-1")
    assert body["model"] == "a-model"
    assert body["messages"][-1]["content"] == "Agent: Hello.\nCaller: Hi."
    assert (tmp_path / "call.summary.md").read_text() == "Summary 1.\n"
    assert {entry.name for entry in tmp_path.iterdir()} == {"call.json", "chat.key", "call.summary.md"}


@pytest.mark.parametrize("stem", ["話" * 80, "x" * 250, "x" * 243 + "話"])
def test_a_long_name_is_cut(chat, tmp_path, stem):
    """Each try would be paid for, and none could be written."""
    transcript = written(tmp_path, Transcript("Hello.")).rename(tmp_path / f"{stem}.json")
    for _ in range(2):
        assert summarize(chat, transcript).returncode == 0
    (summary,) = tmp_path.glob("*.summary.md")
    assert stem.startswith(summary.name.removesuffix(".summary.md"))
    assert len(chat.asked) == 1


def test_where_nothing_can_be_written_nothing_is_asked_for(chat, tmp_path):
    """The hook is run again for a day; in /proc nobody makes a file."""
    with written(tmp_path, Transcript("Hello.")).open() as file:
        number = file.fileno()
        summarize(chat, Path(f"/proc/self/fd/{number}"), pass_fds=[number])
    assert chat.asked == []


def test_a_key_file_that_is_not_there_is_an_error(chat, tmp_path):
    """A transcript that is not there any more is none."""
    transcript = written(tmp_path, Transcript("Hello."))
    answer = summarize(chat, transcript, tmp_path / "none.key")
    assert (answer.returncode, "none.key" in answer.stderr) == (1, True)
    transcript.unlink()
    assert summarize(chat, transcript).returncode == 0
    assert chat.asked == []


def test_a_summary_that_is_there_is_not_asked_for_again(chat, tmp_path):
    """Running the hook again for the same event costs nothing and changes nothing."""
    transcript = written(tmp_path, Transcript("Hello."))
    (tmp_path / "call.summary.md").write_text("mine")
    assert summarize(chat, transcript).returncode == 0
    assert chat.asked == []
    assert (tmp_path / "call.summary.md").read_text() == "mine"


def test_a_long_transcript_is_summed_up_in_parts(chat, tmp_path):
    """No part is longer than the script says, and nothing is left out."""
    text = "word " * 20_000
    assert summarize(chat, written(tmp_path, Transcript(text.strip()))).returncode == 0
    sent = [body["messages"][-1]["content"] for _, _, body in chat.asked]
    assert max(map(len, sent)) <= 48_000
    assert "".join(sent[:-1]) == text.strip()
    assert sent[-1] == "\n\n".join(f"Summary {n}." for n in range(1, len(sent)))


def test_an_endpoint_that_is_ill_is_asked_again_later(chat, tmp_path):
    """The script fails, so that the hook is run again; there is no half summary."""
    chat.status = 503
    transcript = written(tmp_path, Transcript("Hello."))
    ran = summarize(chat, transcript)
    assert ran.returncode == 1
    assert "503" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "call.summary.md").exists()


def test_nothing_to_sum_up(chat, tmp_path):
    """No JSON among the outputs, a transcript that is gone, a silent recording: done, and nothing is sent."""
    assert summarize(chat, None).returncode == 0
    assert summarize(chat, tmp_path / "gone.json").returncode == 0
    assert summarize(chat, written(tmp_path, Transcript(""))).returncode == 0
    assert chat.asked == []


CONFIG = """
providers: {{here: {{type: local, language: en}}}}
folders:
  talks:
    inbox: inbox
    provider: here
    outputs: [json, txt, md, srt]
    template: notes.md.j2
    companions: ["{{stem}}.json"]
hooks: {{on_done: {hook}, timeout: 60s}}
state_dir: state
"""


@pytest.mark.slow
@needs_speech
class TestRealSpeech:
    """The embedded engine, the outputs, a companion and the hook together."""

    pytestmark = needs_engine

    def test_a_talk_becomes_notes_with_its_call_data_and_a_summary(self, chat, tmp_path):
        """What was said stands in every output, the date is the companion's, and the model is asked once."""
        spoken = references()["jfk.flac"]
        (tmp_path / "inbox").mkdir()
        shutil.copy(SPEECH / "clips/jfk.flac", tmp_path / "inbox/talk.flac")
        call = {"speaker": "J. F. Kennedy", "start_time": "2021-01-20T12:51:00-05:00"}
        (tmp_path / "inbox/talk.json").write_text(json.dumps(call))
        hook = [sys.executable, str(SCRIPT), f"http://127.0.0.1:{chat.server_port}/v1", "a-model"]
        (tmp_path / "dropscribe.yaml").write_text(CONFIG.format(hook=json.dumps(hook)))
        command = [sys.executable, "-m", "dropscribe", "run", "--once", "-c", "dropscribe.yaml"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stderr

        done = tmp_path / "done"
        outputs = {f"talk.flac.{ending}" for ending in ("json", "txt", "md", "srt", "notes.md", "summary.md")}
        assert tree(done) == {"talk.flac", "talk.json", *outputs}
        assert json.loads((done / "talk.json").read_text()) == call
        document = json.loads((done / "talk.flac.json").read_text())
        assert document["companion"] == {"talk.json": call}
        assert (document["recorded_at"], document["recorded_by"]) == ("2021-01-20T17:51:00Z", "companion")
        for text in (document["text"], (done / "talk.flac.txt").read_text()):
            assert likeness(spoken, text) > 0.9
        for ending in ("md", "notes.md"):
            note = (done / f"talk.flac.{ending}").read_text()
            assert "date: 2021-01-20T17:51:00Z\n" in note
            assert missing_words("ask not what your country can do for you", note) == []
        ((_, _, body),) = chat.asked
        assert body["messages"][-1]["content"] == document["text"].strip()
        assert (done / "talk.flac.summary.md").read_text() == "Summary 1.\n"
