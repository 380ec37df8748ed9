"""Records with text and an image give the batches, targets and names of weights that they gave before other media."""

import dataclasses
import hashlib
import itertools
import json
from pathlib import Path

import pytest
import torch

from umie.composition import compose
from umie.data.synthetic import SyntheticConfig, scenes

GOLDEN = json.loads((Path(__file__).parent / "golden_batches.json").read_text())
TASKS = ("mner", "mre", "med", "meae")
NAMES = (
    "input_ids", "attention_mask", "labels", "boxes", "visual_mask", "label_tokens", "spans", "target_tokens",
)  # fmt: skip
VARIANTS = [("t5", "structured"), ("t5", "paper"), ("t5", "released"), ("span", "structured"), ("causal", "structured")]


@pytest.fixture(scope="module")
def records():
    drawn = itertools.islice(scenes(SyntheticConfig(), "train"), 300)
    return [dataclasses.replace(scene.record, image=scene.image) for scene in drawn]


def digest(parts):
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else part.encode())
    return found.hexdigest()[:16]


@pytest.mark.parametrize(("decoder", "style"), VARIANTS)
def test_text_and_image_are_as_before(records, decoder, style):
    torch.manual_seed(0)
    tasks = {name: {"style": style} for name in TASKS}
    model, processor = compose("tiny", "gated", decoder, tasks=tasks, visual_embedding={"num_slot_embeddings": 5})
    found = {"weights": digest(f"{name} {list(value.shape)}" for name, value in model.state_dict().items())}
    for name in TASKS:
        own = [record for record in records if record.annotated_for(name)]
        batch = processor(own, name)
        queries = [query for record in own for query in processor.task(name).queries(record)]
        found[name] = digest(f"{query.instruction}\n{query.answer}\n" for query in queries)
        found[f"{name} batch"] = digest(
            f"{key} {batch[key].dtype} {list(batch[key].shape)}".encode() + batch[key].contiguous().numpy().tobytes()
            for key in NAMES
            if key in batch
        )
    assert found == GOLDEN[f"{decoder} {style}"]
