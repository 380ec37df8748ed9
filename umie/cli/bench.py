"""`umie bench`: microbenchmarks of the fusion, and what moved between two of their results."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.bench.ratios import ROUNDS
from umie.cli.bench_options import files, names, place, shapes
from umie.cli.options import tell
from umie.errors import UmieError, check_choice

if TYPE_CHECKING:
    from umie.bench.run import Plan

app = typer.Typer(rich_markup_mode="markdown")


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    blocks: Annotated[
        str, typer.Option(help="What is computed: released, paper, gate, cross_attention, concat, your own; or all.")
    ] = "released,paper,gate,cross_attention",
    backends: Annotated[
        str,
        typer.Option(
            help="Attention backends; by default what auto picks among on a CPU, and auto itself. all: every one that "
            "is registered, so reference, packed and xformers too."
        ),
    ] = "auto,sdpa,absorbed",
    sizes: Annotated[str, typer.Option(help="FLAN-T5's widths: small, base, large, xl; or all.")] = "base",
    batch: Annotated[str, typer.Option(help="Numbers of examples B.")] = "8",
    tokens: Annotated[str, typer.Option(help="Numbers of text tokens T.")] = "256",
    slots: Annotated[str, typer.Option(help="Numbers of visual slots V.")] = "37",
    dense: Annotated[bool, typer.Option("--dense", help="All tokens and slots are real; so by default.")] = False,
    ragged: Annotated[
        bool, typer.Option("--ragged", help="Texts and slots of different lengths, padded; one without an image.")
    ] = False,
    lengths: Annotated[
        Path | None,
        typer.Option(help="JSONL of records: ragged texts are as long as their instructions and texts in tokens."),
    ] = None,
    dtypes: Annotated[str, typer.Option(help="float32, bfloat16, float16; or all.")] = "float32",
    directions: Annotated[str, typer.Option(help="forward, forward+backward; or all.")] = "all",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; by default torch's own choice.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each operation is timed; verdicts need 7.")] = ROUNDS,
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Other libraries and the bare products.")] = True,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Peak memory of each operation.")] = True,
    compiled: Annotated[
        bool, typer.Option("--compile", help="The sdpa path under torch.compile too; on CUDA also as a CUDA graph.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Name of the results, .json, .md and .png; by default in runs/bench.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would run, and why not, and stop.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which backend auto takes, and why, and stop.")
    ] = False,
) -> None:
    """Time every fusion by every backend, beside its peers and its limit; ratios are taken within each round.

    An operation is timed only after its values and gradients matched a plain twin in float64. What is wrong or cannot
    run is a row with its reason. Lists take commas. Without options: some minutes on two cores.

    Exit code: 0, 1 an operation is wrong, 2 bad input, 130 interrupted (what was measured is kept).

    Example:
        umie bench
        umie bench --blocks released,gate --sizes base --tokens 256 --directions forward --rounds 11
        umie bench --ragged --lengths train.jsonl --backends auto,sdpa,packed --dtypes bfloat16
        umie bench --device cuda --sizes base,xl --batch 64 --dtypes bfloat16 --compile --backends all --ragged --dense --lengths tweets.jsonl
        umie bench --sizes all --dry-run
        umie bench --sizes small,xl --tokens 16,256 --explain
        umie bench compare before.json after.json
    """  # noqa: E501 (a command is one line)
    if context.invoked_subcommand is not None:
        return
    plan = _plan(
        blocks=blocks,
        backends=backends,
        dtypes=dtypes,
        directions=directions,
        device=device,
        rounds=rounds,
        peers=peers,
        memory=memory,
        compiled=compiled,
        shapes=shapes(sizes, batch, tokens, slots, dense=dense, ragged=ragged or lengths is not None),
        lengths_file=lengths,
    )
    if explain:
        _explain(plan)
    elif dry_run:
        _dry_run(plan)
    else:
        _run(plan, threads, output, lengths)


def _plan(*, lengths_file: Path | None, **given: Any) -> Plan:
    """Return the plan that the options describe."""
    import torch

    from umie.bench import operations
    from umie.bench.run import Plan

    try:
        torch.device(given["device"])
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UmieError(f"--device {given['device']}: {reason}; give cpu, cuda or cuda:1") from error
    return Plan(
        **{
            **given,
            "blocks": names("block", given["blocks"], operations.blocks()),
            "backends": names("attention backend", given["backends"], operations.backends()),
            "dtypes": names("dtype", given["dtypes"], operations.DTYPES),
            "directions": names("direction", given["directions"], operations.DIRECTIONS),
            "lengths": None if lengths_file is None else _lengths(lengths_file),
        }
    )


def _lengths(path: Path) -> list[int]:
    from umie.bench.lengths import read_lengths

    return read_lengths(path)


def _explain(plan: Plan) -> None:
    """Print for each shape, dtype and direction what stands for and against each backend."""
    from umie.bench.operations import case_of
    from umie.fusion.attention import explain

    for shape in plan.shapes:
        for dtype in plan.dtypes:
            for direction in plan.directions:
                found = explain(case_of(shape, device=plan.device, dtype=dtype, direction=direction))
                typer.echo(f"{shape} {dtype} {direction} on {plan.device}: auto takes {found.chosen}\n{found}\n")


def _dry_run(plan: Plan) -> None:
    from umie.bench.environment import device_reason
    from umie.cli.bench_display import show_plan

    if (reason := device_reason(plan.device)) is not None:
        tell(f"umie: nothing runs on {plan.device} here: {reason}", style="yellow")
    show_plan(plan.rows(), plan.rounds)


def _run(plan: Plan, threads: int | None, output: Path | None, lengths: Path | None) -> None:
    import torch

    from umie.bench.environment import device_reason, environment
    from umie.bench.figure import write_figure
    from umie.bench.report import markdown
    from umie.bench.results import WRONG, Results, file_name
    from umie.bench.run import run
    from umie.cli.bench_display import BenchDisplay, show_results
    from umie.files import atomic_write

    if (reason := device_reason(plan.device)) is not None:
        raise UmieError(f"--device {plan.device}: {reason}; --dry-run lists what would run there")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        where = environment(plan.device, torch.get_num_threads())
        stem = place(output, file_name(where, list(plan.dtypes)))
        json_file, markdown_file, figure_file = files(stem)
        command = shlex.join(["umie", *sys.argv[1:]])
        options: dict[str, Any] = {"command": command, "rounds": plan.rounds}
        if plan.lengths is not None:
            options["lengths"] = {"file": str(lengths), **_summary(plan.lengths)}
        results = Results(environment=where, options=options, rows=[])
        with BenchDisplay(lambda: results.write(json_file)) as display:
            run(plan, results, display)
    finally:
        torch.set_num_threads(before)
    with atomic_write(markdown_file) as file:
        file.write(markdown(results, command))
    drawn = write_figure(results, figure_file)
    show_results(results)
    written = [json_file, markdown_file, *([figure_file] if drawn else [])]
    typer.echo(f"Written: {', '.join(map(str, written))}")
    if not results.complete:
        tell("umie: interrupted; what was measured is kept")
        raise typer.Exit(130)
    wrong = [row for row in results.rows if row.status == WRONG]
    if wrong:
        what = ", ".join(dict.fromkeys(f"{row.block} {row.name}" for row in wrong))
        tell(f"umie: wrong, and not timed: {what}", style="red")
        raise typer.Exit(1)


def _summary(lengths: Any) -> dict[str, Any]:
    """Return how many lengths there are, and their quartiles."""
    from umie.bench.ratios import spread

    found = spread(lengths)
    return {"number": len(lengths), "median": found.median, "quartiles": [found.low, found.high], "most": max(lengths)}


@app.command("compare")
def compare(
    old: Annotated[Path, typer.Argument(help="The result before: a .json of `umie bench`.")],
    new: Annotated[Path, typer.Argument(help="The result after.")],
    tolerance: Annotated[
        float, typer.Option(min=0, help="Least relative difference of two medians that is called a move.")
    ] = 0.05,
    by: Annotated[
        str, typer.Option(help="time, or limit: the ratio to the bare products, which a busy machine leaves alone.")
    ] = "time",
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare results of different devices, threads or dtypes.")
    ] = False,
) -> None:
    """Print what moved between two results beyond noise: quartiles apart, and medians more than the tolerance.

    Times of fewer than 7 rounds are shown, and are no verdict.

    Exit code: 0 nothing got worse, 1 something is slower, takes more memory or broke, 2 not to be compared.

    Example:
        umie bench compare before.json after.json
        umie bench compare before.json after.json --tolerance 0.1 --by limit
    """
    check_choice("--by", by, ("time", "limit"))
    from umie.bench.compare import differences, moves
    from umie.bench.results import Results
    from umie.cli.bench_display import show_moves

    before, after = Results.read(old), Results.read(new)
    if found := differences(before, after):
        if not anyway:
            raise UmieError(f"{old} and {new} are not to be compared: {'; '.join(found)}; --anyway compares them")
        tell(f"umie: compared all the same: {'; '.join(found)}", style="yellow")
    moved = moves(before, after, tolerance=tolerance, of_limit=by == "limit")
    common = len({row.key for row in before.rows} & {row.key for row in after.rows})
    show_moves(moved, common, tolerance)
    if unsure := sum(not move.is_sure for move in moved):
        tell(f"umie: {unsure} moved in too few rounds, no verdict: measure with --rounds {ROUNDS}", style="yellow")
    if any(move.is_worse for move in moved):
        raise typer.Exit(1)
