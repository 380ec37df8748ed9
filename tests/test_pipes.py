"""A pipe in place of a file is refused in one line, wherever files are opened, and never waited for."""

import os
import signal
from pathlib import Path

import pytest
import torch

from umie.encoders.cache.store import FeatureCache
from umie.encoders.precomputed.tsv import INDEX_SUFFIX, TsvFile
from umie.errors import UmieError
from umie.experiments.results import append_result
from umie.resumable import ResumableLines, is_changed
from umie.weights import read_state_dict

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")


@pytest.fixture(autouse=True)
def in_time():
    """Fail after five seconds."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for a pipe"))
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def as_pipe(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def refusal(call, *arguments) -> str:
    with pytest.raises(UmieError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    path = tmp_path / "all.tsv"
    path.write_text("one\t2\t2\t0\t\t\n")
    return path


def test_region_features(tsv: Path) -> None:
    as_pipe(tsv.with_name(tsv.name + INDEX_SUFFIX))
    file = TsvFile(tsv, None, {})  # the index is not read and not written
    assert file.entry("one").number("image_w") == 2
    as_pipe(tsv)
    assert refusal(file.entry, "one") == f"{tsv}:1: cannot read: is a pipe or a device, not a regular file"
    assert refusal(file._build) == f"{tsv}: cannot read: is a pipe or a device, not a regular file"
    assert refusal(TsvFile, tsv, None, {}) == f"{tsv}: cannot read: is a pipe or a device, not a regular file"


def test_the_feature_cache_computes_again(tmp_path: Path) -> None:
    events: list[str] = []
    cache = FeatureCache(tmp_path, on_event=events.append)
    cache.put("12345678", {"a": torch.ones(2)})
    pipe = as_pipe(cache.path("12345678"))
    assert cache.get("12345678") is None
    assert not cache.put("12345678", {"a": torch.ones(2)})
    assert events[0] == (
        f"{pipe}: cannot be read (is a pipe or a device, not a regular file); its features are recomputed"
    )
    assert len(events) == 2


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights(tmp_path: Path, suffix: str) -> None:
    pipe = as_pipe(tmp_path / f"a.{suffix}")
    assert refusal(read_state_dict, pipe) == f"{pipe}: cannot read: is a pipe or a device, not a regular file"


@pytest.mark.parametrize("suffix", [".part", ".part.run"])
def test_unfinished_outputs(tmp_path: Path, suffix: str) -> None:
    output = tmp_path / "out.jsonl"
    pipe = as_pipe(tmp_path / f"out.jsonl{suffix}")

    def resume() -> None:
        with ResumableLines([output], "run").open():
            pass

    assert refusal(resume) == f"{pipe}: is a device or a pipe; use the name of a regular file"
    output.write_text("{}\n")
    as_pipe(tmp_path / "out.jsonl.sha256")
    assert not is_changed(output)


def test_results(tmp_path: Path) -> None:
    pipe = as_pipe(tmp_path / "results.jsonl")
    assert refusal(append_result, pipe, {}) == f"{pipe}: is a device or a pipe; use the name of a regular file"
