"""A tiny variant that finds much in any text, and its app."""

import contextlib

import pytest
from served_app import HeldExtractor, Served

from umie.extraction import Extractor
from umie.serving import Limits


@pytest.fixture(scope="session")
def parts(variant):
    """Model and processor; random weights, so that many spans are above the threshold."""
    return variant(fusion="gated", decoder={"name": "span", "threshold": 0.13}, missing_images="error")


@pytest.fixture(scope="session")
def checkpoint(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "best"
    for part in parts:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def extractor(parts):
    """What answers are compared with."""
    return Extractor(*parts)


@pytest.fixture
def serve(parts):
    """Start an app: ``serve(max_queue=2)``."""
    with contextlib.ExitStack() as stack:

        def start(**limits):
            served = Served(HeldExtractor(*parts), Limits(**limits))
            stack.callback(served.batcher.close, 20)
            stack.callback(served.batcher.extractor.free.set)
            return served

        yield start
