"""Shared by the benchmarks of training and generation: a variant, the plain T5 with its weights, and the report."""

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

from umie.bench.environment import described, device_error, environment
from umie.bench.measure import time_rounds
from umie.bench.ratios import ROUNDS, Spread, digits, mebibytes, ratio, spread
from umie.decoders.t5 import T5Decoder
from umie.errors import UmieError
from umie.files import atomic_write
from umie.model import UmieConfig, UmieModel
from umie.reports.tables import markdown_table
from umie.types import VisualFeatures

RESULTS = Path(__file__).resolve().parent / "results"
NUM_SLOTS, FEATURE_DIM = 37, 2048  # the whole image and 36 regions; the width of ResNet-101 and VinVL
FIRST_TOKEN = 3  # after the tokens for padding, end and unknown


@dataclass(frozen=True)
class Bound:
    """The ratio of the times of two rows, and its bound."""

    row: str
    other: str
    most: float | None = None


@dataclass
class Measured:
    """The measurements of a row.

    Args:
        seconds: the time of one operation, for each round.
        peak_bytes: peak memory above ``held_bytes``.
        held_bytes: memory of the weights and the optimizer's state.
    """

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    held_bytes: int | None = None


def arguments(description: str, **defaults: int) -> argparse.ArgumentParser:
    """Return a parser with the options that both scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--size", default="flan-t5-base", choices=[*T5Decoder.PRESETS], help="preset of the T5 (default: %(default)s)")
    add("--fusion", default="gated", help="fusion (default: %(default)s)")
    add("--batch", type=int, default=defaults["batch"], help="number of texts (default: %(default)s)")
    add(
        "--tokens",
        type=int,
        default=defaults["tokens"],
        help="tokens of the longest text, twice those of the shortest",
    )
    add("--slots", type=int, default=NUM_SLOTS, help="visual slots per text (default: %(default)s)")
    add("--feature-dim", type=int, default=FEATURE_DIM, help="width of the visual features (default: %(default)s)")
    add("--rounds", type=int, default=ROUNDS, help=f"measurements; a verdict needs {ROUNDS} (default: %(default)s)")
    add("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads (default: all cores)")
    add("--device", default="cpu", help="cpu, cuda, ... (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of weights, texts and features (default: %(default)s)")
    add("--output", type=Path, help="Markdown file, with a JSON file next to it (default: in benchmarks/results)")
    return parser


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Set threads and seed, and return the environment."""
    for name in ("batch", "tokens", "slots", "feature_dim", "rounds", "threads"):
        if getattr(options, name) < 1:
            raise UmieError(f"--{name.replace('_', '-')} is {getattr(options, name)}: use 1 or more")
    if (reason := device_error(options.device)) is not None:
        raise UmieError(f"--device {options.device}: {reason}")
    logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    return environment(options.device, options.threads)


def variant(options: argparse.Namespace) -> UmieModel:
    """Return a composed model with random weights that takes precomputed features."""
    config = UmieConfig(
        encoder={"name": "precomputed", "path": "-", "boxes": "relative", "feature_dim": options.feature_dim},
        fusion={"name": options.fusion},
        decoder={"name": "t5", "source": options.size},
    )
    model = UmieModel(config)
    return model.to(options.device).eval()


def plain_t5(model: UmieModel, *, shared: bool) -> T5ForConditionalGeneration:
    """Return transformers' T5 with the same weights, in shared or separate memory."""
    theirs = model.decoder.seq2seq
    with torch.device("meta"):
        plain = T5ForConditionalGeneration(theirs.config)
    weights = theirs.state_dict()
    if not shared:
        memo: dict[int, Tensor] = {}  # the embedding has three names for one tensor
        weights = {name: memo.setdefault(value.data_ptr(), value.clone()) for name, value in weights.items()}
    plain.load_state_dict(weights, assign=True)
    plain.encoder.embed_tokens = plain.decoder.embed_tokens = plain.shared
    if theirs.lm_head.weight is theirs.shared.weight:
        plain.lm_head.weight = plain.shared.weight
    return plain.eval()


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
    """Time all rows in alternation; return False if interrupted."""
    times = {name: row.seconds for name, row in rows.items()}
    try:
        time_rounds(
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
    """Print and write the report: times, ratios with their bounds, and the environment."""
    timed = {name: row for name, row in rows.items() if row.seconds}
    header, lines = ["", "ms (quartiles)", f"{item}/s"], []
    has_memory = any(row.peak_bytes is not None for row in timed.values())
    for name, row in timed.items():
        found = spread(row.seconds)
        lines.append([name, str(found.times(1000)), digits(num_items / found.median)])
        if has_memory:
            lines[-1] += [mebibytes(row.peak_bytes), mebibytes(row.held_bytes)]
    if has_memory:
        header += ["peak MiB above", "MiB held"]
    judged = []
    for bound in bounds:
        if bound.row in timed and bound.other in timed:
            found = ratio(timed[bound.row].seconds, timed[bound.other].seconds)
            shown = "-" if bound.most is None else f"at most {bound.most:g}"
            judged.append([bound.row, bound.other, str(found), shown, _verdict(found, bound.most)])
    parts = [
        f"# {title}",
        text,
        f"`{_command()}`: {described(where)}.",
        f"Rows run in alternation, in {options.rounds} rounds; each runs once untimed directly before it is timed. "
        "Times are medians over the rounds, and ratios are medians of the ratios within each round, with quartiles.",
        markdown_table(header, lines),
        markdown_table(["time of", "relative to", "ratio (quartiles)", "expected", "holds"], judged),
    ]
    if not complete:
        parts.insert(3, "**Interrupted**: some rounds are missing.")
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
    """Report progress on standard error."""
    print(what, file=sys.stderr, flush=True)  # noqa: T201 # a script


def run(main: Callable[[], None]) -> None:
    """Run a script; an error that a user can fix is one line and exit code 2."""
    try:
        main()
    except UmieError as error:
        say(f"{Path(sys.argv[0]).name}: {error}")
        sys.exit(2)
