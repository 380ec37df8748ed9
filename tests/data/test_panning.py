"""umie data pan: the boxes of tracks are those of the regions' pixels in every frame."""

import json
import random
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from umie.data.media_folder import copy_media
from umie.data.panning import draw_views, film, pan_records, tracks_of
from umie.errors import UmieError
from umie.media import open_clip
from umie.records import Argument, Entity, Event, Places, Record, Region, Relation, read_jsonl, write_jsonl

COLORS = {"red": (255, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 255)}
BOXES = {"red": (0.0, 0.0, 0.2, 0.15), "green": (0.35, 0.4, 0.7, 0.6), "blue": (0.9, 0.75, 1.0, 1.0)}


def draw(width, height, boxes=BOXES):
    """Return an image with a rectangle of each color on white, whose edges are whole pixels."""
    image = Image.new("RGB", (width, height), "white")
    for color, (x1, y1, x2, y2) in boxes.items():
        edges = (round(x1 * width), round(y1 * height), round(x2 * width) - 1, round(y2 * height) - 1)
        ImageDraw.Draw(image).rectangle(edges, COLORS[color])
    return image


def visible(frame, color):
    """Return the edges, in pixels, of what is nearer to a color than to the others; None if nothing is."""
    palette = np.array([*COLORS.values(), (255, 255, 255)])
    distances = np.abs(np.asarray(frame, int)[:, :, None] - palette).sum(-1)
    near = distances.argmin(-1) == list(COLORS).index(color)
    rows, columns = near.any(1).nonzero()[0], near.any(0).nonzero()[0]
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None


def check(clip, tracks):
    """Return how many boxes are seen and not seen; fail unless they are those of the pixels, within one."""
    seen = hidden = 0
    for color, track in zip(BOXES, tracks, strict=True):
        assert track.times == clip.times
        for frame, box in zip(clip.frames, track.boxes, strict=True):
            found = visible(frame, color)
            if box is None:
                assert found is None
                hidden += 1
                continue
            edges = [edge * side for edge, side in zip(box, frame.size * 2, strict=True)]
            if found is None:  # a sliver at the border
                assert min(edges[2] - edges[0], edges[3] - edges[1]) <= 1
                continue
            seen += 1
            assert np.abs(np.subtract(edges, found)).max() <= 1
    return seen, hidden


@pytest.mark.parametrize("size", [60, 240, 1000], ids=["smaller", "as large", "larger"])
def test_boxes_are_those_of_the_pixels(size):
    image = draw(240, 160)
    total = np.zeros(2, int)
    for seed in range(5):
        views = draw_views(random.Random(seed), 8)
        clip = film(image, views, size)
        assert max(clip.frames[0].size) == min(size, 240)
        total += check(clip, tracks_of([Region(box) for box in BOXES.values()], views))
    assert total.min() > 15  # boxes leave the view, and others stay


@given(st.integers(0, 10**6), st.integers(2, 20), st.lists(st.floats(0, 1), min_size=4, max_size=4, unique=True))
def test_any_region_has_a_track_that_sees_it_whole(seed, frames, edges):
    x1, x2, y1, y2 = *sorted(edges[:2]), *sorted(edges[2:])
    views = draw_views(random.Random(seed), frames)
    (track,) = tracks_of([Region((x1, y1, x2, y2), "dog")], views)
    assert len(track.boxes) == len(set(views)) == frames
    assert (x1, y1, x2, y2) in (track.boxes[0], track.boxes[-1])
    assert track.label == "dog"
    for x1, y1, x2, y2 in views:
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1
        assert x2 - x1 == pytest.approx(y2 - y1)  # the camera does not distort


def records():
    regions = tuple(Region(box, color) for color, box in BOXES.items())
    events = (Event("see", (0, 3), (Argument("Agent", (7, 10)), Argument("Thing", regions=(2,))), regions=(1,)),)
    ends = Places(regions=(0,)), Places(regions=(1, 2))
    return [
        Record(
            "Ann and Bob", id="a", image="1.png", regions=regions, events=events,
            entities=(Entity("person", (0, 3), regions=(0, 2)), Entity("person", (8, 11)), Entity("dog", regions=(1,))),
            relations=(Relation("peer", (0, 3), (8, 11), *ends),),
        ),
        Record("in Rome", id="b", entities=(Entity("location", (3, 7)),)),
        Record("", id="c", image="1.png", regions=regions[:1]),
    ]  # fmt: skip


@pytest.fixture
def stills(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(240, 160).save(tmp_path / "1.png")
    write_jsonl("train.jsonl", records())
    return tmp_path


def test_what_refers_to_a_region_refers_to_its_track(umie, stills):
    code, out, err = umie("data", "pan", "train.jsonl", "-o", "new", "--frames", "5", "--size", "120")
    assert (code, out, err) == (0, "3 records, 4 tracks in new/train.jsonl\n", "")
    one, text, last = read_jsonl("new/train.jsonl")
    assert (one.combination, text.combination, last.combination) == ("T+V", "T", "V")
    assert (one.video, one.image, one.regions, last.video) == ("train/1.apng", None, (), "train/3.apng")
    assert [track.label for track in one.tracks] == list(BOXES)
    assert [entity.places for entity in one.entities] == [Places(tracks=(0, 2)), Places(), Places(tracks=(1,))]
    (peer,), (see,) = one.relations, one.events
    assert (peer.head_places, peer.tail_places) == (Places(tracks=(0,)), Places(tracks=(1, 2)))
    assert (see.tracks, [argument.tracks for argument in see.arguments]) == ((1,), [(), (2,)])
    clip = open_clip(one.path("video"), 99)
    assert (len(clip.frames), clip.frames[0].size) == (5, (120, 80))
    assert check(clip, one.tracks)[0] > 5
    assert open_clip(last.path("video"), 99).times == last.tracks[0].times
    assert umie("data", "validate", "new/train.jsonl")[0] == 0


def test_the_same_seed_gives_the_same_clips(stills):
    def clips(seed):
        made = list(pan_records(read_jsonl("train.jsonl"), stills / f"o{seed}", "x", seed=seed))
        return [record.tracks for record in made], [record.path("video").read_bytes() for record in made[::2]]

    assert clips(1) == clips(1)
    assert clips(1) != clips(2)
    without = list(pan_records(list(read_jsonl("train.jsonl"))[:1], stills / "one", "x", seed=1))
    assert without[0].tracks == clips(1)[0][0]


def test_shuffled_regions_are_shuffled_tracks(umie, stills):
    assert umie("data", "pan", "train.jsonl", "-o", "new", "--shuffle-regions", "--seed", "2")[0] == 0
    record = next(read_jsonl("new/train.jsonl"))
    labels = [track.label for track in record.tracks]
    assert sorted(labels) == sorted(BOXES)
    assert labels != list(BOXES)
    assert [{labels[track] for track in entity.tracks} for entity in record.entities] == [
        {"red", "blue"}, set(), {"green"}
    ]  # fmt: skip


def test_an_image_as_it_is_displayed(stills):
    """EXIF turns the stored image; boxes are those of the displayed one."""
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(240, 160).rotate(90, expand=True).save("1.png", exif=exif)
    made = next(pan_records(read_jsonl("train.jsonl"), stills / "o", "x"))
    assert check(open_clip(made.path("video"), 99), made.tracks)[0] > 5


def test_sounds_are_copied(stills):
    (stills / "a").mkdir()
    (stills / "a" / "1.wav").write_bytes(b"a sound")
    record = Record("Ann", image="1.png", audio="a/1.wav", image_folder=str(stills))
    (made,) = pan_records([record], stills / "o", "x")
    assert made.path("audio") == (stills / "o" / "a" / "1.wav").resolve()
    assert made.path("audio").read_bytes() == b"a sound"


@pytest.mark.parametrize(
    ("line", "arguments", "message"),
    [
        ('{"text": "Ann", "image": "1.png", "video": "1.gif", "id": "7"}', [], "record 7: has a video, 1.gif"),
        (
            '{"text": "Ann", "image": "1.png", "gold": {}, "id": "7"}',
            [],
            "record 7: its places are proposed (it has gold): use pan before proposing places",
        ),
        ('{"text": "Ann", "image": "no.png", "id": "7"}', [], "no.png: no such image"),
        ('{"text": "Ann", "image": "../1.png", "id": "7"}', [], "record 7: "),
        ('{"text": "Ann"}', [], "no record has an image"),
        ('{"text": "Ann", "image": "1.png"}', ["--output", "."], "d.jsonl: is the input"),
    ],
)
def test_bad_input_is_one_line(umie, stills, line, arguments, message):
    (stills / "d.jsonl").write_text(line + "\n")
    code, out, err = umie("data", "pan", "d.jsonl", *(arguments or ["--output", "o"]))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not (stills / "o").exists()


def test_a_failed_command_leaves_what_was_there(umie, stills):
    """The second record cannot be read: the clip of the first, and the copy of its sound, are removed."""
    (stills / "a.wav").write_bytes(b"a sound")
    good, bad = {"text": "Ann", "image": "1.png", "audio": "a.wav"}, {"text": "Bob", "image": "no.png"}
    (stills / "d.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    assert umie("data", "pan", "d.jsonl", "-o", "deep/o")[0] == 2
    assert not (stills / "deep").exists()
    assert umie("data", "pan", "train.jsonl", "-o", "o")[0] == 0
    shutil.copy("train.jsonl", "kept.jsonl")
    before = {path: path.read_bytes() for path in (stills / "o").rglob("*") if path.is_file()}
    assert umie("data", "pan", "d.jsonl", "-o", "o")[0] == 2
    (stills / "train.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    code, out, err = umie("data", "pan", "train.jsonl", "-o", "o")
    assert (code, out) == (2, "")
    assert err == "umie: o/train.jsonl: exists: use another --output, or --overwrite to replace it\n"
    assert umie("data", "pan", "train.jsonl", "-o", "o", "--overwrite")[0] == 2
    assert {path: path.read_bytes() for path in (stills / "o").rglob("*") if path.is_file()} == before
    shutil.copy("kept.jsonl", "train.jsonl")
    assert umie("data", "pan", "train.jsonl", "-o", "o", "--overwrite", "--seed", "3")[0] == 0
    changed = {path: path.read_bytes() for path in (stills / "o").rglob("*") if path.is_file()}
    assert changed.keys() == before.keys()
    assert changed != before


def test_a_clip_shows_one_image(tmp_path, noise):
    noise(8, 8).save(tmp_path / "a.png")
    several = Record("Ann", "a.png", more_images=("a.png",), image_folder=str(tmp_path), id="r")
    with pytest.raises(UmieError, match="record r: has 2 images"):
        list(pan_records([several], tmp_path / "out", "train"))


def test_all_images_of_a_record_are_copied(tmp_path, noise):
    for seed, name in enumerate(("a.png", "b.png")):
        noise(8, 8, seed).save(tmp_path / name)
    (tmp_path / "out").mkdir()
    record = Record("Ann", "a.png", more_images=("b.png",), image_folder=str(tmp_path))
    copy_media(record, record.media, tmp_path / "out", set())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_media_of_another_input_are_not_overwritten(tmp_path, noise):
    for seed, name in enumerate(("one", "same", "other")):
        (tmp_path / name / "video").mkdir(parents=True)
        noise(8, 8, seed if name == "other" else 0).save(tmp_path / name / "a.png")
        noise(8, 8).save(tmp_path / name / "video" / f"{seed // 2}.png")
    one, same, other = (
        Record("Ann", "a.png", video="video", image_folder=str(tmp_path / name)) for name in ("one", "same", "other")
    )
    copied = set()
    for record in (one, same):
        copy_media(record, record.media, tmp_path / "out", copied)
        copy_media(record, record.media, tmp_path / "out", set())
    before = (tmp_path / "out" / "a.png").read_bytes()
    for seen in (copied, set()):
        with pytest.raises(
            UmieError, match=r"out/a\.png: exists, and is not the same as .*other/a\.png: use another out"
        ):
            copy_media(other, ["image"], tmp_path / "out", seen)
    with pytest.raises(
        UmieError, match=r"out/video/0\.png: exists, and .*other/video has no such file: use another out"
    ):
        copy_media(other, ["video"], tmp_path / "out", set())  # its only frame is 1.png
    assert (tmp_path / "out" / "a.png").read_bytes() == before
    assert [path.name for path in (tmp_path / "out" / "video").iterdir()] == ["0.png"]
