"""What is fuzzed: functions of bytes from outside that raise only if the program breaks a promise."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dropscribe.config.load import parse_config
from dropscribe.config.model import ProviderConfig
from dropscribe.config.notation.secret import Secret
from dropscribe.core.errors import ConfigError, ProviderError
from dropscribe.core.hosts import parse_host_pattern
from dropscribe.core.ignored_names import OWN_FOLDER
from dropscribe.core.links import LinkRefused, check_link, read_link
from dropscribe.core.settling import Completeness
from dropscribe.files.containers import examine
from dropscribe.intake.owner_file import OwnerFile
from dropscribe.providers.build import build_provider
from dropscribe.providers.jobs import JobProvider
from dropscribe.providers.transport.http import Answer
from dropscribe.providers.values import BadAnswer
from dropscribe.publish.return_to_inbox import read_error, remove_error_file
from dropscribe.transcripts.document import TranscriptFacts, error_document, transcript_document
from dropscribe.transcripts.render import RENDERERS
from support.benches import DEEPGRAM_IN_WORDS
from support.transcripts import failed_job

KEY = "sk_fuzz_4f9a0c"
SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".caf", ".au", ".w64", ".wma", ".mkv", ".m4a", ".mp3", "")
LINK_SUFFIXES = (".url", ".webloc", ".desktop")
HOSTS = ("example.com", "*.media.example.org", "192.0.2.7", "::1")

MOST_CONTAINER_BYTES = 1024 * 1024
MOST_CONTAINER_READS = 20_000
MOST_GROWTH = 64
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_CONTROLS = {"Cc", "Cs", "Co", "Zl", "Zp"}
_FORMS = RENDERERS.keys() - {"error"}


class Broken(Exception):
    """Raised where an input makes the program break a promise."""


def containers(data: bytes) -> None:
    """First byte: the suffix; second: the zeros of a sparse file behind the content, as a power of two."""
    if len(data) < 2:
        return
    content, zeros = data[2:], (1 << min(data[1], 60)) if data[1] else 0
    size_bytes, reads, read_bytes = len(content) + zeros, 0, 0

    def read_at(offset: int, count: int) -> bytes:
        nonlocal reads, read_bytes
        if offset < 0 or count < 0:
            raise Broken(f"reads {count} bytes at {offset}")
        present = min(count, max(0, size_bytes - offset))
        reads, read_bytes = reads + 1, read_bytes + present
        if reads > MOST_CONTAINER_READS or read_bytes > MOST_CONTAINER_BYTES:
            raise Broken(f"{read_bytes} bytes in {reads} reads")
        return content[offset : offset + count].ljust(present, b"\0")

    found = examine(read_at, size_bytes, SUFFIXES[data[0] % len(SUFFIXES)])
    if not isinstance(found, Completeness):
        raise Broken(f"answers {found!r}")


def links(data: bytes) -> None:
    """First byte: the suffix; the rest is the file. A url that passes has a listed host."""
    if not data:
        return
    with contextlib.suppress(ValueError):
        parse_host_pattern(data[1:].decode("latin-1"))
    try:
        url = check_link(read_link(LINK_SUFFIXES[data[0] % len(LINK_SUFFIXES)], data[1:]), HOSTS)
    except LinkRefused:
        return
    authority = url.split("/")[2].split("?")[0].lower()
    host = authority.removeprefix("[").split("]")[0] if authority.startswith("[") else authority.split(":")[0]
    host = host.removesuffix(".")
    is_listed = host in HOSTS or host.endswith(".media.example.org")
    if not is_listed or urlsplit(url).scheme not in {"http", "https"} or not url.isprintable():
        raise Broken(f"lets {url!r} through")


def answers(data: bytes) -> None:
    """First byte: the provider's type; the rest is the body of a success, made into every output."""
    if not data:
        return
    kind = _KINDS[data[0] % len(_KINDS)]
    answer = Answer(200, {"content-type": "application/json"}, data[1:])
    provider = _PROVIDERS[kind]
    provider._classifier.error(Answer(400, answer.headers, data[1:]))
    try:
        if isinstance(provider, JobProvider):
            _job(provider, answer)
        transcript = provider._read(answer, provider.vendor.params({}))
    except ProviderError as error:
        _check_text(error.reason)
        return
    document = transcript_document(transcript, _facts(kind))
    rendered = {form: RENDERERS[form](document) or b"" for form in _FORMS}
    for form, content in rendered.items():
        if KEY.encode() in content:
            raise Broken(f"the key is in {form}")
        if len(content) > MOST_GROWTH * len(data) + 4096:
            raise Broken(f"{len(data)} bytes become {len(content)} of {form}")
        if form != "json":
            _check_output(content.decode())
    json.loads(rendered["json"])


def config(data: bytes) -> None:
    """A config is read, or refused with printable problems."""
    try:
        parse_config(data.decode("utf-8", "replace"), folder=_FOLDER, environ={"KEY": KEY})
    except ConfigError as error:
        if not error.problems:
            raise Broken("refused without a reason") from error
        for problem in error.problems:
            if KEY in str(problem):
                raise Broken("the key is in a problem") from error


def neighbours(data: bytes) -> None:
    """An owner file and an error file that somebody else has put there."""
    own = _FOLDER / os.fsdecode(OWN_FOLDER)
    own.mkdir(exist_ok=True)
    (own / "owner").write_bytes(data)
    (_FOLDER / "a.error.json").write_bytes(data)
    owner = OwnerFile("f", os.fsencode(_FOLDER), "token")
    _check_text(owner.check(0.0))
    owner.check(200.0)
    owner.release()
    descriptor = os.open(_FOLDER, os.O_RDONLY)
    try:
        found = read_error(descriptor, b"a.error.json")
    finally:
        os.close(descriptor)
    remove_error_file(os.fsencode(_FOLDER), b"a.wav")
    if found is None and not (_FOLDER / "a.error.json").exists():
        raise Broken("a file that is no error file was removed")
    text = data[:4096].decode("utf-8", "surrogateescape")
    RENDERERS["error"](error_document(failed_job(data[:4096], text), text, text, 0.0))


TARGETS = {
    "containers": containers,
    "links": links,
    "answers": answers,
    "config": config,
    "neighbours": neighbours,
}

_TEMPORARY = tempfile.TemporaryDirectory(prefix="dropscribe-fuzz-")
_FOLDER = Path(_TEMPORARY.name)
# In the order in which the corpus counts them.
_KINDS = (
    *("assemblyai", "azure", "deepgram", "elevenlabs", "http", "openai", "pulse", "reson8", "soniox"),
    *("whisper-asr", "gladia", "speechmatics"),
)


def _provider(kind: str) -> Any:
    settings: dict[str, Any] = {"name": "p", "type": kind, "url": "http://127.0.0.1:1/v1"}
    extra = DEEPGRAM_IN_WORDS if kind == "http" else {}
    return build_provider(ProviderConfig(**settings, **extra, api_key=Secret(KEY, "fuzz")))


_PROVIDERS = {kind: _provider(kind) for kind in _KINDS}


def _job(provider: Any, answer: Answer) -> None:
    """What is read of a job before its result."""
    polled = provider._object(answer)
    provider.vendor.progress(polled)
    with contextlib.suppress(BadAnswer):
        provider.vendor.job_id(polled)
    provider._classifier.failed_job(answer, provider.vendor.job_failure(polled))


def _facts(kind: str) -> TranscriptFacts:
    return TranscriptFacts(
        path=b"a.wav", size_bytes=1, sha256="", modified_at=0.0, provider_name="p", provider_type=kind,
        params={}, folder="f", attempts=1, received_at=0.0, transcribed_at=0.0, elapsed_seconds=0.0,
        outputs=_FORMS,
    )  # fmt: skip


def _check_text(text: str) -> None:
    """One line without control characters, private ones, and marks of direction."""
    for letter in text:
        if unicodedata.category(letter) in _CONTROLS or letter in _DIRECTIONS:
            raise Broken(f"{letter!r} is in a line")


def _check_output(text: str) -> None:
    """Any letters of any language, and no orders to a terminal."""
    for letter in set(text) - {"\n", "\t"}:
        if unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} or letter in _DIRECTIONS:
            raise Broken(f"{letter!r} is in a text")
