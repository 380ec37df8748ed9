"""The feature cache's index is expendable: lost, damaged or unusable, it is made anew or done without."""

import os
import random
import sqlite3

import pytest
from test_cache_store import file_of, key_of, same, size_of, tensors_of

from umie.encoders.cache.cached_encoder import FeatureCache


@pytest.fixture
def events():
    return []


INDEX_DAMAGES = {
    "absent": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no database\n" * 1000),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "zeros inside": lambda path: path.write_bytes(path.read_bytes()[:100] + bytes(path.stat().st_size - 100)),
    "another database": lambda path: (path.unlink(), other_database(path)),
    "says it is read-only": lambda path: patch(path, 18, b"\x03"),
    "schema with line ends": lambda path: patch(path, max(path.read_bytes().find(b"INTEGER NOT"), 100), b"\n\x1b\n"),
    "no totals": lambda path: execute(path, "DELETE FROM totals"),
    "wrong totals": lambda path: execute(path, "UPDATE totals SET bytes = 'many'"),
    "too high totals": lambda path: execute(path, "UPDATE totals SET bytes = 1000000000"),
    "wrong uses": lambda path: execute(path, "UPDATE entries SET used = 'now'"),
    "wrong keys": lambda path: execute(path, "UPDATE entries SET key = '../' || key"),
    "no triggers": lambda path: execute(path, "DROP TRIGGER added"),
}


def patch(path, position, content):
    with path.open("rb+") as file:
        file.seek(position)
        file.write(content)


def other_database(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE people (name TEXT)")
    connection.close()


def execute(path, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("while_open", [False, True], ids=["closed", "open"])
@pytest.mark.parametrize("damage", INDEX_DAMAGES.values(), ids=INDEX_DAMAGES)
def test_index_is_made_anew(tmp_path, events, damage, while_open):
    cache = FeatureCache(tmp_path, 4 * size_of(), events.append)
    for number in range(4):
        cache.put(key_of(number), tensors_of(number))
    if not while_open:
        cache.close()
    damage(tmp_path / "index.sqlite")
    if not while_open:
        cache = FeatureCache(tmp_path, 4 * size_of(), events.append)
    for number in range(4, 8):
        assert cache.put(key_of(number), tensors_of(number)), events
    found = {number: cache.get(key_of(number)) for number in range(8)}
    assert all(same(tensors, tensors_of(number)) for number, tensors in found.items() if tensors is not None)
    assert found[7] is not None
    cache.close()
    with FeatureCache(tmp_path, 4 * size_of(), events.append) as again:
        files = list(tmp_path.glob("??/*.safetensors"))
        assert again.num_entries == len(files) <= 4
        assert again.stats.corrupted == 0
    assert all("index.sqlite" in event and event.isprintable() for event in events)


def test_a_lost_index_is_told_and_knows_all(tmp_path, events):
    with FeatureCache(tmp_path) as cache:
        for number in range(5):
            cache.put(key_of(number), tensors_of(number))
            os.utime(file_of(tmp_path, number), (number, number))
    (tmp_path / "index.sqlite").unlink()
    with FeatureCache(tmp_path, on_event=events.append) as cache:
        assert (cache.num_entries, cache.num_bytes) == (5, 5 * size_of())
    assert events == [f"{tmp_path / 'index.sqlite'}: made anew from the 5 entries in the folder"]
    with FeatureCache(tmp_path, 2 * size_of(), on_event=events.append) as cache:
        assert [number for number in range(5) if key_of(number) in cache] == [3, 4]


def test_flipped_bytes_in_the_index_never_matter(tmp_path):
    with FeatureCache(tmp_path) as cache:
        for number in range(4):
            cache.put(key_of(number), tensors_of(number))
    path = tmp_path / "index.sqlite"
    sound = path.read_bytes()
    draw = random.Random(0)
    for attempt in range(150):
        spoilt = bytearray(sound)
        for _ in range(draw.choice((1, 1, 20))):
            spoilt[draw.randrange(draw.choice((100, len(spoilt))))] ^= draw.randrange(1, 256)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(spoilt)
        with FeatureCache(tmp_path, 4 * size_of(), on_event=lambda event: None) as cache:
            assert cache.put(key_of(attempt), tensors_of(attempt))
            for number in range(attempt + 1):
                found = cache.get(key_of(number))
                assert found is None or same(found, tensors_of(number))
            assert cache.get(key_of(attempt)) is not None


def test_an_index_that_sqlite_cannot_open(tmp_path, events):
    """Without an index entries are stored and served; only a bound cannot be kept."""
    (tmp_path / "index.sqlite").mkdir()
    with FeatureCache(tmp_path, on_event=events.append) as cache:
        assert cache.put(key_of(1), tensors_of(1))
        assert same(cache.get(key_of(1)), tensors_of(1))
        assert (cache.num_entries, cache.num_bytes) == (1, size_of())
    with FeatureCache(tmp_path, 10 * size_of(), on_event=events.append) as cache:
        assert not cache.put(key_of(2), tensors_of(2))
        assert key_of(2) not in cache
        assert cache.stats.write_failures == 1
        assert same(cache.get(key_of(1)), tensors_of(1))
    assert [("index cannot be used" in event, "cannot keep within max_bytes" in event) for event in events] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_an_index_that_comes_back_learns_what_it_missed(tmp_path, events):
    index, aside = tmp_path / "index.sqlite", tmp_path / "aside"
    with FeatureCache(tmp_path) as cache:
        cache.put(key_of(1), tensors_of(1))
    index.rename(aside)
    index.mkdir()
    with FeatureCache(tmp_path, on_event=events.append) as cache:
        cache.put(key_of(2), tensors_of(2))
    index.rmdir()
    aside.rename(index)
    with FeatureCache(tmp_path, on_event=events.append) as cache:
        assert (cache.num_entries, cache.num_bytes) == (2, 2 * size_of())
    assert len(events) == 2
    assert "the index did not agree with 1 file(s)" in events[1]
    with FeatureCache(tmp_path, on_event=events.append):
        assert len(events) == 2
