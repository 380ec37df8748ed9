"""The encoder that looks features up: options, names, regions, processes, and a whole variant on such features."""

import dataclasses
import json
import os
import pickle
import sys
from pathlib import Path

import feature_samples as samples
import h5py
import numpy as np
import pytest
import torch
from feature_samples import FEATURE_DIM, LAYOUTS, NAMES, RELATIVE
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from torchvision.ops import box_iou

from umie import UmieModel, UmieProcessor
from umie.composition import compose
from umie.encoders import registry
from umie.errors import UmieError
from umie.evaluation.queries import QueryDataset
from umie.records import Entity, Record, Region
from umie.records.voc import read_voc
from umie.training import TrainingConfig, train

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there: real features are not read")


def build(path, **options):
    return registry.build("precomputed", **{"path": path, "boxes": "absolute", **options})


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def layout(request):
    return request.param


def test_without_regions_the_slots_are_the_boxes_of_the_file(tmp_path):
    encoder = build(samples.vinvl(tmp_path))
    found = encoder.encode(["somewhere/one.jpg", None])  # the image is nowhere
    regions, _ = samples.rows("one")
    assert found.mask.tolist() == [[True] * 4, [False] * 4]
    torch.testing.assert_close(found.boxes[0], torch.tensor([[0, 0, 1, 1], *RELATIVE.tolist()]), atol=1e-7, rtol=0)
    np.testing.assert_array_equal(found.features[0, 1:], regions)
    np.testing.assert_allclose(found.features[0, 0], regions.mean(0), atol=1e-6)
    few = build(tmp_path, max_regions=2).encode(["one.jpg"])
    assert torch.equal(few.features[0], found.features[0, :3])  # the mean is over all, whatever is kept
    assert build(tmp_path, max_regions=0).encode(["one.jpg"]).mask.shape == (1, 1)


def test_regions_of_the_record_take_the_features_of_the_nearest_box(tmp_path):
    encoder = build(samples.vinvl(tmp_path))
    regions, _ = samples.rows("one")
    near_last, second = (0.25, 0.5, 0.75, 0.8), (0.45, 0.0, 1.0, 1.0)
    found = encoder.encode(["one.jpg"], [[Region(near_last), second, near_last]])
    np.testing.assert_array_equal(found.features[0, 1:], regions[[2, 1, 2]])
    assert found.boxes[0, 1:].tolist() == torch.tensor([near_last, second, near_last]).tolist()
    with pytest.raises(UmieError, match="not inside the image"):
        encoder.encode(["one.jpg"], [[(0.5, 0, 0.4, 1)]])


def test_a_region_that_overlaps_no_box(tmp_path):
    path = samples.vinvl(tmp_path)
    region = (0.0, 0.0, 0.5, 0.4)  # 0.4 of the first box
    with pytest.raises(UmieError) as caught:
        build(path).preprocess.check("one.jpg", [region])
    message = str(caught.value)
    assert message.startswith(f"{path / 'one.jpg.npz'}: region [0.000, 0.000, 0.500, 0.400] overlaps no box by 0.5")
    assert "[0.000, 0.000, 0.500, 1.000], has 0.40" in message
    found = build(path, min_overlap=0.39).encode(["one.jpg"], [[region]])
    np.testing.assert_array_equal(found.features[0, 1], samples.rows("one")[0][0])
    beyond = build(path, max_regions=1).encode(["one.jpg"], [[(0, 0, 0.5, 1), region]])  # is left out
    assert beyond.mask.shape == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, "path is '': set it to the file or directory"),
        ({"path": 3}, "path is 3"),
        ({"boxes": ""}, r"boxes is '': use 'absolute'"),
        ({"boxes": "pixels"}, "boxes is 'pixels'"),
        ({"format": "zip"}, "format is 'zip': use one of npz, h5, tsv, safetensors"),
        ({"whole": "last"}, "whole is 'last'"),
        ({"keys": {"feature": "x"}}, "Did you mean 'features'"),
        ({"keys": {"features": 1}}, "keys is"),
        ({"columns": "img_id"}, "columns is 'img_id': use a list"),
        ({"feature_dim": 0}, "feature_dim is 0"),
        ({"min_overlap": 1.5}, "min_overlap is 1.5"),
        ({"max_regions": -1}, "max_regions is -1"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(UmieError, match=message):
        build(**{"path": samples.vinvl(tmp_path), "feature_dim": FEATURE_DIM, **options})


def test_bad_paths(tmp_path):
    with pytest.raises(UmieError, match="no such file or directory of features"):
        build(tmp_path / "nowhere")
    with pytest.raises(UmieError, match="no file of a known format"):
        build(tmp_path)
    with pytest.raises(UmieError, match="contains no images"):
        build(tmp_path, format="npz")
    samples.vinvl(tmp_path)
    with pytest.raises(UmieError, match="an .npz file contains one image"):
        build(tmp_path / "one.jpg.npz")
    samples.umie_h5(tmp_path)
    with pytest.raises(UmieError, match="files of h5 and npz: set format='h5' or 'npz'"):
        build(tmp_path)
    assert build(tmp_path, format="h5", whole="file").feature_dim == FEATURE_DIM
    path = samples.lxmert(tmp_path).rename(tmp_path / "features.txt")
    with pytest.raises(UmieError, match="no file of a known format"):
        build(path)
    assert build(path, format="tsv").feature_dim == FEATURE_DIM


@pytest.mark.parametrize("image", ["..", "a/..", "", ".", "/"])
def test_a_name_cannot_leave_the_folder(image, tmp_path):
    encoder = build(samples.vinvl(tmp_path / "inside"))
    samples.butd(tmp_path)
    with pytest.raises(UmieError, match="not a file name of an image"):
        encoder.encode([image])


def split_folder(folder):
    """Features of train/1.jpg, test/1.jpg and another 1.jpg, distinguished by their value, as files in folders."""
    for value, name in enumerate(("1", "train/1.jpg", "test/1")):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        save_file(split_tensors(value), folder / f"{name}.safetensors")
    return folder


def split_tensors(value):
    return {"features": torch.tensor([[float(value), 9.0]]), "boxes": torch.tensor([[0.0, 0, 1, 1]])}


def split_safetensors(folder):
    """The same in one file."""
    named = {"1": split_tensors(0), "train/1.jpg": split_tensors(1), "test/1": split_tensors(2)}
    save_file({f"{name}/{key}": value for name, found in named.items() for key, value in found.items()}, folder / "a")
    return (folder / "a").rename(folder / "all.safetensors")


def split_h5(folder):
    """The same in groups."""
    with h5py.File(folder / "all.h5", "w") as file:
        for value, name in enumerate(("1", "train/1.jpg", "test/1")):
            for key, tensor in split_tensors(value).items():
                file[f"{name}/{key}"] = tensor.numpy()
    return folder / "all.h5"


def split_tsv(folder):
    """The same in lines."""
    lines = []
    for value, name in enumerate(("1", "train/1.jpg", "test/1")):
        lines.append(samples.lxmert_line(name, features=np.full((3, 2), (value, 9))))
        lines[-1][samples.LXMERT.index("boxes")] = samples.b64(RELATIVE)
    (folder / "all.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    return folder / "all.tsv"


@pytest.mark.parametrize("split", [split_folder, split_safetensors, split_h5, split_tsv])
def test_images_called_alike_in_two_folders(split, tmp_path):
    encoder = build(split(tmp_path), boxes="relative")
    images = ["train/1.jpg", "test/1.jpg", "/data/test/1.png", "dev/1.jpg", "1.jpg", "train/../1.jpg"]
    assert encoder.encode(images).features[:, 0, 0].tolist() == [1, 2, 2, 0, 0, 0]
    with pytest.raises(UmieError) as caught:
        encoder.encode(["train/2.jpg"])
    assert "searched for 'train/2.jpg', 'train/2', '2.jpg' and '2': add its features" in str(caught.value)


@pytest.mark.parametrize("split", [split_folder, split_safetensors, split_h5])
def test_where_all_features_are_of_images_in_folders(split, tmp_path):
    """The width, the format and the state of the files are then found below."""
    path = split(tmp_path)
    if path.is_dir():
        (path / "1.safetensors").unlink()
    elif path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            del file["1"]
    else:
        save_file({f"train/1/{key}": value for key, value in split_tensors(1).items()}, path)
    encoder = build(path, boxes="relative")
    assert encoder.feature_dim == 2
    with pytest.raises(UmieError, match="no such image"):
        encoder.encode(["dev/1.jpg"])
    if path.is_dir():
        before = encoder.fingerprint()
        (path / "test" / "1.safetensors").rename(path / "test" / "2.safetensors")
        assert encoder.fingerprint() != before


def test_folders_below_do_not_disturb(tmp_path):
    """Links that lead nowhere, folders that hold no features, or others than the files next to them."""
    path = samples.vinvl(tmp_path / "inside")
    (path / "loop").symlink_to(path / "loop")
    samples.lxmert(path / "a")
    np.savez(path / "a" / "two.npz", x=np.ones((1, 9), np.float32), bbox=[[0, 0, 5, 5]], image_w=9, image_h=9)
    (path / "one.jpg").mkdir()
    encoder = build(path)
    assert encoder.feature_dim == FEATURE_DIM
    assert encoder.encode(["a/one.jpg", "x" * 300 + "/one.jpg"]).mask.all()


def test_a_folder_below_that_may_not_be_searched_is_not_passed_over(tmp_path, monkeypatch):
    """Its features would silently be another image's."""
    encoder = build(split_folder(tmp_path), boxes="relative")
    is_file = Path.is_file

    def refused(path):
        if path.parent.name == "train":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)  # who runs the tests may be allowed everything
    assert encoder.encode(["test/1.jpg"]).mask.all()
    with pytest.raises(UmieError, match="cannot search for 'train/1.jpg': Permission denied"):
        encoder.encode(["train/1.jpg"])


def test_only_the_last_two_parts_of_a_path_count(layout, tmp_path):
    path = layout(tmp_path / "inside")
    for name in ("three", "inside"):
        samples.butd(tmp_path)
        with pytest.raises(UmieError, match="no such image"):
            build(path).encode([f"../../{name}.jpg"])
    assert build(path).encode(["../../one.jpg"]).mask.all()


def test_what_is_no_name(tmp_path):
    encoder = build(samples.vinvl(tmp_path))
    with pytest.raises(UmieError, match="cannot search for 'xxx.*: File name too long"):
        encoder.encode(["x" * 300])
    with pytest.raises(UmieError, match="not int"):
        encoder.encode([3])


def test_the_full_name_goes_before_the_stem(tmp_path):
    for number, name in enumerate(("one", "one.jpg")):
        features = torch.full((1, 2), float(number + 1))
        save_file({"features": features, "boxes": torch.tensor([[0.0, 0, 1, 1]])}, tmp_path / f"{name}.safetensors")
    encoder = build(tmp_path, boxes="relative")
    assert encoder.encode(["one.png", "one.jpg"]).features[:, 0].tolist() == [[1, 1], [2, 2]]


def test_images_of_another_width_do_not_mix(tmp_path):
    samples.vinvl(tmp_path)
    encoder = build(tmp_path)
    np.savez(tmp_path / "wide.npz", x=np.ones((1, 9), np.float32), bbox=[[0, 0, 5, 5]], image_w=9, image_h=9)
    with pytest.raises(UmieError, match=r"wide.npz: features have width 9, others 6"):
        encoder.encode(["one.jpg", "wide.jpg"])
    with pytest.raises(UmieError, match="features have width 9, the model expects 6"):
        encoder(**build(tmp_path, feature_dim=9).preprocess(["wide.jpg"]))


@pytest.mark.slow
def test_data_workers_open_their_own(layout, tmp_path):
    """What this process has open is not theirs, whether they are forked or get a copy."""
    preprocessor = build(layout(tmp_path)).preprocess
    names = [f"{NAMES[index % 2]}.jpg" for index in range(8)]
    expected = {name: preprocessor.one(name) for name in names}  # opens
    loader = DataLoader(names, 1, num_workers=2, collate_fn=preprocessor, multiprocessing_context="fork")
    for name, batch in zip(names, loader, strict=True):
        assert all(torch.equal(batch[key][0], expected[name][key]) for key in batch)
    copy = pickle.loads(pickle.dumps(preprocessor))  # noqa: S301 # what a data worker does
    assert all(torch.equal(value, expected[names[0]][key]) for key, value in copy.one(names[0]).items())


def test_an_open_file_is_kept_in_its_process(tmp_path):
    source = build(samples.vlt5_h5(tmp_path)).preprocess.source
    assert source.handle is source.handle
    before = source.handle
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b"own" if source.handle is not before else b"shared")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 10) == b"own"


def test_fingerprint(layout, tmp_path):
    path = layout(tmp_path / "first")
    encoder = build(path)
    before = encoder.fingerprint()
    assert build(path, feature_dim=FEATURE_DIM, max_regions=3, trainable=False).fingerprint() == before
    assert build(path, whole="first").fingerprint() != before
    file = path if path.is_file() else sorted(path.iterdir())[0]
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert encoder.fingerprint() != before
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert encoder.fingerprint() == before
    moved = file.rename(file.with_name(f"other{file.suffix}"))
    if path.is_dir():
        assert encoder.fingerprint() != before
    else:
        with pytest.raises(UmieError, match="cannot read"):
            encoder.fingerprint()
    moved.unlink()


def test_features_that_are_looked_up_are_not_cached(tmp_path):
    from umie.encoders import CachedEncoder, FeatureCache

    encoder = build(samples.vinvl(tmp_path))
    assert encoder.reads_features
    with pytest.raises(UmieError):
        CachedEncoder(encoder, FeatureCache(tmp_path / "cache"))


def test_h5py_is_an_extra(tmp_path, monkeypatch):
    path = samples.umie_h5(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UmieError, match=r"needs h5py: pip install 'umie\[h5\]'"):
        build(path)


def test_nothing_is_opened_where_the_width_is_told(tmp_path):
    options = {"path": tmp_path / "nowhere", "boxes": "absolute", "feature_dim": 5}
    encoder = registry.construct("precomputed", options)  # as from_pretrained does
    assert encoder.feature_dim == 5
    assert encoder.encode([None]).features.shape == (1, 0, 5)
    with pytest.raises(UmieError, match="no such file or directory of features"):
        encoder.encode(["one.jpg"])
    with pytest.raises(UmieError, match="no such file or directory of features"):
        registry.build("precomputed", **options)


def test_the_width_is_found_while_a_model_is_shaped_without_memory(layout, tmp_path):
    path = layout(tmp_path)
    with torch.device("meta"):
        assert build(path).feature_dim == FEATURE_DIM


def test_saved_options_rebuild_it_without_the_files(tmp_path):
    encoder = build(samples.vinvl(tmp_path), keys={"whole": "w"}, columns=["a"])
    options = json.loads(json.dumps({**dataclasses.asdict(encoder.config), **encoder.saved_options()}))
    for file in tmp_path.iterdir():
        file.unlink()
    again = registry.construct("precomputed", options)
    assert again.feature_dim == FEATURE_DIM
    assert again.config == encoder.config


def record(name, **changes):
    return Record("Ann met Bob", image=f"{name}.jpg", entities=(Entity("person", (0, 3)),), id=name, **changes)


def variant_on(path, tokenizer, **options):
    torch.manual_seed(0)
    encoder = {"name": "precomputed", "path": str(path), "boxes": "absolute", "whole": "file", **options}
    return compose(encoder, tokenizer=tokenizer, visual_embedding={}, missing_images="error")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_variant_trains_generates_and_is_saved(dtype, tokenizer, aligned, tmp_path):
    path = samples.umie_h5(tmp_path / "features")
    model, processor = variant_on(path, tokenizer, feature_dim=FEATURE_DIM)
    model.to(dtype)
    records = [record("one"), record("2014.12.17_0", regions=(Region(tuple(RELATIVE[1].tolist())),)), Record("No")]
    batch = processor(records[:2], "mner")
    assert batch["features"].shape == (2, 4, FEATURE_DIM)
    model.train()
    loss = model(**batch).loss
    loss.backward()
    assert model.visual_embedding.feature_projection.weight.grad.any()
    model.eval()
    with torch.no_grad():
        expected = model(**batch).logits
        changed = model(**{**batch, "features": batch["features"] + 1}).logits
    assert not torch.equal(expected, changed)
    answers = model.generate(**processor(records, "mner"), max_new_tokens=4)
    assert len(processor.decode(answers, records, "mner")) == 3
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    for file in path.iterdir():
        file.rename(tmp_path / file.name)
    again = aligned(UmieModel.from_pretrained(tmp_path / "saved", dtype=dtype).eval())  # without the files
    processor = UmieProcessor.from_pretrained(tmp_path / "saved")
    with pytest.raises(UmieError, match="record 'one': .*features: has no file of a known format"):
        processor(records[:1], "mner")
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, aligned(model)(**batch).logits)
    for name in NAMES:
        (tmp_path / f"{name}.h5").rename(path / f"{name}.h5")
    found = processor(records[:2], "mner")
    assert all(torch.equal(found[key], batch[key]) for key in batch)


def test_the_trainer_runs_on_it(tokenizer, tmp_path):
    model, processor = variant_on(samples.safetensors_all(tmp_path), tokenizer)
    dataset = QueryDataset([record(name) for name in NAMES], ["mner"], processor)
    before = model.visual_embedding.feature_projection.weight.clone()
    train(model, processor, dataset, TrainingConfig(max_steps=2, batch_size=2))
    assert not torch.equal(before, model.visual_embedding.feature_projection.weight)


@pytest.mark.parametrize(("policy", "num_slots"), [("text_only", [4, 0]), ("skip", [4])])
def test_policies_for_images_without_features(policy, num_slots, tokenizer, tmp_path):
    encoder = {"name": "precomputed", "path": str(samples.vinvl(tmp_path)), "boxes": "absolute"}
    _, processor = compose(encoder, tokenizer=tokenizer, missing_images=policy)
    batch = processor(processor.usable([record("one"), record("three")]), "mner")
    assert batch["visual_mask"].sum(1).tolist() == num_slots
    assert processor.counts["missing_images"] == 1


@needs_data
def test_real_vinvl_features():
    """Nothing of the six real files is dropped, and every annotated region of GMNER finds a box."""
    images = sorted((DATA / "twitter_images").glob("*.jpg"))
    encoder = build(DATA / "twitter_images" / "vinvl")
    found = encoder.encode(images)
    assert found.features.shape == (6, 37, 2048)
    assert found.mask.sum(1).tolist() == [11, 37, 36, 37, 37, 32]
    assert encoder.preprocess.counts == {"boxes": 184}
    overlaps = []
    for image in images:
        regions = read_voc(DATA / "gmner" / "xml" / f"{image.stem}.xml")
        if regions:
            boxes = torch.from_numpy(encoder.preprocess.read(image).boxes).double()
            own = torch.tensor([region.box for region in regions], dtype=torch.float64)
            overlaps += box_iou(own, boxes).max(1).values.tolist()
            matched = encoder.encode([image], [regions])
            assert matched.boxes[0, 1:].tolist() == own.float().tolist()
    assert len(overlaps) == 6
    assert min(overlaps) > 0.87
    with np.load(DATA / "twitter_images" / "vinvl" / "111254.jpg.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(found.features[0, 1:11], file["box_features"])
        size = [file["image_w"], file["image_h"]] * 2
        np.testing.assert_allclose(found.boxes[0, 1:11], file["bounding_boxes"] / size, atol=1e-7)
