"""The twitter and gmner formats on small files."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.data import registry
from umie.errors import UmieError
from umie.records import Entity, Record, Region

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "gmner"
TWO_TWEETS = """\
IMGID:17
Ann\tB-PER
Lee\tI-PER
likes\tO
New\tB-LOC
York\tI-LOC
,\tO
NASA\tB-ORG
Star\tB-MISC
Wars\tI-MISC
Halo\tB-OTHER

IMGID:O_18
Hi\tO
"""
VOC = """\
<annotation><size><width>200</width><height>100</height></size>
<object><name>Ann Lee</name>
<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>120</xmax><ymax>100</ymax></bndbox></object>
</annotation>"""
FRAGMENTS = [
    b"IMGID:1",
    b"IMGID:",
    b"IMGID:../x",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"a\tO",
    b"b\tB-PER",
    b"c\tI-PER",
    b"d\tI-LOC",
    b"\xc2\xa0\tB-ORG",
    b"\t",
    b"\tO",
    b"e\tB-NONE",
    b"f",
    b"\xff",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\xe2\x80\x8b\tB-MISC",
]


def read(folder: Path, content: str | bytes, **options: object) -> list[Record]:
    path = folder / "tweets.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    records = registry.build("twitter", path=path, **options)
    return [replace(record, source=None, license=None, labels=None) for record in records]  # test_notes.py covers them


def message(folder: Path, content: str | bytes, **options: object) -> str:
    with pytest.raises(UmieError) as caught:
        read(folder, content, **options)
    return str(caught.value)


def entities(folder: Path, *tokens: str) -> list[tuple[str, str]]:
    """Return text and type of the entities of one tweet, given as 'token/tag'."""
    lines = "\n".join(token.replace("/", "\t") for token in tokens)
    (record,) = read(folder, f"IMGID:1\n{lines}\n")
    return [(entity.text, entity.type) for entity in record.entities]


def test_text_entities_and_id(tmp_path: Path) -> None:
    first, second = read(tmp_path, TWO_TWEETS)
    assert first == Record(
        text="Ann Lee likes New York , NASA Star Wars Halo",
        entities=(
            Entity("person", (0, 7), "Ann Lee"),
            Entity("location", (14, 22), "New York"),
            Entity("organization", (25, 29), "NASA"),
            Entity("miscellaneous", (30, 39), "Star Wars"),
            Entity("miscellaneous", (40, 44), "Halo"),
        ),
        id="17",
        tasks=("mner",),
    )
    assert (second.id, second.text, second.entities) == ("O_18", "Hi", ())


def test_records_have_no_image_without_a_folder(tmp_path: Path) -> None:
    record = read(tmp_path, TWO_TWEETS)[0]
    assert record.image is None
    assert record.image_folder is None


def test_the_image_is_named_by_the_id(tmp_path: Path) -> None:
    records = read(tmp_path, TWO_TWEETS, images=tmp_path)
    assert [record.image for record in records] == ["17.jpg", "O_18.jpg"]
    assert records[0].image_path() == (tmp_path / "17.jpg").resolve()


def test_regions_come_from_voc_files_and_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "17.xml").write_text(VOC)
    first, second = read(tmp_path, TWO_TWEETS, regions=tmp_path / "xml")
    assert first.regions == (Region((0.1, 0.1, 0.6, 1.0), "Ann Lee"),)
    assert second.regions == ()


def test_gmner_reads_the_same_way(tmp_path: Path) -> None:
    (tmp_path / "17.xml").write_text(VOC)
    records = read(tmp_path, TWO_TWEETS, regions=tmp_path)
    found = registry.build("gmner", path=tmp_path / "tweets.txt", regions=tmp_path)
    assert [replace(record, source=None, license=None, labels=None) for record in found] == records


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (("Dr/O", "./O", "John/I-PER", "Bosman/I-PER"), [("John Bosman", "person")]),
        (("New/B-OTHER", "York/I-LOC"), [("New", "miscellaneous"), ("York", "location")]),
        (("Ann/B-PER", "Bea/B-PER"), [("Ann", "person"), ("Bea", "person")]),
        (("Ann/I-PER",), [("Ann", "person")]),
        (("a/B-MISC", "b/I-OTHER"), [("a", "miscellaneous"), ("b", "miscellaneous")]),
        (("a/O",), []),
    ],
    ids=["continues nothing", "other type", "two in a row", "at the start", "two names of one type", "none"],
)
def test_bio_tags(tmp_path: Path, tokens: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    assert entities(tmp_path, *tokens) == expected


def test_odd_characters_in_tokens_are_kept(tmp_path: Path) -> None:
    tokens = ["\xa0", "\u200b", "\ufe0f", "\x92", "a\u2028b", "\x85", "é"]
    (record,) = read(tmp_path, "IMGID:1\n" + "".join(f"{token}\tB-PER\n" for token in tokens))
    assert [entity.text for entity in record.entities] == tokens
    assert record.text == " ".join(tokens)


@pytest.mark.parametrize(
    "content",
    [
        TWO_TWEETS.replace("\n", "\r\n"),
        "\ufeff" + TWO_TWEETS,
        TWO_TWEETS.removesuffix("\n"),
        "\n\n" + TWO_TWEETS.replace("\n\n", "\n \n\t\n") + "\n\n",
        TWO_TWEETS.replace("\n\n", "\n"),
    ],
    ids=["CRLF", "byte-order mark", "no final newline", "more blank lines", "no blank line"],
)
def test_the_same_tweets_in_other_dress(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == read(tmp_path, TWO_TWEETS)


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    assert read(tmp_path, "") == []


def test_reads_one_tweet_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "tweets.txt"
    path.write_text("IMGID:1\na\tO\n\nIMGID:2\nbroken\n")
    records = registry.build("twitter", path=path)
    assert next(records).id == "1"
    with pytest.raises(UmieError):
        next(records)


@pytest.mark.parametrize(
    ("content", "line", "problem"),
    [
        ("IMGID:1\na\tO\nb\n", 3, "'b' is not a token: expected 'token<TAB>tag'"),
        ("IMGID:1\na\tO\tO\n", 2, "'a\\tO\\tO' is not a token: expected 'token<TAB>tag'"),
        ("IMGID:1\n\tO\n", 2, "'\\tO' is not a token: expected 'token<TAB>tag'"),
        ("IMGID:1\na\tB-PERS\n", 2, "Unknown tag 'B-PERS'. Did you mean 'B-PER'?"),
        ("IMGID:1\na\t\n", 2, "Unknown tag ''. Choices: B-LOC, "),
        ("a\tO\n", 1, "'a\\tO' is not part of a tweet: begin each tweet with 'IMGID:<id>'"),
        ("IMGID:1\na\tO\n\nb\tO\n", 4, "'b\\tO' is not part of a tweet"),
        ("IMGID:1\na\tO\n\nIMGID:2\n\nIMGID:3\nb\tO\n", 4, "there are no tokens: every record needs a text"),
        ("IMGID:1\na\tO\n\nIMGID:2", 4, "there are no tokens"),
        ("IMGID:1\n\xa0\tO\n", 1, "text is empty: every record needs a non-empty text"),
        ("IMGID:\na\tO\n", 1, "the id of the image is '': expected a file name without directories"),
        (
            "IMGID:../../etc/passwd\na\tO\n",
            1,
            "the id of the image is '../../etc/passwd': expected a file name",
        ),
        (b"IMGID:1\na\tO\n\xffb\tO\n", 3, "not UTF-8 text (invalid start byte); save the file as UTF-8"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, content: str | bytes, line: int, problem: str) -> None:
    assert message(tmp_path, content).startswith(f"{tmp_path / 'tweets.txt'}:{line}: {problem}")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UmieError) as caught:
        list(registry.build("twitter", path=tmp_path / "absent.txt"))
    assert str(caught.value) == f"{tmp_path / 'absent.txt'}: cannot read: No such file or directory"
    with pytest.raises(UmieError) as caught:
        list(registry.build("twitter", path=tmp_path))
    assert str(caught.value) == f"{tmp_path}: cannot read: Is a directory, not a regular file"


def test_an_entity_has_the_regions_with_its_name(tmp_path: Path) -> None:
    box = VOC.partition("<object>")[2]
    names = ["Nasa", "Ann Lee", "annlee", "Lee"]
    objects = "".join(f"<object>{box.replace('Ann Lee', name)}".replace("</annotation>", "") for name in names)
    (tmp_path / "17.xml").write_text(
        f"<annotation><size><width>200</width><height>100</height></size>{objects}</annotation>"
    )
    (record, _) = read(tmp_path, TWO_TWEETS, regions=tmp_path)
    found = {entity.text: entity.regions for entity in record.entities if entity.regions}
    assert found == {"Ann Lee": (1, 2), "NASA": (0,)}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the annotated tweets are not there")
def test_every_box_of_gmner_belongs_to_an_entity() -> None:
    records = list(registry.build("gmner", path=SHARED / "txt" / "dev.txt", regions=SHARED / "xml"))
    used = [{index for entity in record.entities for index in entity.regions} for record in records]
    assert [len(record.regions) for record in records] == list(map(len, used))
    assert sum(map(len, used)) > 500


def test_a_mistyped_folder_of_regions_is_not_taken_for_missing_files(tmp_path: Path) -> None:
    assert message(tmp_path, TWO_TWEETS, regions=tmp_path / "xlm") == (
        f"{tmp_path / 'xlm'}: no such directory; use an existing one as regions, or leave it out"
    )


def test_errors_in_a_voc_file_name_that_file(tmp_path: Path) -> None:
    (tmp_path / "17.xml").write_text(VOC.replace("<xmin>20", "<xmin>left"))
    assert message(tmp_path, TWO_TWEETS, regions=tmp_path).startswith(
        f"{tmp_path / '17.xml'}: object 1: <bndbox/xmin> is 'left': expected a number"
    )


@given(st.binary(max_size=60) | st.lists(st.sampled_from(FRAGMENTS), max_size=15).map(b"\n".join))
def test_no_bytes_raise_anything_but_umie_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tweets.txt")
        path.write_bytes(data)
        try:
            records = list(registry.build("twitter", path=path, images=folder, regions=folder))
        except UmieError as error:
            assert str(error).startswith(f"{path}:")
        else:
            assert data.count(b"IMGID:") >= len(records)
