"""The four stages of examples/reamo, one after another: each changes only what it may train."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from umie.data.synthetic_media import SyntheticMediaConfig, write_synthetic_media
from umie.experiments.expand import read_run
from umie.experiments.run import run_training

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "reamo"
STAGES = ("stage1_extract", "stage2_align", "stage3_match", "stage4_call")
SMALL = ["training.max_steps=2", "training.batch_size=4", "checkpoints.save_steps=2", "max_target_tokens=200"]
FEW = {"train": 4, "dev": 2, "test": 2}
ENCODERS = ("encoder.", "audio_encoder.", "video_encoder.")


class Silent:
    """A progress display that shows nothing."""

    phase = advance = note = preparing = staticmethod(lambda *_: None)


def weights(folder):
    found = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        found |= load_file(path)
    return found


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not before[name].equal(after[name])}


@pytest.mark.slow
def test_each_stage_changes_only_what_it_may_train(tmp_path):
    data = tmp_path / "captions"
    config = SyntheticMediaConfig(**FEW, captions=True, combinations=("T+I", "T+A", "T+V"))
    write_synthetic_media(data, config)
    shutil.copytree(EXAMPLES, tmp_path / "examples" / "reamo")
    before = None
    for number, stage in enumerate(STAGES, start=1):
        settings = [*SMALL]
        if number in (1, 4):
            settings += [f"data.{split}={size}" for split, size in FEW.items()]
            settings += ["data.train_by_combination={}"] if number == 4 else []
        run = read_run(tmp_path / "examples" / "reamo" / f"{stage}.yaml", settings)
        output = tmp_path / "runs" / "train" / f"reamo-{number}-seed0"
        run_training(run, root=data if number in (2, 3) else tmp_path, output=output, progress=Silent())
        after = weights(output / "best")
        if before is not None:
            names = changed(before, after)
            assert names
            if number == 2:  # the projection of media, and encoders, which have random weights here
                assert all(name.startswith(("visual_embedding.", *ENCODERS)) for name in names), names
            else:
                assert not any(name.startswith(ENCODERS) for name in names), names
            if number == 3:  # the adapter is merged into these
                own = {name for name in names if name.startswith("decoder.")}
                assert own
                assert all("q_proj" in name or "v_proj" in name for name in own), own
        before = after
