"""`umie extract`: what a trained model finds in a text and its image, or in a file of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.cli.console import err, out
from umie.errors import UmieError

if TYPE_CHECKING:
    from umie.records import Region

_EXAMPLES = """
The model is a folder with a saved variant and its processor. For example:

    umie extract --model best "Kids at the Salvation Army" --image kids.jpg
    umie extract --model best "HMS Belfast" --task mner --label ship
    umie extract --model best -i in.jsonl -o out.jsonl --images photos

A line of the input is a record, at least {"text": "..."}; "image" names a
file inside --images (by default the input's folder), "regions" lists boxes
relative to the image, {"box": [0.1, 0.2, 0.5, 0.9]}. Its pairs in
"relations" are asked about, else all pairs of the entities found; its
"events" only where med is not among the tasks. The output has a line for
each, in their order, which `umie evaluate --predictions` can score.

A run that was ended early goes on with the same command: what is done
stands in out.jsonl.part. The output appears when it is complete.

Exit code: 0 done, 2 bad input.
"""


def extract(
    text: Annotated[str | None, typer.Argument(help="The text; leave it out with --input.")] = None,
    model: Annotated[Path | None, typer.Option("--model", "-m", help="Folder of a saved variant.")] = None,
    image: Annotated[Path | None, typer.Option(help="The image of the text.")] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="A box of the image, x1,y1,x2,y2 relative to its size; may be repeated.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="mner, mre, med or meae; may be repeated. By default what the model was trained for."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A label to look for in place of the model's, LABEL or TASK=LABEL; may be repeated."),
    ] = None,
    input_file: Annotated[Path | None, typer.Option("--input", "-i", help="Records, JSONL.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The JSONL file to write.")] = None,
    details: Annotated[
        Path | None, typer.Option(help="Write boxes in pixels, gates and warnings of each record to this JSONL, too.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the images of --input.")] = None,
    missing_images: Annotated[
        str | None, typer.Option(help="What an image that cannot be read does: error, text_only or skip.")
    ] = None,
    constrained: Annotated[
        bool, typer.Option("--constrained/--free", help="Let only well-formed answers through, or any.")
    ] = True,
    max_pairs: Annotated[int, typer.Option(min=1, help="The most pairs of entities to ask about in one text.")] = 132,
    num_beams: Annotated[int, typer.Option(min=1, help="Beams; 1 is greedy.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries at once; it changes no answer.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU where there is one.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    json_flag: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
) -> None:
    """Find entities, relations, events and their arguments in a text and its image, or in a file of them."""
    from umie.cli.extract_file import Job, extract_file, load

    if model is None:
        raise UmieError("--model is missing: give the folder of a saved variant")
    if (text is None) == (input_file is None):
        raise UmieError("give a text, or a file with --input; one of the two")
    labels = _labels(label or (), task)
    options: dict[str, Any] = {
        "constrained": constrained,
        "max_pairs": max_pairs,
        "missing_images": missing_images,
        "num_beams": num_beams,
    }
    setting = {"batch_size": batch_size, "device": device}
    if input_file is not None:
        if output is None:
            raise UmieError("--output is missing: give the JSONL file to write")
        if image is not None or region or json_flag:
            raise UmieError("--image, --region and --json go with one text: the records of --input have their own")
        job = Job(model, input_file, output, details, images, task, labels, {**options, "dtype": dtype})
        extract_file(job, setting)
        return
    if output is not None or details is not None or images is not None:
        raise UmieError("--output, --details and --images go with --input: the result of one text is printed")
    regions = [_region(box) for box in region] if region else None
    extractor = load(model, dtype=dtype, **options, **setting)
    found = extractor.extract(str(text), image, tasks=task, labels=labels, regions=regions)
    for notice in found.warnings:
        err.print(f"note: {notice.message}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if json_flag:
        out.print(json.dumps(found.to_json(), ensure_ascii=False), soft_wrap=True, markup=False, highlight=False)
        return
    from umie.cli.extract_display import show_extraction

    show_extraction(found)


extract.__doc__ = f"{extract.__doc__}\n{_EXAMPLES}"


def _labels(given: list[str] | tuple[()], tasks: list[str] | None) -> dict[str, list[str]] | None:
    from umie.tasks import registry

    labels: dict[str, list[str]] = {}
    for text in given:
        task, equals, label = text.partition("=")
        if not (equals and task in registry):
            if tasks is None or len(tasks) != 1:
                raise UmieError(f"--label {text!r}: say of which task, e.g. mner={text}, or give one --task")
            task, label = tasks[0], text
        labels.setdefault(task, []).append(label)
    return labels or None


def _region(text: str) -> Region:
    from umie.records import Region

    try:
        x1, y1, x2, y2 = map(float, text.split(","))
    except ValueError as error:
        raise UmieError(f"--region {text!r}: give four numbers x1,y1,x2,y2, relative to the image's size") from error
    return Region((x1, y1, x2, y2))
