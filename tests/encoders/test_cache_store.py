"""FeatureCache: entries round-trip, and damage is detected."""

import os
import pickle
import tempfile

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from umie.encoders.cache.store import STALE_AFTER_S, CacheStats, FeatureCache
from umie.errors import UmieError


def key_of(number):
    return f"{number * 7919 % 251:02x}{number:06x}"


def tensors_of(number, num_slots=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(number)
    features = torch.randn(num_slots, 5, generator=generator).to(dtype)
    return {"features": features, "boxes": torch.rand(num_slots, 4, generator=generator)}


def same(found, expected):
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


@pytest.fixture
def events():
    return []


@pytest.fixture
def cache(tmp_path, events):
    return FeatureCache(tmp_path, on_event=events.append)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("num_slots", [0, 1, 37])
def test_entries_round_trip(cache, events, dtype, num_slots):
    written = tensors_of(1, num_slots, dtype)
    assert cache.get(key_of(1)) is None
    assert cache.put(key_of(1), written)
    assert key_of(1) in cache
    assert same(cache.get(key_of(1)), written)
    size = cache.path(key_of(1)).stat().st_size
    assert cache.stats == CacheStats(hits=1, misses=1, read_bytes=size, written_bytes=size)
    assert cache.size() == (1, size)
    assert events == []


def test_returned_tensors_can_be_modified(cache):
    cache.put(key_of(1), tensors_of(1, 37))
    cache.get(key_of(1))["features"].zero_()
    assert same(cache.get(key_of(1)), tensors_of(1, 37))


def test_views_are_stored_without_their_base(cache):
    whole = torch.randn(100, 5)
    cache.put(key_of(1), {"features": whole[:2], "boxes": whole[:4].T})
    assert same(cache.get(key_of(1)), {"features": whole[:2], "boxes": whole[:4].T})
    assert cache.path(key_of(1)).stat().st_size < whole.nbytes


def test_put_replaces(cache):
    cache.put(key_of(1), tensors_of(1))
    held = cache.get(key_of(1))
    cache.put(key_of(1), tensors_of(2))
    assert same(cache.get(key_of(1)), tensors_of(2))
    assert same(held, tensors_of(1))
    assert cache.size()[0] == 1


@pytest.mark.parametrize("key", ["", "short", "../../../etc/passwd", "ABCDEF0123", "a" * 129, "abcdef01\n", None, 5])
def test_keys_are_hexadecimal(cache, key):
    for call in (cache.get, cache.__contains__, lambda key: cache.put(key, {})):
        with pytest.raises(UmieError, match="cache key is .* 8 to 128 lower-case hexadecimal digits"):
            call(key)


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "nul\0"):
        with pytest.raises(UmieError, match="cannot hold a feature cache"):
            FeatureCache(folder)


def test_events_are_logged_by_default(tmp_path, caplog):
    cache = FeatureCache(tmp_path)
    cache.put(key_of(1), tensors_of(1))
    cache.path(key_of(1)).write_bytes(b"")
    cache.get(key_of(1))
    assert [record.name for record in caplog.records] == ["umie.cache"]
    assert "damaged" in caplog.text


def test_a_copy_in_a_data_worker_counts_for_itself(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put(key_of(1), tensors_of(1))
    copy = pickle.loads(pickle.dumps(cache))  # noqa: S301 # as a data worker does
    assert same(copy.get(key_of(1)), tensors_of(1))
    assert (copy.stats.hits, copy.stats.written_bytes, cache.stats.hits) == (1, 0, 0)


def test_temporary_files_of_killed_writers_are_removed(tmp_path, cache):
    cache.put(key_of(1), tensors_of(1))
    folder = cache.path(key_of(1)).parent
    for name, age in (("old", STALE_AFTER_S + 60), ("new", 60)):
        part = folder / f".{name}.part"
        part.touch()
        modified = part.stat().st_mtime - age
        os.utime(part, (modified, modified))
    assert FeatureCache(tmp_path).size()[0] == 1
    assert sorted(path.name for path in folder.iterdir()) == [".new.part", cache.path(key_of(1)).name]


class Model(RuleBasedStateMachine):
    """The cache compared with a dict."""

    @initialize()
    def open_first(self):
        self.folder = tempfile.TemporaryDirectory()
        self.model = {}
        self.reopen()

    @rule()
    def reopen(self):
        self.cache = FeatureCache(self.folder.name, on_event=lambda event: None)

    @rule(number=st.integers(0, 9), num_slots=st.integers(0, 9))
    def put(self, number, num_slots):
        assert self.cache.put(key_of(number), tensors_of(number, num_slots))
        self.model[number] = num_slots

    @rule(number=st.integers(0, 9))
    def get(self, number):
        found = self.cache.get(key_of(number))
        assert (found is not None) == (number in self.model)
        assert found is None or same(found, tensors_of(number, self.model[number]))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def damage(self, data):
        number = data.draw(st.sampled_from(sorted(self.model)))
        path = self.cache.path(key_of(number))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content[: data.draw(st.sampled_from((len(content), len(content) // 2)))])
        found = self.cache.get(key_of(number))
        if found is None:
            del self.model[number]
        else:  # the damage changed insignificant JSON whitespace
            assert same(found, tensors_of(number, self.model[number]))

    @invariant()
    def agrees(self):
        assert {number for number in range(10) if key_of(number) in self.cache} == set(self.model)

    def teardown(self):
        if hasattr(self, "folder"):
            self.folder.cleanup()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


# --- damaged entries


def test_no_flipped_bit_goes_unnoticed(cache, events):
    """One bit in every byte of header and tensors in turn: each is covered by a check."""
    path = cache.path(key_of(1))
    cache.put(key_of(1), tensors_of(1))
    intact = path.read_bytes()
    for position in range(len(intact)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        found = cache.get(key_of(1))
        # different bytes can be equal JSON, such as other whitespace
        assert found is None or same(found, tensors_of(1)), position
        assert path.exists() == (found is not None)
    assert cache.stats.corrupted > len(intact) * 0.9
    assert len(events) == cache.stats.corrupted == cache.stats.misses


def other_types(path):
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))


def other_shape(path):
    content = path.read_bytes()
    assert b"[2,5]" in content
    path.write_bytes(content.replace(b"[2,5]", b"[5,2]"))


def other_entry(path):
    other = FeatureCache(path.parent / "other")
    other.put(key_of(2), tensors_of(2))
    other.path(key_of(2)).replace(path)


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "7 bytes": lambda path: path.write_bytes(path.read_bytes()[:7]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "last byte gone": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "text": lambda path: path.write_text("not a safetensors file\n" * 50),
    "other types": other_types,
    "other shape": other_shape,
    "another entry": other_entry,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_entries_are_misses_and_are_removed(cache, events, damage):
    path = cache.path(key_of(1))
    cache.put(key_of(1), tensors_of(1))
    damage(path)
    assert cache.get(key_of(1)) is None
    assert (cache.stats.corrupted, cache.stats.misses, cache.stats.hits) == (1, 1, 0)
    assert not path.exists()
    assert len(events) == 1
    assert f"{path}: damaged (" in events[0]
    assert "\n" not in events[0]
    assert cache.put(key_of(1), tensors_of(1))
    assert same(cache.get(key_of(1)), tensors_of(1))


def test_a_directory_in_place_of_an_entry_ends_no_run(cache, events):
    cache.path(key_of(1)).mkdir(parents=True)
    assert cache.get(key_of(1)) is None
    assert not cache.put(key_of(1), tensors_of(1))
    assert len(events) == 2
