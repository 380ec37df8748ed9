"""Paired comparisons: which variants are compared, and what the interval and p of a difference are."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from umie.errors import UmieError
from umie.experiments.comparison import compare, counts_in, interactions, marginal_effects
from umie.experiments.data_sets import Corpus, DataSet
from umie.experiments.expand import plan, read_grid
from umie.experiments.grid_run import GridRun
from umie.experiments.results import COUNTS
from umie.experiments.statistics import Comparison, corrected

RECORDS = 200


@pytest.fixture
def compared(tmp_path):
    """Return the comparisons of a grid: ``compared(grid_keys, lambda cell: counts [records, 3])``."""

    def make(keys, counts_of, sets=("data",), of=compare):
        path = tmp_path / "grid.yaml"
        data = {"sets": {name: {"format": "synthetic"} for name in sets}} if len(sets) > 1 else {"format": "synthetic"}
        path.write_text(json.dumps({"data": data, "tasks": ["mner"], **keys}))
        grid = read_grid(path)
        cells = plan(grid, "")
        values = {"format": "synthetic", "files": {}, "images": {}, "tasks": {"mner": {}}, "fingerprint": ""}
        values |= {"num_queries": {"test": {"mner": 1}}, "num_records": {"test": 1}, "num_combinations": {}}
        corpus = Corpus(
            {name: DataSet(name, **values) for name in sets}, dict.fromkeys(sets, 1.0), is_single=len(sets) == 1
        )
        run = GridRun(grid, corpus, cells, {cell.hash: {"status": "ok"} for cell in cells})
        for cell in cells:
            folder = tmp_path / "cells" / cell.hash
            folder.mkdir(parents=True, exist_ok=True)
            if (counts := counts_of(cell)) is not None:
                (folder / COUNTS).write_text(json.dumps({one.key: np.asarray(counts).tolist() for one in run.scored}))
        return of(run, counts_in(run, tmp_path))

    return make


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def answers(rng, shift=0.0, difficulty=None):
    """Return the counts of a system that finds a random share of two annotated items per record."""
    difficulty = rng.normal(1, 1.5, RECORDS) if difficulty is None else difficulty
    found = rng.binomial(2, 1 / (1 + np.exp(-(difficulty + shift))))
    return np.stack([found, found + rng.binomial(1, 0.1, RECORDS), np.full(RECORDS, 2)], -1)


def pairs(found):
    return [(one.variant, one.against) for one in found]


def test_variants_are_compared_with_the_one_without_image_and_with_their_shuffled_control(compared):
    fusions = ["concat", "text_only", "gated", {"name": "gated", "images": "shuffled"}]
    found = compared({"fusion": fusions}, lambda cell: np.ones((5, 3)))
    assert pairs(found) == [
        ("concat", "text_only"),
        ("gated", "text_only"),
        ("gated, shuffled images", "text_only"),
        ("gated", "gated, shuffled images"),
    ]


def test_the_reference_has_the_same_decoder_and_the_encoder_does_not_matter_to_it(compared):
    keys = {
        "encoder": ["tiny", {"name": "tiny", "crop_size": 8}],
        "fusion": ["gated", "text_only"],
        "decoder": [{"name": "span"}, "tiny"],
    }
    found = compared(keys, lambda cell: np.ones((5, 3)))
    assert pairs(found) == [
        ("tiny + gated + span", "text_only + span"),
        ("tiny + gated + tiny", "text_only + tiny"),
        ("tiny(crop_size=8) + gated + span", "text_only + span"),
        ("tiny(crop_size=8) + gated + tiny", "text_only + tiny"),
    ]


@pytest.mark.parametrize("fusion", ["gated", "text_only"])
def test_without_a_variant_to_compare_with_the_first_one_is_the_reference(compared, fusion):
    found = compared({"fusion": fusion, "decoder": ["tiny", {"name": "span"}]}, lambda cell: np.ones((5, 3)))
    assert pairs(found) == [("span", "tiny")]


def test_sets_that_one_side_was_not_trained_on_are_not_compared(compared):
    keys = {"fusion": "text_only", "train_on": ["all", {"without": "two"}]}
    found = compared(keys, lambda cell: np.ones((5, 3)), sets=("one", "two"))
    assert [(one.variant, one.against, one.task) for one in found] == [("without two", "all sets", "one MNER")]


def test_cells_without_counts_are_left_out(compared):
    keys = {"fusion": ["text_only", "gated", "concat"], "seeds": [0, 1]}
    found = compared(keys, lambda cell: None if cell.variant == "gated" or cell.seed else np.ones((5, 3)))
    assert [(one.variant, one.num_seeds) for one in found] == [("concat", 1)]


def test_the_difference_is_the_mean_over_seeds_and_the_interval_contains_both_sources_of_chance(compared, rng):
    sheets = {}

    def counts(cell):
        shift = 1.0 if cell.variant == "gated" else 0.0
        return sheets.setdefault((cell.variant, cell.seed), answers(rng, shift + 0.3 * cell.seed * shift))

    (one,) = compared({"fusion": ["gated", "text_only"], "seeds": [0, 1, 2]}, counts)

    def f1(variant, seed, rows=slice(None)):
        correct, predicted, gold = sheets[variant, seed][rows].sum(axis=0)
        return 2 * correct / (predicted + gold)

    differences = [f1("gated", seed) - f1("text_only", seed) for seed in range(3)]
    assert one.difference == pytest.approx(np.mean(differences))
    of_seeds = np.std(differences, ddof=1) / math.sqrt(3)
    means = []
    for _ in range(2000):
        rows = rng.integers(0, RECORDS, RECORDS)
        means.append(np.mean([f1("gated", seed, rows) - f1("text_only", seed, rows) for seed in range(3)]))
    assert one.error == pytest.approx(math.hypot(of_seeds, np.std(means)), rel=0.05)
    assert one.share == pytest.approx(of_seeds**2 / one.error**2)
    low, high = one.interval
    assert 1.9 * one.error < (high - low) / 2 < 4.4 * one.error  # between the quantiles of many and of three seeds
    assert one.smallest > (high - low) / 2
    assert one.is_significant
    assert one.verdict == "better"


def test_one_record_says_nothing_about_chance(compared):
    sheets = {"text_only": [[0, 1, 1]], "gated": [[1, 1, 1]]}
    (one,) = compared({"fusion": list(sheets)}, lambda cell: sheets[cell.variant])
    assert (one.difference, one.p, one.is_significant, one.verdict) == (
        1,
        1,
        False,
        "not distinguishable: too few records",
    )


def test_variants_with_other_records_and_without_seeds_are_left_out(compared):
    sheets = {"text_only": np.ones((5, 3)), "gated": np.ones((4, 3)), "concat": np.ones((5, 3))}
    found = compared({"fusion": list(sheets)}, lambda cell: sheets[cell.variant])
    assert pairs(found) == [("concat", "text_only")]


def test_equal_answers_are_equal_and_tiny_differences_not_distinguishable(compared, rng):
    same = answers(rng)
    other = same.copy()
    other[0] = [1, 1, 2] if same[0, 0] != 1 else [2, 2, 2]
    sheets = {"text_only": same, "gated": same, "concat": other}
    found = compared({"fusion": list(sheets)}, lambda cell: sheets[cell.variant])
    assert [(one.variant, one.p, one.verdict) for one in found[:1]] == [("gated", 1.0, "equal")]
    assert not found[1].is_significant
    assert found[1].verdict.startswith("not distinguishable (1 seed, smallest difference this grid could have seen: 0.")


def test_p_is_corrected_by_the_method_of_holm():
    def one(p):
        return Comparison("a", "b", "MNER", 1, float(stats.norm.isf(p / 2)), 1.0, 0.0)

    # by hand: 4 * 0.01, 3 * 0.02, then 2 * 0.03 and 1 * 0.5, each at least as large as the one before
    found = corrected([one(0.5), one(0.01), one(0.03), one(0.02)])
    assert [item.adjusted for item in found] == pytest.approx([0.5, 0.04, 0.06, 0.06])


# --- effects of options ----------------------------------------------------------------------------------------------

FUSIONS, DECODERS = ["text_only", "gated", "concat"], ["tiny", {"name": "span"}]


def shares(**by_variant):
    """Return counts by which the F1 of each variant is a share, in eighths, of 8 items on each of many records."""
    return lambda cell: [[by_variant[cell.variant.replace(" + ", "_")], 8, 8]] * 4


def test_the_effect_of_an_option_is_the_mean_difference_over_the_others(compared):
    f1 = {"text_only_tiny": 1, "gated_tiny": 3, "concat_tiny": 2}
    f1 |= {"text_only_span": 4, "gated_span": 8, "concat_span": 3}
    keys = {"fusion": FUSIONS, "decoder": DECODERS, "seeds": [0, 1, 2]}
    found = {one.variant: one for one in compared(keys, shares(**f1), of=marginal_effects)}
    # by hand, in eighths: gated over text_only 2 and 4; concat over text_only 1 and -1; span over tiny 3, 5 and 1
    assert {name: 8 * one.difference for name, one in found.items()} == pytest.approx(
        {"fusion: gated": 3, "fusion: concat": 0, "decoder: span": 3}
    )
    assert {one.against for one in found.values()} == {"fusion: text_only", "decoder: tiny"}
    joint = {(one.variant, one.against): one for one in compared(keys, shares(**f1), of=interactions)}
    assert {names: 8 * one.difference for names, one in joint.items()} == pytest.approx(
        {
            ("gated (over text_only), with decoder: span", "with decoder: tiny"): 2,
            ("concat (over text_only), with decoder: span", "with decoder: tiny"): -2,
        }
    )
    assert {one.words for one in joint.values()} == {("larger", "smaller")}


def test_effects_are_measured_where_the_combinations_exist(compared):
    """A fusion without image has no encoder, and its variants count with each one of the others."""
    keys = {"encoder": ["tiny", {"name": "tiny", "crop_size": 8, "label": "small"}], "fusion": FUSIONS}
    f1 = {"text_only": 1, "tiny_gated": 2, "small_gated": 4, "tiny_concat": 3, "small_concat": 7}
    found = {one.variant: 8 * one.difference for one in compared(keys, shares(**f1), of=marginal_effects)}
    assert found == pytest.approx({"fusion: gated": 2, "fusion: concat": 4, "encoder: small": 3})
    assert compared(keys, shares(**f1), of=interactions) == []  # text_only has no encoder to interact with


def test_effects_need_several_slots_and_a_crossing(compared):
    one_slot = {"fusion": FUSIONS}
    assert compared(one_slot, lambda cell: [[1, 2, 2]] * 4, of=marginal_effects) == []
    linked = {"fusion": ["gated", "text_only"], "decoder": DECODERS, "zip": ["fusion", "decoder"]}
    assert compared(linked, lambda cell: [[1, 2, 2]] * 4, of=marginal_effects) == []


def test_a_grid_can_name_the_variant_to_compare_with(compared):
    keys = {"fusion": FUSIONS, "compare_with": "gated"}
    assert pairs(compared(keys, lambda cell: np.ones((5, 3)))) == [("text_only", "gated"), ("concat", "gated")]
    with pytest.raises(UmieError, match="Unknown variant in compare_with 'gatd'. Did you mean 'gated'"):
        compared({**keys, "compare_with": "gatd"}, lambda cell: np.ones((5, 3)))
