"""Requests with parameters and audio: as a query, a multipart form or JSON, of a length that is known.

Guarantees: pure but for a form's boundary, which is random; no name or value can break out of its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from dropscribe.core.errors import RuleRejected
from dropscribe.core.requests.params import ParamValue
from dropscribe.files.audio import AudioFile
from dropscribe.providers.formats import media_type, upload_name
from dropscribe.providers.transport.http_library import httpx


@dataclass(frozen=True, slots=True)
class Upload:
    """One request, with or without an audio file."""

    url: str  # With its whole query
    headers: Mapping[str, str] = field(default_factory=dict)  # Beside those of every request
    audio: AudioFile | None = field(default=None, repr=False)  # Streamed between *before* and *after*
    before: bytes = field(default=b"", repr=False)  # The form's bytes ahead of the audio, or the whole body
    after: bytes = field(default=b"", repr=False)  # The form's closing bytes
    is_base64: bool = False  # Whether the audio is sent in base64, as a JSON string can hold it

    @property
    def size_bytes(self) -> int:
        """The Content-Length."""
        audio_bytes = 0 if self.audio is None else self.audio.size_bytes
        if self.is_base64:
            audio_bytes = (audio_bytes + 2) // 3 * 4
        return len(self.before) + audio_bytes + len(self.after)


def fields_of(params: Mapping[str, ParamValue]) -> list[tuple[str, str]]:
    """*params* as sent: booleans as true/false, a list as a repeated field, an empty list not at all."""
    found: list[tuple[str, str]] = []
    for name, value in params.items():
        items = value if isinstance(value, list | tuple) else [value]
        found += [(name, str(item).lower() if isinstance(item, bool) else str(item)) for item in items]
    return found


def with_query(url: str, params: Mapping[str, ParamValue]) -> str:
    """*url* with *params* after the query that it may have already."""
    return _with_fields(url, tuple(fields_of(params)))


@lru_cache(maxsize=64)  # a provider gets the same parameters with each file
def _with_fields(url: str, fields: tuple[tuple[str, str], ...]) -> str:
    parts, query = urlsplit(url), urlencode(fields, quote_via=quote)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query))), fragment=""))


def raw_request(url: str, audio: AudioFile, kind: str | None = None) -> Upload:
    """A request with *audio* as it is; *kind* is its media type, by default by its name and content."""
    return Upload(url, {"Content-Type": kind or media_type(audio.suffix, audio.head)}, audio)


def form_request(
    url: str,
    fields: Iterable[tuple[str, str]],
    audio: AudioFile | None = None,
    *,
    field: str = "file",
    kind: str | None = None,
) -> Upload:
    """A form with *fields* and, in *field*, the *audio*, if any.

    The audio comes last, so that a server that reads the form as it arrives knows the fields by then.
    """
    parts: list[Any] = [(name, (None, text.encode())) for name, text in fields]
    if audio is not None:
        name = upload_name(audio.suffix, audio.head)
        parts.append((field, (name, b"", kind or media_type(audio.suffix, audio.head))))
    form = httpx.Request("POST", "http://form.invalid/", files=parts)
    body = form.read()
    end = len(body) if audio is None else body.rindex(b"\r\n--")
    return Upload(url, {"Content-Type": form.headers["Content-Type"]}, audio, body[:end], body[end:])


def json_request(url: str, body: Mapping[str, Any]) -> Upload:
    """A request with *body* as JSON, see :func:`nested`, and without audio."""
    return Upload(url, {"Content-Type": "application/json"}, before=json.dumps(nested(body)).encode())


def nested(params: Mapping[str, Any]) -> dict[str, Any]:
    """*params* as a JSON object: names with dots as nested objects, an empty list left out.

    Raises RuleRejected if a name is both a value and an object.
    """
    found: dict[str, Any] = {}
    for name, value in params.items():
        if value == []:
            continue
        *outer, last = name.split(".")
        place = found
        for part in outer:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise RuleRejected("bad_parameter", f"{name}: {part} has a value of its own already")
            place = inner
        if isinstance(place.get(last), dict):
            raise RuleRejected("bad_parameter", f"{name}: other parameters set values in it")
        place[last] = value
    return found
