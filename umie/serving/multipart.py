"""The parts of a multipart/form-data body, which is in memory and bounded."""

from __future__ import annotations

from email.message import Message
from email.parser import BytesParser
from typing import NamedTuple

from umie.serving.limits import RequestError

_MAX_HEADERS = 4_096  # bytes of the headers of a part


class Part(NamedTuple):
    """A field of a form: its name and its content."""

    name: str
    content: bytes


def media_type(header: str) -> tuple[str, str | None]:
    """Return the media type of a Content-Type header, in lower case, and its boundary if it has one."""
    message = Message()
    message["content-type"] = header
    boundary = message.get_param("boundary")
    return message.get_content_type(), boundary if isinstance(boundary, str) else None


def parts_of(body: bytes, boundary: str | None, max_parts: int) -> list[Part]:
    """Return the parts of a body.

    Raises:
        RequestError: it is not a form, or has too many parts.
    """
    if not boundary:
        raise RequestError(400, "the Content-Type of the form has no boundary")
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    _, *sections = (b"\r\n" + body).split(delimiter, max_parts + 1)
    *parts, end = sections or [b""]
    if not end.startswith(b"--"):
        if len(parts) == max_parts:
            raise RequestError(413, f"the form has more than {max_parts} parts")
        raise RequestError(400, "the form does not end with its boundary: it is truncated, or has another boundary")
    return list(map(_part, parts))


def _part(section: bytes) -> Part:
    head, blank, content = section.partition(b"\r\n\r\n")
    if not blank or len(head) > _MAX_HEADERS:
        raise RequestError(400, "a part of the form has no headers, or too long ones")
    name = BytesParser().parsebytes(head.strip(), headersonly=True).get_param("name", header="content-disposition")
    if not isinstance(name, str):
        raise RequestError(400, "a part of the form has no name in its Content-Disposition")
    return Part(name, content)
