"""Training targets that the tokenizer cannot write: an error with the remedy, and counted everywhere."""

import json
import string
import warnings

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

from umie.composition import compose
from umie.extraction import Extractor

TEXTS = {"train": "李雷 to 杭州 .", "dev": "小明 to 北京 .", "test": "Ann to 深圳 ."}


@pytest.fixture
def latin(tmp_path):
    """Return a T5 checkpoint with random weights whose tokenizer knows only some Latin letters, like FLAN-T5's."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_letters, *string.digits, *"[]:.,|"]
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
    model = T5ForConditionalGeneration(T5Config(vocab_size=160, tie_word_embeddings=False, **shape))
    model.save_pretrained(tmp_path / "latin")
    T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0).save_pretrained(tmp_path / "latin")
    return tmp_path / "latin"


def write_run(folder, **changes):
    for split, text in TEXTS.items():
        name, _, place, _ = text.split()
        start = text.index(place)
        entities = [{"type": "person", "span": [0, len(name)]}, {"type": "place", "span": [start, start + 2]}]
        (folder / f"{split}.jsonl").write_text(json.dumps({"text": text, "entities": entities}, ensure_ascii=False))
    data = {"format": "jsonl", **{split: f"{split}.jsonl" for split in TEXTS}}
    run = {"data": data, "tasks": ["mner"], "fusion": "text_only", "decoder": "latin"}
    run |= {"training": {"max_steps": 1, "batch_size": 1}, **changes}
    (folder / "run.yaml").write_text(json.dumps(run))
    return folder / "run.yaml"


def test_training_refuses_them_unless_they_are_allowed(umie, latin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_run(tmp_path, decoder=str(latin))
    code, out, err = umie("train", path, "--data-root", tmp_path, "--output", tmp_path / "out")
    assert code != 0
    said = " ".join((out + err).split())
    assert "1 of 1 training targets have characters that the tokenizer cannot write: " in said
    assert "allow_unwritable_targets: true" in said
    for command, name in (("train", "run"), ("ablate", "grid")):
        plan = path.rename(tmp_path / f"{name}.yaml")
        code, out, err = umie(command, plan, "--data-root", tmp_path, "--plan")
        assert (code, "1 of 1 training targets have characters" in " ".join((out + err).split())) == (2, True)
        path = plan
    path = write_run(tmp_path, decoder=str(latin), allow_unwritable_targets=True)
    code, out, err = umie("train", path, "--data-root", tmp_path, "--output", tmp_path / "allowed")
    assert code == 0, err
    said = " ".join((out + err).split())
    assert "(allow_unwritable_targets)" in said
    assert "the model sees an unknown token" in said


def test_labels_and_texts_with_such_characters_are_named(latin):
    with pytest.warns(UserWarning, match="cannot write '人物' of the label '人物' of mner"):
        compose(fusion="text_only", decoder=str(latin), tasks={"mner": {"labels": ["人物", "place"]}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, processor = compose(
            fusion="text_only", decoder=str(latin), tasks={"mner": {"labels": ["person", "place"]}}
        )
    extractor = Extractor(model, processor)
    extractor.generation_options["max_new_tokens"] = 8
    first, second = extractor.extract(["李雷 to 杭州", "ann to bob"])
    assert [notice.kind for notice in first.warnings] == ["unwritable"]
    assert second.warnings == ()
