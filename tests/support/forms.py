"""Reads multipart forms as strictly as their standard allows."""

from __future__ import annotations

import email.parser
import email.policy
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.received import Received


def read_form(request: Received, body: bytes, file_field: str) -> bool:
    """Whether the form in *body* has a file in *file_field*; what it holds goes into *request*.

    Raises:
        ValueError: It is no form, or a broken one.
    """
    kind = request.headers.get("content-type", "")
    if not kind and not body:
        return False
    if not kind.startswith("multipart/form-data; boundary="):
        raise ValueError("not a form")
    boundary = b"--" + kind.partition("boundary=")[2].encode()
    first, *parts, last = body.split(boundary)
    if first or last != b"--\r\n":
        raise ValueError("a broken form")
    has_file = False
    for part in parts:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        header = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + b"\r\n\r\n")
        disposition = header["Content-Disposition"]
        name, content = disposition.params["name"], content.removesuffix(b"\r\n")
        if name != file_field:
            request.fields.append((name, content.decode()))
            continue
        has_file = True
        request.filename = disposition.params.get("filename", "")
        request.part_type = str(header["Content-Type"] or "")
        request.audio_bytes, request.audio_sha256 = len(content), hashlib.sha256(content).hexdigest()
    return has_file
