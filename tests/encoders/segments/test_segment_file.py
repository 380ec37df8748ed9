"""`file` of segments: every form of a file, what is dropped, and errors that name the line."""

import json

import numpy as np
import pytest

from umie.encoders.annotate import AnnotateStats, annotate
from umie.encoders.segments import AnnotationError, registry
from umie.errors import UmieError
from umie.media import Sound
from umie.records import Record, Segment

EXPECTED = [Segment((0.5, 1.0), "dog"), Segment((1.25, 2.0), "car horn")]
OBJECTS = [
    {"start": 1.25, "end": 2, "label": "car horn", "score": 0.5},
    {"interval": [0.5, 1], "label": "dog"},
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A file of 2 seconds."""
    from umie.data.sounds import save_sound

    path = tmp_path_factory.mktemp("sounds") / "1.wav"
    save_sound(Sound(np.full(8_000, 0.5, np.float32), 4_000), path)
    return path


FORMS = {
    "all.json": json.dumps({"1.wav": OBJECTS, "2.wav": []}),
    "all.jsonl": json.dumps({"audio": "1.wav", "segments": OBJECTS}),
    "stems.json": json.dumps({"1": OBJECTS}),
    "lines.jsonl": "\n".join(json.dumps({"audio": "a/1.wav", **item}) for item in OBJECTS) + "\n\n",
    "all.tsv": "filename\tonset\toffset\tevent_label\n1.wav\t1.25\t2\tcar horn\t0.5\n1.wav\t0.5\t1\tdog\n",
    "folder/1.json": json.dumps(OBJECTS),
    "folder/1.txt": "0.5\t1\tdog\n\\\t100\t200\n1.25\t2.0\tcar horn\n",
    "folder/1.tsv": "start\tend\tlabel\n0.5\t1\tdog\n1.25\t2.0\tcar horn\n",
}


def write(folder, name, content):
    """Write a file; return the path that the proposer gets."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path.parent if "/" in name else path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_alike(tmp_path, sound, name):
    found = registry.build("file", path=str(write(tmp_path, name, FORMS[name])))
    assert found.propose(sound) == EXPECTED
    assert found.propose(sound, None) == EXPECTED
    assert registry.build("file", path=found.config.path, top=1).propose(sound) in ([EXPECTED[0]], [EXPECTED[1]])


def test_what_cannot_be_a_segment_is_dropped_and_counted(tmp_path, sound):
    rows = [[-1, 0.5], [1, 2.02], [1.5, 9], [1, 1], [2, 1], [5, 6], [float("nan"), 1], [0, float("inf")], ["0.25", "1"]]
    path = write(tmp_path, "all.json", json.dumps({"1.wav": [{"interval": row} for row in rows]}))
    proposer = registry.build("file", path=str(path))
    found = [segment.interval for segment in proposer.propose(sound)]
    assert found == [(0, 0.5), (0.25, 1), (1, 2), (1.5, 2)]
    assert proposer.num_clipped == 2  # 2.02 is rounded
    assert proposer.counts == {
        "segments without length": 2,
        "segments outside the sound": 1,
        "segments with times that are not finite": 2,
    }
    assert proposer.num_found == len(rows)


def test_suppression(tmp_path, sound):
    rows = [
        {"interval": [0, 1], "score": 0.9},
        {"interval": [0, 0.9], "score": 0.8},
        {"interval": [0, 1], "score": 0.7},
    ]
    path = str(write(tmp_path, "all.json", json.dumps({"1.wav": rows})))
    assert len(registry.build("file", path=path).propose(sound)) == 2  # only duplicates are removed
    assert len(registry.build("file", path=path, nms=0.5).propose(sound)) == 1
    assert len(registry.build("file", path=path, min_score=0.85).propose(sound)) == 1


BAD = {
    "all.json": {
        "[]": "is []: expected an object, segments by file name",
        '{"1.wav": {}}': "'1.wav': segments is {}: expected a list of segments",
        '{"1.wav": [[0, 1]]}': "'1.wav': segment 1: is [0, 1]: expected a JSON object",
        '{"1.wav": [{"interval": [1]}]}': "interval is [1]: expected [start, end] in seconds",
        '{"1.wav": [{"start": 1}]}': "end is None: expected a number",
        '{"1.wav": [{"start": true, "end": 2}]}': "start is True: expected a number",
        '{"1.wav": [{"interval": [0, 1], "label": 3}]}': "label is 3: use a string",
        '{"1.wav": [{"interval": [0, 1], "score": "nan"}]}': "score is nan: use a finite number",
        '{"a/1.wav": [], "b/1.wav": []}': "'a/1.wav' and 'b/1.wav' have one file name: rename one",
        '{"1.wav": ': "expected a JSON file",
    },
    "all.jsonl": {
        '{"audio": "1.wav", "segments": []}\n[1]': "all.jsonl:2: is [1]: expected an object with audio, a file name",
        '{"segments": []}': "all.jsonl:1: is {'segments': []}: expected an object with audio",
    },
    "all.tsv": {
        "1.wav\t0\t1\n1.wav\t0": "all.tsv:2: '1.wav\\t0' has 2 columns: expected 3, separated by tabs",
        "1.wav\t0\t1\n1.wav\tzero\t1": "all.tsv:2: start is 'zero': expected a number",
    },
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, some in BAD.items() for content in some])
def test_a_bad_file_is_refused_when_it_is_read(tmp_path, name, content):
    path = write(tmp_path, name, content)
    with pytest.raises(UmieError) as caught:
        registry.build("file", path=str(path))
    assert BAD[name][content] in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_annotation_of_one_sound_is_one_of_that_sound(tmp_path, sound):
    folder = write(tmp_path, "folder/1.txt", "0\t1\n1")
    records = [Record("a", audio=name, image_folder=str(sound.parent)) for name in ("1.wav", "2.wav")]
    (folder / "2.json").write_text("[]")
    (sound.parent / "2.wav").write_bytes(sound.read_bytes())
    proposer = registry.build("file", path=str(folder))
    with pytest.raises(AnnotationError, match=r"1\.txt:2: '1' has 1 columns: expected 2"):
        proposer.propose(sound)
    stats = AnnotateStats()
    assert list(annotate(records, proposer, stats, missing_images="skip")) == records[1:]
    assert stats.unreadable == {"annotation": 1}


def test_other_names(tmp_path, sound):
    proposer = registry.build("file", path=str(write(tmp_path, "all.json", '{"9.wav": []}')))
    assert proposer.propose(sound) == []
    assert proposer.counts == {"sounds without annotation": 1}
    with pytest.raises(UmieError, match="has no annotation of any of the 1 sounds: it must name those of these"):
        proposer.check()
    with pytest.raises(UmieError, match="a sound in memory has no name to find its annotation by: pass its path"):
        proposer.propose(Sound(np.zeros(9, np.float32), 4_000))
    for path in (None, str(tmp_path / "none.json"), 3):
        with pytest.raises(UmieError, match="path is .*: use"):
            registry.build("file", path=path)
