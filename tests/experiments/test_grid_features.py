"""Cells that share a frozen encoder encode each image once, as the report says."""

import json

import pytest
import torch
from media_checkpoints import save
from safetensors.torch import save_file

from umie.composition import compose
from umie.encoders import registry
from umie.experiments.scheduler import RESULTS

LEFT = {"box": [0.0, 0.0, 0.5, 1.0]}


@pytest.fixture
def frozen(tmp_path):
    """A frozen ResNet-101 with weights in a file, so that all cells have the same weights."""
    torch.manual_seed(0)
    save_file(registry.build("resnet101_roi").tower.state_dict(), tmp_path / "resnet.safetensors")
    return {"name": "resnet101_roi", "mode": "align", "short_side": 32, "weights": str(tmp_path / "resnet.safetensors")}


@pytest.fixture
def with_image(tmp_path, noise):
    """Three training and three test records; one image is in both splits, and one is damaged."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for number in range(4):
        noise(40, 30, number).save(folder / f"{number}.png")
    (folder / "damaged.png").write_bytes(b"no image")
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


def test_each_image_is_encoded_once_for_all_cells(grid_file, ablate, frozen, with_image, tmp_path):
    options = {
        "data": {"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"},
        "tasks": ["mner"],
        "warm_start": ...,
        "missing_images": "skip",
        "features": {"folder": "kept"},
    }
    output = tmp_path / "run"
    path = grid_file(encoder=frozen, fusion=["gated", "concat"], **options)
    out = ablate(path, output, data_root=with_image)
    found = images_of(output)
    assert all(images["images"] == 4 for images in found["stored"])
    assert sorted(images["encoder_calls"] for images in found["stored"]) == [0, 4]
    assert "- frozen encoders: 1 (by options and weights); cells: 2; images: 4; encoder calls: 4, all" in out
    assert "- images of train that cannot be read: 1; their records are excluded; e.g. " in out
    assert len(list((tmp_path / "kept").glob("??/*.safetensors"))) == 4

    path = grid_file(encoder={"name": "tiny"}, fusion=["concat", "text_only"], **options)
    ablate(path, output, data_root=with_image)
    found = images_of(output)
    assert [images["encoder_calls"] for images in found["not used"]] == [0]
    # three steps of four queries, two queries to measure the gradient, and three test records
    assert [images["encoder_calls"] for images in found["computed each time"]] == [3 * 4 + 2 + 3]


@pytest.mark.slow
def test_sounds_are_encoded_once_for_all_cells(grid_file, ablate, tmp_path):
    source = save("wav2vec2", tmp_path / "wav2vec2")
    path = grid_file(
        data={"format": "synthetic_media", "train": 3, "dev": 0, "test": 2, "combinations": ["T+A", "T+V"]},
        tasks=["mner", "med"],
        warm_start=...,
        features={"folder": "kept"},
        encoder={"name": "tiny"},
        audio_encoder={"name": "transformers_audio", "source": source},
        video_encoder={"name": "tiny_video"},
        fusion=["gated", "concat"],
    )
    out = ablate(path, tmp_path / "run")
    found = [json.loads(line)["images"] for line in (tmp_path / "run" / RESULTS).read_text().splitlines()]
    sounds = [images["audio"] for images in found]
    assert [one["features"] for one in sounds] == ["stored", "stored"]
    assert sorted(one["encoder_calls"] for one in sounds) == [0, sounds[0]["sounds"]]
    assert sounds[0]["sounds"] == sounds[0]["readable"] == len(list((tmp_path / "kept").glob("??/*.safetensors"))) > 2
    assert [images["video"]["features"] for images in found] == ["computed each time"] * 2
    assert all(images["video"]["encoder_calls"] > 0 for images in found)
    assert "- encoder transformers_audio: weights wav2vec2, frozen" in out
    assert f"cells: 2; sounds: {sounds[0]['sounds']}; encoder calls: {sounds[0]['sounds']}, all other" in out


def images_of(output):
    """Return the image facts of the cells by the use of features, in the order of the results."""
    found = {}
    for line in (output / RESULTS).read_text().splitlines():
        images = json.loads(line)["images"]
        found.setdefault(images["features"], []).append(images)
    return found


@pytest.mark.slow
def test_the_scores_do_not_depend_on_the_store(grid_file, ablate, frozen, with_image, tmp_path):
    scores = []
    for enabled in (True, False):
        path = grid_file(
            data={"format": "jsonl", "train": "train.jsonl", "test": "test.jsonl"},
            tasks=["mner"],
            encoder={name: value for name, value in frozen.items() if name != "weights"},
            fusion="concat",
            warm_start=...,
            missing_images="text_only",
            features={"enabled": enabled},
        )
        output = tmp_path / f"run {enabled}"
        out = ablate(path, output, data_root=with_image)
        assert "- images of train that cannot be read: 1; their records are used as text only; e.g. " in out
        assert "the frozen encoder resnet101_roi has random weights" in out
        (line,) = [json.loads(line) for line in (output / RESULTS).read_text().splitlines()]
        assert (line["images"]["features"] == "stored") == enabled
        assert line["counts"]["train"]["missing_images"] == 1
        scores.append(line)
    assert scores[0]["train_loss"] == pytest.approx(scores[1]["train_loss"], rel=1e-4)
    assert scores[0]["health"]["visual_gradient"] == pytest.approx(scores[1]["health"]["visual_gradient"], rel=1e-3)


def test_precomputed_features_need_no_images_and_changes_run_the_cells_again(grid_file, ablate, with_image, tmp_path):
    for file in with_image.glob("*.png"):
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
        missing_images="skip",
    )
    out = ablate(path, tmp_path / "run", data_root=with_image)
    assert "- train: 2 records, 2 with an image" in out
    assert "- images of train that cannot be read: 1; their records are excluded; e.g. " in out
    (images,) = images_of(tmp_path / "run")["looked up"]
    assert images["images"] == 4
    assert images["encoder_calls"] == 0
    assert "- dropped boxes of precomputed features: 4 no area" in out
    ablate(path, tmp_path / "run", data_root=with_image)
    assert len(images_of(tmp_path / "run")["looked up"]) == 1
    make_features(1)
    ablate(path, tmp_path / "run", data_root=with_image)
    assert len(images_of(tmp_path / "run")["looked up"]) == 2


def test_each_text_is_encoded_once_for_all_fusions(grid_file, ablate, tokenizer, tmp_path):
    torch.manual_seed(0)
    source = tmp_path / "encoder"
    model, processor = compose(fusion="text_only", decoder="span", tokenizer=tokenizer)
    model.decoder.save_checkpoint(source)  # so that all cells have the same weights
    processor.tokenizer.save_pretrained(source)
    options = {
        "data": {"format": "synthetic", "train": 6, "dev": 0, "test": 4},
        "tasks": ["mner"],
        "warm_start": ...,
        "decoder": {"name": "span", "source": str(source)},
        "fusion": ["gated", "concat"],
        "training": {"max_steps": 4, "batch_size": 4, "freeze": ["text"]},
        "features": {"folder": "kept"},
    }
    lines, pages = {}, {}
    for name, changes in (("stored", {}), ("each time", {"features": {"enabled": False}})):
        output = tmp_path / name
        pages[name] = ablate(grid_file(**{**options, **changes}), output)
        lines[name] = [json.loads(line) for line in (output / RESULTS).read_text().splitlines()]
    number = len(list((tmp_path / "kept").glob("??/*.safetensors")))
    assert sorted(line["encoded_texts"] for line in lines["stored"]) == [0, number]
    assert number > 3
    assert f"- frozen text encoders; cells: 2; texts encoded: {number}, all other text states" in pages["stored"]
    assert [line["encoded_texts"] for line in lines["each time"]] == [None, None]
    for one, other in zip(*lines.values(), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["metrics"]["mner"]["f1"] == other["metrics"]["mner"]["f1"]
