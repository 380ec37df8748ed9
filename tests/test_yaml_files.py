"""YAML: repeated keys, aliases that stand for many values, and huge files are errors in one line."""

import itertools
import os
import random
import time

import pytest
import yaml

from umie.errors import UmieError
from umie.yaml_files import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' is already set on line 1"),
        ("{a: 1, a: 2}", "line 1: the key 'a' is already set on line 1"),
        ("x:\n  y:\n    a: 1\n    'a': 2", "line 4: the key 'a' is already set on line 3"),
        ("- {a: 1}\n- {b: 1,\n   b: 2}", "line 3: the key 'b' is already set on line 2"),
        ("1: a\n1: b", "the key 1 is already set"),
        ("null: a\n~: b", "the key None is already set"),
        ("? [a]\n: 1", "a key is a list or a mapping"),
        ("? {a: 1}\n: 1", "a key is a list or a mapping"),
        ("a: &x [*x]", "line 1: an alias refers to the value that contains it"),
        ("a: 1\n---\nb: 2", "line 2, column 1: expected a single document in the stream, but found another document"),
        ("a: [", "not valid YAML: line 1, column 5: expected the node content"),
        (
            "a: [b\nc: 1\n",
            "line 2, column 2: expected ',' or ']', but got ':' (while parsing a flow sequence that begins in",
        ),
        ("a: b: c", "not valid YAML: line 1, column 5: mapping values are not allowed here"),
        ("a: &x 1\nb: &x 2", "line 2, column 4: found duplicate anchor 'x'; first occurrence, second occurrence"),
        ("a: !!bool maybe", "not valid YAML: a value does not fit its tag (!!...): 'maybe'"),
        ("a: !!timestamp x", "not valid YAML: a value does not fit its tag"),
        ("[" * 1200, "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: *b", "not valid YAML"),
        ("a\x00: 1", "not valid YAML"),
        ("a" * 500_001, "500,001 characters"),
    ],
)
def test_what_is_not_accepted(text, expected):
    with pytest.raises(UmieError) as caught:
        parse_yaml(text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["lists", "mappings", "merges"])
def test_aliases_that_multiply(form):
    names = [f"a{number}" for number in range(12)]
    items = {
        "lists": lambda before: f"[{', '.join([f'*{before}'] * 9)}]",
        "mappings": lambda before: "{" + ", ".join(f"k{number}: *{before}" for number in range(9)) + "}",
        "merges": lambda before: "{" + ", ".join(f"k{number}: {{<<: *{before}}}" for number in range(9)) + "}",
    }[form]
    lines = [f"{names[0]}: &{names[0]} {{x: 1}}"]
    lines += [f"{name}: &{name} {items(before)}" for before, name in itertools.pairwise(names)]
    started = time.perf_counter()
    with pytest.raises(UmieError, match="more than 100,000 values"):
        parse_yaml("\n".join(lines))
    assert time.perf_counter() - started < 2


def test_aliases_and_merges_are_accepted():
    assert parse_yaml("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\ne: [*x, *x]") == {
        "a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}, "e": [{"b": 1, "c": 2}] * 2,
    }  # fmt: skip
    assert parse_yaml("") is None


CONFIG = """
name: small
data: {format: synthetic, train: 60, dev: 6, test: 12}
tasks: [mner, mre]
fusion: [{name: gated, dropout: 0.1}, text_only]
decoder: {name: t5, source: tiny, overrides: {num_layers: 1}}
training: {max_steps: 6, batch_size: 4, learning_rate: 1.0e-3, freeze: [text], adapter: {type: lora, r: 4}}
checkpoints: {save_steps: 2, report_to: [], metric_for_best_model: mner_f1}
evaluation: {split: test, generation: {num_beams: 2}, instructions: [I0, I1], constrained: both}
seeds: [0, 1]
reference: paper-table-4-base
notes: [one]
"""
VALUES = (
    None,
    True,
    -1,
    0,
    1.5,
    1e400,
    "",
    "x",
    "\x1b[31m",
    [],
    {},
    [[]],
    {"a": None},
    "mner",
    ["mner", "mner"],
    10**20,
)


INSERTED = ("", "{", "]", ": ", "&a ", "*a ", "\n", "\t", "!!", "é")


def mutated(value, rng):
    """Return the values of a config with one of them replaced, removed or added."""
    inner = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            return value
        key = rng.choice(keys)
        if isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.7:
            inner = inner[key]
            continue
        kind = rng.randrange(4)
        if kind == 0 and isinstance(inner, dict):
            inner[rng.choice(("", "x", "name", 3, None, "seed", "label", "images"))] = inner.pop(key)
        elif kind == 1:
            del inner[key]
        else:
            inner[key] = rng.choice(VALUES)
        return value


@pytest.mark.parametrize("number", [120, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_configs_are_read_or_refused(tmp_path, number):
    """Values and texts of a grid file are changed; no error is anything but a UmieError, and none takes long."""
    from umie.experiments.expand import read_grid, read_run

    rng = random.Random(number)
    path = tmp_path / "grid.yaml"
    for turn in range(number):
        text = CONFIG
        if turn % 2:
            text = yaml.safe_dump(mutated(yaml.safe_load(CONFIG), rng), sort_keys=False, allow_unicode=True)
        else:
            place, size = rng.randrange(len(CONFIG)), rng.choice((1, 1, 3, 20))
            text = CONFIG[:place] + rng.choice(INSERTED) + CONFIG[place + size :]
        path.write_text(text, encoding="utf-8")
        for read in (read_grid, read_run):
            started = time.perf_counter()
            try:
                read(path)
            except UmieError as error:
                assert all(line.isprintable() for line in str(error).split("\n")), text
            assert time.perf_counter() - started < 10


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    for name in (path, tmp_path, tmp_path / "none"):
        with pytest.raises(UmieError):
            read_yaml(name, "the config file")


def test_pipes_and_directories_are_no_configs(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path, problem in ((tmp_path / "pipe.yaml", "a pipe or a device"), (tmp_path, "a directory")):
        with pytest.raises(UmieError, match=f"{path}: cannot read the config file: [iI]s {problem}"):
            read_yaml(path, "the config file")
