"""Saved variants by name: directories, and repositories in a local hub cache; nothing reaches the network."""

import json
import os
import socket
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

import umie
from umie.checkpoints import MANIFEST, is_model_file
from umie.composition import compose
from umie.errors import UmieError
from umie.extraction import Extractor, extract_file
from umie.hub import check_saved
from umie.loading import load
from umie.records import Record, read_jsonl, write_jsonl

FILE = "umie_processor.json"
REPOSITORY, COMMIT = "someone/news-model", "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def checkpoint(variant, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in variant(max_target_tokens=12):
        part.save_pretrained(folder)
    return folder


def put(repository, name, content):
    """Put a file into a repository in the cache as the hub's client does: a link to a blob."""
    path, blob = repository / "snapshots" / COMMIT / name, repository / "blobs" / sha256(content).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(content)
    path.unlink(missing_ok=True)
    path.symlink_to(os.path.relpath(blob, path.parent))


def in_cache(cache, name, folder):
    """Copy the files of a folder, and of its folders, to a repository in a hub cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    for path in folder.rglob("*"):
        if path.is_file():
            put(repository, path.relative_to(folder).as_posix(), path.read_bytes())
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


@pytest.fixture
def cached(checkpoint, tmp_path, monkeypatch):
    """A hub cache that contains the checkpoint as a repository; the working directory is empty."""
    repository = in_cache(tmp_path / "cache", REPOSITORY, checkpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return repository


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_a_repository_loads_like_its_directory(cached, checkpoint, no_network):
    for revision in (None, "main", COMMIT):
        model, processor = load(REPOSITORY, "cpu", revision=revision)
    expected, local = load(checkpoint, "cpu")
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())
    assert processor.tokenizer.get_vocab() == local.tokenizer.get_vocab()
    extractor = Extractor.from_pretrained(REPOSITORY, device="cpu")
    assert extractor.extract("Ann met Bob") == Extractor(expected, local).extract("Ann met Bob")
    with pytest.raises(UmieError, match=f"{REPOSITORY} is not a directory and umie_processor.json cannot be loaded"):
        load(REPOSITORY, revision="v9")


@pytest.mark.parametrize("name", ["directory", "repository"])
def test_auto_classes(cached, checkpoint, no_network, name):
    source = checkpoint if name == "directory" else REPOSITORY
    processor = AutoProcessor.from_pretrained(source)
    assert type(processor) is umie.UmieProcessor
    assert processor.max_target_tokens == 12
    assert type(AutoModel.from_pretrained(source)) is umie.UmieModel
    assert type(AutoConfig.from_pretrained(source)) is umie.UmieConfig


def test_a_processor_can_be_pushed(variant, monkeypatch):
    """``push_to_hub`` of transformers saves to a temporary directory and uploads its files."""
    from transformers.utils import hub

    uploaded = []
    monkeypatch.setattr(hub, "hf_api", lambda: _Api(), raising=False)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *arguments, **options: _Card())
    monkeypatch.setattr(
        umie.UmieProcessor,
        "_upload_modified_files",
        lambda self, folder, name, *rest, **options: uploaded.append((name, (Path(folder) / FILE).read_text())),
    )
    variant(max_target_tokens=12)[1].push_to_hub(REPOSITORY)
    ((name, content),) = uploaded
    assert name == REPOSITORY
    assert json.loads(content)["max_target_tokens"] == 12


class _Api:
    def create_repo(self, name, **options):
        return type("Url", (), {"repo_id": name})


class _Card:
    def save(self, path):
        pass


@pytest.mark.parametrize("name", ["best", "runs/bset", "./someone/model", "/no/such", "a/b/c", "../best", ""])
def test_a_mistyped_directory_fails_without_a_request(cached, no_network, tmp_path, name):
    (tmp_path / "work" / "runs").mkdir()
    for function in (check_saved, load, umie.UmieModel.from_pretrained, umie.UmieProcessor.from_pretrained):
        with pytest.raises(UmieError, match="is neither an existing directory nor a hub name"):
            function(name)


def test_a_repository_without_a_processor(cached, no_network):
    (cached / "snapshots" / COMMIT / FILE).unlink()
    with pytest.raises(UmieError, match=FILE):
        umie.UmieProcessor.from_pretrained(REPOSITORY)
    with pytest.raises(UmieError, match="someone/else is not a directory"):
        load("someone/else")


def test_unknown_options_are_named(checkpoint):
    with pytest.raises(UmieError, match="Unknown option of UmieProcessor.from_pretrained: 'revison'"):
        umie.UmieProcessor.from_pretrained(checkpoint, revison="main")


def test_a_file_is_extracted_with_a_repository(cached, no_network):
    write_jsonl("in.jsonl", [Record("Ann met Bob"), Record("Rome")])
    summary = extract_file(REPOSITORY, "in.jsonl", "out.jsonl", tasks=["mner"], device="cpu")
    assert (summary.total, summary.resumed) == (2, 0)
    assert [record.text for record in read_jsonl("out.jsonl")] == ["Ann met Bob", "Rome"]


def changed(repository, name, **values):
    """Set values in a JSON file of a repository without a manifest, as someone else may write it."""
    folder = repository / "snapshots" / COMMIT
    (folder / MANIFEST).unlink(missing_ok=True)
    put(repository, name, json.dumps(json.loads((folder / name).read_text()) | values).encode())


def refused(function, *arguments):
    with pytest.raises(UmieError) as caught:
        function(*arguments)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_repository_is_checked_as_a_directory_is(cached, no_network):
    folder = cached / "snapshots" / COMMIT
    put(cached, "config.json", (folder / "config.json").read_bytes() + b" ")
    assert "is not the file that was saved" in refused(load, REPOSITORY, "cpu")
    changed(cached, "config.json", auto_map={"AutoModel": "someone/model--code.Model"})
    changed(cached, "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokenizer", None]})
    put(cached, "code.py", b"raise SystemExit")
    load(REPOSITORY, "cpu")
    for file, key, value, message in (
        ("config.json", "visual_embedding", {"num_layers": 10**9}, "num_layers is 1000000000: use a number of at most"),
        ("config.json", "encoder", {"name": "tiny", "crop_size": 11}, "disagree: encoder.crop_size is 10 and 11"),
        ("config.json", "model_type", "t5", "not a model that umie saved"),
        ("tokenizer_config.json", "model_max_length", "long", "model_max_length"),
        ("tokenizer_config.json", "extra_ids", 10**9, "extra_ids is 1000000000"),
    ):
        before = json.loads((folder / file).read_text())
        changed(cached, file, **{key: value})
        assert message in refused(load, REPOSITORY, "cpu")
        put(cached, file, json.dumps(before).encode())
    for file in ("config.json", "tokenizer.json", FILE):
        whole = (folder / file).read_bytes()
        for target in ("/etc/passwd", "../../../../outside.json"):
            (folder / file).unlink()
            (folder / file).symlink_to(target)
            (cached.parents[1] / "outside.json").write_bytes(whole)
            refused(load, REPOSITORY, "cpu")
        put(cached, file, b"version https://git-lfs.github.com/spec/v1\n")
        assert "git lfs pull" in refused(load, REPOSITORY, "cpu")
        put(cached, file, whole)
    load(REPOSITORY, "cpu")
    weights = folder / "model.safetensors"
    torch.save({"weight": torch.zeros(1)}, folder / "pytorch_model.bin")
    weights.unlink()
    assert "has no .safetensors files" in refused(load, REPOSITORY, "cpu")
    put(cached, "model.safetensors.index.json", json.dumps({"weight_map": {"a": "../../x.safetensors"}}).encode())
    assert "is not a weight file of this folder" in refused(load, REPOSITORY, "cpu")


@pytest.mark.slow
def test_a_decoder_from_a_repository(variant, cached, no_network, tmp_path):
    model, processor = variant()
    model.decoder.save_checkpoint(tmp_path / "source")
    processor.tokenizer.save_pretrained(str(tmp_path / "source"))
    (tmp_path / "source" / "onnx").mkdir()
    (tmp_path / "source" / "onnx" / "config.json").write_text("null")
    repository = in_cache(tmp_path / "cache", "someone/t5", tmp_path / "source")
    found, _ = compose(decoder="someone/t5")
    expected = model.decoder.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.decoder.state_dict().items())
    config = (repository / "snapshots" / COMMIT / "config.json").read_bytes()
    for key, value, message in (
        ("num_layers", 10**9, "num_layers is 1000000000"),
        ("vocab_size", 10**6, "describes"),
        ("auto_map", {"AutoConfig": "code.Config"}, None),
    ):
        changed(repository, "config.json", **{key: value})
        if message is None:
            compose(decoder="someone/t5")
        else:
            assert message in refused(lambda: compose(decoder="someone/t5"))
        put(repository, "config.json", config)
    (repository / "snapshots" / COMMIT / "tokenizer_config.json").unlink()
    (repository / "snapshots" / COMMIT / "tokenizer_config.json").symlink_to("/etc/passwd")
    assert "leads outside of its folder" in refused(lambda: compose(decoder="someone/t5"))


def test_files_of_a_model_are_not_in_folders():
    assert is_model_file("model-00001-of-00002.safetensors")
    assert not any(map(is_model_file, ("adapter/adapter_model.safetensors", "onnx/config.json", "tokenizer.json")))
