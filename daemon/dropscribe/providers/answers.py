"""Reads answers: parsed JSON, and the machine-readable signs in an error's body.

Guarantees: pure; no body makes it raise anything but ValueError from :func:`parse_json`; NaN and
infinities, which JSON does not have, become null.
"""

from __future__ import annotations

import codecs
import contextlib
import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dropscribe.providers import values
from dropscribe.providers.transport.http import Answer

MOST_CONTAINERS = 1_000_000
MOST_VALUES = 5_000_000
MOST_LEVELS = 64
MOST_DIGITS = 40
MOST_ERROR_LAYERS = 6

HAS_PARAM = "has:param"  # ``error.param`` names a request parameter
HAS_FILE_PARAM = "has:param=file"  # it names the file
HAS_DETAIL_LIST = "has:detail[]"  # FastAPI's list of mistakes in the request
HAS_DETAILS = "has:details[]"  # Pulse's list of missing or wrong query parameters
HAS_VALIDATION_ERRORS = "has:validation_errors[]"  # Gladia's and Soniox's list of mistakes in the request
HAS_ERRORS = "has:errors"  # Pulse's shape for audio that it cannot take

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# The code that a message begins with, like NoSuchKey in "NoSuchKey: The specified key does not exist".
_CODE_IN_MESSAGE = re.compile(rf"({_WORD.pattern})(?::\s|$)")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_PAGE = re.compile(rb"<(?:!doctype|\?xml|html|head|body|title|meta|script)\b", re.IGNORECASE)
_TITLE = re.compile(rb"<title[^>]{0,100}>([^<]{1,200})", re.IGNORECASE)
_MESSAGE_KEYS = ("message", "error", "errors", "detail", "msg", "error_message", "err_msg")
# Keys that may have details beside the first of those.
_DETAIL_KEYS = ("detail", "details", "validation_errors")
_OWN_CODE_KEYS = ("code", "error_code", "err_code", "category")  # Deepgram has the last two
_CODE_KEYS = (*_OWN_CODE_KEYS, "type", "status")
_STATUS_KEYS = ("code", "status", "status_code", "statusCode")  # LiteLLM and vLLM have the first
_INNER_KEYS = ("detail", "error", "innerError")  # Azure has the last


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error's body, read from any of the shapes in docs/design/providers.md."""

    code: str  # The provider's own word for it, or ""
    # In lower case, and matched by tables: a code at the start of the message, the ``has:…`` signs of its
    # shape, codes and types.
    signs: tuple[str, ...]
    message: str  # In the provider's words, not yet fit for a log
    status: int | None = None  # The HTTP status that the body itself names, of an error


class TooLarge(ValueError):
    """A JSON text with more values, or nested deeper, than any transcript."""


def parse_json(body: bytes) -> Any:
    """The JSON value in *body*; raises ValueError where it is none, TooLarge where it takes much memory."""
    if body.count(b"{") + body.count(b"[") > MOST_CONTAINERS or body.count(b",") > MOST_VALUES:
        raise TooLarge("too many values")
    # Half a character, as of a model's token, spoils no transcript.
    text = body.decode(json.detect_encoding(body), "replace")
    try:
        parsed = json.loads(text, parse_float=_finite, parse_int=_bounded, parse_constant=lambda _: None)
    except RecursionError:
        raise TooLarge("too many levels") from None
    if _is_deeper(parsed, MOST_LEVELS):
        raise TooLarge("too many levels")
    return parsed


def _is_deeper(value: Any, levels: int) -> bool:
    containers = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        if not containers:
            return False
        containers = [
            child
            for item in containers
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
    return bool(containers)


def error_body(answer: Answer) -> ErrorBody:
    """Error in the body of *answer*; an empty one if nothing there can be read."""
    with contextlib.suppress(ValueError):
        return error_of(parse_json(answer.body))
    is_page = answer.content_type == "text/html" or answer.body.lstrip()[:1] == b"<"
    return ErrorBody("", (), page_words(answer) if is_page else answer.body.decode("utf-8", "replace"))


def page_words(answer: Answer) -> str:
    """A page of HTML in words: its title says what a proxy or a web server has to say."""
    found = _TITLE.search(answer.body)
    title = html.unescape(found[1].decode(errors="replace")).strip() if found else ""
    return f"an HTML page: {title}" if title else "an HTML page"


def error_of(parsed: Any) -> ErrorBody:
    """Error in a parsed body."""
    layers = _layers(parsed)
    codes = [word for layer in layers for word in _codes(layer)]
    own = [word for layer in layers for word in _codes(layer, keys=_OWN_CODE_KEYS)]
    shapes = [shape for layer in layers for shape in _shapes(layer)]
    message = next((text for layer in layers if (text := _message(layer))), "")
    if not layers and isinstance(parsed, str):
        message = parsed
    if first := _CODE_IN_MESSAGE.match(message):
        shapes.insert(0, first[1].lower())
    signs = tuple(dict.fromkeys([*shapes, *(word.lower() for word in codes)]))
    return ErrorBody(own[0] if own else "", signs, message, next(_statuses(layers), None))


def request_id_of(answer: Answer, parsed: Any = None) -> str | None:
    """The provider's id of the request: from the body (*parsed*), else ``x-request-id``, else Groq's own."""
    if parsed is None:
        with contextlib.suppress(ValueError):
            parsed = parse_json(answer.body)
    body = values.mapping(parsed)
    groq = values.mapping(body.get("x_groq")).get("id")
    told = (body.get("request_id"), answer.headers.get("x-request-id"), groq)
    return next((item for item in told if isinstance(item, str) and _REQUEST_ID.fullmatch(item)), None)


def _layers(parsed: Any) -> list[Mapping[str, Any]]:
    """The objects that describe the error, innermost first: {"detail": {"error": {"message": ...}}}."""
    layers: list[Mapping[str, Any]] = []
    found: list[Any] = [parsed]
    while found and len(layers) < MOST_ERROR_LAYERS:
        layer = found.pop()
        if isinstance(layer, Mapping):
            layers.append(layer)
            found += [layer[key] for key in _INNER_KEYS if isinstance(layer.get(key), Mapping)]
    return layers[::-1]


def _codes(layer: Mapping[str, Any], keys: tuple[str, ...] = _CODE_KEYS) -> list[str]:
    found = [layer.get(key) for key in keys]
    if isinstance(layer.get("code"), int) and isinstance(layer.get("error"), str):
        found.append(layer["error"].replace(" ", "_"))  # Speechmatics: its fixed texts are its codes
    return [value for value in found if isinstance(value, str) and _WORD.fullmatch(value)]


def _statuses(layers: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    told = (values.number(layer.get(key)) for layer in layers for key in _STATUS_KEYS)
    return (int(value) for value in told if value is not None and 400 <= value < 600)


def _shapes(layer: Mapping[str, Any]) -> Iterator[str]:
    param = layer.get("param")
    if isinstance(param, str) and param:
        yield HAS_FILE_PARAM if param == "file" else HAS_PARAM
    for key, value in layer.items():
        if isinstance(value, list) and (value or key != "validation_errors"):  # Soniox always has that list
            yield f"has:{key}[]"
    if "errors" in layer:
        yield HAS_ERRORS


def _message(layer: Mapping[str, Any]) -> str:
    if isinstance(layer.get("errors"), str):
        return str(layer["errors"])  # Pulse: "message" beside it says only "Error handling audio data"
    found = [text for key in _MESSAGE_KEYS if (text := _told(layer.get(key)))][:1]
    found += [text for key in _DETAIL_KEYS if (text := _told(layer.get(key))) and text not in found]
    return ": ".join(found)


def _told(value: Any) -> str:
    """A text, or a list as JSON; "" for anything else."""
    if isinstance(value, str):
        return value if value.strip() else ""
    return json.dumps(value) if isinstance(value, list) and value else ""


def is_html(answer: Answer) -> bool:
    """Whether the body is a page of HTML or XML; its declared type is ignored."""
    beginning = answer.body.removeprefix(codecs.BOM_UTF8).lstrip()[:1024]
    return bool(_PAGE.match(beginning)) or (beginning.startswith(b"<") and b"<html" in beginning.lower())


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _bounded(digits: str) -> int | float | None:
    # No number of a transcript has more digits; Python converts long ones in quadratic time.
    return int(digits) if len(digits) <= MOST_DIGITS else _finite(digits)
