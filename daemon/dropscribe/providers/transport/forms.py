"""Request parameters as a query, or as a multipart form whose length is known before it is sent.

Guarantees: pure but for the boundary's randomness; no name or value can break out of its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from dropscribe.providers.transport.http_library import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dropscribe.core.requests.params import ParamValue


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form without the content of its file.

    Attributes:
        content_type: With the boundary.
        before: Every field, and the header of the file's part.
        after: The closing boundary.
    """

    content_type: str
    before: bytes
    after: bytes


def fields_of(params: Mapping[str, ParamValue]) -> list[tuple[str, str]]:
    """*params* as sent: booleans as true/false, a list as a repeated field, an empty list not at all."""
    return [(name, text) for name, value in params.items() for text in _texts(value)]


def with_query(url: str, params: Mapping[str, ParamValue]) -> str:
    """*url* with *params* after the query that it may have already."""
    return _with_fields(url, tuple(fields_of(params)))


def at_path(url: str, path: str) -> str:
    """*url* with *path* where it has none: a vendor's other host is enough in a config."""
    parts = urlsplit(url)
    return url if parts.path.strip("/") else urlunsplit(parts._replace(path=path))


@lru_cache(maxsize=64)  # a provider gets the same parameters with each file
def _with_fields(url: str, fields: tuple[tuple[str, str], ...]) -> str:
    parts = urlsplit(url)
    query = urlencode(fields, quote_via=quote)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query))), fragment=""))


def multipart(
    fields: Iterable[tuple[str, str]], *, field: str = "file", filename: str, content_type: str
) -> Form:
    """A form with *fields*, then one file in the part *field*.

    The file comes last, so that a server that reads the form as it arrives knows the fields by then.
    """
    form_type, body = _encoded([*_parts(fields), (field, (filename, b"", content_type))])
    file_ends_at = body.rindex(b"\r\n--")
    return Form(form_type, body[:file_ends_at], body[file_ends_at:])


def multipart_of_fields(fields: Iterable[tuple[str, str]]) -> tuple[str, bytes]:
    """A form without any file: its content type and its whole body."""
    return _encoded(_parts(fields))


_Part = tuple[str, tuple[str | None, bytes] | tuple[str | None, bytes, str]]


def _parts(fields: Iterable[tuple[str, str]]) -> list[_Part]:
    return [(name, (None, text.encode())) for name, text in fields]


def _encoded(parts: list[_Part]) -> tuple[str, bytes]:
    request = httpx.Request("POST", "http://form.invalid/", files=parts)
    return request.headers["Content-Type"], request.read()


def _texts(value: ParamValue) -> list[str]:
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
