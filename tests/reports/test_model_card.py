"""The card of a trained model: what the hub reads, scores, and no paths of this machine."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

import umie as package

CONFIG = """
name: tiny card
data: {format: synthetic, train: 24, dev: 8, test: 8}
tasks: [mner, mre]
training: {max_steps: 2, batch_size: 4}
notes: ["a note <of> its own"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("card")


def test_the_card_has_scores_and_loads(umie, folder, monkeypatch, blank_figures):
    monkeypatch.chdir(folder)
    Path("run.yaml").write_text(CONFIG)
    assert umie("train", "run.yaml", "--output", "run")[0] == 0
    text = Path("run/best/README.md").read_text()
    _, header, body = text.split("---\n", 2)
    values = yaml.safe_load(header)
    assert values["library_name"] == "umie"
    (model,) = values["model-index"]
    report = Path("run/report.md").read_text()
    found = {(one["dataset"]["split"], one["task"]["type"]): one["metrics"][0]["value"] for one in model["results"]}
    assert set(found) == {(split, task) for split in ("dev", "test") for task in ("mner", "mre")}
    assert {one["dataset"]["type"] for one in model["results"]} == {"synthetic"}
    for line in re.findall(r"^\| MNER .*$", report, re.M):  # the interval is that of the report
        assert re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", line)[0] in body
    assert "a note <of> its own" in body
    assert str(folder) not in text
    code = re.search(r"```python\n(.*?)```", body, re.S)[1].replace('"FOLDER"', '"run/best"')
    Image.new("RGB", (64, 48)).save("kids.jpg")
    names = {}
    exec(code, names)
    assert len(names["found"].record.regions) == 1  # the embedded data set has regions
    assert names["found"].text == "Kids at the Salvation Army"


@pytest.mark.slow
def test_data_sets_of_one_format_are_apart(umie, folder, monkeypatch, blank_figures):
    monkeypatch.chdir(folder)
    one = "{format: synthetic, seed: %d, train: 8, dev: 4, test: 4}"
    sets = f"{{sets: {{a: {one % 1}, b: {one % 2}}}}}"
    text = CONFIG.replace("{format: synthetic, train: 24, dev: 8, test: 8}", sets).replace("[mner, mre]", "[mner]")
    Path("two.yaml").write_text(text + "evaluation: {instructions: [paper, I0]}\n")
    assert umie("train", "two.yaml", "--output", "two")[0] == 0
    (model,) = yaml.safe_load(Path("two/best/README.md").read_text().split("---\n")[1])["model-index"]
    found = {
        (one["dataset"]["name"], one["dataset"]["split"]): [score["name"] for score in one["metrics"]]
        for one in model["results"]
    }
    assert set(found) == {(name, split) for name in "ab" for split in ("dev", "test")}
    for (name, _), names in found.items():
        assert names == [f"{name} MNER [{wording}], strict micro-F1" for wording in ("paper", "I0")]


def test_saved_options_have_no_local_paths(folder, variant, tmp_path):
    model, _ = variant()
    source = tmp_path / "own" / "t5"
    model.decoder.save_checkpoint(source)
    _, processor = variant()
    processor.tokenizer.save_pretrained(source)
    built, own = package.compose(decoder={"name": "t5", "source": str(source)}, fusion="gated")
    built.save_pretrained(tmp_path / "saved")
    own.save_pretrained(tmp_path / "saved")
    for path in (tmp_path / "saved").glob("*.json"):
        assert str(tmp_path) not in path.read_text(), path
    assert built.config.decoder["source"] == str(source)  # the model itself still knows it
    source.rename(tmp_path / "elsewhere")
    assert package.load(tmp_path / "saved")[0].config.decoder["source"] == "t5"
