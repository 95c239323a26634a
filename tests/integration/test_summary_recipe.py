"""The hook that writes summaries, against a server that speaks OpenAI's chat completions."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dropscribe.transcripts.document import transcript_document
from dropscribe.transcripts.model import Segment, Transcript
from dropscribe.transcripts.render import RENDERERS
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


def summarize(chat, transcript: Path | None, *more: object) -> subprocess.CompletedProcess[str]:
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
