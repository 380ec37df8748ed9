"""`umie view`: what the page of records shows, and that nothing in the data becomes part of its code."""

import base64
import io
import json
import re
import wave
from html.parser import HTMLParser

import pytest
from browser import open_page
from PIL import Image

from umie.data.synthetic_media import SyntheticMediaConfig, write_synthetic_media
from umie.records import read_jsonl

HOSTILE = "</script><img src=x onerror=alert(1)>\"'<b>&amp;\u202e\x07{{ 7 * 7 }} $x$"


class Page(HTMLParser):
    """The tags, and the text and data of each record, of a page."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.records, self.open, self.attributes = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.attributes.append((tag, found))
        if tag == "article":
            self.records.append({"text": "", "items": [], "data": [], "rects": 0})
        if self.records:
            own = self.records[-1]
            own["data"] += [value for value in found.values() if value and value.startswith("data:")]
            own["rects"] += tag == "rect"
            if tag == "li":
                own["items"].append("")
        if tag not in ("meta", "image", "rect", "path", "br"):
            self.open.append((tag, found.get("class", "")))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        classes = [name for _, name in self.open]
        if "text" in classes and "role" not in classes:
            self.records[-1]["text"] += data
        elif any(tag == "li" for tag, _ in self.open):
            self.records[-1]["items"][-1] += data


@pytest.fixture
def media(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_synthetic_media(tmp_path / "media", SyntheticMediaConfig(train=0, dev=0, test=2))
    return tmp_path / "media"


def test_a_page_has_texts_items_and_media_of_all_combinations(umie, media, tmp_path):
    code, out, err = umie("view", "media/test.jsonl", "-n", 18, "-o", "page.html")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"Written: page\.html \(0\.\d MB\)\n", out)
    page = Page(tmp_path / "page.html")
    records = list(read_jsonl(media / "test.jsonl"))
    assert len(page.records) == len(records) == 18
    for shown, record in zip(page.records, records, strict=True):
        assert shown["text"].strip() == record.text
        uris = [uri.partition(",") for uri in shown["data"]]
        sounds = [base64.b64decode(content) for kind, _, content in uris if "audio" in kind]
        images = [Image.open(io.BytesIO(base64.b64decode(content))) for kind, _, content in uris if "image" in kind]
        assert len(sounds) == ("audio" in record.media)
        assert len(images) == ("image" in record.media) + 8 * ("video" in record.media)
        assert all(image.size == (96, 72) for image in images)
        for sound in sounds:
            with wave.open(io.BytesIO(sound)) as file:
                assert file.getnframes() / file.getframerate() == 3
        assert shown["rects"] == len(record.regions) + len(record.segments) + 8 * len(record.tracks)
        listed = " ".join(shown["items"])
        for event in record.events:
            assert event.type in listed
            names = [name for argument in event.arguments for name in argument.places.names]
            assert all(name in listed for name in names)


def test_nothing_in_the_data_becomes_part_of_the_page(umie, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entity = {"type": HOSTILE, "span": [2, 9], "probability": 0.5}
    region = {"box": [0, 0, 0.5, 0.5], "label": HOSTILE}
    line = {"id": HOSTILE, "text": HOSTILE, "image": "a.png", "regions": [region], "entities": [entity]}
    Image.new("RGB", (40, 30)).save("a.png")
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert umie("view", "a.jsonl")[0] == 0
    page = Page(tmp_path / "a.html")
    assert {"img", "em"}.isdisjoint(page.tags)
    assert page.tags.count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.attributes for name in attributes)
    (shown,) = page.records
    assert shown["text"] == HOSTILE.replace("\u202e", "\\u202e").replace("\x07", "\\x07")
    assert "p = 0.50" in shown["items"][0]


def test_masks_and_media_that_cannot_be_read(umie, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = {"size": [30, 40], "counts": [0, 600, 600]}
    lines = [
        {"text": "a", "image": "a.png", "regions": [{"box": [0, 0, 0.5, 1], "mask": mask}]},
        {"text": "b", "image": "gone.png"},
        {"text": "c", "audio": "gone.wav", "segments": [{"interval": [0, 1]}]},
    ]
    Image.new("RGB", (40, 30)).save("a.png")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    code, _, err = umie("view", "a.jsonl")
    advice = "--images names the directory of images, sounds and videos"
    assert (code, err) == (0, f"note: 2 files cannot be read; the page says why; {advice}\n")
    page = Page(tmp_path / "a.html")
    layer = Image.open(io.BytesIO(base64.b64decode(page.records[0]["data"][1].partition(",")[2])))
    assert layer.getpixel((0, 0))[3] > 0
    assert layer.getpixel((39, 0))[3] == 0
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "gone.png" in text
    assert "gone.wav" in text


def test_records_with_some_ids(umie, media, tmp_path):
    records = list(read_jsonl(media / "test.jsonl"))
    assert umie("view", "media/test.jsonl", "--id", records[3].id, "--id", records[5].id, "-o", "page.html")[0] == 0
    assert [one["text"].strip() for one in Page(tmp_path / "page.html").records] == [records[3].text, records[5].text]
    code, _, err = umie("view", "media/test.jsonl", "--id", "x", "-o", "page.html")
    assert (code, err) == (2, "umie: media/test.jsonl: no record has the id 'x'\n")
    code, _, err = umie("view", "media/test.jsonl", "-o", "media/test.jsonl")
    assert code == 2
    assert "media/test.jsonl" in err
    code, _, err = umie("view", "media/test.jsonl", "--images", "gone", "-o", "page.html")
    assert (code, err.count("\n")) == (2, 1)
    assert "gone: no such directory" in err


def test_places_that_are_hard_to_show(umie, tmp_path, monkeypatch):
    """A track between the frames of an even choice gets its own frame; a segment after the end of the sound, a note."""
    monkeypatch.chdir(tmp_path)
    frames = [Image.new("RGB", (40, 30), (number, 0, 0)) for number in range(32)]
    frames[0].save("a.png", save_all=True, append_images=frames[1:], duration=100)
    with wave.open("a.wav", "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(b"\0\1" * 8000)
    box = [0, 0, 0.5, 0.5]
    tracks = [{"times": [0.0, 3.1], "boxes": [box, box]}, {"times": [0.8, 0.9], "boxes": [box, box]}]
    segments = [{"interval": [0, 0.5]}, {"interval": [5, 6]}]
    line = {"text": "a", "video": "a.png", "tracks": tracks, "audio": "a.wav", "segments": segments}
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    assert umie("view", "a.jsonl")[0] == 0
    (shown,) = Page(tmp_path / "a.html").records
    assert sum("image/" in uri for uri in shown["data"]) == 9
    assert shown["rects"] == 9 + 1 + 1
    assert "after the end of the sound (1.00 s): S2" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_long_list_of_items_is_folded(umie, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, folded in ((30, False), (31, True)):
        entities = [{"type": "x", "span": [2 * index, 2 * index + 1]} for index in range(number)]
        (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a " * number, "entities": entities}) + "\n")
        assert umie("view", "a.jsonl")[0] == 0
        assert (f"<summary>{number} items</summary>" in (tmp_path / "a.html").read_text()) == folded


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.slow
def test_the_page_in_a_browser(umie, media, tmp_path, width):
    """It fits, its images are seen, and pointing at an item fades what does not belong to it."""
    assert umie("view", "media/test.jsonl", "-o", "page.html", "-n", 18)[0] == 0
    with open_page() as page:
        page.resize(width)
        page.requested()  # of the browser's own first page
        page.open(tmp_path / "page.html")
        assert page.run("return document.documentElement.scrollWidth") <= width
        sizes = page.run("return [...document.querySelectorAll('figure.image svg')].map(one => one.clientWidth)")
        assert sizes
        assert all(60 < size <= width for size in sizes)
        faded = "return document.querySelectorAll('article.dim [data-items]:not(.on)').length"
        assert page.run(faded) == 0
        page.click("article:has(g.used) li")  # as a finger does
        assert page.wait_for(faded) > 0
        on = page.run("return [...document.querySelectorAll('article.dim .on')].map(one => one.dataset.items)")
        number = page.run("return document.querySelector('article.dim li').dataset.items")
        assert on
        assert all(number.strip() in one.split() for one in on)
        page.run("document.querySelector('h1').click(); document.activeElement.blur()")
        assert page.run("return document.querySelectorAll('article.dim').length") == 0
        assert not page.problems()
        assert [one for one in page.requested() if not one.startswith(("file:", "data:"))] == []
