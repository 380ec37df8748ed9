"""Proposed places of the embedded media set: recall, and records that have them in place of the annotated ones."""

from collections import Counter
from dataclasses import replace

import pytest

from umie import registries
from umie.data.synthetic_media import SyntheticMediaConfig, scenes
from umie.encoders.annotate import AnnotateStats, annotate
from umie.errors import UmieError
from umie.records import MEDIA, Region
from umie.records.overlap import nearest_places
from umie.scoring import Prediction, score_predictions, strict_score

PROPOSERS = {
    "image": (registries.region_proposers, "blobs", ("T+I", "I", "I+A")),
    "audio": (registries.segment_proposers, "energy", ("T+A", "A", "A+V")),
    "video": (registries.track_proposers, "blobs", ("V", "T+V")),
}
RECALL = {"image": 0.95, "audio": 0.95, "video": 0.90}


def drawn(combinations, number, seed=0):
    """Records with their media in memory: ``number`` of each combination."""
    for scene in scenes(SyntheticMediaConfig(seed=seed, test=number, combinations=combinations), "test"):
        media = {"image": scene.image, "audio": scene.sound, "video": scene.clip}
        yield replace(scene.record, **{medium: media[medium] for medium in scene.record.media})


def proposed(records):
    """Return the records with proposed places in all media, and the counts of each medium."""
    counts = {}
    for medium, (registry, name, _) in PROPOSERS.items():
        counts[medium] = AnnotateStats()
        records = list(annotate(records, registry.build(name), counts[medium], replaces=True))
    return records, counts


@pytest.mark.parametrize("medium", PROPOSERS)
def test_recall_on_the_embedded_media_set(medium):
    registry, name, combinations = PROPOSERS[medium]
    records = list(drawn(combinations, 102 // len(combinations)))
    stats = AnnotateStats()
    filled = list(annotate(records, registry.build(name), stats, replaces=True))
    assert stats.media == len(records) > 100 - len(combinations)
    assert stats.found / stats.replaced >= RECALL[medium]
    assert stats.proposals <= 1.2 * stats.replaced
    for before, after in zip(records, filled, strict=True):
        assert after.gold == before
        for owner in (before, after):
            assert all(owner.has(entity.places) for entity in owner.entities)
        nearest = nearest_places(before.places(medium), after.places(medium))
        named = [entity.places.of(medium) for entity in before.entities]
        if all(index in nearest for indices in named for index in indices):
            expected = [tuple(sorted(nearest[index] for index in indices)) for indices in named]
            assert [entity.places.of(medium) for entity in after.entities] == expected


@pytest.fixture(scope="module")
def media_set():
    records = list(drawn(("T+I", "T+A", "I+A", "A+V"), 8))
    return records, *proposed(records)


def test_scores_compare_proposed_places_with_annotated_ones(media_set):
    """The moved annotation is all right, in places that differ from gold's; gold itself is a perfect prediction."""
    given, records, counts = media_set
    assert all(count.found == count.replaced for count in counts.values())
    assert any(a.places(medium) != b.places(medium) for medium in MEDIA for a, b in zip(given, records, strict=True))
    for task in ("mner", "mre", "med", "meae"):
        own = [record for record in records if record.annotated_for(task)]
        answers = [replace(record, gold=None) for record in own]
        for predictions in (answers, [record.annotated for record in own]):
            assert strict_score(task, predictions, own, resamples=9)["f1"] == 1
            report = score_predictions(own, [Prediction(one) for one in predictions], tasks=[task], resamples=9)
            lines = [line for line in report.lines if (line.measure, line.modality) == ("grounded", "all")]
            assert [line.score.f1 for line in lines] == [1, 1]
            assert lines[0].score.gold == lines[0].score.true_positives > 4


def test_what_no_proposal_shows_is_missed(media_set):
    given, records, _ = media_set
    whole = Region((0, 0, 1, 1))
    blind = [
        replace(record.regrounded("image", [whole], {}), gold=record.gold) if record.image else record
        for record in records
    ]
    own = [record for record in blind if record.annotated_for("mner")]
    score = strict_score("mner", [replace(record, gold=None) for record in own], own, resamples=9)
    lost = sum(not e.span and bool(e.regions) for r in given if r.annotated_for("mner") for e in r.entities)
    assert lost > 0
    assert score["gold"] - score["predicted"] == lost
    assert score["precision"] > score["recall"]


def test_a_baseline_names_proposed_places():
    """It would be better than any system if it could name the annotated ones."""
    given = [record for record in drawn(("I",), 60) if record.annotated_for("mner")]
    whole = [replace(record.regrounded("image", [Region((0, 0, 1, 1))], {}), gold=record) for record in given]
    found = {}
    for name, own in {"annotated": given, "proposed": whole}.items():
        report = score_predictions(own, [Prediction(record.annotated) for record in own], tasks=["mner"], train=given)
        found[name] = next(line for line in report.lines if line.measure == "grounded")
    assert found["annotated"].baseline_f1 > found["proposed"].baseline_f1 == 0
    assert found["annotated"].score == found["proposed"].score


def test_places_are_replaced_once(media_set):
    _, records, _ = media_set
    registry, name, _ = PROPOSERS["audio"]
    with pytest.raises(UmieError, match="its segments were proposed before: use the file with annotated segments"):
        list(registry.build(name).fill(records, lambda error: None, replaces=True))


def test_an_unreadable_sound_has_no_annotated_places_left(media_set, tmp_path):
    """A model that cannot hear could still name them."""
    given, _, _ = media_set
    bad = [replace(record, audio=str(tmp_path / "none.wav")) for record in given if record.audio is not None]
    registry, name, _ = PROPOSERS["audio"]
    stats = AnnotateStats()
    filled = list(annotate(bad, registry.build(name), stats, missing_images="text_only", replaces=True))
    assert [record.segments for record in filled] == [()] * len(bad)
    assert [record.gold for record in filled] == bad
    assert (stats.found, stats.proposals, stats.unreadable) == (0, 0, Counter(audio=1))
    kept = list(annotate(bad, registry.build(name), AnnotateStats(), missing_images="text_only"))
    assert kept == bad
    assert not list(annotate(bad, registry.build(name), stats, missing_images="skip"))
