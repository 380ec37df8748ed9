"""The snap and fmnerg formats on small files; features in common with twitter are tested there."""

from pathlib import Path

import pytest

from umie.data import registry
from umie.data.fmnerg import FINE_TYPES
from umie.errors import UmieError
from umie.records import Record

SPELLINGS = ["PER", "per", "person", "Person", "PERSON"]


def read(name: str, folder: Path, content: str) -> list[Record]:
    path = folder / "train.txt"
    path.write_text(content)
    return list(registry.build(name, path=path))


def message(name: str, folder: Path, content: str) -> str:
    with pytest.raises(UmieError) as caught:
        read(name, folder, content)
    return str(caught.value).removeprefix(f"{folder / 'train.txt'}:")


def found(records: list[Record]) -> list[tuple[str, str]]:
    return [(entity.text, entity.type) for record in records for entity in record.entities]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_snap_spells_types_in_several_ways(tmp_path: Path, spelling: str) -> None:
    records = read("snap", tmp_path, f"IMGID:16_05_01_6\nAnn\tB-{spelling}\nLee\tI-{spelling}\nsings\tO\n")
    assert found(records) == [("Ann Lee", "person")]
    assert records[0].id == "16_05_01_6"
    assert records[0].source == "SNAP: train.txt"


@pytest.mark.parametrize(
    ("tag", "label"),
    [
        ("MISC", "miscellaneous"),
        ("OTHER", "miscellaneous"),
        ("miscellaneous", "miscellaneous"),
        ("LOC", "location"),
        ("location", "location"),
        ("ORG", "organization"),
        ("organization", "organization"),
    ],
)
def test_snap_types(tmp_path: Path, tag: str, label: str) -> None:
    assert found(read("snap", tmp_path, f"IMGID:1\nx\tB-{tag}\n")) == [("x", label)]


def test_snap_tags_that_are_none(tmp_path: Path) -> None:
    assert message("snap", tmp_path, "IMGID:1\nx\tB-PERS\n").startswith(
        "2: Unknown tag 'B-PERS'. Did you mean 'B-PER'?"
    )


def test_twitter_is_stricter_than_snap(tmp_path: Path) -> None:
    assert message("twitter", tmp_path, "IMGID:1\nx\tB-person\n").startswith("2: Unknown tag 'B-person'")


def test_fmnerg_reads_the_fine_types(tmp_path: Path) -> None:
    records = read(
        "fmnerg",
        tmp_path,
        "IMGID:1\nAnn\tB-person\tB-athlete\nLee\tI-person\tI-athlete\nof\tO\tO\nthe\tO\tO\nFoxes\tB-organization\tB-sports_team\n"
        "Boa\tB-person\tB-Person_other\n",
    )
    assert found(records) == [("Ann Lee", "athlete"), ("Foxes", "sports team"), ("Boa", "person other")]
    assert records[0].text == "Ann Lee of the Foxes Boa"
    assert records[0].source == "FMNERG: train.txt"


def test_fmnerg_has_8_coarse_and_51_fine_types(tmp_path: Path) -> None:
    lines = [f"x\tB-{coarse}\tB-{fine}\n" for coarse, types in FINE_TYPES.items() for fine in types]
    (record,) = read("fmnerg", tmp_path, f"IMGID:1\n{''.join(lines)}")
    assert len(FINE_TYPES) == 8
    assert len({entity.type for entity in record.entities}) == len(record.entities) == 51
    assert {entity.type for entity in record.entities} == set((record.labels or {})["mner"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("x\tB-athlete", "'x\\tB-athlete' is not a token: expected 'token<TAB>coarse tag<TAB>fine tag'"),
        ("x\tO\tO\tO", "'x\\tO\\tO\\tO' is not a token: expected 'token<TAB>coarse tag<TAB>fine tag'"),
        ("x\tB-people\tB-athlete", "Unknown coarse tag 'B-people'."),
        ("x\tB-person\tB-athletes", "Unknown tag 'B-athletes'. Did you mean 'B-athlete'?"),
        ("x\tB-person\tB-person", "Unknown tag 'B-person'."),
    ],
)
def test_fmnerg_lines_that_are_none(tmp_path: Path, line: str, problem: str) -> None:
    assert message("fmnerg", tmp_path, f"IMGID:1\n{line}\n").startswith(f"2: {problem}")
