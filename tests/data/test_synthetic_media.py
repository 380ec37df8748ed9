"""The embedded media set: seeds, combinations, what decides, places and files."""

import itertools
import re
import resource
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from umie import tasks
from umie.data.media_contents import (
    EVENT_MOTIONS,
    LABELS,
    NAME_SIGNS,
    PAIR_FRAMES,
    PAIR_SIGNS,
    VERBS,
)
from umie.data.sounds import save_sound
from umie.data.synthetic_media import (
    COMBINATIONS,
    SyntheticMediaConfig,
    scenes,
    tasks_of,
    write_synthetic_media,
)
from umie.errors import UmieError
from umie.media import Sound, open_clip, open_sound
from umie.records import NO_RELATION, read_jsonl
from umie.records.places import MEDIA
from umie.types import SPLITS

NAME = re.compile(r"\b[A-Z][a-z]{3} [A-Z][a-z]{3}\b")
ALPHA = 1e-4  # of the tests of independence; the seeds are fixed, so that they pass or fail for good


@pytest.fixture(scope="module")
def sample():
    """Return a big sample of all combinations."""
    return list(scenes(SyntheticMediaConfig(train=320), "train"))


def of(sample, combination, task=None):
    return [
        scene
        for scene in sample
        if scene.record.combination == combination and (task is None or scene.record.annotated_for(task))
    ]


def content(scene):
    record = scene.record
    drawn = [] if scene.image is None else [scene.image.tobytes()]
    drawn += [] if scene.sound is None else [scene.sound.samples.tobytes()]
    drawn += [] if scene.clip is None else [frame.tobytes() for frame in scene.clip.frames]
    return record, tuple(drawn), scene.decides, scene.shows


def test_seeds():
    def draw(**options):
        return [content(scene) for scene in scenes(SyntheticMediaConfig(**{"dev": 4, **options}), "dev")]

    first = draw()
    assert len(first) == 4 * len(COMBINATIONS)
    assert draw() == first
    assert draw(dev=6)[: len(first)] == first
    assert draw(train=2) == first
    assert draw(combinations=("A", "T+V")) == [one for one in first if one[0].combination in ("A", "T+V")]
    assert not {drawn for _, drawn, *_ in draw(seed=1)} & {drawn for _, drawn, *_ in first}


def test_combinations_and_their_tasks_in_turn():
    found = [scene.record for scene in scenes(SyntheticMediaConfig(test=2), "test")]
    assert [record.combination for record in found] == [*COMBINATIONS] * 2
    assert [record.tasks for record in found[:9]] == [("mner",)] * 6 + [("med", "meae")] * 3
    assert [record.tasks for record in found[9:]] == [("mre",)] * 6 + [("med", "meae")] * 3
    assert len({record.id for record in found}) == 18
    for record in found:
        assert sorted([len(record.entities), len(record.relations), len(record.events)]) == [0, 0, 1]
        numbers = {"image": 4, "audio": 4, "video": 3}
        for medium in MEDIA:
            assert len(record.places(medium)) == (numbers[medium] if medium in record.media else 0)
        assert bool(NAME.search(record.text)) == ("T" in record.combination)


def test_splits_share_no_name():
    names = {
        split: {
            name
            for scene in scenes(SyntheticMediaConfig(**{split: 60}, combinations=("T+I", "T+A")), split)
            for name in NAME.findall(scene.record.text)
        }
        for split in SPLITS
    }
    assert min(map(len, names.values())) > 100
    assert not names["train"] & names["dev"]
    assert not names["train"] & names["test"]
    assert not names["dev"] & names["test"]


def test_labels_are_the_declared_ones_and_answers_are_read_back(sample):
    for name, labels in LABELS.items():
        task = tasks.registry.build(name, labels=labels, grounded=True)
        used = Counter()
        for scene in sample[:900]:
            record = scene.record
            if record.annotated_for(name):
                task.check(record)
                used.update(task.used_labels(record))
                for query in task.queries(record):
                    parsed = task.parse(query.answer, record, query.target)
                    assert parsed.dropped == 0
                    assert Counter(map(task.label_of, parsed)) == Counter(map(task.label_of, task.items(record)))
        assert set(used) == set(labels)
        if name != "meae":
            assert chisquare(list(used.values())).pvalue > ALPHA


def test_share_of_records_that_media_decide(sample):
    decided = [scene.decides for scene in sample if "T" in scene.record.combination]
    share = sum(one != ("text",) for one in decided) / len(decided)
    assert abs(share - 0.62) < 4 * (0.62 * 0.38 / len(decided)) ** 0.5
    for share in (0, 1):
        config = SyntheticMediaConfig(dev=10, media_share=share, combinations=("T+I+A", "T+V"))
        assert {scene.decides != ("text",) for scene in scenes(config, "dev")} == {bool(share)}


def test_only_the_deciding_medium_is_annotated(sample):
    """The verb names it, what it shows is the truth, and the annotation refers to no place in another one."""
    signs = {"mner": NAME_SIGNS, "mre": PAIR_SIGNS}
    for scene in sample:
        record = scene.record
        verbs = [medium for medium, verb in VERBS.items() if record.text.startswith(f"{verb} : ")]
        items = [*record.entities, *record.relations, *record.events]
        places = [place for item in items for place in places_in(item)]
        used = {medium for medium in MEDIA for place in places if place.of(medium)}
        if record.text:
            assert verbs == [one for one in scene.decides if one != "text"]
            assert used == set(verbs)
        elif record.tasks == ("mre",):
            assert len(used) == 1  # that of the people
        else:
            assert used == set(scene.decides)
        for medium, known in signs.get(record.tasks[0], {}).items():
            if medium in scene.decides:
                sign = known[items[0].type]
                assert [one for one in scene.shows[medium] if one in known.values()] == [sign] * (sign is not None)


def places_in(item):
    """Return the places of an item and of its parts."""
    if hasattr(item, "head_places"):
        return [item.head_places, item.tail_places]
    return [item.places, *(argument.places for argument in getattr(item, "arguments", ()))]


def test_places_of_images_hold_exactly_what_is_visible(sample):
    for scene in sample[:900]:
        if scene.image is None:
            continue
        visible = visible_in(scene.image)
        for region in scene.record.regions:
            check_box(visible, region.box)
        assert not visible.any()


def visible_in(image):
    """Return the pixels that are not background."""
    ground = max(image.getcolors(1 << 16))[1]
    return (np.asarray(image) != ground).any(-1)


def check_box(visible, box):
    """Check that what is visible in a box touches its edges and nothing around it, and clear it."""
    height, width = visible.shape
    x1, y1, x2, y2 = (round(edge * (width, height)[index % 2]) for index, edge in enumerate(box))
    inside = visible[y1:y2, x1:x2]
    assert inside.any(axis=0)[[0, -1]].all()
    assert inside.any(axis=1)[[0, -1]].all()
    around = visible[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1]
    assert around.sum() == inside.sum()
    inside[:] = False


def test_bodies_in_clips_never_touch_and_move_as_they_should(sample):
    for scene in sample[:360]:
        if scene.clip is None:
            continue
        record = scene.record
        assert scene.clip.times == record.tracks[0].times == tuple(number / 8 for number in range(8))
        assert all(one.tobytes() != other.tobytes() for one, other in itertools.pairwise(scene.clip.frames))
        for number, frame in enumerate(scene.clip.frames):
            visible = visible_in(frame)
            for track in record.tracks:
                check_box(visible, track.boxes[number])
            assert not visible.any()
        paths = [np.array(track.boxes)[:, :2] * (96, 72) for track in record.tracks]
        shows = scene.shows["video"]
        assert sorted(set(shows) - set(EVENT_MOTIONS.values())) == ["drift", "object"]
        people = [index for index, what in enumerate(shows) if what != "object"]
        sizes = {tuple(round(edge, 2) for edge in record.tracks[i].boxes[0][2:]) for i in people}
        assert len(sizes) <= 2
        thing = paths[shows.index("object")]
        for index in people:
            assert seen_motion(paths[index] - paths[index][0], thing[0] - paths[index][0]) == shows[index]


def seen_motion(steps, towards):
    """Return the motion of a path in pixels; ``towards`` is where the object is from its start."""
    widths, heights = np.ptp(steps, axis=0)
    if max(widths, heights) < 5:
        return "drift"
    if min(widths, heights) > 5:
        return "circle"
    if widths > heights:
        return "approach" if np.sign(steps[-1, 0]) == np.sign(towards[0]) else "away"
    return "leave" if np.all(np.diff(steps[:, 1]) > 0) else "jump"


def test_sounds_are_heard_all_through_their_segments_and_silence_is_between(sample):
    for scene in sample[:900]:
        if scene.sound is None:
            continue
        samples = scene.sound.samples.copy()
        assert scene.sound.seconds == 3
        loudest = np.abs(samples).max()
        intervals = sorted(segment.interval for segment in scene.record.segments)
        assert min(after[0] - before[1] for before, after in itertools.pairwise(intervals)) > 0.09
        for start, end in intervals:
            heard = samples[round(start * 4000) : round(end * 4000)]
            steps = heard[80:-80][: len(heard[80:-80]) // 160 * 160].reshape(-1, 160)  # 40 ms each, without the ramps
            assert np.sqrt((steps**2).mean(1)).min() > 0.04 * loudest
            heard[:] = 0
        assert not samples.any()


def test_timbres_are_told_apart(sample):
    """The nearest mean spectrum tells what a segment is."""
    spectra, timbres = [], []
    for scene in sample[:1800]:
        for segment, what in zip(scene.record.segments, scene.shows.get("audio", ()), strict=True):
            if what not in ("first", "second"):  # two voices, whose pitches are not told
                start, end = (round(time * 4000) for time in segment.interval)
                power = np.abs(np.fft.rfft(scene.sound.samples[start:end], 4096)[:2048]) ** 2
                spectra.append(np.log(power.reshape(32, 64).mean(1) / power.mean() + 1e-3))
                timbres.append(what)
    spectra, timbres = np.array(spectra), np.array(timbres)
    learned = np.arange(len(timbres)) % 2 == 0
    kinds = sorted(set(timbres))
    means = np.array([spectra[learned & (timbres == kind)].mean(0) for kind in kinds])
    nearest = ((spectra[~learned, None] - means) ** 2).sum(-1).argmin(1)
    assert len(kinds) == 8
    assert (np.array(kinds)[nearest] == timbres[~learned]).mean() > 0.98


def label_of(scene):
    return [*scene.record.entities, *scene.record.relations, *scene.record.events][0].type


def table(pairs):
    """Return the contingency table of pairs of values."""
    counts = Counter(pairs)
    rows, columns = (sorted({pair[side] for pair in counts}, key=str) for side in (0, 1))
    return [[counts[row, column] for column in columns] for row in rows]


def test_media_that_do_not_decide_are_independent_of_the_truth(sample):
    for task, signs in (("mner", NAME_SIGNS), ("mre", PAIR_SIGNS)):
        for medium in ("image", "audio"):
            labels = {sign: label for label, sign in signs[medium].items()}
            pairs = [
                (label_of(scene), next((labels[one] for one in scene.shows[medium] if one in labels), NO_RELATION))
                for scene in sample
                if scene.record.text and scene.record.annotated_for(task) and medium in scene.record.media
                and medium not in scene.decides
            ]  # fmt: skip
            found = table(pairs)
            assert len(found) == len(found[0]) == 4
            assert chi2_contingency(found).pvalue > ALPHA
    for combination in ("T+V", "A+V"):
        undecided = [one for one in of(sample, combination) if one.decides != ("video",)]
        motions = [next(what for what in one.shows["video"] if what in EVENT_MOTIONS.values()) for one in undecided]
        assert chi2_contingency(table(zip(map(label_of, undecided), motions, strict=True))).pvalue > ALPHA


def test_what_is_seen_first_says_nothing(sample):
    """Neither the wording of an open text, nor the index of a place, nor a side depends on the label."""
    for combination in COMBINATIONS:
        for task in tasks_of(combination):
            opened = [scene for scene in of(sample, combination, task) if scene.decides != ("text",)]
            if opened[0].record.text:
                wordings = [NAME.sub("_", scene.record.text) for scene in opened]
                assert chi2_contingency(table(zip(map(label_of, opened), wordings, strict=True))).pvalue > ALPHA
            for number in range(3 if task == "meae" else 1):
                names = [indices_of(scene)[number : number + 1] for scene in opened]
                pairs = [(label_of(scene), name[0]) for scene, name in zip(opened, names, strict=True) if name]
                if pairs:
                    assert chi2_contingency(table(pairs)).pvalue > ALPHA
                    assert chisquare([sum(column) for column in zip(*table(pairs), strict=True)]).pvalue > ALPHA


def indices_of(scene):
    """Return the index of every place that the annotation names."""
    items = [*scene.record.entities, *scene.record.relations, *scene.record.events]
    return [index for item in items for places in places_in(item) for index in itertools.chain(*places)]


def test_written_files(tmp_path):
    config = SyntheticMediaConfig(train=3, dev=2, test=0)
    files = write_synthetic_media(tmp_path, config)
    for split, file in files.items():
        expected = list(scenes(config, split))
        found = list(read_jsonl(file))
        assert found == [scene.record for scene in expected]
        for record, scene in zip(found, expected, strict=True):
            if scene.sound is not None:
                sound = open_sound(record.path("audio"))
                assert sound.rate == scene.sound.rate
                assert sound.samples.tobytes() == scene.sound.samples.tobytes()
            if scene.clip is not None:
                clip = open_clip(record.path("video"), 99)
                assert (clip.times, clip.seconds) == (scene.clip.times, scene.clip.seconds)
                assert [one.tobytes() for one in clip.frames] == [one.tobytes() for one in scene.clip.frames]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    write_synthetic_media(tmp_path, config)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize("combination", ["I", "A", "V"])
def test_a_medium_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path, combination):
    (scene,) = scenes(SyntheticMediaConfig(dev=1, combinations=[combination]), "dev")
    path = tmp_path / scene.record.of(*scene.record.media)[0]
    path.parent.mkdir()
    path.write_bytes(b"as it was")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            scene.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"as it was"
    assert list(path.parent.iterdir()) == [path]
    scene.save(tmp_path)
    assert path.stat().st_size > 100


def test_numbers_of_training_records_by_combination():
    config = SyntheticMediaConfig(
        train=2, dev=3, train_by_combination={"I+T": 5, "A": 0}, combinations=["T+I", "A", "V"]
    )
    usual = SyntheticMediaConfig(train=5, dev=3, combinations=["T+I", "A", "V"])
    records = [scene.record for scene in scenes(config, "train")]
    assert Counter(record.combination for record in records) == {"T+I": 5, "V": 2}
    assert {record.id: record for record in records}.items() <= {
        scene.record.id: scene.record for scene in scenes(usual, "train")
    }.items()
    assert [scene.record for scene in scenes(config, "dev")] == [scene.record for scene in scenes(usual, "dev")]


@pytest.mark.parametrize("share", [0, 0.75, 1])
@pytest.mark.slow
def test_the_first_of_two_people_is_the_head_or_the_agent_in_a_share_of_the_texts(share):
    config = SyntheticMediaConfig(first_share=share, train=400, combinations=["T+I", "T+A", "T+V"])
    heads, agents = [], []
    for scene in scenes(config, "train"):
        record = scene.record
        if record.relations and scene.decides != ("text",):
            (relation,) = record.relations
            (medium,) = record.media
            (head,), (tail,) = relation.head_places.of(medium), relation.tail_places.of(medium)
            heads.append(scene.shows[medium][head] == "first")
            assert {scene.shows[medium][place] for place in (head, tail)} == {"first", "second"}
            said = record.text.removeprefix(f"{VERBS[medium]} : ")
            for number, span in enumerate((relation.head, relation.tail)):
                said = said.replace(record.surface(span), f"{{{number if heads[-1] else 1 - number}}}")
            assert said in PAIR_FRAMES[medium]
        if record.events and scene.decides == ("text",):
            agent, target = record.events[0].arguments
            agents.append(agent.span < target.span)
    for found in (heads, agents):
        assert abs(np.mean(found) - share) < (0.1 if 0 < share < 1 else 1e-9)


def test_names_of_combinations_in_any_order():
    assert SyntheticMediaConfig(combinations=["V+A", "A+I+T", "A+V"]).combinations == ("A+V", "T+I+A")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": -1}, "train is -1"),
        ({"media_share": 1.5}, r"media_share is 1\.5"),
        ({"first_share": -0.5}, r"first_share is -0\.5"),
        ({"combinations": ["T"]}, "a combination is 'T': use one of T"),
        ({"combinations": ["I+V"]}, r"a combination is 'I\+V'"),
        ({"combinations": [3]}, "a combination is 3"),
        ({"combinations": []}, r"combinations is \[\]: use a list"),
        ({"combinations": "T+I"}, "combinations is 'T\\+I': use a list"),
        ({"train_by_combination": 5}, "train_by_combination is 5"),
        ({"train_by_combination": {"T+I": -5}}, r"train_by_combination: T\+I is -5"),
        ({"train_by_combination": {"T": 5}}, "a combination is 'T'"),
        ({"train_by_combination": {"A": 5}, "combinations": ["I"]}, "has A, but combinations does not"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UmieError, match=message):
        SyntheticMediaConfig(**options)


def test_the_loudest_samples_are_written_as_such(tmp_path):
    save_sound(Sound(np.array([1, -1, 0.5], dtype=np.float32), 8000), tmp_path / "a.wav")
    assert open_sound(tmp_path / "a.wav").samples.tolist() == [32767 / 32768, -1, 0.5]
