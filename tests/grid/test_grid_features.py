"""Cells that share a frozen encoder encode each picture once, whatever they are killed by, and the table says so."""

import json

import pytest
import torch
from safetensors.torch import save_file

from umie.encoders import registry
from umie.grid.run import RESULTS

LEFT = {"box": [0.0, 0.0, 0.5, 1.0]}


@pytest.fixture
def frozen(tmp_path):
    """A frozen ResNet-101 with weights in a file, so that every cell has the same."""
    torch.manual_seed(0)
    save_file(registry.build("resnet101_roi").tower.state_dict(), tmp_path / "resnet.safetensors")
    return {"name": "resnet101_roi", "mode": "align", "short_side": 32, "weights": str(tmp_path / "resnet.safetensors")}


@pytest.fixture
def pictured(tmp_path, noise):
    """Three training and two test records with pictures; a picture of train stands in test too, one is damaged."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(4):
        noise(40, 30, number).save(folder / f"{number}.png")
    (folder / "damaged.png").write_bytes(b"no picture")
    for split, names in (("train", ["0", "1", "damaged"]), ("test", ["0", "2", "3"])):
        records = [
            {
                "text": "Ann is here .",
                "image": f"{name}.png",
                "regions": [LEFT],
                "entities": [{"type": "p", "span": [0, 3]}],
            }
            for name in names
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_each_picture_is_encoded_once_for_all_cells(grid_file, umie, frozen, pictured, tmp_path):
    options = {
        "data": {"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"},
        "tasks": ["mner"],
        "warm_start": ...,
        "missing_pictures": "skip",
        "features": {"folder": "kept"},
    }
    output = tmp_path / "run"
    path = grid_file(encoder=frozen, fusion=["gated", "concat"], **options)
    code, out, err = umie("ablate", path, "--data", pictured, "--output", output)
    assert (code, "Traceback" in err) == (0, False)
    found = pictures_of(output)
    assert all(pictures["pictures"] == 4 for pictures in found["stored"])
    assert sorted(pictures["encoder_calls"] for pictures in found["stored"]) == [0, 4]
    assert "- frozen encoders: 1 (by options and weights); cells: 2; pictures: 4; encoder calls: 4, all" in out
    assert "- pictures of train that cannot be read: 1, their records are left out; e.g. " in out
    assert len(list((tmp_path / "kept").glob("??/*.safetensors"))) == 4

    path = grid_file(encoder={"name": "tiny"}, fusion=["concat", "text_only"], **options)
    assert umie("ablate", path, "--data", pictured, "--output", output)[0] == 0
    found = pictures_of(output)
    assert [pictures["encoder_calls"] for pictures in found["not used"]] == [0]
    # three steps of four from two records, two to measure the gradient, and three records of the test split
    assert [pictures["encoder_calls"] for pictures in found["made anew each time"]] == [3 * 4 + 2 + 3]


def pictures_of(output):
    """What the cells say of their pictures, by what became of the features, in the order of the results."""
    found = {}
    for line in (output / RESULTS).read_text().splitlines():
        pictures = json.loads(line)["pictures"]
        found.setdefault(pictures["features"], []).append(pictures)
    return found


def test_without_a_store_the_scores_are_the_same(grid_file, umie, frozen, pictured, tmp_path):
    scores = []
    for enabled in (True, False):
        path = grid_file(
            data={"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"},
            tasks=["mner"],
            encoder={name: value for name, value in frozen.items() if name != "weights"},
            fusion="concat",
            warm_start=...,
            missing_pictures="text_only",
            features={"enabled": enabled},
        )
        output = tmp_path / f"run {enabled}"
        code, out, _ = umie("ablate", path, "--data", pictured, "--output", output)
        assert code == 0
        assert "- pictures of train that cannot be read: 1, their records are taken as text alone; e.g. " in out
        assert "- the weights of the frozen encoder resnet101_roi are random" in out
        (line,) = [json.loads(line) for line in (output / RESULTS).read_text().splitlines()]
        assert (line["pictures"]["features"] == "stored") == enabled
        assert line["counts"]["train"]["missing_pictures"] == 1
        scores.append(line)
    assert scores[0]["train_loss"] == pytest.approx(scores[1]["train_loss"], rel=1e-4)
    assert scores[0]["health"]["visual_gradient"] == pytest.approx(scores[1]["health"]["visual_gradient"], rel=1e-3)


def test_looked_up_features_need_no_pictures_and_new_ones_run_the_cells_again(grid_file, umie, pictured, tmp_path):
    for file in pictured.glob("*.png"):
        file.unlink()

    def make_features(seed):
        generator = torch.Generator().manual_seed(seed)
        (tmp_path / "made").mkdir(exist_ok=True)
        for name in ("0", "1", "2", "3"):
            boxes = torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.2, 0.2, 0.2, 0.3]])
            tensors = {"features": torch.randn(3, 6, generator=generator), "boxes": boxes}
            save_file(tensors, tmp_path / "made" / f"{name}.safetensors")

    make_features(0)
    path = grid_file(
        data={"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"},
        tasks=["mner"],
        encoder={"name": "precomputed", "path": str(tmp_path / "made"), "boxes": "relative"},
        fusion="concat",
        warm_start=...,
        missing_pictures="skip",
    )
    arguments = ("ablate", path, "--data", pictured, "--output", tmp_path / "run")
    code, out, _ = umie(*arguments)
    assert code == 0
    assert "- train: 2 records, 2 with a picture" in out
    assert "- pictures of train that cannot be read: 1, their records are left out; e.g. " in out
    (pictures,) = pictures_of(tmp_path / "run")["looked up"]
    assert pictures["pictures"] == 4
    assert pictures["encoder_calls"] == 0
    assert "- boxes of looked-up features that were left out: 4 no area" in out
    umie(*arguments)
    assert len(pictures_of(tmp_path / "run")["looked up"]) == 1
    make_features(1)
    umie(*arguments)
    assert len(pictures_of(tmp_path / "run")["looked up"]) == 2
