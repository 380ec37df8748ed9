"""From a form to answers: what is asked, what an example adds, and one clear sentence for bad input."""

import dataclasses
import struct
import threading
import zlib
from pathlib import Path

import pytest

from umie.errors import UmieError
from umie.explorer import Explorer, Form, LoadedVariant, Upload, read_examples
from umie.explorer.explorer import MAX_CHARACTERS, MAX_PLACES
from umie.extraction import Extractor
from umie.fusion.gated import fixed_gate
from umie.records import Record, Segment

TASKS = ["mner", "mre", "med", "meae"]


def items(found):
    return found.extraction.entities, found.extraction.record.relations, found.extraction.events


def test_the_answer_is_that_of_the_extractor(explorer, extractor, records, form_of):
    for number, record in enumerate(records[:4]):
        shown = explorer.ask(form_of(number))
        expected = extractor.extract(record, tasks=record.tasks)
        (answer,) = shown.answers
        assert answer.extraction == expected
        assert answer.extraction.gate == expected.gate
        assert shown.annotated == dataclasses.replace(record, image_folder=None)
        assert shown.place == f"test.jsonl:{number + 1}"
        assert answer.seconds > 0


def test_a_text_by_itself(explorer, extractor):
    shown = explorer.ask(Form(text="Kids at the Salvation Army", tasks=TASKS))
    assert shown.annotated is None
    assert shown.answers[0].extraction == extractor.extract("Kids at the Salvation Army", tasks=TASKS)


def test_an_upload(explorer, extractor, noise, tmp_path):
    noise(60, 40).save(tmp_path / "noise.png")
    form = Form(
        text="Kids",
        uploads={"image": Upload(tmp_path / "noise.png", "my noise.png")},
        tasks=["mner"],
        places={"image": "none"},
    )
    expected = extractor.extract("Kids", tmp_path / "noise.png", tasks=["mner"])
    assert explorer.ask(form).answers[0].extraction == expected


def test_a_changed_example_keeps_its_image_and_regions_and_loses_its_annotation(explorer, records, form_of):
    shown = explorer.ask(form_of(0, text="Another text"))
    record = shown.answers[0].extraction.record
    assert shown.annotated is None
    assert record.text == "Another text"
    assert record.regions == records[0].regions != ()
    assert record.image == str(Path(records[0].image_folder) / records[0].image)


def test_another_image_has_no_regions_of_the_example(explorer, form_of, noise, tmp_path):
    noise(60, 40).save(tmp_path / "noise.png")
    shown = explorer.ask(form_of(0, uploads={"image": Upload(tmp_path / "noise.png", "noise.png")}))
    assert shown.annotated is None
    assert shown.answers[0].extraction.record.regions == ()
    assert explorer.ask(form_of(0, uploads={})).answers[0].extraction.record.image is None


def test_places_by_choice(explorer, records, form_of):
    found = {
        choice: explorer.ask(form_of(0, places={"image": choice})) for choice in ("example", "none", "blobs", "grid")
    }
    numbers = {choice: len(shown.answers[0].extraction.record.regions) for choice, shown in found.items()}
    assert numbers == {"example": 4, "none": 0, "blobs": 4, "grid": MAX_PLACES}
    assert [choice for choice, shown in found.items() if shown.annotated is not None] == ["example"]
    assert set(explorer.proposers["image"]) == {"blobs", "grid"}  # those that need neither weights nor files


def test_labels_at_call_time(explorer, extractor, records, form_of):
    labels = ["ship", "  person ", "ship", ""]
    (answer,) = explorer.ask(form_of(0, labels={"mner": labels})).answers
    expected = extractor.extract(records[0], tasks=["mner"], labels={"mner": ["ship", "person"]})
    assert answer.extraction == expected
    assert "not trained on the labels 'ship'" in answer.extraction.warnings[0].message


def test_the_gate_is_fixed_for_one_answer(explorer, extractor, records, form_of):
    computed = explorer.ask(form_of(0)).answers[0]
    fixed = explorer.ask(form_of(0, gate=0.25)).answers[0]
    with fixed_gate(extractor.model, 0.25):
        expected = extractor.extract(records[0], tasks=records[0].tasks)
    assert fixed.gate == 0.25
    assert fixed.extraction.gate == expected.gate == {"mner": 0.25}
    assert items(fixed) == items(dataclasses.replace(fixed, extraction=expected))
    assert explorer.ask(form_of(0)).answers[0].extraction.gate == computed.extraction.gate != fixed.extraction.gate


def test_users_at_the_same_time_do_not_mix(explorer, form_of):
    """Each thread has another text and another gate, of one model."""
    forms = [form_of(number % 3, gate=[None, 0.0, 0.4, 1.5][number % 4]) for number in range(12)]
    expected = [explorer.ask(form).answers[0] for form in forms]
    found = [None] * len(forms)

    def ask(number):
        found[number] = explorer.ask(forms[number]).answers[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(forms))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        assert (one.extraction, one.gate) == (other.extraction, other.gate)
        assert one.extraction.gate == pytest.approx(other.extraction.gate, abs=1e-6)


def test_without_the_image(explorer, extractor, records, form_of):
    (answer,) = explorer.ask(form_of(0, explained=True)).answers
    assert answer.explanation.rows() == extractor.explain(records[0], tasks=["mner"]).rows()
    assert set(answer.explanation.views) == {"without", "blank"}
    (answer,) = explorer.ask(form_of(0, explained=True, uploads={})).answers
    assert answer.explanation is None


def test_two_variants(both, gated, blind, form_of):
    assert both.labels == {**blind.labels, **gated.labels}
    assert list(both.labels) == TASKS
    assert (both.media, blind.media, blind.largest_gate) == (("image",), (), None)
    first, second = both.ask(form_of(0, tasks=TASKS, gate=0.5)).answers
    assert (first.variant, second.variant) == ("gated/best", "random/best")
    assert (first.gate, second.gate) == (0.5, None)
    messages = [notice.message for notice in second.extraction.warnings]
    assert "mre: this variant was not trained for it" in messages
    assert "this variant does not use images" in messages
    _, second = both.ask(form_of(0, tasks=["mre"])).answers
    assert items(second) == ((), (), ())


def test_variants_need_different_names(gated, blind, extractor):
    with pytest.raises(UmieError, match="both variants are called gated/best"):
        Explorer([gated, LoadedVariant("gated/best", extractor)])


def test_a_loaded_variant_is_called_by_its_folder(saved, monkeypatch):
    found = LoadedVariant.load(saved, "cpu")
    assert found.name == f"{saved.parent.name}/best"
    assert found.about == "tiny + gated + span"
    monkeypatch.chdir(saved)
    assert LoadedVariant.load(".", "cpu").name == found.name


def test_examples_without_the_media_that_no_variant_uses(blind, explorer):
    page = Explorer([blind], explorer.examples)
    assert page.media == ()
    assert all(one.record.image is None and one.record.regions == () for one in page.examples)
    shown = page.ask(Form(text=page.examples[0].record.text, tasks=["mner"], example=0))
    assert shown.annotated is not None
    assert shown.answers[0].extraction.warnings == ()


def test_only_the_annotation_of_the_tasks_is_shown(explorer, records, form_of):
    number = next(number for number, record in enumerate(records) if record.events)
    assert explorer.ask(form_of(number)).annotated.events == records[number].events
    events = explorer.ask(form_of(number, tasks=["med"])).annotated.events
    assert [(event.type, event.arguments) for event in events] == [(records[number].events[0].type, ())]
    assert explorer.ask(form_of(number, tasks=["mner"])).annotated is None  # it is not annotated for it


def test_examples_have_thumbnails_and_small_copies(records, noise, tmp_path):
    noise(3000, 1500).save(tmp_path / "large.jpg")
    large, gone, text = Record("a", tmp_path / "large.jpg"), Record("b", tmp_path / "gone.jpg"), Record("c")
    sound = Record("d", audio=tmp_path / "gone.wav", segments=[Segment((0.1, 0.2))])
    found = read_examples([("1", large), ("2", gone), ("3", text), ("4", sound)], tmp_path)
    assert [one.thumbnail is not None for one in found] == [True, False, False, False]
    assert [set(one.files) for one in found] == [{"image"}, set(), set(), set()]
    assert found[0].thumbnail.startswith("data:image/jpeg;base64,")
    assert len(found[0].thumbnail) < 20_000


def test_an_example_whose_image_cannot_be_read_says_so(gated, tmp_path):
    page = Explorer([gated], read_examples([("1", Record("a", tmp_path / "gone.jpg"))], tmp_path))
    with pytest.raises(UmieError, match="gone.jpg: no such image"):
        page.ask(Form(text="a", tasks=["mner"], example=0))


# --- bad input -------------------------------------------------------------------------------------------------------


def bomb(path):
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def test_bad_uploads_give_one_sentence_without_paths(explorer, tmp_path):
    (tmp_path / "text").write_text("no image")
    bomb(tmp_path / "bomb")
    (tmp_path / "empty").write_bytes(b"")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(100_000_000)
    cases = {
        "text": "x.png: not a readable image",
        "bomb": "x.png: refused, Image size",
        "empty": "x.png: not a readable image",
        "large": "x.png: larger than 1 MB; use a smaller file",
        "gone": "x.png: no longer on the server; upload it again",
        ".": "x.png: not a readable image",
    }
    for name, expected in cases.items():
        upload = Upload(tmp_path / name, "x.png")
        for attempt in (
            lambda upload=upload: explorer.check_upload("image", upload),
            lambda upload=upload: explorer.ask(Form(text="a", uploads={"image": upload}, tasks=["mner"])),
        ):
            with pytest.raises(UmieError) as caught:
                attempt()
            message = str(caught.value)
            assert message.startswith(expected)
            assert "\n" not in message
            assert str(tmp_path) not in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": " "}, "Type a text, or upload"),
        ({"text": "x" * (MAX_CHARACTERS + 1)}, "The text has 10,001 characters: use at most 10,000"),
        ({"text": 3}, "the text is 3: type some text"),
        ({"tasks": []}, "Choose at least one task"),
        ({"labels": {"mner": []}}, "labels of mner: there are none"),
        ({"labels": {"mner": "person"}}, "labels of mner: 'person' is not a list"),
        ({"example": 99}, "there is no example 99"),
        ({"gate": "wide"}, "gate is 'wide': use a number"),
    ],
)
def test_bad_values(explorer, changes, message):
    with pytest.raises(UmieError, match=message):
        explorer.ask(Form(**{"text": "a", "tasks": ["mner"], **changes}))


def test_places_that_are_no_choice(explorer, form_of):
    with pytest.raises(UmieError, match="regions is 'faster_rcnn': choose one of the list"):
        explorer.ask(form_of(0, places={"image": "faster_rcnn"}))


def test_sound_and_video(variant, tmp_path):
    """Segments and tracks are those of proposers; a bad file has the name that the user knows."""
    import numpy as np
    from PIL import Image

    from umie.data.sounds import write_wav
    from umie.media import Sound

    tasks = {"mner": {"labels": ("person",)}}
    parts = {"audio_encoder": {"name": "tiny_audio", "rate": 4_000}, "video_encoder": "tiny_video"}
    model, processor = variant(fusion="concat", decoder={"name": "span", "max_width": 2}, tasks=tasks, **parts)
    page = Explorer([LoadedVariant("av", Extractor(model, processor))])
    assert page.media == ("image", "video", "audio")
    assert page.proposers.keys() == {"image", "video", "audio"}
    times = np.arange(8000) / 4000
    write_wav(Sound((np.sin(2000 * times) * (times % 1 < 0.3)).astype(np.float32), 4000), str(tmp_path / "a.wav"))
    frames = [Image.new("RGB", (32, 32), "white") for _ in range(4)]
    for number, frame in enumerate(frames):
        frame.paste((200, 0, 0), (4 + 3 * number, 8, 14 + 3 * number, 18))
    frames[0].save(tmp_path / "v.gif", save_all=True, append_images=frames[1:], duration=100)
    uploads = {"audio": Upload(tmp_path / "a.wav", "a.wav"), "video": Upload(tmp_path / "v.gif", "v.gif")}
    form = Form(text="Ann", uploads=uploads, tasks=["mner"], places={"audio": "energy", "video": "blobs"})
    record = page.ask(form).answers[0].extraction.record
    assert len(record.segments) == 2
    assert len(record.tracks) == 1
    (tmp_path / "a.wav").write_text("no sound")
    with pytest.raises(UmieError, match=r"^call.wav: "):
        page.check_upload("audio", Upload(tmp_path / "a.wav", "call.wav"))
