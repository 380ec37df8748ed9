"""The cells of a grid: linked, conditional and excluded options, and the choice of cells and seeds."""

import itertools
import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umie.errors import UmieError
from umie.experiments.combine import Options, fits, read_seeds
from umie.experiments.expand import plan, read_grid, read_run
from umie.experiments.schema import grid_schema
from umie.yaml_files import read_yaml

SPAN, T5 = {"name": "span", "label": "span"}, {"source": "tiny", "label": "t5"}
SHORT, LONG = {"label": "short", "max_steps": 3}, {"label": "long", "max_steps": 4}
CROP = {"name": "tiny", "crop_size": 8, "label": "crop"}
BASE = {"data": {"format": "synthetic"}, "tasks": ["mner"]}


@pytest.fixture
def grid(tmp_path):
    """Read a grid with these keys: ``grid(fusion=[...], zip=[...])``."""

    def read(*settings, **keys):
        path = tmp_path / "grid.yaml"
        path.write_text(json.dumps(BASE | keys))
        return read_grid(path, settings)

    return read


def names(found):
    return [f"{cell.variant} {cell.seed}" if cell.seed else cell.variant for cell in found.cells]


def test_linked_options_advance_together(grid):
    found = grid(decoder=[SPAN, T5], training=[SHORT, LONG], fusion=["gated", "concat"], zip=["decoder", "training"])
    assert [(cell.variant, cell.config.training.max_steps) for cell in found.cells] == [
        ("gated + span", 3),
        ("gated + t5", 4),
        ("concat + span", 3),
        ("concat + t5", 4),
    ]
    groups = [["decoder", "training"], ["encoder", "fusion"]]
    found = grid(
        decoder=[SPAN, T5], training=[SHORT, LONG], fusion=["gated", "concat"], encoder=["tiny", CROP], zip=groups
    )
    assert names(found) == ["tiny + span", "tiny + t5", "crop + span", "crop + t5"]
    assert [cell.options["fusion"] for cell in found.cells] == ["gated", "gated", "concat", "concat"]


def test_linked_options_are_named_by_the_first_slot_whose_labels_differ(grid):
    same = [{**SHORT, "label": "x"}, {**LONG, "label": "x"}]
    assert names(grid(visual_embedding=[{"label": "x"}, {"label": "x", "num_layers": 1}], training=[SHORT, LONG],
                      zip=["visual_embedding", "training"])) == ["short", "long"]  # fmt: skip
    with pytest.raises(UmieError, match="two variants are called 'x'"):
        grid(training=same)


def test_a_fusion_without_image_runs_once_for_each_option_that_is_not_of_an_encoder(grid):
    found = grid(
        encoder=["tiny", CROP], training=[SHORT, LONG], fusion=["gated", "text_only"], zip=["encoder", "training"]
    )
    assert names(found) == ["tiny + gated", "text_only + short", "crop + gated", "text_only + long"]
    assert [cell.config.training.max_steps for cell in found.cells] == [3, 3, 4, 4]


def test_excluded_cells_are_left_out(grid):
    found = grid(
        fusion=["gated", "concat"],
        decoder=[SPAN, T5],
        seeds=[0, 1, 2],
        exclude=[
            {"fusion": "concat", "decoder": "t5"},
            {"decoder": ["t5", "span"], "fusion": "concat", "seed": [1, 2]},
        ],
    )
    assert names(found) == [
        "gated + span", "gated + span 1", "gated + span 2", "gated + t5", "gated + t5 1", "gated + t5 2",
        "concat + span",
    ]  # fmt: skip
    assert names(grid(fusion=["gated", "concat"], exclude={"fusion": "gated"})) == ["concat"]


def test_an_excluded_encoder_leaves_the_variant_without_image(grid):
    found = grid(
        fusion=["gated", "text_only"], encoder=["tiny", CROP], exclude={"encoder": "tiny", "fusion": "text_only"}
    )
    assert names(found) == ["tiny + gated", "crop + gated", "text_only"]


def test_an_excluded_encoder_and_seed_leaves_all_seeds_of_the_variant_without_image(grid):
    found = grid(
        fusion=["text_only", "gated"], encoder=["tiny", CROP], seeds=[0, 1], exclude={"encoder": "tiny", "seed": 1}
    )
    assert sorted(names(found)) == ["crop + gated", "crop + gated 1", "text_only", "text_only 1", "tiny + gated"]


def test_a_conditional_option_applies_only_to_other_options(grid):
    deep = {"label": "deep", "num_layers": 2, "when": {"fusion": ["concat"], "decoder": "t5"}}
    found = grid(fusion=["gated", "concat"], decoder=[SPAN, T5], visual_embedding=[{"label": "flat"}, deep])
    assert names(found) == [
        "flat + gated + span", "flat + gated + t5", "flat + concat + span", "flat + concat + t5", "deep + concat + t5",
    ]  # fmt: skip


def test_a_slot_without_a_fitting_option_has_its_default(grid):
    videos = [{"name": "tiny_video", "label": name, "crop_size": size, "when": {"fusion": "concat"}}
              for name, size in (("small", 8), ("large", 16))]  # fmt: skip
    found = grid(fusion=["gated", "concat"], video_encoder=videos)
    assert [(cell.variant, cell.config.video_encoder is None) for cell in found.cells] == [
        ("small + concat", False),
        ("large + concat", False),
        ("gated", True),
    ]
    found = grid(
        preset="paper-base", fusion=["gated", "concat"], encoder={"name": "tiny", "when": {"fusion": "concat"}}
    )
    assert [(cell.variant, cell.config.encoder["name"]) for cell in found.cells] == [
        ("concat", "tiny"),
        ("gated", "resnet101_roi"),  # that of the preset
    ]


def test_two_conditional_options_may_share_a_label(grid):
    slow = [{**one, "label": "tuned", "when": {"decoder": name}} for one, name in ((SHORT, "span"), (LONG, "t5"))]
    found = grid(decoder=[SPAN, T5], training=slow)
    assert [(cell.variant, cell.config.training.max_steps) for cell in found.cells] == [
        ("span + tuned", 3),
        ("t5 + tuned", 4),
    ]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"zip": ["decoder", "trainin"]}, "slot in zip: 'trainin'. Did you mean 'training'?"),
        ({"zip": "decoder"}, "zip has ['decoder']: use a list of two or more slots"),
        ({"zip": [["decoder", 3]]}, "zip has ['decoder', 3]"),
        ({"zip": ["decoder", "training"]}, "zip: decoder has 2, training has 1 options"),
        ({"zip": [["decoder", "fusion"], ["fusion", "training"]]}, "zip: fusion appears twice"),
        ({"exclude": "gated"}, "exclude[0] is 'gated': expected a mapping"),
        ({"exclude": [{}]}, "exclude[0] is empty: name a slot and its options"),
        ({"exclude": [{"fusion": "gated"}, {"fusoin": "x"}]}, "slot in exclude[1]: 'fusoin'. Did you mean 'fusion'?"),
        ({"exclude": {"fusion": "gatd"}}, "option in exclude[0].fusion: 'gatd'. Did you mean 'gated'?"),
        ({"exclude": {"seed": "one"}}, "exclude[0].seed is 'one': use whole numbers"),
        ({"exclude": {"fusion": ["gated", "concat"]}}, "no combination of options is left: see 'exclude' and 'when'"),
        ({"training": {"when": {"training": "x"}}}, "slot in training.when: 'training'"),
        ({"training": {"when": {"seed": 1}}}, "slot in training.when: 'seed'"),
        ({"training": {"when": 3}}, "training.when is 3: expected a mapping"),
        ({"training": {"when": {"decoder": "t6"}}}, "option in training.when.decoder: 't6'. Choices: span, t5."),
        ({"report_to": [3]}, "report_to is [3]: use names"),
    ],
    ids=lambda value: "" if isinstance(value, str) else json.dumps(value),
)  # fmt: skip
def test_an_invalid_rule_is_an_error_that_names_file_key_value_and_choices(grid, tmp_path, keys, expected):
    with pytest.raises(UmieError) as caught:
        grid(**{"fusion": ["gated", "concat"], "decoder": [SPAN, T5], **keys})
    assert str(caught.value).startswith(f"{tmp_path / 'grid.yaml'}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_has_no_rules(tmp_path):
    path = tmp_path / "run.yaml"
    for keys, expected in (
        ({"zip": ["decoder", "training"]}, "zip: a key of grids, and a run trains one variant: remove it"),
        ({"training": {"when": {"fusion": "gated"}}}, "training.when: a run trains one variant: remove 'when'"),
    ):
        path.write_text(json.dumps(BASE | keys))
        with pytest.raises(UmieError, match=expected):
            read_run(path)


# --- --only and --seeds ----------------------------------------------------------------------------------------------


def only(found, *texts):
    rule = found.options.rules_of(texts)
    return [cell.variant for cell in found.cells if fits(rule, cell.options, cell.seed)]


def test_only_chooses_cells_by_labels_and_by_names_of_parts(grid):
    half = {"name": "gated", "gate": 0.5}
    found = grid(
        fusion=["gated", half, "concat", {"name": "concat", "label": "a, b", "images": "shuffled"}], seeds=[0, 1]
    )
    assert only(found, "fusion=gated,concat", "seed=0") == ["gated", "concat"]  # exact labels
    assert only(found, "fusion=a, b", "seed=0") == ["a, b"]  # a label with a comma
    assert only(found, "fusion=gated(gate=0.5),a, b", "seed=1") == ["gated(gate=0.5)", "a, b"]
    assert only(found, "fusion=gated", "fusion=concat", "seed=0-1") == ["gated", "gated", "concat", "concat"]
    named = grid(
        fusion=[{**half, "label": "half"}, {**half, "gate": 0.1, "label": "closed"}, "concat"], decoder=[SPAN, T5]
    )
    assert only(named, "fusion=gated", "decoder=t5") == ["half + t5", "closed + t5"]  # the name of the part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fusion", "--only fusion: use slot=option,option, for example fusion=gated,concat"),
        ("fusion=", "--only fusion=: use slot=option,option"),
        ("fusoin=gated", "--only fusoin=gated: Unknown slot: 'fusoin'. Did you mean 'fusion'?"),
        ("fusion=gated,conca", "Unknown option in fusion: 'conca'. Did you mean 'concat'? Choices: concat, gated."),
        ("seed=x", "--only seed=x: the seeds 'x': use numbers and ranges"),
    ],
)
def test_an_invalid_choice_is_an_error(grid, text, expected):
    with pytest.raises(UmieError) as caught:
        grid(fusion=["gated", "concat"]).options.rules_of([text])
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-4", [0, 1, 2, 3, 4]), ("7", [7]), ("0,2,5-7", [0, 2, 5, 6, 7]), (" 3 , 1-2", [3, 1, 2]), ("1,0-2", [1, 0, 2])],
)
def test_seeds_are_numbers_and_ranges(text, expected):
    assert read_seeds(text) == expected


@pytest.mark.parametrize("text", ["", "a", "-1", "4-0", "0-", "0--4", "1.5", "0-99999", "9" * 30, "١"])
def test_invalid_seeds_are_an_error(text):
    with pytest.raises(UmieError, match="the seeds"):
        read_seeds(text)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8))
def test_seeds_written_one_by_one_are_read_as_they_are(seeds):
    assert read_seeds(",".join(map(str, seeds))) == list(dict.fromkeys(seeds))


LABELS = {"fusion": ["a", "b", "c"], "decoder": ["x", "y"], "training": ["1", "2", "3"]}


@given(st.data())
def test_combinations_are_those_of_a_plain_product(data):
    """Against a reference: all combinations, filtered by what each rule says."""
    values = {
        "fusion": [{"name": "gated", "label": label} for label in LABELS["fusion"]],
        "decoder": [{"source": "tiny", "label": label} for label in LABELS["decoder"]],
        "training": [{"label": label} for label in LABELS["training"]],
    }
    some = st.sampled_from
    conditions = {}
    for slot, label in data.draw(st.lists(some([(s, x) for s in LABELS for x in LABELS[s]]), max_size=3, unique=True)):
        other = data.draw(some([one for one in LABELS if one != slot]))
        allowed = data.draw(st.lists(some(LABELS[other]), min_size=1, unique=True))
        conditions[slot, label] = (other, allowed)
        values[slot][LABELS[slot].index(label)]["when"] = {other: allowed}
    linked = data.draw(st.booleans())
    rules = data.draw(st.lists(st.fixed_dictionaries({slot: some(LABELS[slot]) for slot in LABELS}), max_size=3))
    options = Options.read({**values, "exclude": rules, **({"zip": ["fusion", "training"]} if linked else {})})
    found = [
        tuple(None if chosen[slot] is None else chosen[slot].label for slot in LABELS)
        for chosen in options.combinations()
        if not options.is_excluded({slot: one.label for slot, one in chosen.items() if one is not None}, 0)
    ]

    def applies(slot, combination):
        other, allowed = conditions.get((slot, combination[slot]), (None, None))
        return other is None or combination[other] in allowed

    expected = []
    optional = [slot for slot in LABELS if all((slot, label) in conditions for label in LABELS[slot])
                and not (linked and slot != "decoder")]  # fmt: skip
    for combination in itertools.product(*([*LABELS[slot], *([None] if slot in optional else [])] for slot in LABELS)):
        named = dict(zip(LABELS, combination, strict=True))
        if linked and LABELS["fusion"].index(named["fusion"]) != LABELS["training"].index(named["training"]):
            continue
        fitting = all(named[slot] is None or applies(slot, named) for slot in LABELS)
        needless = any(named[slot] is None and any(applies(slot, {**named, slot: label}) for label in LABELS[slot])
                       for slot in LABELS)  # fmt: skip
        if fitting and not needless and named not in rules:
            expected.append(combination)
    assert sorted(found, key=str) == sorted(expected, key=str)


# --- the id of a cell ------------------------------------------------------------------------------------------------


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "weights.safetensors").write_bytes(b"weights")
    return folder


def test_the_id_depends_on_the_content_of_weights_not_on_their_place_and_date(grid, tmp_path):
    folder = checkpoint(tmp_path / "one" / "model")

    def hash_of(path):
        (cell,) = plan(grid(decoder={"name": "t5", "source": str(path)}, fusion="gated"), "")
        return cell.hash

    before = hash_of(folder)
    moved = Path(shutil.move(folder, tmp_path / "two"))
    (moved / "weights.safetensors").touch()
    (moved / ".cache").mkdir()
    (moved / ".cache" / "downloaded").write_text("today")
    assert hash_of(moved) == before
    (moved / "weights.safetensors").write_bytes(b"changed")
    assert hash_of(moved) != before


def test_the_id_of_a_variant_without_image_does_not_depend_on_its_encoder(grid):
    def hash_of(**keys):
        (cell,) = plan(grid(fusion="text_only", **keys), "")
        return cell.hash

    before = hash_of()
    assert hash_of(encoder=CROP) == hash_of(visual_embedding={"num_layers": 1}) == before
    assert hash_of(encoder={"name": "tiny", "max_regions": 3}) != before  # regions without a name are no answers


@pytest.mark.parametrize(
    "keys",
    [
        {"training": {"max_steps": 1000}},
        {"training": {"batch_size": 32, "learning_rate": 1e-4, "dataloader_num_workers": 3}},
        {"fusion": {"name": "gated", "gate": "dynamic"}},
        {"encoder": {"name": "tiny", "trainable": True}},
        {"visual_embedding": {"num_slot_embeddings": 0}},
        {"report_to": ["tensorboard"]},
        {"features": {"folder": "elsewhere"}},
    ],
    ids=json.dumps,
)
def test_the_id_does_not_depend_on_defaults_that_are_spelled_out(grid, keys):
    (before,) = plan(grid(fusion="gated"), "")
    (after,) = plan(grid(**{"fusion": "gated", **keys}), "")
    assert after.hash == before.hash


def test_the_id_of_a_cell_does_not_depend_on_the_other_cells(grid):
    hashes = {cell.variant: cell.hash for cell in plan(grid(fusion=["gated", "concat"], decoder=[SPAN, T5]), "")}
    linked = grid(
        fusion=["gated", "concat"], decoder=[SPAN, T5], zip=["fusion", "decoder"], exclude={"fusion": "concat"}
    )
    (cell,) = plan(linked, "")
    assert cell.hash == hashes["gated + span"]


def test_the_example_of_the_docs_is_valid(tmp_path):
    docs = Path(__file__).parents[2] / "docs" / "grids.md"
    section = docs.read_text(encoding="utf-8").split("## Linked, conditional and excluded options")[1]
    text = section.split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "grid.yaml"
    path.write_text(f"data: {{format: synthetic}}\ntasks: [mner]\nseeds: [0, 1, 2, 3, 4]\n{text}")
    cells = read_grid(path).cells
    assert len(cells) == 25
    assert not any("concat" in cell.variant and "small" in cell.variant for cell in cells)
    assert {cell.config.training.learning_rate for cell in cells if "base" in cell.variant} == {1e-4}
    jsonschema.validate(read_yaml(path, "the example"), grid_schema())
