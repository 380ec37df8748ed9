"""Small feature files of every known layout, all with the same content."""

from __future__ import annotations

import base64
import functools
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import save_file

WIDTH, HEIGHT, FEATURE_DIM = 200, 100, 6
RELATIVE = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.25, 0.5, 0.75, 0.75]], np.float32)
ABSOLUTE = RELATIVE * np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)
NAMES = ("one", "2014.12.17_0")
LXMERT = (
    *("img_id", "img_h", "img_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"),
    *("num_boxes", "boxes", "features"),
)


def rows(name, num=3):
    """The features of an image's regions, and of the whole."""
    values = np.random.default_rng(NAMES.index(name)).normal(size=(num + 1, FEATURE_DIM)).astype(np.float32)
    return values[1:], values[0]


def b64(values, dtype=np.float32):
    return base64.b64encode(np.ascontiguousarray(values, dtype)).decode()


def in_folder(write):
    """Make the folder first."""

    @functools.wraps(write)
    def layout(folder: Path, **options) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return write(folder, **options)

    return layout


@in_folder
def vinvl(folder):
    for name in NAMES:
        arrays = {"num_boxes": 3, "image_w": WIDTH, "image_h": HEIGHT, "objects": np.array(["man", "a", "b"])}
        np.savez(folder / f"{name}.jpg.npz", bounding_boxes=ABSOLUTE, box_features=rows(name)[0], **arrays)
    return folder


@in_folder
def butd(folder, transposed=False):
    for name in NAMES:
        features = rows(name)[0]
        np.savez_compressed(
            folder / f"{name}.npz",
            x=features.T if transposed else features,
            bbox=ABSOLUTE,
            num_bbox=3,
            image_w=WIDTH,
            image_h=HEIGHT,
            info={"objects_id": [1, 2, 3]},  # pickled, and never read
        )
    return folder


def butd_transposed(folder):
    return butd(folder, transposed=True)


def lxmert_line(name, boxes=ABSOLUTE, features=None, num_boxes=None, size=(WIDTH, HEIGHT)):
    """The fields of one line."""
    features = rows(name)[0] if features is None else features
    ids = b64(np.zeros(len(boxes)), np.int64)
    confidences = b64(np.zeros(len(boxes)))
    number = len(boxes) if num_boxes is None else num_boxes
    return [
        *(name, str(size[1]), str(size[0]), ids, confidences, ids, confidences, str(number)),
        *(b64(boxes), b64(features)),
    ]


@in_folder
def lxmert(folder):
    path = folder / "train_obj36.tsv"
    path.write_text("".join("\t".join(lxmert_line(name)) + "\n" for name in NAMES))
    return path


@in_folder
def lxmert_named(folder):
    path = folder / "named.tsv"
    lines = [LXMERT, *(lxmert_line(name) for name in NAMES)]
    path.write_text("\ufeff" + "".join("\t".join(line) + "\r\n" for line in lines), newline="")
    return folder


@in_folder
def butd_tsv(folder):
    path = folder / "butd.tsv"
    lines = [(name, str(WIDTH), str(HEIGHT), "3", b64(ABSOLUTE), b64(rows(name)[0])) for name in NAMES]
    path.write_text("\n\n".join("\t".join(line) for line in lines))  # an empty line, no end of the last
    return path


@in_folder
def umie_h5(folder):
    """One file for each image, with its name as the group, and one box more than regions: the whole image's."""
    for name in NAMES:
        regions, whole = rows(name)
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file[f"{name}/regions"] = regions
            file[f"{name}/fc_features"] = whole
            file[f"{name}/features"] = np.zeros((2, 2, FEATURE_DIM), np.float32)  # the map, which is not looked at
            file[f"{name}/bbox"] = np.vstack([[[0, 0, WIDTH, HEIGHT]], ABSOLUTE]).astype(np.float32)
            file[f"{name}/img_w"], file[f"{name}/img_h"] = WIDTH, HEIGHT
    return folder


@in_folder
def vlt5_h5(folder):
    path = folder / "features.hdf5"
    with h5py.File(path, "w") as file:
        for name in NAMES:
            group = file.create_group(name)
            group.create_dataset("features", data=rows(name)[0], compression="gzip")
            group["boxes"] = ABSOLUTE
            group["img_w"], group["img_h"] = WIDTH, HEIGHT
    return path


def tensors(name):
    regions, whole = rows(name)
    size = {"image_w": np.array(WIDTH), "image_h": np.array([HEIGHT])}
    return {"features": regions, "boxes": ABSOLUTE, "whole": whole, **size}


@in_folder
def safetensors_each(folder):
    for name in NAMES:
        save_file(tensors(name), folder / f"{name}.safetensors")
    return folder


@in_folder
def safetensors_all(folder):
    path = folder / "all.safetensors"
    save_file({f"{name}/{key}": value for name in NAMES for key, value in tensors(name).items()}, path)
    return path


LAYOUTS = (
    *(vinvl, butd, butd_transposed, lxmert, lxmert_named, butd_tsv),
    *(umie_h5, vlt5_h5, safetensors_each, safetensors_all),
)
WITH_WHOLE = (umie_h5, safetensors_each, safetensors_all)
