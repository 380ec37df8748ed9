"""`words`: alignments as tools write them, joining, and TextGrids of any content."""

import json
import re
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.encoders.segments import AnnotationError, registry
from umie.encoders.segments.file import SegmentRow
from umie.encoders.segments.textgrid import _tokens, read_textgrid
from umie.encoders.segments.words import joined
from umie.errors import UmieError
from umie.media import Sound
from umie.records import Segment

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 3
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 0.9
            text = "new"
        intervals [3]:
            xmin = 0.9
            xmax = 1.5
            text = "york"
        intervals [4]:
            xmin = 2
            xmax = 2.5
            text = "the ""big"" one"
    item [2]:
        class = "TextTier"
        name = "bell"
        xmin = 0
        xmax = 3
        points: size = 1
        points [1]:
            number = 1
            mark = "ding"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 3
        intervals: size = 1
        intervals [1]:
            xmin = 0.5
            xmax = 0.6
            text = "n"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
3
<exists>
1
"IntervalTier"
"ann - words"
0
3
4
0
0.5
"sil"
0.5
0.9
"new"
0.9
1.5
"york"
2
2.5
"the ""big"" one"
"""
CSV = """Begin,End,Label,Type,Speaker
0.5,0.9,new,words,ann
0.9,1.5,york,words,ann
1.6,1.7,<eps>,words,ann
2.0,2.5,"the ""big"" one",words,ann
0.5,0.6,n,phones,ann
"""
WORDS = [
    {"word": " new", "start": 0.5, "end": 0.9, "probability": 0.9},
    {"word": " york", "start": 0.9, "end": 1.5, "score": 0.7},
    {"text": 'the "big" one', "start": 2, "end": 2.5, "confidence": 0.8},
]
WHISPER = {"text": "...", "language": "en", "segments": [{"id": 0, "words": WORDS[:2]}, {"id": 1, "words": WORDS[2:]}]}
FORMS = {
    "folder/1.TextGrid": LONG,
    "short/1.TextGrid": SHORT,
    "folder/1.csv": CSV,
    "folder/1.json": json.dumps(WHISPER),
    "words/1.json": json.dumps({"words": WORDS}),
    "list/1.json": json.dumps(WORDS),
    "folder/1.txt": '0.5\t0.9\tnew\n0.9\t1.5\tyork\n2\t2.5\tthe "big" one\n',
    "all.json": json.dumps({"1.wav": WHISPER, "2.wav": WORDS}),
    "all.jsonl": json.dumps({"audio": "1.wav", "words": WORDS}),
    "all.tsv": '1.wav\t0.5\t0.9\tnew\n1.wav\t0.9\t1.5\tyork\n1.wav\t2\t2.5\tthe "big" one\n',
}
EXPECTED = [Segment((0.5, 0.9), "new"), Segment((0.9, 1.5), "york"), Segment((2, 2.5), 'the "big" one')]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A file of 3 seconds."""
    from umie.data.sounds import save_sound

    path = tmp_path_factory.mktemp("sounds") / "1.wav"
    save_sound(Sound(np.full(12_000, 0.5, np.float32), 4_000), path)
    return path


def build(folder, name, content, encoding="utf-8", **options):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return registry.build("words", path=str(path.parent if "/" in name else path), **options)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_alike(tmp_path, sound, name):
    assert build(tmp_path, name, FORMS[name]).propose(sound) == EXPECTED
    phrases = build(tmp_path, name, FORMS[name], max_gap=0.2).propose(sound)
    assert phrases == [Segment((0.5, 1.5), "new york"), EXPECTED[2]]
    assert build(tmp_path, name, FORMS[name], max_gap=0.5).propose(sound) == [
        Segment((0.5, 2.5), 'new york the "big" one')
    ]


def test_tiers_and_encodings(tmp_path, sound):
    assert build(tmp_path, "a/1.TextGrid", LONG, tier="phones").propose(sound) == [Segment((0.5, 0.6), "n")]
    for encoding in ("utf-16", "utf-8-sig"):
        found = build(tmp_path, "b/1.TextGrid", LONG.replace("york", "yörk"), encoding).propose(sound)
        assert [one.label for one in found] == ["new", "yörk", 'the "big" one']
    with pytest.raises(AnnotationError, match=r"1\.TextGrid: has no tier 'syllables': set tier to one of \['phones'"):
        build(tmp_path, "a/1.TextGrid", LONG, tier="syllables").propose(sound)
    assert build(tmp_path, "c/1.csv", "start,end,word\n0.5,0.9,new\n\n").propose(sound) == EXPECTED[:1]


def test_words_without_times_are_dropped_and_counted(tmp_path, sound):
    words = [{"word": "20", "score": 0.5}, WORDS[0], {"word": "x", "start": 1, "end": None}, {**WORDS[1], "end": 0.9}]
    proposer = build(tmp_path, "all.json", json.dumps({"1": words}))
    assert proposer.propose(sound) == EXPECTED[:1]
    assert proposer.counts == {"segments with times that are not finite": 2, "segments without length": 1}
    joined_words = build(tmp_path, "all.json", json.dumps({"1": words}), max_gap=0).propose(sound)
    assert joined_words == [Segment((0.5, 0.9), "new york")]  # recognizers have words of no length, too


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f/1.TextGrid", "", "1.TextGrid: not a whole TextGrid: save it as a text file in Praat"),
        ("f/1.TextGrid", LONG[:300], "not a whole TextGrid"),
        ("f/1.TextGrid", LONG.replace("0.9", "later"), "not a whole TextGrid"),
        ("f/1.TextGrid", LONG.replace("size = 3", "size = 1e999"), "not a whole TextGrid"),
        ("f/1.TextGrid", LONG.replace('"TextGrid"', '"Pitch 1"'), "not a whole TextGrid"),
        ("f/1.TextGrid", '"' * 99_999, "not a whole TextGrid"),
        ("f/1.csv", "a,b\n1,2\n", "1.csv:1: 'a,b' has not the columns begin, end and label"),
        ("f/1.csv", "Begin,End,Label\n0,x,a\n", "1.csv:2: end is 'x': expected a number"),
        ("f/1.csv", "Begin,End,Label\n0,1\n", "1.csv:2: '0,1' has 2 columns"),
        ("f/1.csv", 'Begin,End,Label\n0,1,"a"b\n', "1.csv:2: '0,1,\"a\"b' is not CSV"),
        (
            "f/1.json",
            '{"segments": [{"text": "a"}]}',
            "a segment has no list of words: transcribe with word timestamps",
        ),
        ("f/1.json", '{"words": 3}', "1.json: segments is 3: expected a list"),
        ("f/1.json", '[{"start": 0, "end": 1}]', "1.json: segment 1: word is None: use a string"),
        ("f/1.json", '[{"word": "a", "start": "x", "end": 1}]', "start is 'x': expected a number"),
    ],
)
def test_bad_alignments(tmp_path, sound, name, content, message):
    with pytest.raises(AnnotationError) as caught:
        build(tmp_path, name, content).propose(sound)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"max_gap": -1}, {"max_gap": "1"}, {"max_gap": float("inf")}, {"tier": 3}])
def test_options(tmp_path, options):
    with pytest.raises(UmieError, match=f"{next(iter(options))} is "):
        build(tmp_path, "all.json", "{}", **options)


TIMES = st.floats(0, 9, allow_nan=False).map(lambda time: round(time, 3))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.dictionaries(TEXTS, st.lists(st.tuples(TIMES, TIMES, TEXTS), max_size=4), max_size=3), st.booleans())
def test_any_textgrid_is_read_back(tmp_path_factory, tiers, is_long):
    """Texts may contain what looks like numbers, names or other lines of the file."""
    say = (lambda name, value: f"    {name} = {value}") if is_long else (lambda name, value: value)

    def quoted(text):
        return '"' + text.replace('"', '""') + '"'

    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        say("xmin", "0"),
        say("xmax", "9"),
        "<exists>",
    ]
    lines.append(say("size", str(len(tiers))))
    for number, (name, rows) in enumerate(tiers.items(), start=1):
        lines += [f"item [{number}]:"] * is_long
        lines += [say("class", '"IntervalTier"'), say("name", quoted(name)), say("xmin", "0"), say("xmax", "9")]
        lines.append(say("intervals: size", str(len(rows))))
        for start, end, text in rows:
            lines += [say("xmin", str(start)), say("xmax", str(end)), say("text", quoted(text))]
    path = tmp_path_factory.mktemp("grid") / "1.TextGrid"
    path.write_bytes("\n".join(lines).encode())
    assert read_textgrid(path) == {name: rows for name, rows in tiers.items() if rows}


ROWS = st.builds(SegmentRow, TIMES, TIMES, st.sampled_from(["a", None]), st.floats(0, 1))


@given(st.lists(ROWS, max_size=6), st.floats(0, 2))
def test_joined_words_are_apart_and_nothing_is_lost(words, max_gap):
    found = joined(words, max_gap)
    assert sum((row.label or "").count("a") for row in found) == sum(word.label == "a" for word in words)
    for before, after in pairwise(found):
        assert after.start - before.end > max_gap
    for word in words:
        assert any(row.start <= word.start and word.end <= row.end for row in found)


def test_times_in_linear_time():
    """With a million characters or 50,000 words of one segment, quadratic time is minutes."""
    started = time.process_time()
    for text in ("1" * 10**6, "." + "1" * 10**6, "1." + "1" * 10**6, "1e" + "1" * 10**6):
        assert not list(_tokens(f"{text}x".encode()))
    words = [SegmentRow(float(number), number + 1.0, "a", 1.0) for number in range(50_000)]
    (row,) = joined(words, 0.5)
    assert (row.start, row.end) == (0, 50_000)
    assert time.process_time() - started < 5


@given(st.text("1.eE+-x \n", max_size=12))
def test_numbers_are_those_that_stand_free(text):
    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
    assert list(_tokens(text.encode())) == [float(part) for part in text.split() if number.fullmatch(part)]


CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.text('"<>.eE+-0123456789\n\t, wordstaendlbigp{}[]:', max_size=60).map(str.encode),
    st.builds(lambda cut, content: content.encode()[:cut], st.integers(0, 900), st.sampled_from([LONG, SHORT, CSV])),
)


@given(CONTENTS, st.sampled_from([".TextGrid", ".csv", ".txt", ".json"]), st.sampled_from([None, 0.5]))
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, sound, content, suffix, max_gap):
    folder = tmp_path_factory.mktemp("any")
    (folder / f"1{suffix}").write_bytes(content)
    try:
        found = registry.build("words", path=str(folder), max_gap=max_gap).propose(sound)
    except AnnotationError as error:
        assert "\n" not in str(error)
    else:
        assert all(0 <= segment.interval[0] < segment.interval[1] <= 3 for segment in found)
