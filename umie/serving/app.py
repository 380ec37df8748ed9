"""The paths of the server."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

import umie
from umie import tasks as all_tasks
from umie.errors import UmieError
from umie.extraction import Extraction
from umie.files import json_text
from umie.reports.pages import render
from umie.serving.batching import Batcher, Question
from umie.serving.guard import SHARE, Guard, error_response
from umie.serving.limits import MemoryShare, RequestError
from umie.serving.metrics import Metrics
from umie.serving.requests import JSON, ExtractRequest, question_of, read_batch, read_record, read_request
from umie.serving.schema import ERRORS, BatchResponse, ExtractResponse, batch_body, extract_body, openapi

T = TypeVar("T")

_SMALL = 65_536  # bytes of a body that is read at once; reading a larger one would keep other requests waiting
_READERS = 2  # threads that read large bodies and decode images
_FOLDERS = re.compile(r"(?<![\w.])(?:/[^\s/:'\",()]+)+/")
_log = logging.getLogger("umie.serving")


def create_app(batcher: Batcher) -> FastAPI:
    """Return the app that answers requests with a batcher.

    Args:
        batcher: the variant, and the limits of requests; it must have been started.
    """
    limits = batcher.limits
    metrics = Metrics(lambda: batcher.waiting)
    batcher.on_batch = metrics.count_batch
    readers = ThreadPoolExecutor(_READERS, "umie-reader")
    facts = _facts(batcher)
    page = render("serve", tasks=facts["tasks"], version=umie.__version__)
    app = FastAPI(
        title="umie",
        version=umie.__version__,
        description="Entities, relations, events and their arguments in texts and images.",
        openapi_url=None,  # FastAPI's pages load scripts from other servers, and do not know the bodies
        exception_handlers={RequestError: _on_error, HTTPException: _on_error},
    )

    async def read(work: Callable[[], T], *, is_large: bool) -> T:
        return await asyncio.get_running_loop().run_in_executor(readers, work) if is_large else work()

    async def question(request: ExtractRequest, files: Sequence[bytes], share: MemoryShare) -> Question:
        has_images = bool(files or request.image or request.images)
        found = await read(partial(question_of, request, files, limits, share), is_large=has_images)
        try:
            batcher.check(found)
        except UmieError as error:
            raise RequestError(422, str(error)) from error
        return found

    async def answers(questions: Sequence[Question]) -> list[dict[str, Any] | RequestError]:
        futures = map(asyncio.wrap_future, batcher.submit(questions))
        found = list(map(_result, await asyncio.gather(*futures, return_exceptions=True)))
        metrics.count_records(sum(isinstance(one, dict) for one in found))
        return found

    @app.post("/extract", responses={200: {"model": ExtractResponse}, **ERRORS}, openapi_extra=extract_body())
    async def extract(request: Request) -> Response:
        """Extract from a text with its images.

        Send JSON, or a form with the fields `text`, `image` (a file, repeatable) and `request` (the rest, as JSON).
        """
        body, content_type = await request.body(), request.headers.get("content-type", "")
        given, files = await read(partial(read_request, body, content_type, limits), is_large=len(body) > _SMALL)
        (found,) = await answers([await question(given, files, request.scope[SHARE])])
        if isinstance(found, RequestError):
            raise found
        return _json(found)

    @app.post("/extract/batch", responses={200: {"model": BatchResponse}, **ERRORS}, openapi_extra=batch_body())
    async def extract_batch(request: Request) -> Response:
        """Extract from several texts, each with its own images, tasks and labels.

        A record that is invalid or cannot be answered has `error` and `status` as its result.
        """
        body, content_type = await request.body(), request.headers.get("content-type", "")
        values = await read(partial(read_batch, body, content_type, limits), is_large=len(body) > _SMALL)
        results: list[Question | dict[str, Any] | RequestError] = []
        for value in values:
            try:
                results.append(await question(read_record(value), (), request.scope[SHARE]))
            except RequestError as error:
                if error.status != 422:
                    raise
                results.append(error)
        found = iter(await answers([one for one in results if isinstance(one, Question)]))
        results = [next(found) if isinstance(one, Question) else one for one in results]
        plain = [{"error": str(one), "status": one.status} if isinstance(one, RequestError) else one for one in results]
        return _json({"results": plain})

    @app.get("/health", responses={503: ERRORS[503]})
    async def health() -> Response:
        """Say whether the server is ready."""
        return _json({"status": "ready"}) if batcher.is_ready else error_response(503, "the server is not ready")

    @app.get("/")
    async def about() -> Response:
        """Return the version, the tasks and labels of the variant, and the limits."""
        return _json(facts)

    @app.get("/metrics", include_in_schema=False)
    async def all_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page)

    document = openapi(app)

    @app.get("/openapi.json", include_in_schema=False)
    async def schema() -> Response:
        return _json(document)

    app.add_middleware(Guard, limits=limits, metrics=metrics, paths=frozenset(facts["paths"]))
    return app


def _facts(batcher: Batcher) -> dict[str, Any]:
    extractor = batcher.extractor
    names = all_tasks.ordered(extractor.processor.task_options or None)
    return {
        "umie": umie.__version__,
        "tasks": {name: list(extractor.processor.task(name).labels) for name in names},
        "media": list(extractor.model.media_encoders),
        "constrained": extractor.constrained,
        "limits": dataclasses.asdict(batcher.limits),
        "paths": ["/", "/extract", "/extract/batch", "/health", "/metrics", "/docs", "/openapi.json"],
    }


def _result(found: Extraction | BaseException) -> dict[str, Any] | RequestError:
    """Return an answer as plain values, or its error as one that a client may see."""
    try:
        if isinstance(found, BaseException):
            raise found
        return found.to_json()
    except UmieError as error:
        return RequestError(422, _FOLDERS.sub("", str(error)))  # of the server, such as those of features
    except asyncio.CancelledError:
        return RequestError(503, "the server is shutting down")
    except Exception:
        _log.exception("a record could not be answered")
        return RequestError(500, "an error of the server, which is in its log")


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RequestError):
        return error_response(error.status, str(error))
    assert isinstance(error, HTTPException)
    response = error_response(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})  # such as the methods that are allowed
    return response


def _json(value: Any) -> Response:
    return Response(json_text(value), media_type=JSON)
