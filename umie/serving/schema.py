"""The OpenAPI document of the server."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from umie.serving.requests import FORM, JSON, BatchRequest, ExtractRequest

_REFERENCE = "#/components/schemas/{model}"
_FORM = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "request": {"$ref": _REFERENCE.format(model="ExtractRequest")},
    },
}


class ExtractResponse(BaseModel):
    """The items found, as `umie extract --json` prints them; a list is empty where nothing was found."""

    text: str
    tasks: list[str]
    entities: list[dict[str, Any]] = Field(
        [], examples=[[{"type": "person", "span": [0, 3], "text": "Ann", "probability": 0.98}]]
    )
    relations: list[dict[str, Any]] = Field([], description="Each has a head and a tail.")
    events: list[dict[str, Any]] = Field([], description="Each has a trigger, which may be null, and arguments.")
    gate: dict[str, float | None] = Field(description="For each task the mean gate of the fusion.")
    warnings: list[dict[str, str]] = Field(description="What was not used or not found: kind and message.")


class ErrorResponse(BaseModel):
    """Why there is no answer."""

    error: str
    status: int | None = Field(None, description="In a batch, the status that the record has by itself.")


class BatchResponse(BaseModel):
    """A result for each record, in the same order."""

    results: list[ExtractResponse | ErrorResponse]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": what}
    for status, what in {
        400: "The body is not JSON or not a form.",
        408: "The request did not arrive in time.",
        413: "The request is too large.",
        415: "The Content-Type is another one, or the body is compressed.",
        422: "The request is invalid.",
        500: "An error of the server.",
        503: "The queue is full, or the server is not ready: try again after the seconds in Retry-After.",
        504: "There was no answer in time.",
    }.items()
}


def extract_body() -> dict[str, Any]:
    """Return what a request to extract consists of."""
    reference = {"$ref": _REFERENCE.format(model="ExtractRequest")}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": reference}, FORM: {"schema": _FORM}}}}


def batch_body() -> dict[str, Any]:
    """Return what a batch consists of."""
    reference = {"$ref": _REFERENCE.format(model="BatchRequest")}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": reference}}}}


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the document of an app, with the bodies, which FastAPI does not know because the app reads them."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, bodies = models_json_schema(
        [(ExtractRequest, "validation"), (BatchRequest, "validation")], ref_template=_REFERENCE
    )
    document["components"]["schemas"] |= bodies["$defs"]
    return document
