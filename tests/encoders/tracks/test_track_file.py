"""`file` of tracks: JSON and MOT, what is dropped or clipped, and errors that name the line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from umie.data.clips import save_clip
from umie.encoders.tracks import AnnotationError, registry
from umie.errors import UmieError
from umie.media import Clip, open_clip
from umie.records import Track

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
EXPECTED = [Track((0, 0.25, 0.5), (LEFT, None, RIGHT), "dog")]
ONE = {"times": [0, 0.25, 0.5], "boxes": [LEFT, None, RIGHT], "label": "dog"}


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A clip of 1 second, 80 x 40 pixels."""
    path = tmp_path_factory.mktemp("videos") / "1.png"
    frames = tuple(Image.new("RGB", (80, 40), (30 * number,) * 3) for number in range(8))
    save_clip(Clip(frames, tuple(number / 8 for number in range(8)), 1), path)
    return path


FORMS = {
    "all.json": json.dumps({"1.png": [ONE]}),
    "all.jsonl": json.dumps({"video": "1.png", "tracks": [ONE]}) + "\n" + json.dumps({"video": "2", "tracks": []}),
    "own.jsonl": json.dumps({"video": "1.png", **ONE}),
    "folder/1.json": json.dumps([ONE]),
}


def build(folder, name, content, **options):
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(content)
    return registry.build("file", path=str(folder / name.split("/")[0] if "/" in name else path), **options)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_alike(tmp_path, video, name):
    assert build(tmp_path, name, FORMS[name]).propose(video) == EXPECTED


def test_boxes_in_pixels(tmp_path, video):
    boxes = [[0, 0, 40, 40], None, [40, 0, 80.4, 40]]
    proposer = build(tmp_path, "all.json", json.dumps({"1": [{**ONE, "boxes": boxes}]}), boxes="absolute")
    assert proposer.propose(video) == EXPECTED
    assert proposer.num_clipped == 0


MOT = "1,7,1,1,40,40,1,-1,-1,-1\n3, 7, 41, 1, 40, 40, 1\n\n2,3,11,11,20,20,-1,-1,-1,-1\n1,9,1,1,9,9,0,1,1\n"


@pytest.mark.parametrize("name", ["folder/1.txt", "folder/1/gt/gt.txt"])
def test_files_of_the_mot_challenge(tmp_path, video, name):
    """Pixels and frames count from 1, and lines of confidence 0 are not to be used."""
    found = build(tmp_path, name, MOT, frame_rate=4).propose(video)
    assert found == [Track((0, 0.5), (LEFT, RIGHT)), Track((0.25,), ((0.125, 0.25, 0.375, 0.75),))]


def test_frames_in_a_folder_have_the_times_at_which_encoders_read_them(tmp_path):
    frames = tmp_path / "1"
    frames.mkdir()
    for number in range(3):
        Image.new("RGB", (80, 40), (90 * number,) * 3).save(frames / f"{number}.png")
    found = build(tmp_path, "folder/1.txt", MOT).propose(frames)
    assert [track.times for track in found] == [(0, 0.08), (0.04,)]
    assert {time for track in found for time in track.times} == set(open_clip(frames, 3).times)
    with pytest.raises(
        AnnotationError, match="1: frame_rate is 30, but a folder of frames is read at 25 frames per sec"
    ):
        build(tmp_path, "folder/1.txt", MOT, frame_rate=30).propose(frames)


def test_what_cannot_be_a_track_is_dropped_or_clipped_and_counted(tmp_path, video):
    tracks = [
        {"times": [0, 0.5, 7], "boxes": [[-1, 0, 0.5, 1], [0.5, 0, 2, 1], LEFT]},
        {"times": [0, 0.5], "boxes": [[2, 2, 3, 3], LEFT]},
        {"times": [0], "boxes": [[2, 2, 3, 3]]},
        {"times": [5], "boxes": [LEFT]},
        {"times": [0.5, 0], "boxes": [LEFT, LEFT]},
        {"times": [0], "boxes": [[0, 0, float("nan"), 1]]},
        {"times": [0], "boxes": [[0.5, 0, 0.5, 1]]},
    ]
    proposer = build(tmp_path, "all.json", json.dumps({"1": tracks}))
    assert proposer.propose(video) == [Track((0, 0.5), (LEFT, RIGHT)), Track((0, 0.5), (None, LEFT))]
    assert proposer.num_clipped == 2
    assert proposer.counts == {
        "tracks outside the video": 3,
        "tracks whose times do not ascend": 1,
        "tracks with boxes or times that are not finite": 1,
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "f/1.json",
            '[{"times": [0], "boxes": []}]',
            "expected times and boxes, two lists of the same length",
        ),
        ("f/1.json", '[{"times": [], "boxes": []}]', "track 1: expected times and boxes"),
        (
            "f/1.json",
            '[{"times": [0], "boxes": [[1, 2]]}]',
            "box is [1, 2]: expected [x1, y1, x2, y2] or null",
        ),
        ("f/1.json", '[{"times": ["a"], "boxes": [null]}]', "track 1: time is 'a': expected a number"),
        ("f/1.txt", "1,1,1,1\n", "1.txt:1: '1,1,1,1' has 4 columns: expected frame,id,left,top,width,height"),
        ("f/1.txt", "1,1,1,1,9,9\n1,1,1,1,9,9\n", "1.txt:2: id 1 has two boxes in frame 1"),
        ("f/1.txt", "0,1,1,1,9,9\n", "1.txt:1: frame is 0: frames count from 1"),
        ("f/1.txt", "nan,1,1,1,9,9\n", "1.txt:1: frame is nan: frames count from 1"),
        ("f/1.txt", "a,1,1,1,9,9\n", "1.txt:1: a column is 'a': expected a number"),
    ],
)
def test_bad_annotations(tmp_path, video, name, content, message):
    with pytest.raises(AnnotationError) as caught:
        build(tmp_path, name, content).propose(video)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_options(tmp_path):
    with pytest.raises(UmieError, match=r"MOT files name no video; use the directory of <video>\.txt, or JSON"):
        build(tmp_path, "gt.txt", MOT)
    with pytest.raises(UmieError, match="boxes is 'xywh': use one of relative, absolute"):
        build(tmp_path, "all.json", "{}", boxes="xywh")
    with pytest.raises(UmieError, match="frame_rate is 0"):
        build(tmp_path, "all.json", "{}", frame_rate=0)


CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.text('.eE-0123456789\n, {}[]:"nulxboestim', max_size=60).map(str.encode),
    st.lists(st.lists(st.integers(-2, 50).map(str), min_size=6, max_size=7).map(",".join), max_size=4).map(
        lambda lines: "\n".join(lines).encode()
    ),
)


@given(CONTENTS, st.sampled_from([".txt", ".json"]))
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, video, content, suffix):
    folder = tmp_path_factory.mktemp("any")
    (folder / f"1{suffix}").write_bytes(content)
    try:
        found = registry.build("file", path=str(folder)).propose(video)
    except AnnotationError as error:
        assert "\n" not in str(error)
    else:
        assert all(0 <= track.interval[0] <= track.interval[1] < 1 for track in found)
