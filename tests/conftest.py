"""Shared settings and fixtures: one thread, no network, and objects that are slow to build."""

import dataclasses
import gc
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"  # requests to the hub fail at once; set before the hub is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the tokenizers warn when a process forks after using threads

import hypothesis
import pytest
import torch
from filelock import FileLock
from PIL import Image

from umie import cli, registries
from umie.composition import compose, default_tokenizer
from umie.data.synthetic import LABELS, SyntheticConfig, scenes
from umie.evaluation import QueryDataset
from umie.files import atomic_folder
from umie.loading import load
from umie.registry import _loaded
from umie.reports import style

torch.set_num_threads(1)
# No deadlines: the cores are shared, so examples may be slow. `make test-slow` draws more of them.
hypothesis.settings.register_profile("umie", deadline=None, max_examples=10)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=200)
hypothesis.settings.load_profile("umie")


def pytest_collection_modifyitems(items):
    """Begin with the directories whose files take longest, so that no process is left with one of them at the end."""
    long = {"training", "experiments", "bench", "extraction", "cli"}
    items.sort(key=lambda item: item.path.parent.name not in long)


def pytest_collection_finish():
    """Let garbage collection leave out what stays: the imported libraries, and thousands of tests.

    Training collects after each run, which takes a third of a second otherwise.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def forget_plugins():
    """Remove the parts that plugin files registered in a test."""
    yield
    for registry in registries.ALL.values():
        for name, part in list(registry._parts.items()):
            if not part.__module__.startswith(("umie.", "test_")):
                del registry._parts[name]
    _loaded.clear()


@pytest.fixture
def blank_figures(monkeypatch):
    """Save blank figures: tests/reports draws them, which takes longer than all else in a small run."""

    def write(figure, file, kind):
        file.write(b"<svg></svg>" if kind == "svg" else b"")

    monkeypatch.setattr(style, "_write", write)


@pytest.fixture(scope="session")
def noise():
    """Make an image of coarse noise: ``noise(width, height, seed)``."""

    def make(width, height, seed=0):
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randint(0, 256, (6, 6, 3), generator=generator, dtype=torch.uint8)
        return Image.frombytes("RGB", (6, 6), coarse.numpy().tobytes()).resize((width, height))

    return make


@pytest.fixture(scope="session")
def aligned():
    """Copy the weights of a loaded module to new memory: ``aligned(module)`` returns the module.

    Loaded weights are memory-mapped at odd addresses, for which BLAS uses other kernels; copies make results equal bit
    for bit.
    """

    def copy(module):
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
        return module

    return copy


@pytest.fixture(scope="session")
def tokenizer():
    """The tokenizer of the tiny decoder."""
    return default_tokenizer({"source": "tiny"})


@pytest.fixture(scope="session")
def variant(tokenizer):
    """Compose a tiny variant in evaluation mode with weights from a fixed seed: ``variant(fusion=...)``."""

    def make(seed=0, **parts):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model, processor = compose(**{"tasks": TASK_OPTIONS, "tokenizer": tokenizer, **parts})
        return model.eval(), processor

    return make


TASK_OPTIONS = {task: {"labels": labels} for task, labels in LABELS.items()}


@pytest.fixture(scope="session")
def embedded():
    """Scenes of the embedded data set; names, pairs and events alternate."""
    return list(scenes(SyntheticConfig(test=60), "test"))


@pytest.fixture(scope="session")
def embedded_records(embedded):
    """The records of the scenes, each with its image in memory; entities have no regions, as in plain MNER."""

    def of_scene(scene):
        entities = (dataclasses.replace(entity, regions=()) for entity in scene.record.entities)
        return dataclasses.replace(scene.record, image=scene.image, entities=tuple(entities))

    return list(map(of_scene, embedded))


@pytest.fixture(scope="session")
def learned_records(embedded_records):
    """Records of all kinds; every fourth has no image. ``learned_checkpoint`` was trained on the first 12."""
    return [
        dataclasses.replace(record, image=None) if index % 4 == 3 else record
        for index, record in enumerate(embedded_records[:24])
    ]


@pytest.fixture(scope="session")
def learned_checkpoint(variant, learned_records, tmp_path_factory):
    """Directory of a gated variant that answers some queries correctly; trained once for all test processes."""
    from umie.training import TrainingConfig, train  # slow import that most tests do not need

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "learned.lock"):
        if not (shared / "learned").exists():
            model, processor = variant(fusion={"name": "gated", "gate": "dynamic"})
            dataset = QueryDataset(learned_records[:12], list(TASK_OPTIONS), processor)
            train(
                model,
                processor,
                dataset,
                TrainingConfig(max_steps=90, batch_size=12, learning_rate=3e-3, initialize_fusion=False),
            )
            with atomic_folder(shared / "learned") as folder:
                model.save_pretrained(folder)
                processor.save_pretrained(folder)
    return shared / "learned"


@pytest.fixture(scope="session")
def learned(learned_checkpoint, aligned):
    """Model and processor of ``learned_checkpoint``."""
    model, processor = load(learned_checkpoint, "cpu")
    return aligned(model), processor


@pytest.fixture
def umie(monkeypatch, capsys):
    """Run the command line in this process: ``umie("list")`` returns exit code, standard output and error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["umie", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        streams = capsys.readouterr()
        return int(caught.value.code or 0), streams.out, streams.err

    return call
