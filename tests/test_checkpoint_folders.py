"""Checkpoints as untrusted input: each damage is one UmieError or changes nothing; nothing outside is read or asked."""

import copy
import json
import os
import random
import shutil
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from umie.checkpoints import MANIFEST, check_config, check_file, local_only
from umie.composition import compose
from umie.errors import UmieError
from umie.language_models.sources import load_tokenizer, read_config
from umie.loading import load
from umie.weights import read_state_dict

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "a" + "\nsize 350000000\n"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "umie_processor.json")
SECONDS = 10


@pytest.fixture(scope="module")
def saved(variant, tmp_path_factory):
    """A saved variant, its weights and its vocabulary."""
    folder = tmp_path_factory.mktemp("saved")
    for part in variant(decoder={"source": "tiny", "overrides": {"d_model": 32, "d_ff": 32, "d_kv": 8}}):
        part.save_pretrained(folder)
    model, processor = load(folder, "cpu")
    return folder, model.state_dict(), processor.tokenizer.get_vocab()


@pytest.fixture(scope="module")
def source(variant, tmp_path_factory):
    """The checkpoint of a decoder by itself, which has no manifest, as those of others."""
    folder = tmp_path_factory.mktemp("source")
    model, processor = variant()
    model.decoder.save_checkpoint(folder)
    processor.tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_network_and_no_questions(monkeypatch):
    """The hub is online here, so that only the code under test keeps it from being asked."""

    def fail(*args, **kwargs):
        raise AssertionError(f"asked {args}")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr("builtins.input", fail)


@contextmanager
def time_limit():
    def stop(*args):
        raise AssertionError(f"hangs for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refused(function, *arguments):
    """Call a function; return the message of its UmieError, of one line, or None if there is none."""
    with time_limit():
        try:
            function(*arguments)
        except UmieError as error:
            assert len(str(error).splitlines()) == 1, str(error)
            assert "weights_only" not in str(error)
            return str(error)
    return None


def replace(path, content=None, *, link=None, make=None):
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    elif link is not None:
        path.symlink_to(link)
    elif make is not None:
        make(path)


WHOLE_FILES = {
    "gone": {},
    "empty": {"content": ""},
    "null": {"content": "null"},
    "a list": {"content": "[1]"},
    "deep": {"content": 99_999 * "["},
    "pointer": {"content": POINTER},
    "a pipe": {"make": os.mkfifo},
    "a directory": {"make": Path.mkdir},
    "a device": {"link": "/dev/zero"},
    "another file": {"link": "/etc/passwd"},
    "nowhere": {"link": "nowhere"},
}


@pytest.mark.parametrize("damage", WHOLE_FILES)
def test_files_of_another_kind(saved, source, tmp_path, damage):
    """Also without a manifest, and as the source of a decoder."""
    for folder, function, names in (
        (saved[0], load, FILES),
        (source, lambda path: compose(decoder=str(path)), FILES[:4]),
    ):
        for name in names:
            copied = shutil.copytree(folder, tmp_path / folder.name / name)
            (copied / MANIFEST).unlink(missing_ok=True)
            replace(copied / name, **WHOLE_FILES[damage])
            message = refused(function, copied)
            optional = name == "tokenizer_config.json" and damage == "gone"
            assert optional or str(copied) in (message or "")
            assert damage != "pointer" or "git lfs pull" in message


def edited(folder, name, *keys_and_value):
    """Set a value in a JSON file, and remove the manifest, as for an edit on purpose."""
    *keys, key, value = keys_and_value
    content = json.loads((folder / name).read_text())
    inner = content
    for each in keys:
        inner = inner[each]
    inner[key] = value
    (folder / name).write_text(json.dumps(content))
    (folder / MANIFEST).unlink(missing_ok=True)


@pytest.mark.parametrize(
    "edit",
    [
        ("config.json", "decoder", {"name": "seq2seq", "source": "someone/model"}),
        ("config.json", "encoder", {"name": "captions", "source": "someone/model", "path": "captions.txt"}),
        ("config.json", "encoder", {"name": "timm", "model": "hf-hub:someone/model"}),
        ("config.json", "encoder", {"name": "clip", "model": "hf-hub:someone/model"}),
        ("config.json", "decoder", "config", "attn_implementation", "someone/kernel"),
        ("config.json", "quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("config.json", "model_type", "t5"),
        ("config.json", "dtype", "no_dtype"),
        ("config.json", "num_labels", 10**10),
        ("config.json", "fusion", 5),
        ("config.json", "fusion", {"name": "gated", "residual": "released", "d_ff": 10**9}),
        ("config.json", "visual_embedding", {"num_layers": 10**9}),
        ("config.json", "visual_embedding", {"num_slot_embeddings": 10**9}),
        ("config.json", "encoder", {"name": "tiny", "crop_size": 10**12}),
        ("config.json", "decoder", "config", "num_layers", 10**9),
        ("config.json", "decoder", "config", "num_layers", 1),
        ("config.json", "decoder", "config", "num_layers", 0),
        ("config.json", "decoder", "config", "vocab_size", 10**12),
        ("config.json", "decoder", "config", "vocab_size", "1024"),
        ("config.json", "decoder", "config", "dropout_rate", float("nan")),
        ("config.json", "decoder", "config", "eos_token_id", 10**6),
        ("umie_processor.json", "encoder", {}),
        ("umie_processor.json", "encoder", [1]),
        ("umie_processor.json", "task_options", [1]),
        ("umie_processor.json", "task_options", {"mner": "person"}),
        ("umie_processor.json", "max_input_tokens", "long"),
        ("umie_processor.json", "max_target_tokens", -1),
        ("umie_processor.json", "candidates", {"width": 3}),
        ("tokenizer_config.json", "model_max_length", "long"),
        ("tokenizer_config.json", "eos_token", 5),
        ("tokenizer.json", "model", "vocab", "a", 10**9),
        ("tokenizer.json", "model", "vocab", "a", 1.5),
    ],
    ids=str,
)
def test_values_that_cannot_be(saved, tmp_path, edit):
    folder = shutil.copytree(saved[0], tmp_path / "edited")
    edited(folder, *edit)
    assert refused(load, folder, "cpu") is not None


def test_names_and_code_of_a_checkpoint_are_not_followed(saved, source, tmp_path):
    """The name it was saved under, and classes in other repositories, which transformers would ask about."""
    folder, weights, _ = saved
    folder = shutil.copytree(folder, tmp_path / "saved")
    edited(folder, "config.json", "_name_or_path", "someone/model")
    edited(folder, "config.json", "auto_map", {"AutoModel": "someone/model--code.Model"})
    edited(folder, "tokenizer_config.json", "name_or_path", "someone/tokenizer")
    edited(folder, "tokenizer_config.json", "auto_map", {"AutoTokenizer": ["someone/model--code.Tokenizer", None]})
    model, _ = load(folder, "cpu")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    edited(folder, "tokenizer_config.json", "tokenizer_class", "TheirTokenizer")
    assert refused(load, folder, "cpu") is not None
    source = shutil.copytree(source, tmp_path / "source")
    edited(source, "config.json", "auto_map", {"AutoConfig": "someone/model--code.Config"})
    edited(source, "config.json", "model_type", "theirs")
    assert refused(read_config, str(source), str(source)) is not None
    (source / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "someone/base"}))
    assert "adapter" in refused(lambda: compose(decoder=str(source)))
    with local_only(tmp_path):
        assert refused(load_tokenizer, "decoder", "someone/tokenizer") is not None


@pytest.mark.parametrize("place", ["../outside.safetensors", "/absolute", "a/below.safetensors", "a link", "inside"])
def test_an_index_of_weights_stays_in_its_folder(saved, tmp_path, place):
    folder = shutil.copytree(saved[0], tmp_path / "saved")
    (folder / MANIFEST).unlink()
    name = (
        "part.safetensors" if place in ("a link", "inside") else place.replace("/absolute", f"{tmp_path}/w.safetensors")
    )
    target = tmp_path / "linked.safetensors" if place == "a link" else folder / name
    target.parent.mkdir(exist_ok=True)
    shutil.move(folder / "model.safetensors", target)
    if place == "a link":
        (folder / name).symlink_to(target)
    index = {"metadata": {}, "weight_map": dict.fromkeys(load_file(target), name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (refused(load, folder, "cpu") is None) == (place == "inside")


def test_links_within_the_cache_of_the_hub_are_followed(saved, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    shutil.copytree(saved[0], blobs)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    load(snapshot, "cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(saved, source, tmp_path, value):
    for folder, function in ((saved[0], load), (source, lambda path: compose(decoder=str(path)))):
        copied = shutil.copytree(folder, tmp_path / folder.name)
        (copied / MANIFEST).unlink(missing_ok=True)
        weights = load_file(copied / "model.safetensors")
        weights[max(weights)].flatten()[-1] = value
        save_file(weights, copied / "model.safetensors", {"format": "pt"})
        assert "1 of" in refused(function, copied)


def test_sources_that_claim_another_size(source, tmp_path):
    for number, (key, value) in enumerate((("num_layers", 1), ("d_ff", 10**7), ("vocab_size", 10**9))):
        folder = shutil.copytree(source, tmp_path / str(number))
        edited(folder, "config.json", key, value)
        assert refused(lambda folder=folder: compose(decoder=str(folder))) is not None
    compose(decoder={"source": str(source), "overrides": {"num_layers": 1}})  # on purpose


class Code:
    def __reduce__(self):
        return os.system, ("true",)


def test_weight_files_that_are_no_tensors(tmp_path):
    path = tmp_path / "weights.pt"
    for damage in ("a pipe", "a directory", "a device", "pointer", "null"):
        replace(path, **WHOLE_FILES[damage])
        assert str(path) in refused(read_state_dict, path)
        if path.is_dir():
            path.rmdir()
    torch.save({"weight": Code()}, path)
    assert "may be code" in refused(read_state_dict, path)


def test_a_manifest_covers_what_was_saved(saved, tmp_path):
    folder = shutil.copytree(saved[0], tmp_path / "saved")
    assert set(json.loads((folder / MANIFEST).read_text())["files"]) == set(FILES)
    model, processor = load(folder, "cpu")
    processor.max_target_tokens = 7
    processor.save_pretrained(folder)  # replaces only its own entries
    assert load(folder, "cpu")[1].max_target_tokens == 7
    (folder / "tokenizer_config.json").unlink()
    assert "is missing" in refused(load, folder, "cpu")
    model.save_pretrained(folder)
    (folder / MANIFEST).write_text("{}")
    assert MANIFEST in refused(load, folder, "cpu")


def test_small_checks(tmp_path):
    check_config({"model_max_length": 512, "layers": [1, 2], "layer_norm_epsilon": 1e-6, "text": {"num_layers": 48}})
    assert refused(check_config, {"text": [{"num_layers": 1001}]}) is not None
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("x")
    (tmp_path / "a" / "c").symlink_to(tmp_path / "b")
    check_file(tmp_path / "a" / "c")
    assert "outside" in refused(check_file, tmp_path / "a" / "c", tmp_path / "a")


VALUES = (None, -1, 0, 1, 3, 10**9, 10**18, 1.5, True, "", "tiny", "../..", [], [1], {}, {"name": "tiny"})


def mutated(folder, chooser):
    """Damage one file of a folder; return what was done."""
    path = folder / chooser.choice(FILES)
    kind = chooser.choice(["bits", "cut", "value", "value", "swap", *WHOLE_FILES])
    if kind in WHOLE_FILES:
        replace(path, **WHOLE_FILES[kind])
    elif kind == "swap":
        shutil.copy(folder / chooser.choice(FILES), folder / "other")
        (folder / "other").replace(path)
    elif kind == "value" and path.suffix == ".json":
        content = json.loads(path.read_text())
        inner, depth = content, chooser.randint(1, 4)
        while depth and isinstance(inner, dict) and inner:
            key, depth = chooser.choice(list(inner)), depth - 1
            if not depth or not isinstance(inner[key], dict) or not inner[key]:
                inner[key] = copy.deepcopy(chooser.choice(VALUES))
                break
            inner = inner[key]
        path.write_text(json.dumps(content))
    else:
        content = bytearray(path.read_bytes())
        if kind == "cut":
            content = content[: chooser.randrange(len(content))]
        else:
            for _ in range(chooser.choice((1, 1, 8))):
                content[chooser.randrange(len(content))] ^= 1 << chooser.randrange(8)
        path.write_bytes(content)
    return f"{path.name}: {kind}"


@pytest.mark.parametrize("number", [30, pytest.param(250, marks=pytest.mark.slow)])
def test_mutated_folders(saved, tmp_path, number):
    """Each is refused with one line, or loads; with a manifest only if nothing changed."""
    folder, weights, vocabulary = saved
    for seed in range(number):
        chooser = random.Random(seed)
        has_manifest = seed % 2 == 0
        copied = shutil.copytree(folder, tmp_path / str(seed))
        done = mutated(copied, chooser)
        if not has_manifest:
            (copied / MANIFEST).unlink()
        loaded = []
        message = refused(lambda copied=copied, loaded=loaded: loaded.extend(load(copied, "cpu")))
        if message is None and has_manifest:
            model, processor = loaded
            found = model.state_dict()
            assert found.keys() == weights.keys(), done
            assert all(torch.equal(found[name], weights[name]) for name in weights), done
            assert processor.tokenizer.get_vocab() == vocabulary, done
        shutil.rmtree(copied)


def test_an_embedding_without_layers_is_no_absurd_size(tmp_path):
    """It is what the examples train."""
    embedding = {"num_layers": 0, "normalize": True, "num_slot_embeddings": 5}
    for part in compose(fusion="gated", decoder={"name": "span"}, visual_embedding=embedding, tasks={"mner": {}}):
        part.save_pretrained(tmp_path / "saved")
    model, _ = load(tmp_path / "saved", device="cpu")
    assert model.config.visual_embedding["num_layers"] == 0
    with pytest.raises(UmieError, match="num_layers is 100000: use at most 1,000"):
        compose(fusion="gated", visual_embedding={"num_layers": 100_000})
