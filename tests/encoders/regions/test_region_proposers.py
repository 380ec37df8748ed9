"""What all proposers share, shown on `grid`: options, propose, fill."""

import dataclasses

import pytest
from PIL import Image

from umie.encoders.annotate import AnnotateStats, annotate
from umie.encoders.regions import Proposal, registry
from umie.encoders.regions.draw import draw
from umie.records import Argument, Event, Record, Region

WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_registry(error):
    assert registry.names() == ["blobs", "faster_rcnn", "file", "grid", "grounding"]
    assert error(registry.build, "grit").startswith("Unknown region proposer 'grit'. Did you mean 'grid'?")
    message = error(registry.build, "grid", tops=3)
    assert message.startswith("Unknown option of region proposer 'grid': 'tops'. Did you mean 'top'?")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0}, "top is 0: use a whole number of at least 1"),
        ({"top": 2.5}, "top is 2.5: use a whole number of at least 1"),
        ({"nms": 1.5}, "nms is 1.5: use a number >= 0 and <= 1"),
        ({"min_score": "x"}, "min_score is 'x': use a number >= 0 and <= 1"),
        ({"scales": 3}, "scales is 3: use a list of cells per side"),
        ({"scales": []}, "scales is []: use a list"),
        ({"scales": [2, 0]}, "scales is 0: use a whole number of at least 1"),
        ({"scales": [33]}, "scales contains 33: use at most 32"),
    ],
)
def test_values_that_are_not_allowed(options, message, error):
    assert message in error(registry.build, "grid", **options)


def test_the_grid_covers_the_image_from_coarse_to_fine(image):
    grid = registry.build("grid")
    (cells,) = grid.propose([image])
    assert len(cells) == 4 + 9 + 16
    assert [cell.score for cell in cells] == [1 / 2] * 4 + [1 / 3] * 9 + [1 / 4] * 16
    quarters = [(x / 2, y / 2, (x + 1) / 2, (y + 1) / 2) for y in range(2) for x in range(2)]
    assert [cell.box for cell in cells[:4]] == quarters
    for start, end in ((0, 4), (4, 13), (13, 29)):
        boxes = [cell.box for cell in cells[start:end]]
        assert sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes) == pytest.approx(1)
    assert registry.build("grid", scales=[4, 3, 2, 2]).propose([image]) == [cells]
    assert registry.build("grid", top=5).propose([image]) == [cells[:5]]


def test_propose_gives_a_list_for_each_image(image, noise, error):
    grid = registry.build("grid", scales=[1])
    assert grid.propose([image, str(image), noise(5, 5)]) == [[Proposal(WHOLE, 1.0)]] * 3
    assert grid.propose([]) == []
    assert "1 texts for 2 images" in error(grid.propose, [image, image], ["a"])
    assert "nowhere.jpg: no such image" in error(grid.propose, [image, "nowhere.jpg"])


def test_fill_keeps_own_regions_and_their_indices(record):
    own = (Region((0.5, 0.5, 1.0, 1.0), "dog"), Region((0.0, 0.0, 0.1, 0.1)))
    events = (Event("attack", arguments=(Argument("target", regions=(1,)),)),)
    given = record(*own, events=events, id="7")
    (filled,) = registry.build("grid", scales=[2], top=4).fill([given])
    quarters = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5)]
    assert filled == dataclasses.replace(given, regions=(*own, *map(Region, quarters)))
    # its own lower right quarter is not proposed again, and there are 4 in all
    assert len(next(iter(registry.build("grid", scales=[2]).fill([given]))).regions) == 2 + 3


def test_own_regions_beyond_top_are_cut_but_not_those_that_an_argument_names(record):
    own = [Region((0.0, 0.0, (index + 1) / 10, 1.0)) for index in range(6)]
    events = (Event("attack", arguments=(Argument("target", regions=(4,)),)),)
    grid = registry.build("grid", top=3)
    assert [len(item.regions) for item in grid.fill([record(*own)])] == [3]
    assert [item.regions for item in grid.fill([record(*own, events=events)])] == [tuple(own[:5])]


def test_fill_streams_and_passes_by_what_has_no_image(noise):
    grid = registry.build("grid", scales=[1])
    taken = []

    def records():
        for number in range(3):
            taken.append(number)
            yield Record("a text", image=noise(9, 9) if number else None)

    filled = grid.fill(records())
    assert next(filled).regions == ()
    assert taken == [0]
    assert [len(item.regions) for item in filled] == [1, 1]


def test_fill_hands_errors_on_and_goes_on(image, record, error):
    (image.parent / "bad.jpg").write_bytes(b"")
    outside = image.parent.parent / "outside.jpg"
    outside.write_bytes(image.read_bytes())
    (image.parent / "link.jpg").symlink_to(outside)
    names = ["1.jpg", "bad.jpg", "absent.jpg", "../outside.jpg", "link.jpg", "1.jpg"]
    records = [record(name=name, id=f"id{index}") for index, name in enumerate(names)]
    errors = []
    grid = registry.build("grid", scales=[1])
    filled = list(grid.fill(records, errors.append))
    assert [len(item.regions) for item in filled] == [1, 0, 0, 0, 0, 1]
    assert [filled[index] for index in (1, 2, 3, 4)] == records[1:5]
    messages = [str(item) for item in errors]
    assert [message.split(":")[0] for message in messages] == [f"record id{index}" for index in (1, 2, 3, 4)]
    assert ["not a readable" in messages[0], "no such image" in messages[1]] == [True, True]
    assert all("is outside the directory" in message for message in messages[2:])
    assert error(grid.fill, records).startswith("record id1: ")
    assert error(grid.fill, [dataclasses.replace(records[1], id=None)]).startswith("record 1: ")


@pytest.mark.parametrize("reads_text", [False, True])
def test_a_image_of_several_records_is_looked_at_once(record, monkeypatch, reads_text):
    """Also where own regions differ; where the text matters, once for each text."""
    grid = registry.build("grid", scales=[2])
    monkeypatch.setattr(type(grid), "reads_text", reads_text)
    looked = []
    candidates = grid.candidates
    monkeypatch.setattr(grid, "candidates", lambda *arguments: looked.append(arguments[1]) or candidates(*arguments))
    corner = Region((0.0, 0.0, 0.5, 0.5))
    records = [record(), record(corner), dataclasses.replace(record(), text="another"), record()]
    filled = list(grid.fill(records))
    assert looked == (["a text", "another"] if reads_text else ["a text"])
    assert [item.regions for item in filled] == [next(grid.fill([item])).regions for item in records]
    assert filled[1].regions[0] == corner


def test_only_the_last_images_are_remembered(record, monkeypatch):
    grid = registry.build("grid", scales=[1])
    monkeypatch.setattr("umie.encoders.proposing.RECENT", 2)
    looked = []
    monkeypatch.setattr(grid, "candidates", lambda image, text, name: looked.append(name) or grid._cells)
    list(grid.fill(record(name=name) for name in ["1.jpg", "2.jpg", "1.jpg", "3.jpg", "1.jpg", "2.jpg"]))
    assert looked == ["1.jpg", "2.jpg", "3.jpg", "2.jpg"]


def test_a_image_that_the_detector_fails_on_is_one_error(record, noise, monkeypatch, error):
    """A real failure: an image that torchvision scales to a side of no pixels, were it not squeezed before."""
    detector = registry.build("faster_rcnn", model="fasterrcnn_mobilenet_v3_large_320_fpn", min_score=0.0, top=2)
    monkeypatch.setattr("umie.encoders.regions.faster_rcnn.clamp_aspect_ratio", lambda image: image)
    errors = []
    thin = Record("thin", image=noise(1, 2000), id="thin")
    filled = list(detector.fill([thin, record()], errors.append))
    assert [len(item.regions) for item in filled] == [0, 2]
    assert str(errors[0]).startswith("record thin: image (1 x 2000): the detector failed (")
    assert "the detector failed" in error(detector.propose, [noise(1, 2000)])


def test_each_image_of_a_record_gets_its_regions_in_turn(record, image, noise, tmp_path):
    noise(40, 60, 1).save(image.parent / "2.jpg")
    own = (Region((0.5, 0.0, 1.0, 0.5), image=1),)
    given = record(*own, more_images=("2.jpg", "absent.jpg"), id="7")
    errors = []
    (filled,) = registry.build("grid", scales=[2], top=3).fill([given], errors.append)
    assert [str(error).split(":")[0] for error in errors] == ["record 7"]
    quarters = [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0)]
    first, second = [(box, 0) for box in quarters], [(quarters[0], 1), (quarters[2], 1)]  # its own is not proposed
    expected = [first[0], second[0], first[1], second[1], first[2]]
    assert filled.regions == (*own, *(Region(box, image=number) for box, number in expected))
    stats = AnnotateStats()
    (again,) = annotate([given], registry.build("grid", scales=[2], top=3), stats, missing_images="text_only")
    assert again == filled
    assert (stats.media, stats.proposals, dict(stats.unreadable)) == (3, 5, {"image": 1})
    assert list(annotate([given], registry.build("grid"), stats, missing_images="skip")) == []
    assert list(draw([filled], tmp_path / "drawn", 5, stats)) == [filled]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["0001_1.png", "0002_2.png"]
    black = [dataclasses.replace(filled, image=Image.new("RGB", (80, 80)), regions=filled.regions[:2])]
    (tmp_path / "drawn" / "0001_1.png").unlink()
    list(draw(black, tmp_path / "drawn", 1, AnnotateStats()))  # the other region is in the second image
    assert not Image.open(tmp_path / "drawn" / "0001_image.png").crop((45, 0, 80, 80)).getbbox()
