"""`umie calibrate`: whether the probabilities of a model are what they say, and a temperature that corrects them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from umie.cli.console import print_json, print_line, print_note, show
from umie.cli.options import (
    Device,
    Format,
    FormatOptions,
    Images,
    JsonFlag,
    NoRelation,
    Plugins,
    Regions,
    check_figure,
    source_of,
)
from umie.cli.progress import counting, disable_progress_bars
from umie.errors import UmieError


def calibrate(
    model: Annotated[str, typer.Option("--model", "-m", help="Directory of a saved variant, or a hub name.")],
    data: Annotated[Path, typer.Option("--data", "-d", help="Annotated records that were not used for training.")],
    format_name: Format = "jsonl",
    images: Images = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task such as mner or mre; by default those of the model. Repeatable.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw the share of right items by probability: PNG, PDF or SVG.")
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write the temperatures that help into the model's directory.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries per batch.")] = 16,
    seed: Annotated[int, typer.Option(help="Random seed of the folds and of the simulation.")] = 0,
    device: Device = None,
    plugin: Plugins = None,
    no_relation: NoRelation = None,
    json_flag: JsonFlag = False,
) -> None:
    """Compare the probabilities of what a model finds with the share of it that is right.

    ECE is the expected calibration error: the mean distance of probability and share over ten bins. Even exact
    probabilities have some by chance, which is shown next to it, with its 95% quantile. The temperature divides
    the log-odds; the ECE with it is that of records to which it was not fitted (five folds). With --save, later
    extractions, and later calls of this command, have the corrected probabilities, and --threshold of `umie extract`
    is about them. Use development data, not test data.

        umie calibrate -m best --data dev.txt --format twitter --images images --figure reliability.png
        umie calibrate -m best --data dev.jsonl --save

    Exit code: 0 success, 2 bad input.
    """
    from umie.extraction import Extractor
    from umie.extraction.calibration import calibrate as calibrated
    from umie.extraction.calibration import judged_items
    from umie.hub import check_saved
    from umie.processor import UmieProcessor
    from umie.records import no_relation_names
    from umie.registry import load_plugins
    from umie.tasks import ordered

    check_figure(figure)
    check_saved(model)
    if save and not Path(model).is_dir():
        raise UmieError(f"--save: {model} is not a directory: save the model to one, and calibrate that")
    load_plugins(plugin or ())
    disable_progress_bars()
    source = source_of(data, format_name, images, regions, format_option)
    extractor = Extractor.from_pretrained(model, device=device, batch_size=batch_size)
    records = list(source.named())
    wanted = ordered(task or extractor.processor.task_options or None)
    names = [name for name in wanted if any(one.annotated_for(name) for one in records)]
    if not names:
        raise UmieError(f"{data}: no record is annotated for {', '.join(wanted)}")
    with no_relation_names(no_relation or ()), counting(f"extracting from {data.name}", len(records)) as count:
        judged = judged_items(extractor, records, names, count)
    found = {name: calibrated(own, seed) for name, own in judged.items() if own}
    if json_flag:
        from dataclasses import asdict

        print_json({name: asdict(one) for name, one in found.items()})
    else:
        table = Table("task", "items", "right", "mean p", "ECE", "by chance", "temperature", "ECE with it", "log loss")
        for name, one in found.items():
            chance = f"{one.chance[0]:.3f} (95%: {one.chance[1]:.3f})"
            after = f"{one.temperature:.2f}", f"{one.error_after:.3f}", f"{one.loss[0]:.3f} -> {one.loss[1]:.3f}"
            cells = f"{one.items:,}", f"{one.share:.3f}", f"{one.mean:.3f}", f"{one.error:.3f}", chance, *after
            table.add_row(name, *cells)
        table.box = None
        show(table)
    for name in [name for name in names if name not in found]:
        print_note(f"note: {name}: nothing was found, so nothing can be said about its probabilities")
    if figure is not None:
        from umie.reports.calibration_figure import draw_calibration

        draw_calibration(found, figure)
        print_line(f"Written: {figure}")
    if save and not any(one.helps for one in found.values()):
        print_note(f"note: {model} stays as it is: no temperature clearly helps on other records")
    elif save:
        earlier = extractor.processor.temperatures
        helpful = {name: one.temperature * earlier.get(name, 1) for name, one in found.items() if one.helps}
        for name in found.keys() - helpful:
            print_note(f"note: {name}: a temperature does not clearly help on other records; its probabilities stay")
        processor = UmieProcessor.from_pretrained(model)  # that of the extractor has another policy for images
        processor.temperatures = earlier | {name: round(value, 4) for name, value in helpful.items()}
        processor.save_pretrained(model)
        listed = ", ".join(f"{name} {value}" for name, value in processor.temperatures.items())
        print_line(f"Written: {model}: temperatures: {listed or 'none'}")
