"""The styles `paper` and `released`, and properties of all styles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.tasks.grammar import AnswerSchema, ParsedItem
from umie.tasks.styles import STYLES

PAPER, RELEASED = STYLES["paper"], STYLES["released"]
MNER = AnswerSchema(labels=("person", "location", "organization", "miscellaneous"), spans=True)
MRE = AnswerSchema(labels=("member of", "part of"), bare=True, pair=("Star Fox", "Starlink"), at_least_one=True)
MED = AnswerSchema(labels=("attack", "arrest jail"), spans=True, bare=True)
ROLES = ("Attacker", "Target")
MEAE = AnswerSchema(labels=ROLES, spans=True, places=("O1", "O2"), placed_labels=ROLES)
SCHEMAS = {"mner": MNER, "mre": MRE, "med": MED, "meae": MEAE}
KIDS, ARMY = ParsedItem("person", "kids"), ParsedItem("organization", "Salvation Army")
O1 = ParsedItem("Target", places=("O1",))


@pytest.mark.parametrize(
    ("schema", "items", "paper", "released"),
    [
        (
            MNER,
            [KIDS, ARMY],
            "Person, kids <spot> Organization, Salvation Army",
            "<extra_id_0> <extra_id_0> person <extra_id_5> kids <extra_id_1>"
            " <extra_id_0> organization <extra_id_5> Salvation Army <extra_id_1> <extra_id_1>",
        ),
        (
            MRE,
            [ParsedItem("member of")],
            "Star Fox, member of, Starlink",
            "<extra_id_0> <extra_id_0> member of <extra_id_5> <extra_id_6> <extra_id_1> <extra_id_1>",
        ),
        (
            MRE,
            [ParsedItem("member of"), ParsedItem("part of")],
            "Star Fox, member of, Starlink <spot> Star Fox, part of, Starlink",
            "<extra_id_0> <extra_id_0> member of <extra_id_5> <extra_id_6> <extra_id_1>"
            " <extra_id_0> part of <extra_id_5> <extra_id_6> <extra_id_1> <extra_id_1>",
        ),
        (
            MED,
            [ParsedItem("attack", "airstrike")],
            "Attack, airstrike",
            "<extra_id_0> <extra_id_0> attack <extra_id_5> airstrike <extra_id_1> <extra_id_1>",
        ),
        (
            MED,
            [ParsedItem("arrest jail")],
            "Arrest jail",
            "<extra_id_0> <extra_id_0> arrest jail <extra_id_5> <extra_id_6> <extra_id_1> <extra_id_1>",
        ),
        (
            MEAE,
            [ParsedItem("Attacker", "coalition"), O1],
            "Attacker, coalition <spot> Target, O1",
            "<extra_id_0> <extra_id_0> Attacker <extra_id_5> coalition <extra_id_1>"
            " <extra_id_0> Target <extra_id_5> O1 <extra_id_1> <extra_id_1>",
        ),
        (
            MNER,
            [ParsedItem("person", "Lee, Ann [x]")],
            "Person, Lee, Ann [x]",
            "<extra_id_0> <extra_id_0> person <extra_id_5> Lee, Ann [x] <extra_id_1> <extra_id_1>",
        ),
        (MNER, [], "", "<extra_id_0> <extra_id_1>"),
    ],
    ids=["mner", "mre", "two relations", "med", "no trigger", "meae", "comma", "nothing"],
)
def test_the_written_form(schema: AnswerSchema, items: list[ParsedItem], paper: str, released: str) -> None:
    assert PAPER.linearize(items, schema.pair) == paper
    assert RELEASED.linearize(items, schema.pair) == released
    assert PAPER.parse(paper, schema) == (items, 0)
    assert RELEASED.parse(released, schema) == (items, 0)


@pytest.mark.parametrize(
    ("schema", "output", "items", "dropped"),
    [
        (MNER, " \n", [], 0),
        (MNER, "Person,kids<spot>Organization, Salvation Army ", [KIDS, ARMY], 0),
        (MNER, "person, kids", [KIDS], 0),
        (MNER, "Alien, kids", [ParsedItem("Alien", "kids")], 0),
        (MNER, "Person", [ParsedItem("person")], 0),
        (MNER, "kids", [], 1),
        (MNER, "Person, <spot> , kids <spot>", [], 3),
        (MNER, "Person, O1", [ParsedItem("person", "O1")], 0),
        (MED, "Attack <spot> meet", [ParsedItem("attack"), ParsedItem("meet")], 0),
        (MEAE, "Target, O1 <spot> Target, O2 <spot> Target, O3", [
            O1, ParsedItem("Target", places=("O2",)), ParsedItem("Target", "O3"),
        ], 0),
        (MRE, "Star  Fox, part of , Starlink", [ParsedItem("part of")], 0),
        (MRE, "Star Fox, Starlink", [], 1),
        (MRE, "Starlink, part of, Star Fox", [], 1),
        (MRE, "Star Fox, , Starlink", [], 1),
        (MRE, "Star Fox, part of, Starlink <spot> nonsense", [], 1),
        (MRE, "Star Fox, part of, Starlink <spot> Star Fox, x", [ParsedItem("part of")], 1),
    ],
)  # fmt: skip
def test_parsing_of_paper_style(schema: AnswerSchema, output: str, items: list[ParsedItem], dropped: int) -> None:
    assert PAPER.parse(output, schema) == (items, dropped)


def test_paper_style_prefers_the_longest_label() -> None:
    schema = AnswerSchema(labels=("a", "a, b", "c"), spans=True, bare=True)
    assert PAPER.parse("A, b, x <spot> A, x <spot> A, b <spot> C, a, b", schema) == (
        [ParsedItem("a, b", "x"), ParsedItem("a", "x"), ParsedItem("a, b"), ParsedItem("c", "a, b")],
        0,
    )


def test_an_overlapping_pair_in_paper_style() -> None:
    schema = AnswerSchema(labels=("peer",), bare=True, pair=("a, b", "b, a"))
    assert PAPER.parse("a, b, peer, b, a", schema) == ([ParsedItem("peer")], 0)
    assert PAPER.parse("a, b, a", schema) == ([], 1)


PERSON = "<extra_id_0> person <extra_id_5> kids <extra_id_1>"


@pytest.mark.parametrize(
    ("schema", "output", "items", "dropped"),
    [
        (MNER, "", [], 0),
        (MNER, PERSON, [KIDS], 0),
        (MNER, f"<extra_id_0>{PERSON}{PERSON}<extra_id_1>", [KIDS, KIDS], 0),
        (MNER, PERSON.replace(" ", ""), [KIDS], 0),
        (MNER, f"well {PERSON} then", [KIDS], 2),
        (MNER, "<extra_id_0> person <extra_id_5> kids", [], 2),
        (MNER, "<extra_id_0> person <extra_id_5> <extra_id_1>", [], 1),
        (MNER, "<extra_id_0> <extra_id_5> kids <extra_id_1>", [], 1),
        (MNER, f"<extra_id_0> person <extra_id_5> {PERSON}", [KIDS], 1),
        (MNER, "<extra_id_0> person <extra_id_5> <extra_id_6> <extra_id_1>", [ParsedItem("person")], 0),
        (MNER, "<extra_id_0> person <extra_id_5> <extra_id_6> kids <extra_id_1>", [], 2),
        (MNER, "<extra_id_2> person", [], 1),
        (
            MNER,
            PERSON.replace("person", "\x1cperson\xa0").replace("kids", "\xa0kids"),
            [ParsedItem("person", "\xa0kids")],
            0,
        ),
        (MEAE, "<extra_id_0>Target<extra_id_5>O1<extra_id_1>", [O1], 0),
        (MEAE, "<extra_id_0>Target<extra_id_5>O3<extra_id_1>", [ParsedItem("Target", "O3")], 0),
    ],
)
def test_parsing_of_released_style(schema: AnswerSchema, output: str, items: list[ParsedItem], dropped: int) -> None:
    assert RELEASED.parse(output, schema) == (items, dropped)


def test_structured_style_distinguishes_regions_and_numbers_spans() -> None:
    items = [O1, ParsedItem("Target", "O1"), ParsedItem("Target", "O1", occurrence=3)]
    assert STYLES["structured"].linearize(items) == "[Target = O1] [Target: O1] [Target: O1]3"
    assert STYLES["structured"].parse("[Target = O1] [Target: O1] [Target: O1]3", MEAE) == (items, 0)


PIECES = st.sampled_from((
    "<spot>", " <spot> ", "<extra_id_0>", "<extra_id_1>", "<extra_id_5>", "<extra_id_6>", "<extra_id_", ">", "[", "]",
    "|", ":", " = ", ", ", ",", "O1", "O2", "person", "Person", "Star Fox", "Starlink", " ", "\n", "\x1c", "é", "😀",
))  # fmt: skip
OUTPUTS = st.lists(PIECES | st.text(max_size=4), max_size=20).map("".join) | st.text(st.characters(), max_size=40)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("name", STYLES)
@given(OUTPUTS)
def test_any_string_is_read(name: str, schema: AnswerSchema, output: str) -> None:
    items, dropped = STYLES[name].parse(output, schema)
    assert dropped >= 0
    assert len(items) + dropped <= len(output)
    for item in items:
        assert item.label
        assert item.label == item.label.strip()
        assert item.occurrence >= 1
        assert name == "structured" or set(item.places) <= {"O1", "O2"}


@pytest.mark.parametrize(
    "piece", ["[", "|", "x", " ", ",", "<spot>", " <spot> ", "Person,", "a, b <spot> ", "<extra_id_0>", "<", PERSON]
)
@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("name", STYLES)
def test_parsed_items_grow_linearly(name: str, schema: AnswerSchema, piece: str) -> None:
    """Kept and dropped items grow at most linearly with the length, because every piece belongs to one item."""
    found = []
    for times in (30, 300):
        items, dropped = STYLES[name].parse(piece * times, schema)
        found.append(len(items) + dropped + sum(len(item.label) + len(item.filler or "") for item in items))
    assert found[1] <= 10 * found[0] + 10


def test_paper_style_capitalizes_labels() -> None:
    schema = AnswerSchema(labels=("iPhone", "émile x", "ABC"), bare=True)
    items = [ParsedItem(label) for label in schema.labels]
    assert PAPER.linearize(items) == "IPhone <spot> Émile x <spot> ABC"
    assert PAPER.parse("IPhone <spot> Émile x <spot> ABC", schema) == (items, 0)
