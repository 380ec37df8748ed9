"""Relation labels that mean "no relation"."""

import pytest

from umie.errors import UmieError
from umie.records import Record, Relation, is_no_relation, no_relation_names
from umie.records.no_relation import doubtful_labels, renamed
from umie.scoring import strict_score

USUAL = ["none", "None", "NONE", "NA", "na", "N/A", "n/a", "no_relation", "no relation", "No-Relation", "NoRelation",
         "null", "NIL", "nota", "/none", "nan", "Other", "OTHERS", "无关系",
         "ＮＡ", "Other(e1,e2)", "per:no_relation"]  # fmt: skip
POSSIBLE = ["-", "negative", "unknown", "O", "其他"]
REAL = ["no_parent", "nationality", "another", "nap", "member of", "人"]


def pairs(*types: str) -> list[Record]:
    return [Record("Ann Bob", relations=(Relation(name, (0, 3), (4, 7)),)) for name in types]


@pytest.mark.parametrize("name", USUAL)
def test_always_none_scores_0_under_every_usual_name(name: str) -> None:
    predicted, gold = pairs(*[name] * 10), pairs(*[name] * 9, "peer")
    assert strict_score("mre", predicted, gold)["f1"] == 0
    assert strict_score("mre", predicted, pairs(*["none"] * 9, "peer"))["f1"] == 0


@pytest.mark.parametrize("name", POSSIBLE)
def test_other_names_are_real_relations_unless_they_are_chosen(name: str) -> None:
    predicted, gold = pairs(*[name] * 10), pairs(*[name] * 9, "peer")
    assert strict_score("mre", predicted, gold)["f1"] == 0.9
    assert doubtful_labels([name, "peer"]) == {name: 1}
    with no_relation_names([name.lower()]):
        assert strict_score("mre", predicted, gold)["f1"] == 0
        assert not doubtful_labels([name])
        assert renamed(gold[0]).relations[0].type == "none"
    assert not is_no_relation(name)


def test_names_of_relations_are_not_touched() -> None:
    assert not any(map(is_no_relation, REAL))
    assert not doubtful_labels([*REAL, "none"])
    (record,) = pairs("peer")
    assert renamed(record) is record
    with no_relation_names(["-"]):
        assert [name for name in ["-", *REAL, "NA", "Other"] if is_no_relation(name)] == ["-", "NA"]
        assert is_no_relation("none")
        assert not doubtful_labels(["NA"])
    with pytest.raises(UmieError, match="the names of no relation are"), no_relation_names([" "]):
        pass


def test_a_name_is_replaced_in_the_schema_too() -> None:
    (record,) = pairs("NA")
    schema = {"mre": ("peer", "NA", "none"), "mner": ("NA",)}
    labeled = Record(record.text, relations=record.relations, labels=schema)
    assert renamed(labeled).labels == {"mre": ("peer", "none"), "mner": ("NA",)}
