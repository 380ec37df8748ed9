"""What surrounds the app: bodies of bounded size and time, deadlines, clients that go away, JSON errors, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from umie.serving.limits import Limits, Memory, RequestError
from umie.serving.metrics import Metrics

SHARE = "umie.share"  # the key of a request's share of the memory, in its scope
GONE = 499  # in the metrics: the client did not wait
_DISCARD_S = 5  # for the rest of a body that is too large, so that its client reads the error
_log = logging.getLogger("umie.serving")


def error_response(status: int, message: str, *, close: bool = False) -> JSONResponse:
    """Return the response to a request that is not answered.

    Args:
        status: its status.
        message: why.
        close: close the connection, on which the rest of the request may still arrive.
    """
    headers = {"retry-after": "1"} if status == 503 else {}
    return JSONResponse({"error": message}, status, headers | ({"connection": "close"} if close else {}))


class Guard:
    """An ASGI app around another one, which gets whole bodies and is canceled when nobody waits for it.

    Args:
        app: the other one.
        limits: of bodies and time.
        metrics: where requests are counted.
        paths: the paths that are counted by their name.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, paths: frozenset[str]) -> None:
        self._app, self._limits, self._metrics, self._paths = app, limits, metrics, paths
        self._memory = Memory(limits.max_memory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.perf_counter(), GONE

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self._memory.share() as share:
                response = await self._answer({**scope, SHARE: share}, receive, counted)
            if response is not None and status == GONE:
                await response(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.count_request(path, status, time.perf_counter() - began)
        return None

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> JSONResponse | None:
        """Let the app answer; return an error to send if it did not, or None if the client is gone."""
        deadline = asyncio.get_running_loop().time() + self._limits.timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._body(scope, receive)
        except TimeoutError:
            message = f"the request took longer than {self._limits.timeout_s:g} seconds to arrive"
            return error_response(408, message, close=True)
        except RequestError as error:
            return error_response(error.status, str(error), close=True)
        if body is None:
            return None
        gone = asyncio.ensure_future(_gone(receive))
        answer = asyncio.ensure_future(self._app(scope, _replay(body, gone), send))
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
            return None
        except TimeoutError:
            return error_response(504, f"there is no answer after {self._limits.timeout_s:g} seconds; try again later")
        except Exception:
            _log.exception("an error of the server")
            return error_response(500, "an error of the server, which is in its log")
        finally:
            for task in (answer, gone):
                task.cancel()
            await asyncio.wait((answer, gone))

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """Return the body of a request; None if the client is gone.

        Raises:
            RequestError: it is too large, or compressed.
        """
        headers, share, limit = Headers(scope=scope), scope[SHARE], self._limits.max_body
        too_large = RequestError(413, f"the request is larger than {limit:,} bytes")
        body, more, announced = bytearray(), True, headers.get("content-length", "")
        try:
            if headers.get("content-encoding", "identity").lower() != "identity":
                raise RequestError(415, "compressed requests are not read: send it as it is")
            if announced.isdecimal() and int(announced) > limit:
                raise too_large
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                chunk, more = message.get("body", b""), message.get("more_body", False)
                if len(body) + len(chunk) > limit:
                    raise too_large
                share.take(len(chunk))
                body += chunk
        except RequestError:
            if more and headers.get("expect", "").lower() != "100-continue":  # such a client asks before it sends
                await _discard(receive)
            raise
        return bytes(body)


def _replay(body: bytes, gone: asyncio.Future[None]) -> Receive:
    """Return a ``receive`` with a whole body."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.shield(gone)
        return {"type": "http.disconnect"}

    return receive


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _discard(receive: Receive) -> None:
    """Read the rest of a body for some seconds.

    If the connection were closed before, the client would see that, and not the error.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
