"""From the body of a request to what is asked: JSON or a form, records, images."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from umie.errors import UmieError, UnknownNameError, one_line, shown
from umie.images import decode_image
from umie.records import record_from_json
from umie.serving.batching import Question
from umie.serving.limits import Limits, MemoryShare, RequestError
from umie.serving.multipart import media_type, parts_of

JSON, FORM = "application/json", "multipart/form-data"
_BYTES_PER_PIXEL = 3  # decoded
_IN_MEMORY = "in memory"  # in place of a file name

M = TypeVar("M", bound=BaseModel)

_BOX = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 4, "maxItems": 4}
_REGION = {
    "type": "object",
    "properties": {"box": _BOX, "label": {"type": "string"}, "image": {"type": "integer", "minimum": 0}},
    "required": ["box"],
}
# their content is checked by ``record_from_json``, as that of a file
Regions = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"anyOf": [_BOX, _REGION]}})]
Items = Annotated[list[Any], WithJsonSchema({"type": "array", "items": {"type": "object"}})]


class ExtractRequest(BaseModel):
    """A text with its images, and what to extract."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"text": "Kids at the Salvation Army", "tasks": ["mner"]}]},
    )

    text: str = Field("", description="The text. It may be empty if there is an image.")
    image: str | None = Field(
        None, description="The bytes of an image file in base64, or as a data URI. Paths and URLs are refused."
    )
    images: list[str] | None = Field(None, description="Several images, in place of `image`.")
    regions: Regions | None = Field(
        None,
        description="Regions of the image that answers can refer to: boxes [x1, y1, x2, y2] relative to its size (0 to "
        '1), or {"box": [...], "label": ..., "image": the number of the image, from 0}.',
        examples=[[[0.1, 0.2, 0.5, 0.9]]],
    )
    tasks: list[str] | None = Field(
        None, description="Names of tasks; by default those of the variant.", examples=[["mner"]]
    )
    labels: dict[str, list[str]] | None = Field(
        None,
        description="For a task, labels to use in place of those of the variant.",
        examples=[{"mner": ["person", "ship"]}],
    )
    entities: Items | None = Field(
        None,
        description="Entities whose pairs `mre` asks about if `mner` is not among the tasks, as in a JSONL record.",
        examples=[[{"type": "person", "span": [0, 4]}]],
    )
    relations: Items | None = Field(
        None,
        description="The pairs that `mre` asks about, as in a JSONL record; without any, all pairs of entities.",
        examples=[[{"type": "none", "head": [0, 4], "tail": [12, 26]}]],
    )
    events: Items | None = Field(
        None,
        description="The events that `meae` asks about if `med` is not among the tasks, as in a JSONL record.",
        examples=[[{"type": "attack", "trigger": {"span": [0, 9]}}]],
    )
    id: str | None = Field(None, description="A name, which the answer repeats.")


class BatchRequest(BaseModel):
    """Several records, each with its own tasks and labels."""

    model_config = ConfigDict(extra="forbid", strict=True)

    records: Annotated[
        list[Any],
        WithJsonSchema({"type": "array", "items": {"$ref": "#/components/schemas/ExtractRequest"}, "minItems": 1}),
    ] = Field(description="The records. One that is invalid has an error as its result, and the others are answered.")


def read_request(body: bytes, content_type: str, limits: Limits) -> tuple[ExtractRequest, tuple[bytes, ...]]:
    """Return the request in a body, JSON or a form, and the bytes of the images that a form brings along.

    Raises:
        RequestError: the body is neither, or is invalid.
    """
    kind, boundary = media_type(content_type)
    if kind == JSON:
        return _parsed(ExtractRequest, body), ()
    if kind != FORM:
        raise _wrong_type(content_type, f"{JSON} or {FORM}")
    fields: dict[str, bytes] = {}
    images: list[bytes] = []
    for part in parts_of(body, boundary, limits.max_images + 2):
        if part.name == "image":
            images.append(part.content)
        elif part.name in fields:
            raise RequestError(422, f"the form has the field {part.name} twice")
        elif part.name in ("text", "request"):
            fields[part.name] = part.content
        else:
            raise RequestError(422, str(UnknownNameError("field", part.name, ("image", "request", "text"))))
    request = _parsed(ExtractRequest, fields.get("request", b"{}"))
    if images and (request.image is not None or request.images is not None):
        raise RequestError(422, "the form has images both as files and in the request: use one")
    if "text" in fields:
        if request.text:
            raise RequestError(422, "the form has a text both in its field and in the request: use one")
        try:
            request.text = fields["text"].decode()
        except UnicodeDecodeError as error:
            raise RequestError(422, f"text: not UTF-8 ({error.reason})") from error
    return request, tuple(images)


def read_batch(body: bytes, content_type: str, limits: Limits) -> list[Any]:
    """Return the records in the body of a batch, which are not checked.

    Raises:
        RequestError: the body is not JSON, or there are no records or too many.
    """
    if media_type(content_type)[0] != JSON:
        raise _wrong_type(content_type, JSON)
    records = _parsed(BatchRequest, body).records
    most = min(limits.max_records, limits.max_queue)
    if not 0 < len(records) <= most:
        raise RequestError(422, f"there are {len(records):,} records: send 1 to {most:,} of them at once")
    return records


def read_record(value: Any) -> ExtractRequest:
    """Return one record of a batch; raise RequestError if it is invalid."""
    return _validated(ExtractRequest, lambda: ExtractRequest.model_validate(value))


def question_of(request: ExtractRequest, files: Sequence[bytes], limits: Limits, share: MemoryShare) -> Question:
    """Return what a request asks, with its images decoded.

    Args:
        request: the request.
        files: images in place of those of the request.
        limits: of texts, images and lists.
        share: where the memory for the images is taken from.

    Raises:
        RequestError: the request is invalid, or there is no memory left.
    """
    if request.image is not None and request.images is not None:
        raise RequestError(422, "there are both image and images: use one")
    in_base64 = request.images or ([] if request.image is None else [request.image])
    number = len(files) or len(in_base64)
    _check_sizes(request, number, limits)
    names = ["image"] if number == 1 else [f"image {index}" for index in range(number)]
    contents = files or [_decoded(one, name) for one, name in zip(in_base64, names, strict=True)]
    images = []
    try:
        for content, name in zip(contents, names, strict=True):
            images.append(decode_image(content, name, limits.max_pixels))
            share.take(_BYTES_PER_PIXEL * images[-1].width * images[-1].height)
        record = record_from_json(json.dumps(_record_values(request, number)))
    except RequestError:
        raise
    except UmieError as error:
        raise RequestError(422, str(error)) from error
    if images:
        record = replace(record, image=images[0], more_images=tuple(images[1:]))
    return Question(
        record,
        None if request.tasks is None else tuple(request.tasks),
        None if request.labels is None else tuple((task, tuple(own)) for task, own in request.labels.items()),
    )


def _check_sizes(request: ExtractRequest, num_images: int, limits: Limits) -> None:
    labels = [label for own in (request.labels or {}).values() for label in own]
    sizes = [
        (len(request.text), limits.max_text, "text has {} characters"),
        (num_images, limits.max_images, "there are {} images"),
        (len(labels), limits.max_labels, "there are {} labels"),
        (max(map(len, labels), default=0), limits.max_label, "a label has {} characters"),
    ]
    for name in ("regions", "entities", "relations", "events"):
        sizes.append((len(getattr(request, name) or ()), limits.max_items, f"there are {{}} {name}"))
    for size, limit, what in sizes:
        if size > limit:
            raise RequestError(422, f"{what.format(f'{size:,}')}; the limit is {limit:,}")


def _record_values(request: ExtractRequest, num_images: int) -> Mapping[str, Any]:
    """Return the request as a JSONL record, with names in place of its images."""
    regions = [one if isinstance(one, dict) else {"box": one} for one in request.regions or ()]
    return {
        **request.model_dump(include={"text", "entities", "relations", "events", "id"}, exclude_none=True),
        "regions": regions,
        "images": [_IN_MEMORY] * num_images,
    }


def _decoded(value: str, name: str) -> bytes:
    """Return the bytes in base64 or in a data URI."""
    if value.startswith("data:"):
        head, _, value = value.partition(",")
        if not head.endswith(";base64"):
            raise RequestError(422, f"{name}: the data URI is not in base64")
    for space in "\r\n ":  # as the program base64 wraps lines
        value = value.replace(space, "")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            422, f"{name} is {shown(value)}, not base64: send the bytes of the image, not a path or a URL"
        ) from error


def _wrong_type(content_type: str, expected: str) -> RequestError:
    return RequestError(415, f"Content-Type is {shown(content_type)}: send {expected}")


def _parsed(model: type[M], body: bytes) -> M:
    return _validated(model, lambda: model.model_validate_json(body))


def _validated(model: type[M], read: Callable[[], M]) -> M:
    """Return what ``read`` does; raise its first error as one of a request."""
    try:
        return read()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise RequestError(
                400, f"not valid JSON: {one_line(first['msg']).removeprefix('Invalid JSON: ')}"
            ) from error
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            raise RequestError(422, str(UnknownNameError("key", first["loc"][0], model.model_fields))) from error
        place = "".join(f"[{one!r}]" if isinstance(one, int) else f".{one}" for one in first["loc"]).lstrip(".")
        raise RequestError(422, f"{place or 'the request'}: {one_line(first['msg'])}") from error
