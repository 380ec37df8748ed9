"""`vm2e2`: timed events of videos, with boxes of their arguments in key frames."""

import json
from pathlib import Path

import pytest

from umie import data
from umie.errors import UmieError
from umie.tasks import registry as tasks

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "vm2e2" / "records.jsonl"


def argument(role, *box):
    return {"role": role, "entity_type": "PER", "box_xywh": list(box), "coref": None}


def line(frames, **changes):
    event = {"type": "Conflict.Attack.DetonateExplode", "span_s": [1.5, 9], "key_frames": frames}
    return {"video": "a b.mp4", "id": "x1", "title": "A title", "text": " Told \n", "video_events": [event]} | changes


def written(path, *lines):
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


@pytest.fixture
def frames():
    one = [
        argument("Attacker", 64, 36, 64, 36),
        argument("BodyPart", 0, 0, 320, 180),
        argument("BodyPart", 0, 0, 32, 36),
    ]
    two = [argument("Attacker", -64, 180, 384, 360), argument(None, 1, 1, 1, 1)]
    return [{"t_s": 2, "arguments": one}, {"t_s": 4.5, "arguments": two}]


def test_an_event_has_a_time_and_its_arguments_are_tracks(tmp_path, frames):
    (record,) = data.read("vm2e2", written(tmp_path / "v.jsonl", line(frames)), images=tmp_path)
    assert (record.text, record.video, record.id, record.combination) == ("Told", "a b.mp4", "x1", "T+V")
    (event,) = record.events
    assert (event.type, event.trigger) == ("detonate explode", None)
    assert record.tracks[event.tracks[0]].interval == (1.5, 9.0)
    found = [(one.role, record.tracks[one.tracks[0]]) for one in event.arguments]
    attacker, first, second = [track for _, track in found]
    assert [role for role, _ in found] == ["attacker", "body part", "body part"]
    assert attacker.times == (2.0, 4.5)  # one box in each frame: the same one
    assert attacker.boxes == ((0.1, 0.1, 0.2, 0.2), (0.0, 0.5, 0.5, 1.0))  # what is outside is cut off
    assert first.times == second.times == (2.0,)  # two boxes in a frame
    assert {first.boxes[0], second.boxes[0]} == {(0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.05, 0.1)}
    answers = [query.answer for query in tasks.build("meae", grounded=True).queries(record)]
    assert answers == ["[attacker = V2] [body part = V3] [body part = V4]"]


def test_a_box_that_is_repeated_and_a_polygon(tmp_path):
    both = [argument("Agent", 64, 36, 64, 36), argument("Agent", 64, 36, 64, 36)]
    polygon = argument("Agent", 320, 0, 640, 90, 320, 180, 160, 90)
    path = written(tmp_path / "v.jsonl", line([{"t_s": 2, "arguments": both}, {"t_s": 3, "arguments": [polygon]}]))
    (record,) = data.read("vm2e2", path)
    (agent,) = record.events[0].arguments
    assert record.tracks[agent.tracks[0]].boxes == ((0.1, 0.1, 0.2, 0.2), (0.25, 0.0, 1.0, 0.5))


def test_options(tmp_path, frames):
    path = written(tmp_path / "v.jsonl", line(frames), line(frames, text="", id=None, video_events=[]))
    read = list(data.read("vm2e2", path, text="title", frame_size="1280x720"))
    assert [one.text for one in read] == ["A title"] * 2
    assert [one.id for one in read] == ["x1", "v:2"]
    assert read[0].video is None
    assert read[0].tracks[1].boxes[0] == (0.05, 0.05, 0.1, 0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": "../a.mp4"}, r"v.jsonl:1: .*video"),
        ({"video_events": [{"type": "A", "span_s": [1], "key_frames": []}]}, r"v.jsonl:1: event 0 .*span_s is \[1\]"),
        ({"video_events": [{"type": "A", "span_s": [3, 1], "key_frames": []}]}, r"v.jsonl:1: event 0 .*ascending"),
        ({"text": ["a"]}, r"v.jsonl:1: field 'text' of the line is \['a'\]: expected a string, or null"),
        ({"id": 3}, r"v.jsonl:1: field 'id' of the line is 3"),
        ({"video_events": [{"type": "A.", "span_s": [1, 2], "key_frames": []}]}, r"'A.' is no name of a type"),
        ({"video_events": {}}, r"v.jsonl:1: .*'video_events' of the line is \{\}: expected a list"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, changes, message):
    with pytest.raises(UmieError, match=message):
        list(data.read("vm2e2", written(tmp_path / "v.jsonl", line([], **changes)), images=tmp_path))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (argument("A", 1, 2, 3), r"box_xywh is \[1, 2, 3\]"),
        (argument(7, 1, 2, 3, 4), "role is 7"),
        ({"role": "A"}, "box_xywh"),
        (argument("A", 10**400, 2, 3, 4), "box_xywh is"),
    ],
)
def test_a_wrong_argument_is_named(tmp_path, argument, message):
    path = written(tmp_path / "v.jsonl", line([{"t_s": 2, "arguments": [argument]}]))
    place = r"v.jsonl:1: event 0 \(counted from 0\): key frame 0 \(counted from 0\)"
    with pytest.raises(UmieError, match=f"{place}: .*{message}"):
        list(data.read("vm2e2", path))


@pytest.mark.parametrize("time", [10, -1, 10**400, "2", None])
def test_a_key_frame_outside_its_event(tmp_path, time):
    path = written(tmp_path / "v.jsonl", line([{"t_s": time, "arguments": []}]))
    with pytest.raises(UmieError, match=r"key frame 0 .*: t_s is .*expected a second of the event, 1.5 to 9"):
        list(data.read("vm2e2", path))


def test_wrong_options(tmp_path, frames):
    path = written(tmp_path / "v.jsonl", line(frames))
    for options, message in (
        ({"frame_size": 640}, "frame_size is 640: use width and height in pixels, such as 640x360"),
        ({"text": "tokens"}, "text is 'tokens': use one of text, title"),
        ({"regions": tmp_path}, "leave regions out"),
    ):
        with pytest.raises(UmieError, match=message):
            list(data.read("vm2e2", path, **options))


@pytest.mark.skipif(not REAL.is_file(), reason="reads annotation that is not here")
def test_the_published_annotation(umie, tmp_path):
    errors = []
    read = list(data.read("vm2e2", REAL, on_error=errors.append))
    assert not errors
    assert len(read) == 700
    assert sum(len(one.events) for one in read) == 1460
    out = tmp_path / "same.jsonl"
    code, _, err = umie("data", "convert", "-i", str(REAL), "-f", "vm2e2", "-o", str(out))
    assert code == 0, err
    code, table, err = umie("evaluate", "--predictions", str(out), "--gold", str(REAL), "-f", "vm2e2")
    assert code == 0, err
    assert "grounded" in table
    assert " 0.9" not in table.split("baseline")[0]
