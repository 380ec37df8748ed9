"""What the benchmarks of training and generation share: a variant, the plain T5 of its weights, and the report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.utils import logging

from umie.bench.environment import device_reason, environment
from umie.bench.measure import in_turn
from umie.bench.ratios import ROUNDS, Spread, ratio, spread
from umie.bench.report import table
from umie.bench.table import figure, mebibytes, with_quartiles
from umie.decoders.t5 import T5Decoder
from umie.errors import UmieError
from umie.files import atomic_write
from umie.model import UmieConfig, UmieModel
from umie.types import VisualFeatures

RESULTS = Path(__file__).resolve().parent / "results"
NUM_SLOTS, FEATURE_DIM = 37, 2048  # the whole image and 36 regions, as ResNet-101 and VinVL have them
FIRST_TOKEN = 3  # behind those for padding, the end and the unknown


@dataclass(frozen=True)
class Bound:
    """What the time of one row, divided by that of another, shall be at most."""

    row: str
    other: str
    most: float | None = None


@dataclass
class Measured:
    """What a row gave.

    Args:
        seconds: of one operation, a figure for each round.
        peak_bytes: the most that it holds at a time, above what was there before.
        held_bytes: what was there before: weights, and what an optimizer keeps of them.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    held_bytes: int | None = None


def arguments(description: str, **defaults: int) -> argparse.ArgumentParser:
    """Return the options that both scripts have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", default="flan-t5-base", choices=[*T5Decoder.PRESETS], help="shape of the T5 (default: %(default)s)")
    add("--fusion", default="gated", help="how text and image are fused (default: %(default)s)")
    add("--batch", type=int, default=defaults["batch"], help="texts at a time (default: %(default)s)")
    add("--tokens", type=int, default=defaults["tokens"], help="of the longest text; the shortest has half")
    add("--slots", type=int, default=NUM_SLOTS, help="visual slots of a text (default: %(default)s)")
    add("--feature-dim", type=int, default=FEATURE_DIM, help="width of their features (default: %(default)s)")
    add("--rounds", type=int, default=ROUNDS, help=f"a verdict needs {ROUNDS} (default: %(default)s)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="of torch (default: all cores)")
    add("--device", default="cpu", help="cpu, cuda, ... (default: %(default)s)")
    add("--seed", type=int, default=0, help="of weights, texts and features")
    add("--output", type=Path, help="the Markdown file; JSON beside it (default: in benchmarks/results)")
    return parser


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Set threads and seed, and return where this runs."""
    for name in ("batch", "tokens", "slots", "feature_dim", "rounds", "threads"):
        if getattr(options, name) < 1:
            raise UmieError(f"--{name.replace('_', '-')} is {getattr(options, name)}: give 1 or more")
    if (reason := device_reason(options.device)) is not None:
        raise UmieError(f"--device {options.device}: {reason}")
    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    return environment(options.device, options.threads)


def variant(options: argparse.Namespace) -> UmieModel:
    """Return the composed model with random weights, which takes features that were made before."""
    config = UmieConfig(
        encoder={"name": "precomputed", "path": "-", "boxes": "relative", "feature_dim": options.feature_dim},
        fusion={"name": options.fusion},
        decoder={"name": "t5", "source": options.size},
    )
    model = UmieModel(config)
    return model.to(options.device).eval()


def plain_twin(model: UmieModel, *, shared: bool) -> T5ForConditionalGeneration:
    """Return transformers' own T5 with the same weights: in the same memory, or in its own."""
    theirs = model.decoder.seq2seq
    with torch.device("meta"):
        twin = T5ForConditionalGeneration(theirs.config)
    weights = theirs.state_dict()
    if not shared:
        memo: dict[int, Tensor] = {}  # the embedding has three names and one memory
        weights = {name: memo.setdefault(value.data_ptr(), value.clone()) for name, value in weights.items()}
    twin.load_state_dict(weights, assign=True)
    twin.encoder.embed_tokens = twin.decoder.embed_tokens = twin.shared
    if theirs.lm_head.weight is theirs.shared.weight:
        twin.lm_head.weight = twin.shared.weight
    return twin.eval()


def batch(options: argparse.Namespace, vocab_size: int, num_targets: int) -> dict[str, Tensor]:
    """Draw texts of different lengths, with labels."""
    generator = torch.Generator().manual_seed(options.seed)

    def tokens(length: int) -> Tensor:
        return torch.randint(FIRST_TOKEN, vocab_size, (options.batch, length), generator=generator)

    lengths = torch.linspace(options.tokens / 2, options.tokens, options.batch).round().clamp(min=1)
    if options.batch == 1:
        lengths[:] = options.tokens
    mask = torch.arange(options.tokens) < lengths[:, None]
    given = {"input_ids": tokens(options.tokens) * mask, "attention_mask": mask.long(), "labels": tokens(num_targets)}
    return {name: value.to(options.device) for name, value in given.items()}


def features(options: argparse.Namespace) -> VisualFeatures:
    """Draw features and boxes of every slot."""
    generator = torch.Generator().manual_seed(options.seed + 1)
    shape = options.batch, options.slots
    corners = torch.rand(*shape, 2, 2, generator=generator).sort(dim=2).values
    drawn = torch.randn(*shape, options.feature_dim, generator=generator)
    return VisualFeatures(drawn, corners.flatten(2), torch.ones(shape, dtype=torch.bool)).to(options.device)


def time_all(runs: Mapping[str, Callable[[], object]], rows: Mapping[str, Measured], options: Any) -> bool:
    """Time all rows in turn; return whether all rounds were made, which an interrupt ends."""
    times = {name: row.seconds for name, row in rows.items()}
    try:
        in_turn(
            runs, rounds=options.rounds, device=options.device, times=times, after=lambda name: say(f"timed: {name}")
        )
    except KeyboardInterrupt:
        return False
    return True


def report(
    title: str,
    text: str,
    rows: Mapping[str, Measured],
    bounds: Sequence[Bound],
    options: argparse.Namespace,
    where: Mapping[str, Any],
    *,
    num_items: int,
    item: str,
    complete: bool,
) -> None:
    """Print and write the result: times, the ratios that are expected, and where it ran."""
    timed = {name: row for name, row in rows.items() if row.seconds}
    header, lines = ["", "ms (quartiles)", f"{item}/s"], []
    weighed = any(row.peak_bytes is not None for row in timed.values())
    for name, row in timed.items():
        found = spread(row.seconds)
        lines.append([name, with_quartiles(found.times(1000)), figure(num_items / found.median)])
        if weighed:
            lines[-1] += [mebibytes(row.peak_bytes), mebibytes(row.held_bytes)]
    if weighed:
        header += ["peak MiB above", "MiB held"]
    judged = []
    for bound in bounds:
        if bound.row in timed and bound.other in timed:
            found = ratio(timed[bound.row].seconds, timed[bound.other].seconds)
            shown = "-" if bound.most is None else f"at most {bound.most:g}"
            judged.append([bound.row, bound.other, with_quartiles(found), shown, _verdict(found, bound.most)])
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items() if version)
    parts = [
        f"# {title}",
        f"{text} `{_command()}`, {where['date'][:10]}, on {where['device_name']} ({where['device']}), "
        f"{where['threads']} threads; umie {where['umie']}, {versions}; load of the machine before: {where['load']}. "
        f"Rows run in turn, in {options.rounds} rounds, each once untimed in its place before it is timed; times are "
        "medians, and ratios medians of the ratios within each round, with quartiles.",
        table(header, lines),
        table(["time of", "by that of", "ratio (quartiles)", "expected", "holds"], judged),
    ]
    if not complete:
        parts.insert(2, "**Interrupted**: fewer rounds were made than asked for.")
    content = "\n\n".join(parts) + "\n"
    kind = f"{Path(sys.argv[0]).resolve().parent.name}_{options.size}_torch{torch.__version__.partition('+')[0]}"
    output = options.output or RESULTS / f"{kind}_{options.device}_{options.threads}threads.md"
    data = {
        "environment": dict(where),
        "options": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "command": _command(),
        "complete": complete,
        "rows": {name: dataclasses.asdict(row) for name, row in rows.items()},
    }
    with atomic_write(output.with_suffix(".json")) as file:
        json.dump(data, file, indent=1)
    with atomic_write(output) as file:
        file.write(content)
    print(content)  # noqa: T201 # a script
    say(f"Written: {output}, {output.with_suffix('.json').name}")


def _verdict(found: Spread, most: float | None) -> str:
    if most is None:
        return "-"
    if not found.is_enough:
        return "too few rounds"
    return "yes" if found.median <= most else "**no**"


def _command() -> str:
    script = Path(sys.argv[0]).resolve()
    return " ".join(["python", script.relative_to(RESULTS.parents[1]).as_posix(), *sys.argv[1:]])


def say(what: str) -> None:
    """Give a sign of life: a run takes minutes."""
    print(what, file=sys.stderr, flush=True)  # noqa: T201 # a script


def run(main: Callable[[], None]) -> None:
    """Run a script; what a user can mend is one line and exit code 2."""
    try:
        main()
    except UmieError as error:
        say(f"{Path(sys.argv[0]).name}: {error}")
        sys.exit(2)
