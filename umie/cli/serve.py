"""`umie serve`: answers HTTP requests with a saved variant."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import typer

from umie.cli.console import print_line, print_note
from umie.cli.options import Device, Plugins, Threshold, threshold_of
from umie.cli.progress import disable_progress_bars
from umie.errors import UmieError


def serve(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Directory of a saved variant, or a hub name.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any that is free.")] = 8000,
    batch_size: Annotated[int, typer.Option(min=1, help="Records per batch; does not change the answers.")] = 16,
    max_wait_ms: Annotated[float, typer.Option(min=0, help="How long a record waits for others of its batch.")] = 5,
    max_queue: Annotated[int, typer.Option(min=1, help="Records that may wait; with more, the answer is 503.")] = 256,
    max_body_mb: Annotated[float, typer.Option(help="Size of a request in MB; for a larger one, it is 413.")] = 20,
    max_text: Annotated[
        int, typer.Option(min=1, help="Characters of a text; for a longer one, the answer is 422.")
    ] = 10_000,
    timeout_s: Annotated[
        float, typer.Option(help="Seconds for a request: 408 if it has not arrived, 504 if there is no answer.")
    ] = 30,
    threshold: Threshold = None,
    constrained: Annotated[
        bool, typer.Option("--constrained/--free", help="Whether to allow only well-formed answers.")
    ] = True,
    device: Device = None,
    plugin: Plugins = None,
) -> None:
    """Answer HTTP requests with a saved variant: a text and its images in, the items found out, as JSON.

        umie serve --model best
        curl localhost:8000/extract -H 'Content-Type: application/json' -d '{"text": "Kids at the Salvation Army"}'
        curl localhost:8000/extract -F text='Kids at the Salvation Army' -F image=@kids.jpg

    /docs is a page to try it, and /openapi.json describes requests and answers; / has the tasks, labels and limits of
    the server, /health says whether it is ready, and /metrics is for Prometheus. Records that wait at the same moment
    and have the same tasks and labels are answered together; the answers are those of `umie extract`.

    There is no authentication, so that the server listens only to this machine; for others, put it behind a proxy:

        umie serve --model best --host 0.0.0.0 --port 80 --threshold 0.7

    With SIGTERM or Ctrl-C it stops accepting requests, answers those that it has, and ends. docs/serving.md has more.

    Exit code: 0 ended by a signal, 2 invalid input.
    """
    from umie.hub import check_saved
    from umie.registry import load_plugins

    if model is None:
        raise UmieError("--model is missing: use the directory of a saved variant or a hub name")
    check_saved(model)
    from umie.serving import Batcher, Limits, bind, create_app
    from umie.serving import serve as serve_app

    limits = Limits(
        batch_size=batch_size,
        max_wait_ms=max_wait_ms,
        max_queue=max_queue,
        max_body_mb=max_body_mb,
        max_text=max_text,
        timeout_s=timeout_s,
    )
    bound = bind(host, port)
    address, own_port, *_ = bound.getsockname()
    load_plugins(plugin or ())
    disable_progress_bars()
    from umie.extraction import Extractor

    chosen = threshold_of(threshold or ())
    extractor = Extractor.from_pretrained(
        model, device=device, batch_size=batch_size, constrained=constrained, threshold=chosen
    )
    batcher = Batcher(extractor, limits).start()
    if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        note = "note: other machines can reach this server, which has no authentication: put it behind a proxy"
        print_note(note, "yellow")
    shown = f"[{address}]" if ":" in address else address
    line = f"Serving {model} at http://{shown}:{own_port} (a page to try it: /docs)"
    serve_app(create_app(batcher), batcher, bound, lambda: print_line(line))
