"""How often a run opens an image file: to check it, and to encode it."""

import builtins
import io
import json
from collections import Counter

import pytest
import yaml

from umie.experiments.expand import read_run
from umie.experiments.run import run_training


class Quiet:
    """A display that shows nothing."""

    def phase(self, name, total=None): ...

    def advance(self, done, loss=None): ...

    def note(self, what): ...


@pytest.mark.parametrize("encoder", ["tiny", {"name": "tiny", "trainable": False}], ids=["trained", "frozen"])
def test_a_run_opens_each_image_twice_at_most(noise, tmp_path, monkeypatch, encoder):
    names = ["photo.png", "second.png"]
    for seed, name in enumerate(names):
        noise(20, 16, seed).save(tmp_path / name)
    line = {"text": "Ann meets Bo", "images": names, "events": [{"type": "meet", "trigger": {"span": [4, 9]}}]}
    for split in ("train", "dev", "test"):
        record = {**line, "id": split, "text": f"{line['text']} in {split}"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(record) + "\n")
    config = {
        "data": {"format": "jsonl", **{split: f"{split}.jsonl" for split in ("train", "dev", "test")}},
        "tasks": ["med"],
        "encoder": encoder,
        "training": {"max_steps": 4, "batch_size": 2},
        "checkpoints": {"save_steps": 2, "report_to": []},
        "evaluation": {"generation": {"max_new_tokens": 4}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    opened: Counter[str] = Counter()
    for module in (builtins, io):  # Path.read_bytes uses the second
        real = module.open

        def counted(file, *arguments, real=real, **options):
            opened[str(file)] += str(file).endswith(tuple(names))
            return real(file, *arguments, **options)

        monkeypatch.setattr(module, "open", counted)
    run_training(read_run(tmp_path / "config.yaml"), root=tmp_path, output=tmp_path / "run", progress=Quiet())
    assert all(1 <= opened[str(tmp_path / name)] <= 2 for name in names)
