"""Saved variants by name: directories, and repositories in a local hub cache; nothing reaches the network."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

import umie
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


@pytest.fixture
def cached(checkpoint, tmp_path, monkeypatch):
    """A hub cache that contains the checkpoint as a repository; the working directory is empty."""
    cache = tmp_path / "cache"
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    shutil.copytree(checkpoint, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
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
