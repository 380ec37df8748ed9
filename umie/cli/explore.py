"""`umie explore`: a local web page to try a saved variant by hand."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from umie.cli.console import print_line, print_note
from umie.cli.options import Device, Format, FormatOptions, Images, Plugins, Regions, source_of
from umie.cli.progress import disable_progress_bars
from umie.errors import UmieError


def explore(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Directory of a saved variant, or a hub name.")
    ] = None,
    compare: Annotated[str | None, typer.Option(help="A second variant, whose answers are shown next to it.")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="A file of records, for examples.")] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    examples: Annotated[int, typer.Option(min=1, help="Number of examples, a random sample of --data.")] = 12,
    host: Annotated[str, typer.Option(help="Address to listen on; by default only this machine can connect.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_mb: Annotated[float, typer.Option("--max-mb", min=0.01, help="Largest upload, in MB.")] = 20,
    device: Device = None,
    plugin: Plugins = None,
) -> None:
    """Try a saved variant by hand, on a local web page.

    Type a text, drop an image, press Extract: the page shows the items in the text, their boxes on the image, and their
    probabilities. Labels can be edited, the gate can be fixed, and "Did the image matter?" answers without the image,
    too. With --data, a click on an example loads it and shows its annotation next to the answer. With --compare, two
    variants answer, and items that only one of them finds are marked.

        umie explore -m best --data test.jsonl
        umie explore -m gated/best --compare text_only/best -d test.txt -f twitter

    Needs the extra `web` (Gradio). The page loads nothing from the internet and sends nothing there. Uploads are kept
    in a temporary directory until the command ends; stop it with Ctrl+C. There is no password: with another --host,
    everybody who can reach this machine can use the page.

    Exit code: 0 stopped, 2 bad input.
    """
    from umie.data.source import draw_records
    from umie.hub import check_saved
    from umie.registry import load_plugins

    if model is None:
        raise UmieError("--model is missing: use the directory of a saved variant or a hub name")
    if data is None and (images or regions or format_option):
        raise UmieError("--images, --regions and --format-option describe --data, which is missing")
    models = [model] if compare is None else [model, compare]
    for one in models:
        check_saved(one)
    load_plugins(plugin or ())
    disable_progress_bars()
    drawn = []
    if data is not None:
        source = source_of(data, format_name, images, regions, format_option)
        drawn = [(f"{data.name}:{number}", record) for number, record in draw_records(source, examples)]
        if not drawn:
            raise UmieError(f"{data}: contains no records")
    from umie.explorer import Explorer, LoadedVariant, read_examples
    from umie.explorer.server import check_port, gradio_in, is_loopback, served

    check_port(host, port)
    with TemporaryDirectory(prefix="umie-explore-") as name, gradio_in(folder := Path(name)):
        variants = [LoadedVariant.load(one, device) for one in models]
        explorer = Explorer(variants, read_examples(drawn, folder), max_mb=max_mb)
        with served(explorer, folder, host, port) as address:
            if not is_loopback(host):
                print_note(f"note: everybody who can reach {host} can use this page: there is no password", "yellow")
            print_line(f"Open {address} in a browser; stop with Ctrl+C.")
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                print_note("Stopped.")
