"""A gated variant, a second one without images, and examples from the embedded data set."""

import dataclasses
import socket

import pytest

from umie.explorer import Explorer, LoadedVariant, Upload, read_examples
from umie.extraction import Extractor


@pytest.fixture(scope="session")
def records(embedded_records, tmp_path_factory):
    """Records about names, a pair and an event, each with an image in a file."""
    folder = tmp_path_factory.mktemp("data")
    found = []
    for number, record in enumerate(embedded_records[:6]):
        record.image.save(folder / f"{number}.png")
        found.append(dataclasses.replace(record, image=f"{number}.png", image_folder=str(folder), id=f"r{number}"))
    return found


@pytest.fixture(scope="session")
def saved(variant, tmp_path_factory):
    """Folder of a gated variant whose random weights are so large that it finds some items."""
    model, processor = variant(
        fusion="gated",
        decoder={"name": "span", "max_width": 4, "dropout": 0},
        visual_embedding={"num_slot_embeddings": 5},
    )
    model.decoder.candidate_out[-1].weight.data.mul_(8)
    model.decoder.bias.data.fill_(-1)
    folder = tmp_path_factory.mktemp("learned") / "best"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def extractor(saved):
    return Extractor.from_pretrained(saved, device="cpu")


@pytest.fixture(scope="session")
def gated(extractor):
    return LoadedVariant("gated/best", extractor)


@pytest.fixture(scope="session")
def blind(variant):
    """A variant with random weights that does not use images, without the task meae."""
    tasks = {"mner": {"labels": ("person", "location")}, "med": {"labels": ("attack", "meet")}}
    return LoadedVariant(
        "random/best",
        Extractor(*variant(fusion="text_only", decoder={"name": "span", "max_width": 3}, tasks=tasks)),
    )


@pytest.fixture(scope="session")
def explorer(gated, records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    named = [(f"test.jsonl:{number}", record) for number, record in enumerate(records, 1)]
    return Explorer([gated], read_examples(named, folder), max_mb=1)


@pytest.fixture(scope="session")
def both(gated, blind, explorer):
    return Explorer([gated, blind], explorer.examples, max_mb=1)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The directory that the page writes to."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture
def port():
    """A port on which nothing listens."""
    return free_port()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def address(both, folder):
    """The address of the page with both variants."""
    from umie.explorer.server import served

    with served(both, folder, port=free_port()) as found:
        yield found


@pytest.fixture
def form_of(explorer):
    """Fill in the form with an example: ``form_of(0, gate=0.5)``."""
    from umie.explorer import Form

    def make(number, **changes):
        example = explorer.examples[number]
        uploads = {medium: Upload(path, path.name) for medium, path in example.files.items()}
        tasks = example.record.tasks
        return Form(**{"text": example.record.text, "uploads": uploads, "tasks": tasks, "example": number, **changes})

    return make
