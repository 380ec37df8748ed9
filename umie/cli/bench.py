"""`umie bench`: microbenchmarks of fusion modules, and the changes between two results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.bench.ratios import ROUNDS, spread
from umie.cli.console import print_line, print_note
from umie.cli.options import Device
from umie.errors import UmieError, check_choice, check_keys

if TYPE_CHECKING:
    from umie.bench.run import Plan

FOLDER = Path("runs/bench")
SUFFIXES = (".json", ".md", ".png")

app = typer.Typer()


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    blocks: Annotated[
        str, typer.Option(help="What to compute: released, paper, gate, cross_attention, any other fusion, or all.")
    ] = "released,paper,gate,cross_attention",
    backends: Annotated[
        str, typer.Option(help="Attention backends: auto, sdpa, absorbed, reference, packed, xformers, or all.")
    ] = "auto,sdpa,absorbed",
    plugins: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="FILE",
            help="A Python file that registers fusions or backends; may be repeated. Its fusions join --blocks.",
        ),
    ] = None,
    sizes: Annotated[str, typer.Option(help="Widths of FLAN-T5: small, base, large, xl, or all.")] = "base",
    batch_sizes: Annotated[str, typer.Option(help="Numbers of examples.")] = "8",
    tokens: Annotated[str, typer.Option(help="Numbers of text tokens.")] = "256",
    slots: Annotated[str, typer.Option(help="Numbers of visual slots.")] = "37",
    dense: Annotated[bool, typer.Option("--dense", help="Texts and slots without padding (the default).")] = False,
    ragged: Annotated[
        bool, typer.Option("--ragged", help="Texts and slot lists of different lengths; one example has no image.")
    ] = False,
    lengths: Annotated[
        Path | None,
        typer.Option(help="A JSONL file of records; ragged texts get the lengths of its queries. Implies --ragged."),
    ] = None,
    dtypes: Annotated[str, typer.Option(help="float32, bfloat16, float16, or all.")] = "float32",
    directions: Annotated[str, typer.Option(help="forward, forward+backward, or all.")] = "all",
    device: Device = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default torch's choice.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each operation; a verdict needs 7.")] = ROUNDS,
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Also time other libraries and the bare matrix products.")
    ] = True,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure peak memory.")] = True,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Add sdpa under torch.compile; on CUDA also as a CUDA graph.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Name of the result files; by default in runs/bench.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the operations and exit.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Report which backend auto chooses, and why, and exit.")
    ] = False,
) -> None:
    r"""Time fusions next to other libraries and the bare matrix products.

    An operation is timed only if its values and gradients match a plain reference in float64. Other fusions, such as
    those of a plugin, must keep the contract of a fusion. An operation that is wrong or cannot run is reported with the
    reason. Lists are separated by commas. Without options the command takes a few minutes on two cores.

    Exit code: 0 done, 1 an operation is wrong, 2 bad input, 130 interrupted (the results so far are kept).

    Example:
        umie bench
        umie bench --blocks released,gate --tokens 64,256 --directions forward
        umie bench --plugin examples/own_fusion.py --blocks paper,concat
        umie bench --ragged --lengths train.jsonl --backends auto,sdpa,packed
        umie bench --device cuda --sizes base,xl --batch-sizes 64 \
            --dtypes bfloat16 --compile --backends all --ragged --dense
        umie bench --sizes all --dry-run
        umie bench --sizes small,xl --tokens 16,256 --explain
        umie bench compare before.json after.json
    """
    if context.invoked_subcommand is not None:
        return
    from umie.bench import operations
    from umie.bench.run import Plan
    from umie.bench.shapes import SIZES, Shape, read_lengths
    from umie.registry import load_plugins

    before = operations.blocks()
    load_plugins(plugins or ())
    added = [block for block in operations.blocks() if block not in before]
    is_ragged = ragged or lengths is not None
    combinations = product(
        _names("size", sizes, SIZES),
        _numbers("--batch-sizes", batch_sizes),
        _numbers("--tokens", tokens),
        _numbers("--slots", slots),
        [False] * (dense or not is_ragged) + [True] * is_ragged,
    )
    shapes = [
        Shape(size=size, batch=batch, tokens=length, slots=number, ragged=kind)
        for size, batch, length, number, kind in combinations
    ]
    plan = Plan(
        shapes=shapes,
        blocks=list(dict.fromkeys([*_names("block", blocks, operations.blocks()), *added])),
        backends=_names("attention backend", backends, operations.backends()),
        dtypes=_names("dtype", dtypes, operations.DTYPES),
        directions=_names("direction", directions, operations.DIRECTIONS),
        device=_device(device),
        rounds=rounds,
        peers=peers,
        memory=memory,
        compiled=compiled,
        lengths=None if lengths is None else read_lengths(lengths),
    )
    if explain:
        _explain(plan)
    elif dry_run:
        from umie.cli.bench_display import show_plan

        show_plan(plan)
    else:
        _run(plan, lengths, threads, output)


def _names(kind: str, given: str, choices: Iterable[str]) -> list[str]:
    """Return the distinct names of a comma-separated list, or all choices for ``all``."""
    choices = list(choices)
    if given.strip() == "all":
        return choices
    found = _split(given)
    check_keys(kind, found, [*choices, "all"])
    if not found:
        raise UmieError(f"the list of {kind}s is empty: use some of {', '.join(choices)}, or all")
    return found


def _numbers(option: str, given: str) -> list[int]:
    """Return the distinct numbers of a comma-separated list."""
    parts = _split(given)
    if not parts or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UmieError(f"{option} is {given!r}: use whole numbers above 0, such as 8 or 8,64")
    return [int(part) for part in parts]


def _split(given: str) -> list[str]:
    return list(dict.fromkeys(part for part in map(str.strip, given.split(",")) if part))


def _device(given: str | None) -> str:
    import torch

    if given is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(given)
    except RuntimeError as error:
        raise UmieError(f"--device {given}: {str(error).splitlines()[0]}; use cpu, cuda or cuda:1") from error
    return given


def _explain(plan: Plan) -> None:
    """Print the arguments for and against each backend, for each shape, dtype and direction."""
    from umie.bench.operations import case_of
    from umie.fusion.attention import explain

    for shape, dtype, direction in product(plan.shapes, plan.dtypes, plan.directions):
        found = explain(case_of(shape, device=plan.device, dtype=dtype, direction=direction))
        print_line(f"{shape} {dtype} {direction} on {plan.device}: auto chooses {found.chosen}\n{found}\n")


def _run(plan: Plan, lengths_file: Path | None, threads: int | None, output: Path | None) -> None:
    import torch

    from umie.bench.environment import device_error, environment
    from umie.bench.results import WRONG, Results, file_name
    from umie.bench.run import run
    from umie.cli.bench_display import BenchDisplay, show_results
    from umie.files import atomic_write
    from umie.reports.bench import bench_page, draw_bench
    from umie.reports.style import check_figures

    check_figures()
    if (reason := device_error(plan.device)) is not None:
        raise UmieError(f"--device {plan.device}: {reason}; --dry-run lists what would run there")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        where = environment(plan.device, torch.get_num_threads())
        json_file, markdown_file, figure_file = _result_files(output, file_name(where, list(plan.dtypes)))
        command = shlex.join(["umie", *sys.argv[1:]])
        options: dict[str, Any] = {"command": command, "rounds": plan.rounds}
        if plan.lengths is not None:
            found = spread(plan.lengths)
            options["lengths"] = {"file": str(lengths_file), "number": len(plan.lengths), "median": found.median}
            options["lengths"] |= {"quartiles": [found.low, found.high], "max": max(plan.lengths)}
        results = Results(environment=where, options=options, rows=[])
        with BenchDisplay(lambda: results.write(json_file)) as display:
            run(plan, results, display)
    finally:
        torch.set_num_threads(before)
    with atomic_write(markdown_file) as file:
        file.write(bench_page(results, command))
    drawn = draw_bench(results, figure_file)
    show_results(results)
    written = [json_file, markdown_file, *([figure_file] if drawn else [])]
    print_line(f"Written: {', '.join(map(str, written))}")
    if not results.complete:
        print_note("umie: interrupted; the results so far are kept")
        raise typer.Exit(130)
    if wrong := [row for row in results.rows if row.status == WRONG]:
        listed = ", ".join(dict.fromkeys(f"{row.block} {row.name}" for row in wrong))
        print_note(f"umie: not timed, because the results do not match the reference: {listed}", "red")
        raise typer.Exit(1)


def _result_files(output: Path | None, name: str) -> list[Path]:
    """Return the paths of the JSON, Markdown and PNG files of a result; existing results are never overwritten."""

    def files(stem: Path) -> list[Path]:
        return [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]

    if output is None:
        stem, number = FOLDER / name, 1
        while any(file.exists() for file in files(stem)):
            number += 1
            stem = FOLDER / f"{name}_{number}"
        return files(stem)
    stem = output.with_suffix("") if output.suffix in SUFFIXES else output
    if not stem.name or output.is_dir():
        raise UmieError(f"--output {output}: is a directory: use a file name")
    for file in files(stem):
        if file.exists():
            raise UmieError(f"--output {output}: {file} already exists: use another name, or remove it")
    return files(stem)


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(help="The older result: a .json file of `umie bench`.")],
    new: Annotated[Path, typer.Argument(help="The newer result.")],
    tolerance: Annotated[
        float, typer.Option(min=0, help="Minimum relative difference of two medians that counts as a change.")
    ] = 0.05,
    by: Annotated[
        str, typer.Option(help="time, or limit: the ratio to the bare products, which a busy machine does not change.")
    ] = "time",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare results of different devices, threads or dtypes.")
    ] = False,
) -> None:
    """Print the changes between two results that exceed the noise.

    A time has changed if the quartile ranges do not overlap and the medians differ by more than the tolerance. Times of
    fewer than 7 rounds are shown but yield no verdict.

    Exit code: 0 no regression, 1 slower, more memory, or broken, 2 the results cannot be compared.

    Example:
        umie bench compare before.json after.json
        umie bench compare before.json after.json --tolerance 0.1 --by limit
    """
    check_choice("--by", by, ("time", "limit"))
    from umie.bench.compare import changes, differences
    from umie.bench.results import Results
    from umie.cli.bench_display import show_changes

    before, after = Results.read(old), Results.read(new)
    if found := differences(before, after):
        if not anyway:
            raise UmieError(f"{old} and {new} cannot be compared: {'; '.join(found)}; use --anyway to compare them")
        print_note(f"umie: compared anyway: {'; '.join(found)}", "yellow")
    changed = changes(before, after, tolerance=tolerance, of_limit=by == "limit")
    common = len({row.key for row in before.rows} & {row.key for row in after.rows})
    show_changes(changed, common, tolerance)
    if unsure := sum(not change.is_sure for change in changed):
        print_note(f"umie: {unsure} changed in too few rounds, no verdict: use --rounds {ROUNDS}", "yellow")
    if any(change.is_worse for change in changed):
        raise typer.Exit(1)
