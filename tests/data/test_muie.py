"""The benchmark kit: cells of tasks and combinations of media, drawn from sets, with a checksum."""

import json
import shutil

import pytest
from test_speaking import needs_espeak

from umie.data.muie import CELLS, MANIFEST, SOURCES, Recipe, build_muie, read_recipe
from umie.data.source import Source
from umie.data.synthetic_media import SyntheticMediaConfig, write_synthetic_media
from umie.errors import UmieError
from umie.records import read_jsonl

TASKS = {"mner": "entities", "mre": "relations", "med": "events"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Return a file for each set: the embedded media set has texts with images, and with videos."""
    folder = tmp_path_factory.mktemp("sets")
    files = {}
    for combination in ("T+I", "T+V"):
        config = SyntheticMediaConfig(train=24, dev=0, test=0, combinations=(combination,), media_share=1)
        files[combination] = write_synthetic_media(folder / combination, config)["train"]
    return {name: Source(files["T+V" if name == "VidSitu" else "T+I"]) for name in SOURCES if name != "imSitu"}


def cell(name):
    return next(one for one in CELLS if one.name == name)


def test_the_cells_are_those_of_the_paper():
    assert len(CELLS) == len({one.name + one.tasks[0] for one in CELLS}) == 15
    assert len({one.combination for one in CELLS}) == 9


@pytest.mark.parametrize("sources", [("Twt17", "PASCAL-C", "VRD"), ("VidSitu",)])
def test_cells_without_speech(sets, tmp_path, sources):
    quiet = {name: sets[name] for name in sources}
    recipe = Recipe(sources=quiet, records=5, unaligned=0)
    try:
        built = {one.cell.name: one for one in build_muie(recipe, tmp_path / "out")}
    except UmieError as error:
        assert "espeak" in str(error)  # a cell with speech
        pytest.skip("espeak-ng is not installed")
    wanted = {"I_PASCAL-C": "I", "I_VRD": "I", "T+I_Twt17": "T+I", "V_VidSitu": "V", "T+V_VidSitu": "T+V"}
    for name, combination in wanted.items():
        if name.split("_")[1] not in sources:
            assert (built[name].records, built[name].reason) == (0, f"no source {name.split('_')[1]}")
            continue
        records = list(read_jsonl(tmp_path / "out" / name / "records.jsonl"))
        assert len(records) == built[name].records == 5
        for record in records:
            assert record.combination == combination
            assert record.tasks == cell(name).tasks
            assert getattr(record, TASKS[record.tasks[0]])
            assert all(record.path(medium).is_file() for medium in record.media)


@needs_espeak
def test_cells_with_speech_and_silent_mentions(sets, tmp_path):
    recipe = Recipe(sources={"ACE05": sets["ACE05"], "MNRE": sets["MNRE"]}, records=8, unaligned=1)
    built = {one.cell.name: one for one in build_muie(recipe, tmp_path / "out")}
    spoken = list(read_jsonl(tmp_path / "out" / "T+A_ACE05" / "records.jsonl"))
    assert built["T+A_ACE05"].unaligned == len(spoken) == 8
    assert not any(entity.segments for record in spoken for entity in record.entities)  # the only mention is silent
    heard = list(read_jsonl(tmp_path / "out" / "A_ACE05" / "records.jsonl"))
    assert built["A_ACE05"].unaligned == 0  # what is not in the sound would be nowhere
    assert all(record.text == "" and entity.segments for record in heard for entity in record.entities)
    both = list(read_jsonl(tmp_path / "out" / "I+A_MNRE" / "records.jsonl"))
    assert {record.combination for record in both} == {"I+A"}
    assert built["I+A_MNRE"].groundings["audio"] >= 2 * len(both)
    again = {one.cell.name: one for one in build_muie(recipe, tmp_path / "again")}
    assert {name: one.checksum for name, one in again.items()} == {name: one.checksum for name, one in built.items()}
    lines = json.loads((tmp_path / "out" / MANIFEST).read_text("utf-8"))["cells"]
    assert [line["cell"] for line in lines] == [one.name for one in CELLS]
    with pytest.raises(UmieError, match="exists: use another directory"):
        build_muie(recipe, tmp_path / "out")


def test_records_without_files_are_counted_and_left_out(sets, tmp_path):
    source = sets["PASCAL-C"].path
    shutil.copytree(source.parent, tmp_path / "set")
    for path in sorted((tmp_path / "set").rglob("*.png"))[:-2]:
        path.unlink()
    notes = []
    recipe = Recipe(sources={"PASCAL-C": Source(tmp_path / "set" / source.name)})
    built = build_muie(recipe, tmp_path / "out", note=notes.append)
    assert next(one for one in built if one.cell.source == "PASCAL-C").records <= 2
    assert any("have no file of their media" in note for note in notes)


def test_recipes(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("records: 3\nsources:\n  Twt17: {format: twitter, file: a/test.txt, images: b}\n", encoding="utf-8")
    recipe = read_recipe(path)
    assert (recipe.records, recipe.sources["Twt17"]) == (3, Source(tmp_path / "a/test.txt", "twitter", tmp_path / "b"))
    for text, message in [
        ("sources: {Twt18: {file: x}}", "Twt18"),
        ("sources: {Twt17: {format: twitter}}", "sources.Twt17.file is None: use the path"),
        ("sources: {Twt17: x}", "use format and file"),
        ("size: 3", "size"),
        ("records: 0", "records"),
        ("unaligned: 2", "unaligned"),
        ("3", "use a mapping"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UmieError, match=message):
            read_recipe(path)
