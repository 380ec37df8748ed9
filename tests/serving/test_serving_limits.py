"""What clients may not send: each gets a status and a message in JSON, and the server goes on."""

import asyncio
import base64
import io
import json
import random
import zipfile

import pytest
from PIL import Image
from served_app import Served

from umie.extraction import Extractor
from umie.serving import Limits

JSON = {"content-type": "application/json"}


def encoded(content):
    return base64.b64encode(content).decode()


def saved(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", b"0" * 1000)
    return file.getvalue()


NOISE = Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(64 * 64 * 3))
PNG = saved(NOISE)
HOSTILE = {
    "bomb": (422, "refused", {"image": encoded(saved(Image.new("1", (20_000, 20_000))))}),
    "large image": (422, "80 x 80 pixels; the limit is 6,000", {"image": encoded(saved(Image.new("1", (80, 80))))}),
    "truncated JPEG": (422, "not a readable image", {"image": encoded(saved(NOISE, "JPEG")[:900])}),
    "zip": (422, "a zip archive", {"image": encoded(zipped())}),
    "empty image": (422, "not a readable image", {"image": ""}),
    "path": (422, "not a path or a URL", {"image": "/etc/passwd"}),
    "path in base64": (422, "not a readable image", {"image": encoded(b"/etc/passwd")}),
    "URL": (422, "not a path or a URL", {"image": "http://127.0.0.1/a.png"}),
    "data URI": (422, "not in base64", {"image": "data:image/svg+xml,<svg/>"}),
    "many images": (422, "there are 3 images; the limit is 2", {"images": [encoded(PNG)] * 3}),
    "second image": (422, "image 1: not a readable image", {"images": [encoded(PNG), ""]}),
    "both": (422, "both image and images", {"image": "", "images": []}),
    "long text": (422, "text has 501 characters; the limit is 500", {"text": "x" * 501}),
    "no text": (422, "text is ''", {"text": ""}),
    "text of a number": (422, "text: Input should be a valid string", {"text": 7}),
    "surrogate": (400, "not valid JSON", b'{"text": "\\ud800"}'),
    "labels": (422, "there are 201 labels", {"labels": {"mner": [str(number) for number in range(201)]}}),
    "long label": (422, "a label has 101 characters", {"labels": {"mner": ["x" * 101]}}),
    "label": (422, "labels.mner[1]: Input should be a valid string", {"labels": {"mner": ["a", 1]}}),
    "task of labels": (422, "Unknown task in labels: 'x'", {"labels": {"x": ["a"]}}),
    "task": (422, "Did you mean 'mner'?", {"tasks": ["mnr"]}),
    "no tasks": (422, "tasks is empty", {"tasks": []}),
    "regions": (422, "there are 201 regions", {"regions": [[0, 0, 1, 1]] * 201}),
    "region": (422, "is not inside the image", {"regions": [[0, 0, 2, 1]]}),
    "region of text": (422, "box", {"regions": ["a"]}),
    "region in no image": (422, "region 0 is in image 5", {"regions": [{"box": [0, 0, 1, 1], "image": 5}]}),
    "span": (422, "not inside the text", {"entities": [{"type": "a", "span": [0, 99]}]}),
    "infinite": (422, "is not a number", b'{"text": "x", "regions": [[0, 0, 1, Infinity]]}'),
    "key": (422, "Did you mean 'image'?", {"imag": ""}),
    "no JSON": (400, "not valid JSON", b'{"text": '),
    "no object": (422, "the request", b"[]"),
    "deep": (400, "not valid JSON", b"[" * 20_000),
    "no UTF-8": (400, "not valid JSON", b'{"text": "\xff"}'),
    "large": (413, "larger than 100,000 bytes", b" " * 100_001),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(parts):
    one = Served(Extractor(*parts), Limits(max_body_mb=0.1, max_text=500, max_images=2, max_pixels=6_000))
    yield one
    assert one.extract({"text": "Ann met Bob"}).status_code == 200  # after all of this
    one.batcher.close(20)


@pytest.mark.parametrize("what", HOSTILE)
def test_an_error_says_what_is_wrong(served, what):
    status, message, request = HOSTILE[what]
    if isinstance(request, dict):
        response = served.extract({"text": "x", **request})
    else:
        response = served.extract(content=request, headers=JSON)
    assert (response.status_code, set(response.json())) == (status, {"error"})
    assert message in response.json()["error"]
    assert "Traceback" not in response.text and "/" not in message


FORMS = {
    "zip": (422, "a zip archive", {"files": {"image": zipped()}}),
    "many files": (422, "there are 3 images; the limit is 2", {"files": [("image", PNG)] * 3}),
    "many parts": (413, "more than 4 parts", {"files": [("image", PNG)] * 5}),
    "field": (422, "Did you mean 'image'?", {"files": {"images": PNG}}),
    "text twice": (422, "the field text twice", {"data": {"text": ["a", "b"]}, "files": {"image": PNG}}),
    "two texts": (422, "a text both", {"data": {"text": "a", "request": '{"text": "b"}'}, "files": {"image": PNG}}),
    "two images": (422, "images both", {"data": {"request": json.dumps({"image": ""})}, "files": {"image": PNG}}),
    "bad request": (400, "not valid JSON", {"data": {"request": "{"}, "files": {"image": PNG}}),
    "text in Latin-1": (422, "not UTF-8", {"files": {"text": b"\xff"}}),
    "another type": (415, "Content-Type is 'text/csv'", {"content": b"a", "headers": {"content-type": "text/csv"}}),
    "no type": (415, "Content-Type is ''", {"content": b"{}"}),
    "no boundary": (400, "no boundary", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    "gzip": (415, "compressed", {"content": b"x", "headers": {**JSON, "content-encoding": "gzip"}}),
}


@pytest.mark.parametrize("what", FORMS)
def test_an_error_in_a_form_says_what_is_wrong(served, what):
    status, message, arguments = FORMS[what]
    response = served.extract(**arguments)
    assert (response.status_code, set(response.json())) == (status, {"error"}), response.text
    assert message in response.json()["error"]


def test_a_body_without_a_length_is_bounded(served):
    async def endless():
        for _ in range(100):
            yield b" " * 10_000

    assert served.extract(content=endless(), headers=JSON).status_code == 413


def test_a_batch_is_bounded(served):
    for records, message in (([], "there are 0 records"), ([{"text": "x"}] * 65, "there are 65 records")):
        response = served.send("POST", "/extract/batch", json={"records": records})
        assert (response.status_code, message in response.text) == (422, True)
    response = served.send("POST", "/extract/batch", data={"text": "x"}, files={"image": PNG})
    assert (response.status_code, "send application/json" in response.text) == (415, True)


def test_paths_and_methods(served):
    assert served.send("GET", "/extract").status_code == 405
    assert served.send("GET", "/extract").headers["allow"] == "POST"
    assert served.send("GET", "/../../etc/passwd").json() == {"error": "Not Found"}


def test_images_are_bounded_together(serve):
    served = serve(max_memory_mb=0.05)
    image = encoded(PNG)  # 12,288 bytes when decoded, and 16,000 in the body
    assert served.extract({"text": "x", "image": image}).status_code == 200
    response = served.extract({"text": "x", "images": [image] * 2})
    assert (response.status_code, "several requests" in response.text) == (413, True)


def test_a_full_queue_and_a_late_answer(serve):
    served = serve(max_queue=1, timeout_s=0.5)
    extractor = served.batcher.extractor
    extractor.hold()

    async def ask():
        async with served.client() as client:
            first = asyncio.ensure_future(client.post("/extract", json={"text": "first"}))
            while not extractor.started.is_set():
                await asyncio.sleep(0.01)
            second = asyncio.ensure_future(client.post("/extract", json={"text": "second"}))
            while not served.batcher.waiting:
                await asyncio.sleep(0.01)
            refused = await client.post("/extract", json={"text": "third"})
            return [await first, await second, refused]

    first, second, refused = asyncio.run(ask())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "the queue is full" in refused.json()["error"]
    assert [one.status_code for one in (first, second)] == [504, 504]
    extractor.free.set()
    assert served.extract({"text": "Ann met Bob"}).status_code == 200
    assert extractor.batches == [["first"], ["Ann met Bob"]]  # nobody waited for the second
    metrics = served.metrics()
    assert metrics['umie_requests_total{path="/extract",status="504"}'] == 2
    assert metrics['umie_requests_total{path="/extract",status="503"}'] == 1


def test_a_client_that_goes_away_loses_nothing_of_others(serve, extractor):
    served = serve()
    held = served.batcher.extractor
    held.hold()

    async def ask():
        async with served.client() as client:
            asked = [asyncio.ensure_future(client.post("/extract", json={"text": text})) for text in ("a", "gone", "b")]
            while served.batcher.waiting + sum(map(len, held.batches)) < 3:
                await asyncio.sleep(0.01)
            asked[1].cancel()
            await asyncio.sleep(0.05)
            held.free.set()
            return [await asked[0], await asked[2]]

    assert [response.json()["text"] for response in asyncio.run(ask())] == ["a", "b"]


def test_an_error_of_the_server_is_not_shown(serve, caplog):
    served = serve()
    served.batcher.extractor.model = None  # a defect
    response = served.extract({"text": "Ann"})
    assert (response.status_code, response.json()) == (500, {"error": "an error of the server, which is in its log"})
    assert "Traceback" in caplog.text


def test_folders_of_the_server_are_not_shown(serve, tmp_path):
    from umie.errors import UmieError
    from umie.serving.app import _result

    error = _result(UmieError(f"{tmp_path}/features.h5: cannot read (see '/etc/umie/x.json')"))
    assert str(error) == "features.h5: cannot read (see 'x.json')"
