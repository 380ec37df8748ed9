"""Existence of image files, and duplicates of images."""

import gzip
import os
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie.audit.images import Presence, hashes, near_images, presence
from umie.errors import UmieError
from umie.records import Record


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    (images / "a.jpg").write_bytes(b"x")
    (images / "sub" / "b.jpg").write_bytes(b"x")
    (images / "empty.jpg").touch()
    (images / "pointer.jpg").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    (images / "packed.jpg").write_bytes(gzip.compress(b"x"))
    with zipfile.ZipFile(images / "zip.jpg", "w") as archive:
        archive.writestr("a.jpg", "x")
    (tmp_path / "outside.jpg").write_bytes(b"x")
    (images / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (images / "own.jpg").symlink_to(images / "a.jpg")
    (images / "loop.jpg").symlink_to(images / "loop.jpg")
    os.mkfifo(images / "pipe.jpg")
    return images


@pytest.mark.parametrize(
    ("name", "state"),
    [
        (None, Presence.NONE),
        ("a.jpg", Presence.FOUND),
        ("sub/b.jpg", Presence.FOUND),
        ("own.jpg", Presence.FOUND),
        ("absent.jpg", Presence.MISSING),
        ("sub/absent.jpg", Presence.MISSING),
        ("empty.jpg", Presence.EMPTY),
        ("pointer.jpg", Presence.POINTER),
        ("packed.jpg", Presence.FOUND),  # a readable file, though not an image
        ("zip.jpg", Presence.FOUND),
        ("sub", Presence.NO_FILE),
        ("pipe.jpg", Presence.NO_FILE),
        ("../outside.jpg", Presence.OUTSIDE),
        ("..", Presence.OUTSIDE),
        ("link.jpg", Presence.OUTSIDE),
        ("/etc/passwd", Presence.OUTSIDE),
        ("a\0.jpg", Presence.OUTSIDE),
        ("x" * 300, Presence.UNREADABLE),
    ],
)
def test_presence(folder, name, state):
    assert presence(Record("a text", image=name, image_folder=str(folder))) is state


def test_sounds_and_videos(folder):
    """A video may be a folder of frames."""
    states = dict.fromkeys(("a.jpg", "own.jpg"), (Presence.FOUND, Presence.FOUND))
    states |= {"absent.jpg": (Presence.MISSING,) * 2, "sub": (Presence.NO_FILE, Presence.FOUND)}
    states |= {"../outside.jpg": (Presence.OUTSIDE,) * 2, "pipe.jpg": (Presence.NO_FILE,) * 2}
    for name, expected in states.items():
        record = Record("a text", audio=name, video=name, image_folder=str(folder))
        assert (presence(record, "audio"), presence(record, "video")) == expected


def test_a_loop_of_links_is_no_crash(folder):
    found = presence(Record("a text", image="loop.jpg", image_folder=str(folder)))
    assert found not in (Presence.FOUND, Presence.NONE)


def test_an_image_in_memory_is_there(noise):
    assert presence(Record("a text", image=noise(8, 8))) is Presence.FOUND


def test_hashes(tmp_path, noise):
    image = noise(64, 48, seed=1)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "copy.png")
    image.resize((32, 24)).convert("RGBA").save(tmp_path / "small.png")
    noise(64, 48, seed=2).save(tmp_path / "other.png")
    Image.new("RGB", (20, 20), "white").save(tmp_path / "flat.png")
    found = {path.stem: hashes(path) for path in tmp_path.iterdir()}
    assert found["a"] == found["copy"]
    assert found["a"].content != found["small"].content
    assert found["flat"].difference is None
    structured = {name: item.difference for name, item in found.items() if name in ("a", "small", "other")}
    assert [set(pair[:2]) for pair in near_images(structured)] == [{"a", "small"}]


def test_no_image(tmp_path):
    (tmp_path / "a.jpg").write_text("not an image")
    with pytest.raises(UmieError, match=r"a\.jpg: not a readable image"):
        hashes(tmp_path / "a.jpg")


@st.composite
def families(draw):
    """Draw hashes of which many differ in only a few bits."""
    found = {}
    for number in range(draw(st.integers(0, 6))):
        base = draw(st.integers(0, 2**64 - 1))
        found[f"{number}"] = base
        for flips in draw(st.lists(st.sets(st.integers(0, 63), max_size=5), max_size=3)):
            found[f"{number}-{sorted(flips)}"] = base ^ sum(1 << bit for bit in flips)
    return found


@given(families(), st.integers(0, 3))
def test_near_images_are_exact(found, distance):
    names = list(found)
    expected = {
        frozenset((left, right)): (found[left] ^ found[right]).bit_count()
        for place, right in enumerate(names)
        for left in names[:place]
        if (found[left] ^ found[right]).bit_count() <= distance
    }
    pairs = list(near_images(found, distance))
    assert {frozenset(pair[:2]): pair[2] for pair in pairs} == expected
    assert len(pairs) == len(expected)  # each once


def test_a_distance_that_bands_cannot_find():
    with pytest.raises(UmieError, match="distance is 4: use 0 to 3"):
        list(near_images({}, 4))
