"""A grid has the same results with every engine, and encodes each image once for each frozen encoder."""

import json
import os
import random
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Recorder
from grid_helpers import lines_of
from PIL import Image
from safetensors.torch import save_file

from umie.encoders import registry
from umie.experiments.engines import build_engine, read_engine
from umie.experiments.engines.inline import InlineEngine
from umie.experiments.engines.processes import ProcessEngine
from umie.experiments.expand import read_grid
from umie.experiments.limits import Limits
from umie.experiments.scheduler import run_grid

PLUGIN = """
import torch
from umie.fusion import Fusion, FusedStates, registry

torch.set_default_dtype(torch.float32)

class Leaving(Fusion):
    '''A fusion that changes what later cells would inherit.'''

    def forward(self, text, text_mask, visual, visual_mask, *, output_attention=False):
        torch.set_num_threads(1)
        torch.manual_seed(5)
        return FusedStates(text + visual.mean(1, keepdim=True), text_mask)

registry.register("leaving")(Leaving)
"""
NUM_CELLS = int(os.environ.get("UMIE_CELLS", "24"))  # a multiple of 4
NUM_IMAGES = 6


@pytest.fixture(scope="module")
def grid_folder(tmp_path_factory) -> Path:
    """Two frozen encoders, two fusions and six seeds: 24 cells, with a warm start and a plugin."""
    folder = tmp_path_factory.mktemp("engines")
    torch.manual_seed(0)
    save_file(registry.build("resnet101_roi").tower.state_dict(), folder / "resnet.safetensors")
    (folder / "leaving.py").write_text(PLUGIN)
    shuffled = random.Random(0)
    for split in ("train", "test"):
        records = []
        for number in range(3):
            name = f"{split}-{number}.png"
            colors = [tuple(shuffled.randrange(256) for _ in range(3)) for _ in range(12)]
            image = Image.new("RGB", (4, 3))
            image.putdata(colors)
            image.resize((40, 30)).save(folder / name)
            regions = [{"box": [0.0, 0.0, 0.5, 1.0]}]
            entities = [{"type": "p", "span": [0, 3]}]
            text = f"Ann is in {split} number {number} ."
            records.append({"text": text, "image": name, "regions": regions, "entities": entities})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    encoder = {"name": "resnet101_roi", "mode": "align", "weights": str(folder / "resnet.safetensors")}
    grid = {
        "name": "engines",
        "data": {"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"},
        "tasks": ["mner"],
        "plugins": ["leaving.py"],
        "encoder": [{**encoder, "short_side": size, "label": str(size)} for size in (32, 48)],
        "fusion": ["gated", "leaving"],
        "seeds": list(range(NUM_CELLS // 4)),
        "warm_start": {"training": {"max_steps": 2, "batch_size": 2}},
        "training": {"max_steps": 2, "batch_size": 3},
        "evaluation": {"generation": {"max_new_tokens": 8}},
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    return folder


def results_of(folder: Path, output: Path, engine) -> dict[str, dict]:
    """Run the grid; return what must not depend on the engine, by cell."""
    recorder = Recorder()
    run = run_grid(read_grid(folder / "grid.yaml"), folder, output, recorder, engine=engine)
    assert not run.crashed, [(cell.variant, run.results[cell.hash]["error"]) for cell in run.crashed]
    lines = lines_of(output)
    assert len(lines) == len({line["hash"] for line in lines}) == NUM_CELLS  # each ran once
    assert len(recorder.started) == len(recorder.finished) == NUM_CELLS + 1
    assert sum(line["images"]["encoder_calls"] for line in lines) == 2 * NUM_IMAGES
    for line in lines:
        assert line["images"]["images"] == NUM_IMAGES
        assert "training queries" in (output / "cells" / line["hash"] / "log.txt").read_text()
    same = ("metrics", "counts", "parameters", "train_loss", "health", "files", "threads")
    return {
        line["hash"]: {key: line[key] for key in same}
        | {"mner": (output / "cells" / line["hash"] / "mner.jsonl").read_bytes()}
        for line in lines
    }


@pytest.fixture(scope="module")
def inline(grid_folder) -> dict[str, dict]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return results_of(grid_folder, grid_folder / "inline", InlineEngine())
    finally:
        torch.set_num_threads(threads)


class Backward:
    """An engine that runs jobs in another order."""

    def __init__(self, engine):
        self.engine, self.workers = engine, engine.workers

    def run(self, jobs, watcher):
        return self.engine.run(jobs[::-1], watcher)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["forward", "backward"])
def test_two_processes_give_the_results_of_one(grid_folder, inline, tmp_path, order):
    engine = ProcessEngine(2, num_threads=1)
    given = engine if order == "forward" else Backward(engine)
    assert results_of(grid_folder, tmp_path / "run", given) == inline


@pytest.mark.slow
def test_submitit_gives_the_results_of_one_process(grid_folder, inline, tmp_path):
    pytest.importorskip("submitit")
    options = read_engine({"name": "slurm", "cluster": "local", "cpus_per_task": 1})
    engine = build_engine(options, 2, Limits(), tmp_path / "run")
    assert results_of(grid_folder, tmp_path / "run", engine) == inline


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_ray_gives_the_results_of_one_process(grid_folder, inline, tmp_path):
    pytest.importorskip("ray", reason="needs ray: pip install 'umie[ray]'")
    engine = build_engine(read_engine({"name": "ray", "num_cpus": 1}), 2, Limits(), tmp_path / "run")
    assert results_of(grid_folder, tmp_path / "run", engine) == inline
