"""The format conll: schemes, columns, separators, and the spans of the CoNLL scorer."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from umie.data import registry
from umie.data.tagged import chunks
from umie.errors import UmieError
from umie.records import Record
from umie.records.notes import collected_notes

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
KINDS = ("PER", "LOC", "S-curve")


def read(folder: Path, content: str, **options: object) -> list[Record]:
    path = folder / "a.conll"
    path.write_text(content, encoding="utf-8")
    return list(registry.build("conll", path=path, **options))


def found(record: Record) -> list[tuple[str, str]]:
    return [(entity.text, entity.type) for entity in record.entities]


def message(folder: Path, content: str, **options: object) -> str:
    with pytest.raises(UmieError) as caught:
        read(folder, content, **options)
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    ("tags", "lines"),
    [
        ("bio", "Ann B-PER, Lee I-PER, Bo B-PER, in O, Rome B-LOC"),
        ("bio", "Ann I-PER, Lee I-PER, Bo B-PER, in O, Rome I-LOC"),  # CoNLL-2003
        ("bioes", "Ann B-PER, Lee E-PER, Bo S-PER, in O, Rome S-LOC"),
        ("bioes", "Ann B_PER, Lee E_PER, Bo S_PER, in O, Rome S_LOC"),
        ("bilou", "Ann B-PER, Lee L-PER, Bo U-PER, in O, Rome U-LOC"),
    ],
)
def test_schemes(tmp_path, tags, lines):
    content = lines.replace(", ", "\n") + "\n"
    for scheme in (tags, "auto"):
        (record,) = read(tmp_path, content, tags=scheme)
        assert record.text == "Ann Lee Bo in Rome"
        assert found(record) == [("Ann Lee", "PER"), ("Bo", "PER"), ("Rome", "LOC")]


@pytest.mark.parametrize("lines", ["Ann PER\nLee PER\nin O\nRome LOC", "Ann I-PER\nLee I-PER\nin O\nRome I-LOC"])
@pytest.mark.parametrize("tags", ["io", "auto"])
def test_types_alone(tmp_path, lines, tags):
    (record,) = read(tmp_path, lines, tags=tags)
    assert found(record) == [("Ann Lee", "PER"), ("Rome", "LOC")]


def test_chinese_characters_are_joined_without_spaces(tmp_path):
    (record,) = read(tmp_path, "北 B-LOC\n京 E-LOC\n很 O\n大 O\n", join="")
    assert (record.text, found(record)) == ("北京很大", [("北京", "LOC")])
    (record,) = read(tmp_path, "王 B-NAME\n小 M-NAME\n明 E-NAME\n")
    assert found(record) == [("王 小 明", "NAME")]


def test_columns_separators_comments_and_documents(tmp_path):
    conll_2003 = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n"
    (record,) = read(tmp_path, conll_2003)
    assert (record.text, found(record), record.id) == ("EU rejects", [("EU", "ORG")], "a.conll:3")
    wnut = "# sent_id = 1\n# text = O\n1\t#Rome\tB-LOC\t_\n2\tis nice\tO\t_\n"
    (record,) = read(tmp_path, wnut, columns=["id", "token", "tag", "other"])
    assert (record.text, found(record)) == ("#Rome is nice", [("#Rome", "LOC")])
    multiconer = "# id 5b0f domain=train\nrome _ _ B-LOC\n"
    (record,) = read(tmp_path, multiconer)
    assert found(record) == [("rome", "LOC")]
    multiconer = "-DOCSTART- O\n# id 5b0f domain=train\nrome _ _ B-LOC\n"
    (record,) = read(tmp_path, multiconer)
    assert found(record) == [("rome", "LOC")]
    (record,) = read(tmp_path, "# O\nRome B-LOC\n")  # a token and its tag, not a comment
    assert record.text == "# Rome"
    (record,) = read(tmp_path, "Rome,B-LOC\nis,O\n", separator="comma")
    assert found(record) == [("Rome", "LOC")]
    (record,) = read(tmp_path, "Rome||B-LOC\n", separator="||")
    assert found(record) == [("Rome", "LOC")]
    (record,) = read(tmp_path, "LOC rome x\n", columns="tag,token,_", tags="io")
    assert found(record) == [("rome", "LOC")]


@pytest.mark.parametrize(
    "content",
    [
        "# sent_id = 1\n1\tAnn\tB-PER\n2\tLee\tI-PER\n3\tslept\tO\n\n# text = 2019\n1\t2019\tO\n",
        "1 Ann NNP _ 3 B-PER\n2 Lee NNP _ 3 I-PER\n3 slept VBD _ 0 O\n\n1 2019 CD _ 0 O\n",  # CoNLL-2009
        "-DOCSTART-\tO\n\n0\tAnn\tB-PER\n1\tLee\tI-PER\n2\tslept\tO\n\n0\t2019\tO\n",
        "1\tAnn\tB-PER\n2\tLee\tI-PER\n3\tslept\tO\n\n4\t2019\tO\n",
        "1\tAnn\tB-PER\n2-3\tLee slept\t_\n2\tLee\tI-PER\n3\tslept\tO\n3.1\there\t_\n\n1\t2019\tO\n",  # CoNLL-U
        "#id = a\nIMGID:7\n1\tAnn\tB-PER\n2\tLee\tI-PER\n3\tslept\tO\nIMGID:8\n1\t2019\tO\n",
    ],
)
def test_a_column_that_counts_tokens_is_no_token(tmp_path, content):
    with collected_notes() as notes:
        records = read(tmp_path, content)
    assert [(record.text, found(record)) for record in records] == [
        ("Ann Lee slept", [("Ann Lee", "PER")]),
        ("2019", []),
    ]
    assert list(notes) == ["column 1 counts the tokens, so column 2 was read as the tokens"]


def test_numbers_are_tokens_if_they_do_not_count(tmp_path):
    for content in ("3 CD O\n4 CD B-NUM\n", "1 CD O\n2 CD B-NUM\n\n7 CD O\n", "1 O\n2 B-NUM\n"):
        with collected_notes() as notes:
            assert read(tmp_path, content)[0].text in ("3 4", "1 2")
        assert not notes


def test_several_columns_of_tags(tmp_path):
    start = "a.conll: column 3 of 4 has tags, and the last one"
    nested = "# http://a.org [2009]\n1\tUni\tB-ORG\tO\n2\tRome\tI-ORG\tB-LOC\n3\tRome\tB-LOC\tO\n"  # GermEval 2014
    assert message(tmp_path, nested) == (
        f"{start} has tags of the same types: set columns to the names of all columns, such as other1,token,tag,other4"
    )
    (record,) = read(tmp_path, nested, columns="other1,token,tag,other4")
    assert found(record) == [("Uni Rome", "ORG"), ("Rome", "LOC")]
    annotated = "1\tUni\tB-ORG\tann\n2\tRome\tO\tann\n"
    assert message(tmp_path, annotated).startswith(f"{start} has other values, such as 'ann': set columns")
    assert message(tmp_path, "1\tUni\tNN\t_\n2\tRome\tNN\t_\n").startswith("a.conll:1: tag '_' is neither O nor a type")
    with collected_notes() as notes:
        (record,) = read(tmp_path, "Uni B-ORG O\nRome O O\n")
    assert not record.entities
    assert list(notes) == ["column 2 of 3 has tags, but only the last one is read; see the option columns"]
    with collected_notes() as notes:  # chunks, as in CoNLL-2003
        (record,) = read(tmp_path, "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n")
    assert (found(record), dict(notes)) == ([("EU", "ORG")], {})


def test_labels_and_ignored_tags(tmp_path):
    content = "Ann B-PER\nRome B-LOC\nMonday B-TIME\nfoo B-MISC\nbar I-MISC\n"
    labels = {"PER": "person", "LOC": "place", "TIME": "point in time"}
    (record,) = read(tmp_path, content, labels=labels, ignore_tags=["MISC"])
    assert found(record) == [("Ann", "person"), ("Rome", "place"), ("Monday", "point in time")]
    assert record.labels == {"mner": ("person", "place", "point in time")}
    (record,) = read(tmp_path, content, ignore_tags=["B-MISC", "TIME"])
    assert (found(record)[2:], record.labels) == ([("bar", "MISC")], None)
    assert message(tmp_path, content, labels=labels).startswith(
        "a.conll:4: Unknown entity type 'MISC'. Choices: LOC, PER, TIME"
    )


def test_headers_name_images(tmp_path):
    records = read(tmp_path, "IMGID:7\nRome B-LOC\nIMGID:8\nAnn B-PER\n\nBo B-PER\n", images=tmp_path)
    assert [(record.id, record.image) for record in records] == [("7", "7.jpg"), ("8", "8.jpg"), ("a.conll:6", None)]


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("Ann\n", {}, "a.conll:1: the line splits into ['Ann']: expected a token and a tag; see separator and columns"),
        ("Ann B-PER\nLee x I-PER\n", {}, "a.conll:2: the line splits into ['Lee', 'x', 'I-PER']: expected 2 columns"),
        (
            "Ann E-PER\n",
            {"tags": "bio"},
            "a.conll:1: tag 'E-PER' is not of the scheme bio (B-, I- and a type, or O)",
        ),
        ("Ann PER\n", {"tags": "bilou"}, "a.conll:1: tag 'PER' is not of the scheme bilou (B-, I-, L-, U- and a"),
        ("Ann B-\n", {"tags": "bio"}, "a.conll:1: tag 'B-' is not of the scheme bio"),
        ("\tB-PER\n", {}, "a.conll:1: token 0 is '': expected a non-empty string"),
        ("Ann O\n", {"tags": "iob"}, "tags is 'iob': use one of auto, bio, bioes, bilou, io"),
        (
            "Ann O\n",
            {"columns": ["token"]},
            "columns is ['token']: name all columns, one of them 'token'",
        ),
        ("Ann O\n", {"columns": 2}, "columns is 2: use a list of names"),
        ("Ann O\n", {"separator": 5}, "separator is 5: use a string"),
        ("Ann O\n", {"labels": ["PER"]}, "labels is ['PER']: use a mapping from the types of the file to labels"),
        ("Ann O\n", {"regions": "x"}, "a.conll: the format 'conll' has no separate region files; leave regions out"),
    ],
)
def test_errors_name_line_and_value(tmp_path, content, options, expected):
    assert message(tmp_path, content, **options).startswith(expected)


@st.composite
def annotated(draw):
    """Return the number of tokens, and typed token spans that do not overlap, in order."""
    cuts = sorted(draw(st.sets(st.integers(0, 12), max_size=8)))
    spans = [(draw(st.sampled_from(KINDS)), start, end) for start, end in pairwise(cuts) if draw(st.booleans())]
    return 12, spans


def tagged(num_tokens, spans, scheme):
    tags = ["O"] * num_tokens
    first, middle, last, single = {"bio": "BIIB", "bioes": "BIES", "bilou": "BILU", "io": "IIII"}[scheme]
    for kind, start, end in spans:
        for index in range(start, end):
            sign = single if end - start == 1 else first if index == start else last if index == end - 1 else middle
            tags[index] = f"{sign}-{kind}"
    return tags


@given(annotated(), st.sampled_from(["bio", "bioes", "bilou", "io"]), st.booleans())
def test_spans_are_read_back(tmp_path_factory, sentence, scheme, is_auto):
    num_tokens, spans = sentence
    if scheme == "io":  # neighbors of one type are one entity
        spans = [one for one, two in pairwise([*spans, ("", 99, 99)]) if one[2] < two[1] or one[0] != two[0]]
        spans = [two for one, two in pairwise([("", -1, -1), *spans]) if one[2] < two[1] or one[0] != two[0]]
    tags = tagged(num_tokens, spans, scheme)
    content = "".join(f"w{index}\t{tag}\n" for index, tag in enumerate(tags))
    (record,) = read(tmp_path_factory.mktemp("a"), content, tags="auto" if is_auto else scheme)
    words = record.text.split()
    expected = [(" ".join(words[start:end]), kind) for kind, start, end in spans]
    assert found(record) == expected


@given(st.lists(st.sampled_from(["O", *(f"{sign}-{kind}" for sign in "BIES" for kind in ("A", "B"))]), max_size=12))
def test_any_tags_are_read_as_by_seqeval(tags):
    ours = list(chunks([(tag[0], tag[2:]) for tag in tags]))
    assert ours == [(kind, start, end + 1) for kind, start, end in get_entities(tags)]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the annotated tweets are not there")
def test_tweets_are_read_as_by_their_own_reader():
    path = SHARED / "twitter2017" / "train.txt"
    labels = {"PER": "person", "LOC": "location", "ORG": "organization", "MISC": "miscellaneous"}
    own = list(registry.build("twitter", path=path))
    records = list(registry.build("conll", path=path, labels=labels))
    assert [(one.text, one.entities, one.id) for one in records] == [(one.text, one.entities, one.id) for one in own]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("001 Ann B-PER\n002 left O\n\n001 Rome B-LOC\n", "numbers"),
        ("1. Ann B-PER\n2. left O\n", "numbers"),
        ("1 Ann B-PER\n3 left O\n\n1 Rome B-LOC\n", "numbers"),
        ("B-PER Ann x\nO left x\n", "tags"),
        ("s1 Ann B-PER\n" * 30, "numbers"),
        ("doc Ann B-PER\n" * 30, "always the same"),
    ],
)
def test_a_first_column_without_tokens_is_refused(tmp_path, content, problem):
    assert message(tmp_path, content).startswith(f"a.conll: column 1 of 3 is {problem}, not the tokens: set columns")
