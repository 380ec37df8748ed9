"""The feature cache on a full disk and in a read-only folder."""

import os
import resource
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from test_cache_faults import child, encoder, items

from umie.encoders.cache.cached_encoder import CachedEncoder
from umie.encoders.cache.store import FeatureCache


def encode_all(pipe, folder, limit):
    """Encode in a process whose files cannot grow beyond ``limit`` bytes, as on a full disk."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    events = []
    cache = FeatureCache(folder, on_event=events.append)
    cached = CachedEncoder(encoder(feature_dim=2048), cache)
    cached.fill(items()[:6], batch_size=2)
    found = [cached.one(*item)["visual_features"].numpy() for item in items()[:6]]
    pipe.send((found, cached.calls, cache.stats, events))


def encoded_in_child(folder, limit=None):
    with child(encode_all, folder, limit) as (_, pipe):
        return pipe.recv()


def check_features(found):
    plain = encoder(feature_dim=2048)
    for features, (image, regions) in zip(found, items(), strict=False):
        expected = plain.encode([image], [regions]).features[0]
        torch.testing.assert_close(torch.from_numpy(features), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("limit", [5_000, 20_000])
def test_files_that_cannot_grow(tmp_path, limit):
    found, calls, stats, events = encoded_in_child(tmp_path, limit)
    check_features(found)
    assert stats.corrupted == 0
    assert len(events) <= 1
    if limit == 5_000:  # smaller than any entry: after the first batch fails, fill encodes no other
        assert calls == 2 + 6
        assert stats.write_failures == calls
        assert "entries cannot be stored (File too large)" in events[0]
    kept = len(list(tmp_path.glob("??/*.safetensors")))
    found, calls, stats, _ = encoded_in_child(tmp_path)
    check_features(found)
    assert (calls, stats.hits, stats.write_failures, stats.corrupted) == (6 - kept, 6 + kept, 0, 0)
    assert FeatureCache(tmp_path).size()[0] == 6


@pytest.mark.parametrize("room", [0, 40_000, 150_000])
def test_a_disk_that_is_full(tmp_path, room):
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        filler = tmp_path / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):  # up to the last block
                pass
        with filler.open("rb+") as file:
            file.truncate(filler.stat().st_size - room)
        folder = tmp_path / "cache"
        folder.mkdir()
        found, calls, stats, events = encoded_in_child(folder)
        check_features(found)
        assert stats.corrupted == 0
        assert (stats.write_failures > 0) == (room < 100_000)
        assert all("No space left on device" in event for event in events)
        assert len(events) <= 1
        filler.unlink()
        kept = len(list(folder.glob("??/*.safetensors")))
        found, calls, stats, events = encoded_in_child(folder)
        check_features(found)
        assert (calls, stats.hits, stats.write_failures, stats.corrupted) == (6 - kept, 6 + kept, 0, 0)
        assert FeatureCache(folder).size()[0] == 6
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def read_only(pipe, folder):
    if os.geteuid() == 0:  # nothing is read-only for root
        os.setuid(65534)
    events = []
    cache = FeatureCache(folder, on_event=events.append)
    cached = CachedEncoder(encoder(), cache)
    cached.fill(items()[:5])
    found = [cached.one(*item)["visual_features"].numpy() for item in items()[:5]]
    damaged = min(folder.glob("??/*.safetensors"))
    pipe.send((found, cached.calls, cache.stats, cache.size()[0], events))
    pipe.recv()
    events.clear()
    for _ in range(2):
        pipe.send((cache.get(damaged.stem), list(events)))


def test_a_read_only_folder_serves_its_entries():
    with tempfile.TemporaryDirectory() as name:  # tmp_path is accessible to its owner only
        folder = Path(name) / "cache"
        Path(name).chmod(0o755)
        CachedEncoder(encoder(), FeatureCache(folder)).fill(items()[:3])
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            with child(read_only, folder) as (_, pipe):
                found, calls, stats, num_entries, events = pipe.recv()
                damaged = min(folder.glob("??/*.safetensors"))
                damaged.chmod(0o644)
                damaged.write_bytes(damaged.read_bytes()[:-1])
                pipe.send("go")
                answers = [pipe.recv() for _ in range(2)]
        finally:
            for path in [folder, *folder.rglob("*")]:
                path.chmod(0o755)
    plain = encoder()
    for features, (image, regions) in zip(found, items(), strict=False):
        expected = plain.encode([image], [regions]).features[0]
        torch.testing.assert_close(torch.from_numpy(features), expected, atol=1e-5, rtol=0)
    assert num_entries == 3
    assert (calls, stats.hits, stats.misses, stats.corrupted) == (2 + 2, 3 + 3, 2 + 2, 0)
    assert len(events) == 1
    assert "entries cannot be stored (Permission denied)" in events[0]
    assert all(tensors is None for tensors, _ in answers)
    assert "cannot be removed (Permission denied)" in answers[-1][1][0]
