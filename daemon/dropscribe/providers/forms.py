"""Request parameters as a query, or as a multipart form whose length is known before it is sent.

Guarantees: pure but for the boundary's randomness; no name or value can break out of its place.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dropscribe.core.params import ParamValue

_QUOTED = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form, but for the file between its two parts.

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


@lru_cache(maxsize=64)  # a provider is asked the same thing about each file
def _with_fields(url: str, fields: tuple[tuple[str, str], ...]) -> str:
    parts = urlsplit(url)
    query = urlencode(fields, quote_via=quote)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, query))), fragment=""))


def multipart(fields: Iterable[tuple[str, str]], *, filename: str, content_type: str) -> Form:
    """A form with *fields*, then one file under the name ``file``.

    The file comes last, so that a server that reads the form as it comes knows the fields by then.
    """
    boundary = _boundary()
    parts = _parts(fields, boundary)
    file_header = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
        f'filename="{filename.translate(_QUOTED)}"\r\nContent-Type: {content_type}\r\n\r\n'
    )
    return Form(
        f"multipart/form-data; boundary={boundary}",
        "".join([*parts, file_header]).encode(),
        f"\r\n--{boundary}--\r\n".encode(),
    )


def multipart_of_fields(fields: Iterable[tuple[str, str]]) -> tuple[str, bytes]:
    """A form without any file: its content type and its whole body."""
    boundary = _boundary()
    body = "".join([*_parts(fields, boundary), f"--{boundary}--\r\n"])
    return f"multipart/form-data; boundary={boundary}", body.encode()


def _boundary() -> str:
    return f"dropscribe-{secrets.token_hex(16)}"


def _parts(fields: Iterable[tuple[str, str]], boundary: str) -> list[str]:
    return [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name.translate(_QUOTED)}"\r\n\r\n{text}\r\n'
        for name, text in fields
    ]


def _texts(value: ParamValue) -> list[str]:
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return list(map(str, value)) if isinstance(value, list | tuple) else [str(value)]
