"""The options of `umie bench`, and the plan and files that they describe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from umie.bench.ratios import ROUNDS
from umie.errors import UmieError, UnknownNameError

if TYPE_CHECKING:
    from umie.bench.run import Plan
    from umie.bench.shapes import Shape

FOLDER = Path("runs/bench")
SUFFIXES = (".json", ".md", ".png")


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The options of `umie bench`; lists are separated by commas."""

    blocks: Annotated[
        str,
        typer.Option(help="What to compute: released, paper, gate, cross_attention, any other fusion, or all."),
    ] = "released,paper,gate,cross_attention"
    backends: Annotated[
        str, typer.Option(help="Attention backends: auto, sdpa, absorbed, reference, packed, xformers, or all.")
    ] = "auto,sdpa,absorbed"
    plugins: Annotated[
        list[Path] | None,
        typer.Option(
            "--plugin",
            metavar="FILE",
            help="A Python file that registers fusions or backends; may be repeated. Its fusions join --blocks.",
        ),
    ] = None
    sizes: Annotated[str, typer.Option(help="Widths of FLAN-T5: small, base, large, xl, or all.")] = "base"
    batch_sizes: Annotated[str, typer.Option(help="Numbers of examples.")] = "8"
    tokens: Annotated[str, typer.Option(help="Numbers of text tokens.")] = "256"
    slots: Annotated[str, typer.Option(help="Numbers of visual slots.")] = "37"
    dense: Annotated[bool, typer.Option("--dense", help="Texts and slots without padding (the default).")] = False
    ragged: Annotated[
        bool, typer.Option("--ragged", help="Texts and slot lists of different lengths; one example has no image.")
    ] = False
    lengths: Annotated[
        Path | None,
        typer.Option(help="A JSONL file of records; ragged texts get the lengths of its queries. Implies --ragged."),
    ] = None
    dtypes: Annotated[str, typer.Option(help="float32, bfloat16, float16, or all.")] = "float32"
    directions: Annotated[str, typer.Option(help="forward, forward+backward, or all.")] = "all"
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default a GPU if there is one.")] = None
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default torch's choice.")] = None
    rounds: Annotated[int, typer.Option(min=1, help="Measurements of each operation; a verdict needs 7.")] = ROUNDS
    peers: Annotated[
        bool, typer.Option("--peers/--no-peers", help="Also time other libraries and the bare matrix products.")
    ] = True
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Measure peak memory.")] = True
    compiled: Annotated[
        bool, typer.Option("--compile", help="Add sdpa under torch.compile; on CUDA also as a CUDA graph.")
    ] = False
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Name of the result files; by default in runs/bench.")
    ] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the operations and exit.")] = False
    explain: Annotated[
        bool, typer.Option("--explain", help="Report which backend auto chooses, and why, and exit.")
    ] = False

    def plan(self) -> Plan:
        """Return the plan that the options describe.

        Raises:
            UmieError: a name, number, device, file or plugin is not valid.
        """
        from umie.bench import operations
        from umie.bench.lengths import read_lengths
        from umie.bench.run import Plan
        from umie.registry import load_plugins

        before = operations.blocks()
        load_plugins(self.plugins or ())
        added = [block for block in operations.blocks() if block not in before]
        blocks = names("block", self.blocks, operations.blocks())
        return Plan(
            shapes=self._shapes(),
            blocks=list(dict.fromkeys([*blocks, *added])),
            backends=names("attention backend", self.backends, operations.backends()),
            dtypes=names("dtype", self.dtypes, operations.DTYPES),
            directions=names("direction", self.directions, operations.DIRECTIONS),
            device=_checked_device(self.device),
            rounds=self.rounds,
            peers=self.peers,
            memory=self.memory,
            compiled=self.compiled,
            lengths=None if self.lengths is None else read_lengths(self.lengths),
        )

    def _shapes(self) -> list[Shape]:
        from umie.bench.shapes import SIZES, Shape

        ragged = self.ragged or self.lengths is not None
        combinations = product(
            names("size", self.sizes, SIZES),
            numbers("--batch-sizes", self.batch_sizes),
            numbers("--tokens", self.tokens),
            numbers("--slots", self.slots),
            [False] * (self.dense or not ragged) + [True] * ragged,
        )
        return [
            Shape(size=size, batch=batch, tokens=tokens, slots=slots, ragged=kind)
            for size, batch, tokens, slots, kind in combinations
        ]


def command_of(options: type[Any]) -> Callable[[Callable[[typer.Context, Any], None]], Callable[..., None]]:
    """Return a decorator for a command that takes the fields of a dataclass as its options."""
    hints = get_type_hints(options, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("context", kind, annotation=typer.Context)]
    for field in fields(options):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        parameters.append(inspect.Parameter(field.name, kind, default=default, annotation=hints[field.name]))

    def decorate(command: Callable[[typer.Context, Any], None]) -> Callable[..., None]:
        def call(context: typer.Context, **values: Any) -> None:
            command(context, options(**values))

        call.__doc__ = command.__doc__
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return call

    return decorate


def names(kind: str, given: str, choices: Iterable[str]) -> list[str]:
    """Return the distinct names of a comma-separated list, or all choices for ``all``.

    Raises:
        UnknownNameError: a name is not among the choices.
        UmieError: the list is empty.
    """
    choices = list(choices)
    if given.strip() == "all":
        return choices
    found = _split(given)
    for name in found:
        if name not in choices:
            raise UnknownNameError(kind, name, [*choices, "all"])
    if not found:
        raise UmieError(f"the list of {kind}s is empty: use some of {', '.join(choices)}, or all")
    return found


def numbers(option: str, given: str) -> list[int]:
    """Return the distinct numbers of a comma-separated list.

    Raises:
        UmieError: an item is not a whole number above 0, or the list is empty.
    """
    parts = _split(given)
    if not parts or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UmieError(f"{option} is {given!r}: use whole numbers above 0, such as 8 or 8,64")
    return [int(part) for part in parts]


def _split(given: str) -> list[str]:
    return list(dict.fromkeys(part for part in (part.strip() for part in given.split(",")) if part))


def _checked_device(device: str | None) -> str:
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UmieError(f"--device {device}: {reason}; use cpu, cuda or cuda:1") from error
    return device


def result_files(output: Path | None, name: str) -> list[Path]:
    """Return the paths of the JSON, Markdown and PNG files of a result; existing results are never overwritten.

    Args:
        output: the ``--output`` option, with or without one of the suffixes. None uses ``name`` in FOLDER, and
            appends a number if results of that name exist.
        name: the default name.

    Raises:
        UmieError: a result named ``output`` exists.
    """
    if output is None:
        files, number = _files(FOLDER / name), 1
        while any(file.exists() for file in files):
            number += 1
            files = _files(FOLDER / f"{name}_{number}")
        return files
    stem = output.with_suffix("") if output.suffix in SUFFIXES else output
    if not stem.name or output.is_dir():
        raise UmieError(f"--output {output}: is a directory: use a file name")
    for file in _files(stem):
        if file.exists():
            raise UmieError(f"--output {output}: {file} already exists: use another name, or remove it")
    return _files(stem)


def _files(stem: Path) -> list[Path]:
    return [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]
