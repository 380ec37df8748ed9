"""Answers are those of Extractor.extract, in any form of request, order and batch."""

import asyncio
import base64
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umie.records import Event, Record, Region, Relation

WORDS = ["Ann", "met", "Bob", "in", "Rome", "at", "the", "Salvation", "Army", "Zoë", "\U0001f600", "<b>", "a\tb"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
options = st.sampled_from(
    [{"tasks": ["mner"]}, {"tasks": ["mner"], "labels": {"mner": ["ship", "person"]}}, {"tasks": ["mner", "mre"]}, {}]
)


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def base64_of(image):
    return base64.b64encode(png(image)).decode()


def assert_same(found, extraction):
    """Assert that an answer is an extraction; only its last digits depend on the batch."""
    expected = json.loads(json.dumps(extraction.to_json()))
    assert found.pop("gate") == pytest.approx(expected.pop("gate"), abs=1e-5)
    pairs = [
        (one, other)
        for key in ("entities", "relations", "events")
        for one, other in zip(found.get(key, ()), expected.get(key, ()), strict=True)
    ]
    for one, other in pairs:
        assert one.pop("probability", 0) == pytest.approx(other.pop("probability", 0), abs=2e-4)
    assert found == expected


def test_random_texts_in_random_order(serve, extractor):
    served = serve(batch_size=4, max_wait_ms=2)
    known, sizes = {}, []

    async def ask_all(requests):
        async with served.client() as client:
            return await asyncio.gather(*(client.post("/extract", json=request) for request in requests))

    @settings(max_examples=6)
    @given(st.lists(st.tuples(texts, options), min_size=1, max_size=12), st.randoms(use_true_random=False))
    def check(asked, order):
        requests = [{"text": text, **own} for text, own in asked]
        order.shuffle(requests)
        served.batcher.extractor.batches.clear()
        for request, response in zip(requests, asyncio.run(ask_all(requests)), strict=True):
            assert response.status_code == 200, response.text
            key = json.dumps(request)
            if key not in known:
                known[key] = extractor.extract(**request)
            assert_same(response.json(), known[key])
        sizes.extend(map(len, served.batcher.extractor.batches))

    check()
    assert 1 < max(sizes) <= 4
    assert any(extraction.entities for extraction in known.values())


def test_an_image_in_base64_as_a_data_uri_and_in_a_form(serve, extractor, embedded_records):
    served, record = serve(), embedded_records[2]
    boxes = [list(region.box) for region in record.regions]
    expected = extractor.extract(record.text, record.image, regions=boxes)
    assert expected.entities
    encoded = base64_of(record.image)
    wrapped = "\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76))
    for image in (encoded, wrapped, f"data:image/png;base64,{encoded}"):
        assert_same(served.extract({"text": record.text, "image": image, "regions": boxes}).json(), expected)
    form = {"text": record.text, "request": json.dumps({"regions": boxes})}
    found = served.extract(data=form, files={"image": ("x.jpg", png(record.image), "text/html")})
    assert_same(found.json(), expected)
    form = {"request": json.dumps({"text": record.text, "regions": [{"box": box} for box in boxes]})}
    assert_same(served.extract(data=form, files={"image": png(record.image)}).json(), expected)


def test_several_images(serve, extractor, embedded_records):
    served, images = serve(), [record.image for record in embedded_records[2:4]]
    region = {"box": [0.1, 0.1, 0.6, 0.6], "image": 1, "label": "man"}
    expected = extractor.extract("Ann met Bob", images, regions=[Region((0.1, 0.1, 0.6, 0.6), "man", image=1)])
    request = {"text": "Ann met Bob", "images": list(map(base64_of, images)), "regions": [region]}
    assert_same(served.extract(request).json(), expected)
    form = {"text": "Ann met Bob", "request": json.dumps({"regions": [region]})}
    files = [("image", png(image)) for image in images]
    assert_same(served.extract(data=form, files=files).json(), expected)


def test_given_pairs_and_events(serve, extractor):
    served, text = serve(), "Ann met Bob in Rome"
    pair, event = Relation("none", (8, 11), (0, 3)), Event("meet", (4, 7))
    request = {"text": text, "tasks": ["mre"], "relations": [{"type": "none", "head": [8, 11], "tail": [0, 3]}]}
    found = served.extract(request).json()
    assert_same(found, extractor.extract(Record(text, relations=(pair,)), tasks=["mre"]))
    assert [(one["head"]["text"], one["tail"]["text"]) for one in found["relations"]] == [("Bob", "Ann")]
    request = {"text": text, "tasks": ["meae"], "events": [{"type": "meet", "trigger": {"span": [4, 7]}}]}
    found = served.extract({**request, "id": "7"}).json()
    assert found.pop("id") == "7"
    assert_same(found, extractor.extract(Record(text, events=(event,)), tasks=["meae"]))
    assert found["events"][0]["trigger"]["text"] == "met"


def test_a_batch_answers_in_order_and_names_what_is_wrong(serve, extractor):
    served = serve(batch_size=8)
    wrong = [
        ({"text": " "}, "text is ' '"),
        ({"text": "x", "task": []}, "Did you mean 'tasks'?"),
        (7, "the request: "),
        ({"text": "x", "tasks": ["mnr"]}, "Did you mean 'mner'?"),
        ({"text": "x", "image": "/etc/passwd"}, "not base64"),
    ]
    records = [
        {"text": "Ann met Bob"},
        *(record for record, _ in wrong),
        {"text": "Rome", "tasks": ["mner"], "id": "7"},
    ]
    response = served.send("POST", "/extract/batch", json={"records": records})
    assert response.status_code == 200
    first, *errors, last = response.json()["results"]
    assert_same(first, extractor.extract("Ann met Bob"))
    assert last.pop("id") == "7"
    assert_same(last, extractor.extract("Rome", tasks=["mner"]))
    for (_, message), error in zip(wrong, errors, strict=True):
        assert error["status"] == 422 and message in error["error"]
    assert served.metrics()["umie_records_total"] == 2
