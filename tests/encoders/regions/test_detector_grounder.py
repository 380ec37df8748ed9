"""The grounder `grounding`, on a small random detector of each kind."""

import pytest
import torch
from tiny_detectors import write

from umie.encoders.regions import registry as proposers
from umie.grounders import registry

PHRASES = ["cat", "red  bus", "!", "Ann Lee"]


@pytest.fixture(scope="module", params=["owlvit", "grounding-dino"])
def checkpoint(request, tmp_path_factory):
    return str(write(request.param, tmp_path_factory.mktemp(request.param)))


def test_each_phrase_has_its_own_boxes(checkpoint, noise):
    image = noise(120, 80, 1)
    everything = proposers.build("grounding", checkpoint=checkpoint, min_score=0.0, phrases=PHRASES).candidates(
        image, None, None
    )
    for top in (1, 3):
        grounder = registry.build("grounding", checkpoint=checkpoint, min_score=0.0, top=top, nms=1.0)
        found = grounder.find(image, PHRASES)
        assert [len(own) <= top for own in found] == [True] * 4
        assert found[2] == []
        assert any(found)
        for phrase, own in zip(PHRASES, found, strict=True):
            labels = [" ".join(str(label).split()) for label in everything.labels]
            of_phrase = torch.tensor([label == " ".join(phrase.split()) for label in labels])
            assert bool(own) <= bool(of_phrase.any())
            for region in own:
                boxes = everything.boxes[of_phrase].clamp(0, 1)
                assert (boxes - torch.tensor(region.box)).abs().amax(1).min() < 1e-5
                assert region.label == phrase
