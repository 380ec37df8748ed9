"""Every known layout gives the same features; what is damaged, too large or pickled is named in one line."""

import json
import os
import zipfile

import feature_samples as samples
import h5py
import numpy as np
import pytest
import torch
from feature_samples import ABSOLUTE, FEATURE_DIM, HEIGHT, LAYOUTS, NAMES, RELATIVE, WIDTH, WITH_WHOLE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import save_file

from umie.encoders import build_preprocessor
from umie.encoders.precomputed import files as _feature_files
from umie.encoders.precomputed import tsv as _feature_tsv
from umie.encoders.precomputed.encoder import PrecomputedEncoder, PrecomputedEncoderConfig
from umie.encoders.precomputed.files import SIZED
from umie.encoders.precomputed.sources import image_names
from umie.encoders.precomputed.tsv import INDEX_SUFFIX
from umie.errors import UmieError


def reader(path, **options):
    return build_preprocessor({"name": "precomputed", "path": str(path), "boxes": "absolute", **options})


def error_of(path, image="one.jpg", **options):
    with pytest.raises(UmieError) as caught:
        reader(path, **options).read(image)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.__name__)
def layout(request):
    return request.param


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_gives_the_same(layout, name, tmp_path):
    found = reader(layout(tmp_path), whole="mean").read(f"images/{name}.jpg")
    regions, _ = samples.rows(name)
    np.testing.assert_array_equal(found.features, regions)
    np.testing.assert_allclose(found.boxes, RELATIVE, atol=1e-7)
    np.testing.assert_allclose(found.whole, regions.mean(0), atol=1e-6)
    assert (found.features.dtype, found.boxes.dtype, found.whole.dtype) == (np.float32,) * 3
    assert not found.dropped


def test_whole_image(layout, tmp_path):
    path = layout(tmp_path)
    regions, whole = samples.rows("one")
    first = reader(path, whole="first").read("one.jpg")
    np.testing.assert_array_equal(first.whole, regions[0])
    np.testing.assert_array_equal(first.features, regions[1:])
    np.testing.assert_allclose(first.boxes, RELATIVE[1:], atol=1e-7)
    if layout in WITH_WHOLE:
        own = reader(path, whole="file").read("one.jpg")
        np.testing.assert_array_equal(own.whole, whole)
        np.testing.assert_array_equal(own.features, regions)
        np.testing.assert_array_equal(reader(path).read("one.jpg").whole, whole)  # preferred to the mean
    else:
        np.testing.assert_allclose(reader(path).read("one.jpg").whole, regions.mean(0), atol=1e-6)
        assert "whole='mean'" in error_of(path, whole="file")


def test_a_missing_image_is_named_with_the_place(layout, tmp_path):
    path = layout(tmp_path)
    message = error_of(path, "images/three.jpg")
    assert message.startswith("images/three.jpg: no such image")
    assert str(path) in message
    assert "'three.jpg' and 'three'" in message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_cut_short(layout, share, tmp_path):
    path = layout(tmp_path)
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])
    preprocessor = reader(path)
    for name in NAMES:  # of a .tsv file the first line may be whole
        try:
            found = preprocessor.read(f"{name}.jpg")
        except UmieError as error:
            assert len(str(error).splitlines()) == 1
            assert str(tmp_path) in str(error)
        else:
            assert share
            np.testing.assert_array_equal(found.features, samples.rows(name)[0])
            continue
        break
    else:
        pytest.fail("nothing was found damaged")


def test_a_file_of_another_kind(layout, tmp_path):
    path = layout(tmp_path)
    for file in [path] if path.is_file() else list(path.iterdir()):
        file.write_bytes(b"\x80\x04\x95 this is a pickle, say\n")
    assert str(tmp_path) in error_of(path)


# what the arrays of one image may be; written as .npz, since all formats share what checks them


def npz(folder, boxes=ABSOLUTE, features=None, name="one", **other):
    folder.mkdir(exist_ok=True)
    features = np.ones((len(boxes), FEATURE_DIM), np.float32) if features is None else features
    size = {"image_w": WIDTH, "image_h": HEIGHT}
    content = {**size, "bounding_boxes": boxes, "box_features": features, **other}
    np.savez(folder / f"{name}.npz", **{key: value for key, value in content.items() if value is not None})
    return folder


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([0, 0, WIDTH + 2.1, 50], "outside"),
        ([-2.1, 0, 20, 50], "outside"),
        ([0, 0, 20, 1e30], "outside"),
        ([20, 10, 10, 20], "no_area"),
        ([10, 20, 20, 10], "no_area"),
        ([0, 0, 0, 0], "no_area"),
        ([10, 10, 10, 20], "no_area"),
        ([WIDTH + 1, 0, WIDTH + 2, 50], "no_area"),  # nothing of it is in the image
        ([np.nan, 0, 20, 50], "not_finite"),
        ([0, 0, np.inf, 50], "not_finite"),
    ],
)
def test_boxes_that_cannot_be_used_are_dropped_and_counted(box, reason, tmp_path):
    features = np.arange(4 * FEATURE_DIM, dtype=np.float32).reshape(4, FEATURE_DIM)
    boxes = np.vstack([ABSOLUTE[:1], [box], ABSOLUTE[1:]]).astype(np.float32)
    preprocessor = reader(npz(tmp_path, boxes, features))
    found = preprocessor.read("one.jpg")
    assert found.dropped == {reason: 1}
    np.testing.assert_allclose(found.boxes, RELATIVE, atol=1e-7)
    np.testing.assert_array_equal(found.features, features[[0, 2, 3]])
    np.testing.assert_allclose(found.whole, features[[0, 2, 3]].mean(0))
    preprocessor.read("one.jpg")
    assert preprocessor.counts == {"boxes": 4, reason: 1}  # each image once


def test_edges_a_little_outside_are_put_on_the_border(tmp_path):
    boxes = np.array([[-1.9, -2, WIDTH + 2, HEIGHT + 1.5]], np.float32)
    assert reader(npz(tmp_path, boxes)).read("one.jpg").boxes.tolist() == [[0, 0, 1, 1]]


def test_relative_edges_a_little_outside_where_the_size_is_not_known(tmp_path):
    boxes = np.array([[-0.0009, 0, 1.0009, 1], [0, 0, 1.002, 1]], np.float32)
    found = reader(npz(tmp_path, boxes, image_w=None, image_h=None), boxes="relative").read("one.jpg")
    assert found.boxes.tolist() == [[0, 0, 1, 1]]
    assert found.dropped == {"outside": 1}


def test_declared_boxes_are_not_guessed(tmp_path):
    absolute, relative = npz(tmp_path / "absolute"), npz(tmp_path / "relative", RELATIVE)
    assert "set boxes='absolute'" in error_of(absolute, boxes="relative")
    assert "set boxes='relative'" in error_of(relative, boxes="absolute")
    np.testing.assert_array_equal(reader(relative, boxes="relative").read("one.jpg").boxes, RELATIVE)
    no_size = npz(tmp_path / "no_size", RELATIVE, image_w=None, image_h=None)
    np.testing.assert_array_equal(reader(no_size, boxes="relative").read("one.jpg").boxes, RELATIVE)
    assert "no image_w and no image_h" in error_of(no_size)


def test_height_before_width_is_reported(tmp_path):
    """If that makes all boxes fit; a box that is outside both ways is only dropped."""
    swapped = {"image_w": HEIGHT, "image_h": WIDTH}
    assert "all boxes fit if its height comes first" in error_of(npz(tmp_path, **swapped))
    outside = np.vstack([ABSOLUTE, [[0, 0, WIDTH + 9, 5]]])
    assert reader(npz(tmp_path, outside)).read("one.jpg").dropped == {"outside": 1}
    line = samples.lxmert_line("one", features=np.ones((3, FEATURE_DIM), np.float32))
    height, width = (samples.LXMERT.index(name) for name in ("img_h", "img_w"))
    line[height], line[width] = line[width], line[height]
    (tmp_path / "all.tsv").write_text("\t".join(line) + "\n")
    assert "all boxes fit if its height comes first" in error_of(tmp_path / "all.tsv")


def test_boxes_of_x_y_width_height(tmp_path):
    """An error if corners cannot be meant, a warning once if boxes fit both ways, and read if declared."""
    sizes = np.hstack([ABSOLUTE[:, :2], ABSOLUTE[:, 2:] - ABSOLUTE[:, :2]])
    for declared, boxes in (("absolute", sizes), ("relative", sizes / ([WIDTH, HEIGHT] * 2))):
        path = npz(tmp_path / declared, boxes.astype(np.float32))
        assert f"set boxes={SIZED[declared]!r}" in error_of(path, boxes=declared)
        np.testing.assert_allclose(reader(path, boxes=SIZED[declared]).read("one.jpg").boxes, RELATIVE, atol=1e-7)
    small = np.array([[10, 10, 69, 49], [5, 5, 15, 45]], np.float32)
    preprocessor = reader(npz(tmp_path / "small", small))
    with pytest.warns(UserWarning, match="all 2 boxes so far fit as x, y, width, height, too"):
        preprocessor.read("one.jpg")
    npz(tmp_path / "small", small, name="two")
    preprocessor.read("two.jpg")  # once
    reader(npz(tmp_path / "corners", np.vstack([small, ABSOLUTE]))).read("one.jpg")  # one box cannot be a size


def test_other_types_in_a_tsv_file(tmp_path):
    line = samples.lxmert_line("one", features=np.ones((3, FEATURE_DIM), np.float32))
    line[samples.LXMERT.index("boxes")] = samples.b64(ABSOLUTE, np.float64)
    (tmp_path / "all.tsv").write_text("\t".join(line) + "\n")
    assert "other types, such as float64" in error_of(tmp_path / "all.tsv")


@pytest.mark.parametrize("suffix", ["npz", "h5", "tsv", "safetensors"])
def test_git_lfs_pointers_and_pipes(suffix, tmp_path):
    path = tmp_path / f"one.{suffix}"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 9\n")
    assert "git lfs pull" in error_of(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert str(tmp_path) in error_of(tmp_path)


def test_files_of_other_types_are_named(tmp_path):
    np.save(tmp_path / "one.npy", np.ones(3))
    assert "of these types: .npy" in error_of(tmp_path)
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["one_features"], file["one_boxes"] = np.ones((3, 6)), ABSOLUTE
    with pytest.raises(UmieError, match="datasets without groups .*one_boxes, one_features"):
        PrecomputedEncoder(PrecomputedEncoderConfig(path=str(tmp_path / "flat.h5"), boxes="absolute"))


def test_rows_beyond_the_count_are_padding(tmp_path):
    boxes = np.vstack([ABSOLUTE, np.zeros((2, 4))]).astype(np.float32)
    features = np.full((5, FEATURE_DIM), np.nan, np.float32)
    features[:3] = 1
    found = reader(npz(tmp_path, boxes, features, num_boxes=3)).read("one.jpg")
    assert found.features.shape == (3, FEATURE_DIM)
    assert not found.dropped
    assert "num_boxes is 6" in error_of(npz(tmp_path / "more", boxes, features, num_boxes=6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.where(np.arange(3)[:, None] == 1, np.nan, 1.0) * np.ones((3, 6))}, "box_features: row 1 is"),
        ({"features": np.full((3, 6), 1e300)}, "box_features: row 0 is not finite"),
        ({"features": np.full((3, 6), 3e30)}, r"box_features: has the value 3e\+30"),
        ({"features": np.zeros((3, 6))}, "box_features: all values are 0"),
        ({"features": np.ones((2, 6))}, r"has 2 rows but bounding_boxes has 3"),
        ({"features": np.ones(6)}, r"box_features is \[6\]: expected \[N, Dv\]"),
        ({"features": np.ones((3, 6), int)}, "box_features is of int64"),
        ({"features": np.array([["a"] * 6] * 3)}, "box_features is of <U1"),
        ({"features": np.array([[object()] * 6] * 3)}, "contains pickled Python objects"),
        ({"boxes": np.ones((3, 5))}, r"bounding_boxes is \[3, 5\]"),
        ({"boxes": np.zeros((3, 4))}, "no usable box to average"),
        ({"boxes": np.zeros((0, 4))}, "no usable box to average"),
        ({"image_w": 0}, "size is 0 x 100"),
        ({"image_w": np.nan}, "size is nan x 100"),
        ({"image_w": [200, 200]}, r"image_w is an array \[2\]"),
        ({"image_w": "200"}, "image_w is an array"),
        ({"num_boxes": -1}, "num_boxes is -1"),
        ({"num_boxes": 2.5}, "num_boxes is 2.5"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_arrays_that_make_no_sense(changes, message, tmp_path):
    path = npz(tmp_path, **changes)
    with pytest.raises(UmieError, match=message) as caught:
        reader(path).read("one.jpg")
    assert str(caught.value).startswith(f"{path / 'one.npz'}: ")


def test_other_names(tmp_path):
    np.savez(
        tmp_path / "one.npz", feats=np.ones((3, 6), np.float16), rois=ABSOLUTE, w=WIDTH, h=HEIGHT, cls=np.full(6, 7.0)
    )
    message = error_of(tmp_path)
    assert "cls, feats, h, rois, w" in message
    assert "expected box_features and bounding_boxes or x and bbox" in message
    keys = {"features": "feats", "boxes": "rois", "width": "w", "height": "h", "whole": "cls"}
    found = reader(tmp_path, keys=keys, whole="file").read("one.jpg")
    assert found.features.shape == (3, 6)
    assert (found.whole == 7).all()


def test_the_files_own_vector_of_the_whole_image(tmp_path):
    keys = {"whole": "cls"}
    npz(tmp_path, cls=np.full((1, FEATURE_DIM), 7, np.float32))
    npz(tmp_path, name="without")
    assert (reader(tmp_path).read("one.jpg").whole == 1).all()  # no known release calls it so
    assert (reader(tmp_path, keys=keys).read("one.jpg").whole == 7).all()
    assert (reader(tmp_path, keys=keys, whole="mean").read("one.jpg").whole == 1).all()
    assert (reader(tmp_path, keys=keys).read("without.jpg").whole == 1).all()
    assert "no vector cls of the whole image" in error_of(tmp_path, "without.jpg", keys=keys, whole="file")
    no_boxes = npz(tmp_path / "no_boxes", np.zeros((0, 4)), cls=np.full(FEATURE_DIM, 7, np.float32))
    assert (reader(no_boxes, keys=keys).read("one.jpg").whole == 7).all()
    for cls, message in ((np.full(FEATURE_DIM, np.nan), "cls is not finite"), (np.ones(9), "vector has width 9")):
        assert message in error_of(npz(tmp_path / "damaged", cls=cls), keys=keys)


def test_sizes_in_files_are_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(_feature_files, "MAX_BYTES", 1 << 20)
    bomb = tmp_path / "bomb"
    npz(bomb)
    with zipfile.ZipFile(bomb / "one.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("whole.npy", bytes((1 << 20) + 1))
    assert (bomb / "one.npz").stat().st_size < 1 << 13
    assert "whole is [1048577]" in error_of(bomb, keys={"whole": "whole"}, whole="file")
    claim = npz(tmp_path / "claim")
    with zipfile.ZipFile(claim / "one.npz", "w") as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4)}"
        content = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
        for name in ("bounding_boxes", "box_features"):
            archive.writestr(f"{name}.npy", content)
    assert "16,000,000,000,000 bytes" in error_of(claim)


def test_h5_datasets_lie_in_their_file(tmp_path):
    samples.umie_h5(tmp_path)
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["regions"] = np.ones((3, FEATURE_DIM), np.float32)
        file["group/regions"] = np.ones((3, FEATURE_DIM), np.float32)
    (tmp_path / "raw").write_bytes(bytes(3 * FEATURE_DIM * 4))
    virtual = h5py.VirtualLayout((3, FEATURE_DIM), np.float32)
    virtual[:] = h5py.VirtualSource(other, "regions", (3, FEATURE_DIM))

    def replaced(put):
        with h5py.File(tmp_path / "one.h5", "a") as file:
            del file["one/regions"]
            put(file["one"])

    replaced(lambda group: group.__setitem__("regions", h5py.ExternalLink(str(other), "regions")))
    assert "regions is in another file" in error_of(tmp_path)
    raw = [(str(tmp_path / "raw"), 0, h5py.h5f.UNLIMITED)]
    replaced(lambda group: group.create_dataset("regions", (3, FEATURE_DIM), np.float32, external=raw))
    assert "regions is in another file" in error_of(tmp_path)
    replaced(lambda group: group.create_virtual_dataset("regions", virtual))
    assert "regions is in another file" in error_of(tmp_path)
    replaced(
        lambda group: group.create_dataset("regions", (2 * 10**7, FEATURE_DIM), np.float32, chunks=(9, FEATURE_DIM))
    )
    assert "480,000,000 bytes" in error_of(tmp_path)
    replaced(lambda group: group.create_group("regions"))
    assert "regions is not a dataset" in error_of(tmp_path)


def test_h5_box_of_the_whole_image(tmp_path):
    samples.umie_h5(tmp_path)
    with h5py.File(tmp_path / "one.h5", "a") as file:
        file["one/bbox"][0] = 0  # padding in its place
    np.testing.assert_allclose(reader(tmp_path).read("one.jpg").boxes, RELATIVE, atol=1e-7)
    with h5py.File(tmp_path / "one.h5", "a") as file:
        file["one/bbox"][0] = [10, 10, 20, 20]
    assert "the first, [10.0, 10.0, 20.0, 20.0], is not the whole image" in error_of(tmp_path)


def test_one_image_may_stand_behind_its_name(tmp_path):
    content = {f"one/{name}": torch.from_numpy(value) for name, value in samples.tensors("one").items()}
    save_file(content, tmp_path / "one.safetensors")
    np.testing.assert_array_equal(reader(tmp_path).read("one.jpg").features, samples.rows("one")[0])
    (tmp_path / "one.safetensors").rename(tmp_path / "two.safetensors")
    assert "expected features and boxes, found ''" in error_of(tmp_path, "two.jpg")


def test_bfloat16_tensors(tmp_path):
    boxes = torch.from_numpy(RELATIVE)
    save_file({"features": torch.full((3, 4), 1.5).bfloat16(), "boxes": boxes}, tmp_path / "one.safetensors")
    found = reader(tmp_path, boxes="relative").read("one.jpg")
    assert found.features.dtype == np.float32
    assert (found.features == 1.5).all()


# .tsv


def tsv(folder, *lines):
    path = folder / "features.tsv"
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return path


def changed(**fields):
    line = samples.lxmert_line("one")
    for name, value in fields.items():
        line[samples.LXMERT.index(name)] = value
    return line


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"features": "AAA"}, "features is not base64"),
        ({"features": "AAAA!AAA"}, "features is not base64"),
        ({"boxes": "é"}, "boxes is not base64"),
        ({"features": "AAAA"}, "features has 3 bytes, not a multiple of 4"),
        ({"features": samples.b64(np.ones(17))}, "features has 17 numbers, which do not form rows for 3 boxes"),
        ({"boxes": samples.b64(np.ones(11))}, "boxes has 11 numbers, which do not form boxes of 4"),
        ({"num_boxes": "4"}, "num_boxes is 4: expected a whole number from 0 to 3"),
        ({"num_boxes": "three"}, "num_boxes is 'three': expected a number"),
        ({"img_w": ""}, "img_w is '': expected a number"),
        ({"img_w": "inf"}, "size is inf x 100"),
        ({"features": samples.b64(np.full((3, 6), np.inf))}, "features: row 0 is not finite"),
    ],
)
def test_damaged_lines_are_named_by_line_and_id(fields, message, tmp_path):
    path = tsv(tmp_path, samples.lxmert_line("2014.12.17_0"), changed(**fields))
    with pytest.raises(UmieError, match=message) as caught:
        reader(path).read("one.jpg")
    assert str(caught.value).startswith(f"{path}:2: 'one': ")


def test_bytes_as_python_shows_them(tmp_path):
    line = changed(features=repr(samples.b64(samples.rows("one")[0]).encode()))
    np.testing.assert_array_equal(reader(tsv(tmp_path, line)).read("one.jpg").features, samples.rows("one")[0])


def test_a_byte_order_mark_before_the_first_image(tmp_path):
    path = tsv(tmp_path, samples.lxmert_line("one"), samples.lxmert_line("2014.12.17_0"))
    path.write_text("\ufeff" + path.read_text())
    for name in NAMES:
        np.testing.assert_array_equal(reader(path).read(name).features, samples.rows(name)[0])


def test_columns(tmp_path):
    line = samples.lxmert_line("one")
    short = tsv(tmp_path, line[:1] + line[7:], samples.lxmert_line("2014.12.17_0"))
    assert "4 columns and no header" in error_of(short)
    given = {"columns": ["img_id", "num_boxes", "boxes", "features"], "keys": {"width": "w", "height": "h"}}
    assert f"{short}:1: 'one': has no w and no h" in error_of(short, **given)
    assert f"{short}:2: '2014.12.17_0': 10 columns instead of 4" in error_of(short, "2014.12.17_0", **given)
    assert "no column for the images' names" in error_of(short, columns=["a", "b", "boxes", "features"])
    too_few = tsv(tmp_path, line, ["two", "100"])
    assert f"{too_few}:2: 'two': 2 columns instead of 10" in error_of(too_few, "two")


def test_a_image_with_two_lines(tmp_path):
    path = tsv(tmp_path, samples.lxmert_line("one"), samples.lxmert_line("one"))
    assert reader(path).read("one.jpg").features.shape == (3, FEATURE_DIM)  # the same twice
    path = tsv(tmp_path, samples.lxmert_line("one"), changed(img_w="201"))
    assert f"{path}:2: 'one' is also in line 1" in error_of(path)
    samples.lxmert_named(tmp_path)
    assert "both contain 'one'" in error_of(tmp_path)


def test_the_index_is_built_once_and_when_the_file_changes(tmp_path):
    path = samples.lxmert(tmp_path)
    reader(path).read("one.jpg")
    index = path.with_name(path.name + INDEX_SUFFIX)
    content = json.loads(index.read_text())
    assert content["rows"]["one"] == [[0, 1]]
    content["rows"]["renamed"] = content["rows"].pop("one")
    index.write_text(json.dumps(content))
    assert "no such image" in error_of(path)  # the index is trusted to be whole,
    assert f"delete {index.name}" in error_of(path, "renamed")  # and not for where a line is
    with path.open("a") as file:
        file.write("\n")
    assert reader(path).read("one.jpg").boxes.shape == (3, 4)
    assert json.loads(index.read_text())["rows"]["one"] == [[0, 1]]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"state": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_index_is_built_again(content, tmp_path):
    path = samples.lxmert(tmp_path)
    index = path.with_name(path.name + INDEX_SUFFIX)
    reader(path).read("one.jpg")
    good = index.read_bytes()
    index.write_bytes(content)
    assert reader(path).read("one.jpg").boxes.shape == (3, 4)
    assert index.read_bytes() == good
    rows = json.loads(good)
    rows["rows"] = {"one": [[10**9, 1]]}
    index.write_text(json.dumps(rows))
    assert reader(path).read("one.jpg").boxes.shape == (3, 4)


def test_an_index_that_cannot_be_written_stays_in_memory(tmp_path):
    path = samples.lxmert(tmp_path)
    path.with_name(path.name + INDEX_SUFFIX).mkdir()
    assert reader(path).read("one.jpg").boxes.shape == (3, 4)


def test_lines_are_bounded(tmp_path, monkeypatch):
    path = samples.lxmert(tmp_path)
    length = len(path.read_text().splitlines()[0])
    for line, limit in ((1, length), (2, length + 1)):  # the line's end counts
        monkeypatch.setattr(_feature_tsv, "MAX_ROW", limit)
        assert f"{path}:{line}: more than {limit:,} bytes in a line" in error_of(path)


# properties

NUMBERS = st.floats(-1e6, 1e6, width=32)
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\0/\\"), min_size=1, max_size=20).filter(
    lambda name: name == name.strip() and name not in (".", "..")
)


@given(
    images=st.dictionaries(IDS, st.integers(1, 4), min_size=1, max_size=5),
    feature_dim=st.integers(1, 5),
    seed=st.integers(0, 9),
    line_end=st.sampled_from(["\n", "\r\n"]),
    is_named=st.booleans(),
)
def test_what_is_written_as_tsv_is_read(tmp_path_factory, images, feature_dim, seed, line_end, is_named):
    path = tmp_path_factory.mktemp("tsv") / "features.tsv"
    generator = np.random.default_rng(seed)
    content = {name: generator.normal(size=(num, feature_dim)).astype(np.float32) for name, num in images.items()}
    lines = [samples.lxmert_line(name, np.tile(ABSOLUTE[:1], (len(rows), 1)), rows) for name, rows in content.items()]
    lines = [samples.LXMERT, *lines] if is_named else lines
    path.write_bytes("".join("\t".join(line) + line_end for line in lines).encode())
    preprocessor = reader(path)
    for name, rows in content.items():
        np.testing.assert_array_equal(preprocessor.read(name).features, rows)


@pytest.mark.filterwarnings("ignore:.*fit as x, y, width, height")
@given(
    boxes=arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(4)), elements=st.floats(width=32)),
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    declared=st.sampled_from(["absolute", "relative"]),
)
def test_boxes_are_usable_or_counted(tmp_path_factory, boxes, width, height, declared):
    path = npz(tmp_path_factory.mktemp("npz"), boxes, image_w=width, image_h=height)
    preprocessor = reader(path, boxes=declared)
    try:
        found = preprocessor.read("one.jpg")
    except UmieError as error:
        assert str(path) in str(error)
        return
    assert len(found.boxes) + sum(found.dropped.values()) == len(boxes)
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()


@pytest.mark.filterwarnings("ignore:.*fit as x, y, width, height")
@given(
    layout=st.sampled_from(LAYOUTS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_give_features_or_one_line(tmp_path_factory, layout, changes):
    path = layout(tmp_path_factory.mktemp("damaged"))
    for file in [path] if path.is_file() else list(path.iterdir()):
        content = bytearray(file.read_bytes())
        for share, value in changes:
            content[int(share * len(content))] = value
        file.write_bytes(content)
    preprocessor = reader(path)
    for name in NAMES:
        try:
            found = preprocessor.read(name)
        except UmieError as error:
            assert len(str(error).splitlines()) == 1, str(error)
        else:
            assert np.isfinite(found.features).all()
            assert found.features.shape == (len(found.boxes), len(found.whole))


def test_names_in_h5_files_that_are_not_utf8_are_reported(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "1.h5", "w") as file:
        file.create_group("1")[b"f\x80atures"] = np.zeros((1, 4))
    with pytest.raises(UmieError, match=r"found .*f\\+x80atures.*: set their names in `keys`"):
        reader(tmp_path / "1.h5").read("1.jpg")
    with h5py.File(tmp_path / "2.h5", "w") as file:
        file.create_group(b"f\x80")
    assert reader(tmp_path / "2.h5").source.first_name() == r"f\x80"


def test_names_of_images():
    assert image_names("111254.jpg") == ["111254.jpg", "111254"]
    assert image_names("2014.12.17.2562583_0") == ["2014.12.17.2562583_0"]
    assert image_names("2014.12.17.2562583_0.jpg") == ["2014.12.17.2562583_0.jpg", "2014.12.17.2562583_0"]
    assert image_names("2014.12.17") == ["2014.12.17"]
    assert image_names(".jpg") == [".jpg"]
    assert image_names("..jpg") == ["..jpg"]  # in an .h5 file "." is the group itself
    assert image_names("/data/train/1.jpg") == ["train/1.jpg", "train/1", "1.jpg", "1"]
    assert image_names("train/1") == ["train/1", "1"]
    for folder in ("..", ".", "/", "a/..", "a\\b", "a\0b"):  # which is no folder below
        assert image_names(f"{folder}/1.jpg") == ["1.jpg", "1"]
    for name in ("", ".", "..", "a/..", "/", "a\\b", "a\0b"):
        with pytest.raises(UmieError, match="not a file name of an image"):
            image_names(name)


@given(st.text(st.sampled_from("a.b/\\\0")))
def test_no_name_leads_out_of_its_folder(path):
    try:
        names = image_names(path)
    except UmieError:
        return
    for name in names:
        *folders, last = name.split("/")
        assert len(folders) <= 1
        assert not {"", ".", ".."} & {*folders, last}
        assert "\\" not in name
