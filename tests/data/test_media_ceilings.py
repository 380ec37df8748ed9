"""The bounds of F1 in the embedded media set: what an ideal observer of some media reaches, and no more."""

import itertools
import re

import numpy as np
import pytest

from umie.data.media_contents import EVENT_MOTIONS, EVENT_SOUNDS, LABELS, NAME_SIGNS, PAIR_SIGNS, VERBS
from umie.data.synthetic import EVENT_TRIGGERS, NAME_CUES, PAIR_CUES
from umie.data.synthetic_media import (
    COMBINATIONS,
    MEDIUM_OF,
    SyntheticMediaConfig,
    ceilings,
    scenes,
    tasks_of,
    text_only_ceilings,
)
from umie.records import NO_RELATION, Places
from umie.records.places import NOWHERE, PLACES
from umie.scoring.resampling import bootstrap_sums
from umie.scoring.score_sheet import f1_of_sums

NAME = re.compile(r"\b[A-Z][a-z]{3} [A-Z][a-z]{3}\b")


@pytest.fixture(scope="module")
def sample():
    """Return a big sample of all combinations."""
    return list(scenes(SyntheticMediaConfig(train=600), "train"))


# What an ideal observer of some media may answer: items that are certain, and guesses, by kind.


def observed(scene, task, seen, grounded):
    """Return the items of each kind that an observer of the text and of the ``seen`` media may predict."""
    record = scene.record
    media = [medium for medium in record.media if medium in seen]
    hidden = [medium for medium in record.media if medium not in seen]
    verb = next((medium for medium, verb in VERBS.items() if record.text.startswith(f"{verb} : ")), None)
    if task == "meae":
        return observed_arguments(scene, verb, media, grounded)
    if task == "mre":
        return observed_pair(scene, verb, media, hidden, grounded)
    if record.text and verb is None:
        cues = NAME_CUES if task == "mner" else EVENT_TRIGGERS
        return {
            "known": {
                (label, NOWHERE)
                for label in LABELS[task]
                if any(cue.split(" {")[0] in record.text for cue in cues[label])
            }
        }
    where = [verb] if verb else list(record.media)
    signs = NAME_SIGNS
    if task == "med":
        where = ["audio"] if "audio" in record.media else ["video"]
        signs = {"audio": EVENT_SOUNDS, "video": EVENT_MOTIONS}
    for medium in set(where) & set(media):
        for label, sign in signs[medium].items():
            if sign in scene.shows[medium]:
                place = at(scene, medium, sign) if grounded and (task, medium) != ("med", "video") else NOWHERE
                return {"known": {(label, place)}}
    possible = [
        Places(**{PLACES[medium]: (index,)})
        for medium in set(where) & set(hidden)
        for index in range(len(record.places(medium)))
    ]
    if not grounded or (task == "med" and where == ["video"]):
        possible = [NOWHERE]
    return {"guess": set(itertools.product(LABELS[task], possible))}


def at(scene, medium, what):
    return Places(**{PLACES[medium]: (scene.shows[medium].index(what),)})


def observed_pair(scene, verb, media, hidden, grounded):
    record = scene.record
    people = next((medium for medium in record.media if "first" in scene.shows[medium]), None)  # as the query says
    wording = record.text
    for number, name in enumerate(NAME.findall(wording)):
        wording = wording.replace(name, f"{{{number}}}")
    if record.text and verb is None:
        return {"known": {(label, NOWHERE, NOWHERE) for label in LABELS["mre"] if wording in PAIR_CUES[label]}}
    decider = verb
    if not record.text:
        decider = people if len(record.media) == 1 else next(medium for medium in record.media if medium != people)
    if decider in hidden:
        ends = [(NOWHERE, NOWHERE)]
        if grounded and record.text:
            places = [Places(**{PLACES[decider]: (index,)}) for index in range(4)]
            ends = list(itertools.permutations(places, 2))
        return {"guess": {(label, *pair) for label in LABELS["mre"] for pair in ends}}
    ends = [NOWHERE, NOWHERE]
    if grounded and record.text:
        ends = [at(scene, decider, "first"), at(scene, decider, "second")]
        named = [match.span() for match in NAME.finditer(record.text)]
        first = named[0 if re.search(r"left|before", wording) else 1]
        if record.relations[0].head != first:  # as the query says
            ends.reverse()
    shown = [label for label, sign in PAIR_SIGNS[decider].items() if sign in scene.shows[decider]]
    return {"known": {((shown or [NO_RELATION])[0], *ends)}}


def observed_arguments(scene, verb, media, grounded):
    record = scene.record
    names = [match.span() for match in NAME.finditer(record.text)]
    tracks = [Places(tracks=(index,)) for index in range(3)]
    if record.text and verb is None:
        text = record.text.lower()
        agent, target = names if text.index("by ") < text.index("against ") else reversed(names)
        return {"known": {("Agent", agent, NOWHERE), ("Target", target, NOWHERE)}}
    thing = scene.shows["video"].index("object")
    if "video" not in media:
        shown = tracks if grounded or not names else [NOWHERE]
        agents = {("Agent", name, place) for name in names or [None] for place in shown}
        return {"agent": agents, "target": {("Target", None, track) for track in tracks}}
    acting = next(index for index, what in enumerate(scene.shows["video"]) if what not in ("drift", "object"))
    name = names[0] if names else None
    place = tracks[acting] if grounded or name is None else NOWHERE
    return {"known": {("Agent", name, place), ("Target", None, tracks[thing])}}


def annotated(scene, task, grounded):
    """Return the annotated items in the form of ``observed``."""
    record = scene.record
    if task == "mner":
        return {(one.type, one.places if grounded else NOWHERE) for one in record.entities}
    if task == "med":
        return {(one.type, one.places if grounded else NOWHERE) for one in record.events}
    if task == "mre":
        (one,) = record.relations
        counts = grounded and one.head is not None
        ends = (one.head_places, one.tail_places) if counts else (NOWHERE, NOWHERE)
        return {(one.type, *ends)} if one.type != NO_RELATION else set()
    (event,) = record.events
    return {(one.role, one.span, one.places if grounded or one.span is None else NOWHERE) for one in event.arguments}


CASES = [
    (combination, task, seen)
    for combination, known in ceilings(SyntheticMediaConfig()).items()
    for task, by_sight in known.items()
    for seen in by_sight
]


@pytest.mark.parametrize(("combination", "task", "seen"), CASES)
@pytest.mark.slow
def test_the_best_rule_of_partial_sight_reaches_the_ceiling(sample, combination, task, seen):
    media = [MEDIUM_OF[letter] for letter in seen.split("+") if letter in MEDIUM_OF]
    found = [one for one in sample if one.record.combination == combination and one.record.annotated_for(task)]
    for grounded, ceiling in zip((False, True), ceilings(SyntheticMediaConfig())[combination][task][seen], strict=True):
        rows = []
        for scene in found:
            gold = annotated(scene, task, grounded)
            kinds = observed(scene, task, media, grounded)
            kinds = {kind: {item for item in own if item[0] != NO_RELATION} for kind, own in kinds.items()}
            rows.append((kinds, gold))
        best, error = 0.0, 0.0
        for chosen in itertools.product((False, True), repeat=3):
            allowed = {kind for kind, use in zip(("guess", "agent", "target"), chosen, strict=True) if use} | {"known"}
            counts = []
            for kinds, gold in rows:
                predicted = {item for kind, own in kinds.items() if kind in allowed for item in own}
                counts.append([len(predicted & gold), len(predicted), len(gold)])
            counts = np.array(counts, dtype=float)
            right, predicted, gold = counts.sum(0)
            score = 2 * right / (predicted + gold)
            if score >= best:
                best = score
                error = f1_of_sums(bootstrap_sums(counts[:, None], 200, 0)).std()
        if ceiling == 1:
            assert best == 1
        else:
            assert error < 0.05
            assert abs(best - ceiling) < 3.5 * error + 0.01


def test_the_declared_ceilings():
    known = ceilings(SyntheticMediaConfig())
    assert {name: set(known[name]) for name in known} == {name: set(tasks_of(name)) for name in COMBINATIONS}
    assert known["T+I"]["mner"]["T"] == pytest.approx((0.551, 0.551), abs=1e-3)
    assert known["T+I+A"]["mre"]["T+A"] == pytest.approx((0.817, 0.817), abs=1e-3)
    assert known["I"]["mner"][""] == pytest.approx((0.4, 2 / 17))
    assert known["I+A"]["mner"][""] == pytest.approx((0.4, 2 / 33))
    assert known["I+A"]["mner"]["A"] == pytest.approx((2 / 3, 2 / 3))
    assert known["A+V"]["med"]["V"] == pytest.approx((0.4, 2 / 17))
    assert known["T+V"]["meae"]["T"] == pytest.approx((0.817, 0.617), abs=1e-3)
    assert all(score == (1, 1) for name in known for own in known[name].values() for score in [own[name]])
    one = SyntheticMediaConfig(combinations=("T+I",))
    assert text_only_ceilings(one) == {task: known["T+I"][task]["T"] for task in ("mner", "mre")}
    assert text_only_ceilings(SyntheticMediaConfig()).keys() == set(LABELS)
