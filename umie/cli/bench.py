"""`umie bench`: microbenchmarks of fusion modules, and the changes between two results."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.bench.ratios import ROUNDS
from umie.cli.bench_options import BenchOptions, command_of, result_files
from umie.cli.options import tell
from umie.errors import UmieError, check_choice

if TYPE_CHECKING:
    from umie.bench.run import Plan

app = typer.Typer(rich_markup_mode="markdown")


@app.callback(invoke_without_command=True)
@command_of(BenchOptions)
def bench(context: typer.Context, options: BenchOptions) -> None:
    r"""Time fusions next to other libraries and the bare matrix products.

    An operation is timed only if its values and gradients match a plain
    reference in float64. Other fusions, such as those of a plugin, must keep the
    contract of a fusion. An operation that is wrong or cannot run is reported
    with the reason. Lists are separated by commas. Without options the command
    takes a few minutes on two cores.

    Exit code: 0 done, 1 an operation is wrong, 2 bad input, 130 interrupted
    (the results so far are kept).

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
    plan = options.plan()
    if options.explain:
        _explain(plan)
    elif options.dry_run:
        _dry_run(plan)
    else:
        _run(plan, options)


def _explain(plan: Plan) -> None:
    """Print the arguments for and against each backend, for each shape, dtype and direction."""
    from umie.bench.operations import case_of
    from umie.fusion.attention import explain

    for shape in plan.shapes:
        for dtype in plan.dtypes:
            for direction in plan.directions:
                found = explain(case_of(shape, device=plan.device, dtype=dtype, direction=direction))
                typer.echo(f"{shape} {dtype} {direction} on {plan.device}: auto chooses {found.chosen}\n{found}\n")


def _dry_run(plan: Plan) -> None:
    from umie.bench.environment import device_error
    from umie.cli.bench_display import show_plan

    if (reason := device_error(plan.device)) is not None:
        tell(f"umie: {plan.device} is not available: {reason}", style="yellow")
    show_plan(plan.rows(), plan.rounds)


def _run(plan: Plan, given: BenchOptions) -> None:
    import torch

    from umie.bench.environment import device_error, environment
    from umie.bench.results import WRONG, Results, file_name
    from umie.bench.run import run
    from umie.cli.bench_display import BenchDisplay, show_results
    from umie.files import atomic_write
    from umie.reports.bench import bench_page
    from umie.reports.bench_figure import draw_bench

    if (reason := device_error(plan.device)) is not None:
        raise UmieError(f"--device {plan.device}: {reason}; --dry-run lists what would run there")
    before = torch.get_num_threads()
    torch.set_num_threads(given.threads or before)
    try:
        where = environment(plan.device, torch.get_num_threads())
        json_file, markdown_file, figure_file = result_files(given.output, file_name(where, list(plan.dtypes)))
        command = shlex.join(["umie", *sys.argv[1:]])
        options: dict[str, Any] = {"command": command, "rounds": plan.rounds}
        if plan.lengths is not None:
            options["lengths"] = {"file": str(given.lengths), **_summary(plan.lengths)}
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
    typer.echo(f"Written: {', '.join(map(str, written))}")
    if not results.complete:
        tell("umie: interrupted; the results so far are kept")
        raise typer.Exit(130)
    wrong = [row for row in results.rows if row.status == WRONG]
    if wrong:
        listed = ", ".join(dict.fromkeys(f"{row.block} {row.name}" for row in wrong))
        tell(f"umie: not timed, because the results do not match the reference: {listed}", style="red")
        raise typer.Exit(1)


def _summary(lengths: Any) -> dict[str, Any]:
    """Return the number of lengths, their quartiles and their maximum."""
    from umie.bench.ratios import spread

    found = spread(lengths)
    return {"number": len(lengths), "median": found.median, "quartiles": [found.low, found.high], "max": max(lengths)}


@app.command("compare")
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

    A time has changed if the quartile ranges do not overlap and the medians
    differ by more than the tolerance. Times of fewer than 7 rounds are shown but
    yield no verdict.

    Exit code: 0 no regression, 1 slower, more memory, or broken, 2 the results
    cannot be compared.

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
        tell(f"umie: compared anyway: {'; '.join(found)}", style="yellow")
    changed = changes(before, after, tolerance=tolerance, of_limit=by == "limit")
    common = len({row.key for row in before.rows} & {row.key for row in after.rows})
    show_changes(changed, common, tolerance)
    if unsure := sum(not change.is_sure for change in changed):
        tell(f"umie: {unsure} changed in too few rounds, no verdict: use --rounds {ROUNDS}", style="yellow")
    if any(change.is_worse for change in changed):
        raise typer.Exit(1)
