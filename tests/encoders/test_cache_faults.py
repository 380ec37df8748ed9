"""The feature cache under fault: killed writers, several processes, a fork."""

import multiprocessing
import os
import random
import time
from contextlib import ExitStack, contextmanager

import pytest
import torch
from PIL import Image

from umie.encoders import registry
from umie.encoders.cache import index as _cache_index
from umie.encoders.cache.cached_encoder import CachedEncoder, FeatureCache

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["umie.encoders.cache.cached_encoder", "umie.encoders.tiny"])

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
NUM_IMAGES = 24
BOUND = 1_500_000


def tensors_of(key):
    """Return tensors that their key tells, some 40 to 400 KB."""
    generator = torch.Generator().manual_seed(int(key[:8], 16))
    num_slots = 5 + int(key[:8], 16) % 45
    return {"features": torch.randn(num_slots, 2048, generator=generator), "boxes": torch.zeros(num_slots, 4)}


def is_right(key, tensors):
    expected = tensors_of(key)
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


def image(number):
    pixels = random.Random(number).randbytes(3 * 12 * 12)
    return Image.frombytes("RGB", (12, 12), pixels)


def items():
    return [(image(number), [LEFT, RIGHT][: number % 3]) for number in range(NUM_IMAGES)]


def encoder(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return registry.build("tiny", trainable=False, **options)


@contextmanager
def child(target, *arguments):
    """Run ``target(pipe, ...)`` in a process of its own; give the process and the pipe's other end."""
    here, there = processes.Pipe()
    process = processes.Process(target=_run, args=(target, there, *arguments))
    process.start()
    there.close()
    try:
        yield process, here
    finally:
        if process.is_alive():
            process.kill()
        process.join()
        here.close()


def _run(target, pipe, *arguments):
    torch.set_num_threads(1)
    target(pipe, *arguments)


# --- killed


def keep_writing(pipe, folder, seed):
    draw = random.Random(seed)
    cache = FeatureCache(folder, BOUND, on_event=lambda event: None)
    pipe.send("begun")
    while True:
        key = f"{draw.randrange(40):08x}"
        found = cache.get(key)
        right = cache.put(key, tensors_of(key)) if found is None else is_right(key, found)
        if not right:
            pipe.send(f"entry {key} was {'not stored' if found is None else 'read wrong'}")


def check_after_kill(folder):
    """Open the cache again: every entry is right, the index agrees with the files, nothing is left over."""
    events = []
    with FeatureCache(folder, BOUND, on_event=events.append) as cache:
        files = list(folder.glob("??/*"))
        assert (cache.num_entries, cache.num_bytes) == (len(files), sum(file.stat().st_size for file in files))
        assert cache.num_bytes <= BOUND
        for file in files:
            assert is_right(file.stem, cache.get(file.stem))
        assert cache.stats.corrupted == 0
        assert list((folder / "writers").glob("*.part")) == []
        assert cache.stats.cleaned == sum(int(event.split(": ")[1].split()[0]) for event in events if "half" in event)
        return cache.stats.cleaned


def test_writers_killed_at_any_moment(tmp_path):
    draw = random.Random(0)
    for seed in range(25):
        with child(keep_writing, tmp_path, seed) as (process, pipe):
            assert pipe.recv() == "begun"
            time.sleep(draw.random() * 0.08)
            process.kill()
            process.join()
            with pytest.raises(EOFError):
                pytest.fail(pipe.recv())
        check_after_kill(tmp_path)
    assert list(tmp_path.glob("??/*"))


def test_a_writer_killed_while_another_goes_on(tmp_path):
    with child(keep_writing, tmp_path, 100) as (lasting, lasting_pipe):
        lasting_pipe.recv()
        for seed in range(8):
            with child(keep_writing, tmp_path, seed) as (process, pipe):
                pipe.recv()
                time.sleep(0.03)
                process.kill()
                process.join()
            with FeatureCache(tmp_path, BOUND, on_event=lambda event: None):  # cleans up beside the living
                assert lasting.is_alive()
        assert not lasting_pipe.poll()
    check_after_kill(tmp_path)


def write_large(pipe, folder):
    tensors = {"features": torch.ones(40_000_000), "boxes": torch.zeros(1, 4)}
    cache = FeatureCache(folder)
    pipe.send("begun")
    while True:
        cache.put("0123456789", tensors)


def test_half_written_files_are_never_served_and_go(tmp_path):
    for _ in range(20):
        with child(write_large, tmp_path) as (process, pipe):
            pipe.recv()
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("writers/*.part")) and time.monotonic() < deadline:
                pass
            process.kill()
            process.join()
        left = list(tmp_path.glob("writers/*.part"))
        events = []
        with FeatureCache(tmp_path, on_event=events.append) as cache:
            found = cache.get("0123456789")
            assert found is None or bool((found["features"] == 1).all())
            assert list((tmp_path / "writers").glob("*.part")) == []
            assert cache.stats.cleaned == len(left)
            assert cache.stats.corrupted == 0
        if left:
            assert f"{tmp_path}: 1 half-written file(s) of killed writers removed" in events
            return
    pytest.fail("no kill came while a file was written")


def fill(pipe, folder, batch_size, num_images=NUM_IMAGES, pause=0.0):
    with FeatureCache(folder) as cache:
        cached = CachedEncoder(encoder(), cache)
        pipe.send("ready")
        pipe.recv()
        cached.fill(items()[:num_images], batch_size=batch_size, on_item=lambda number: time.sleep(pause))
        pipe.send((cached.calls, cache.stats))


def test_a_filling_that_is_killed_goes_on_where_it_was(tmp_path):
    batch_size = 4
    with child(fill, tmp_path, batch_size, NUM_IMAGES, 0.05) as (process, pipe):
        pipe.recv()
        pipe.send("go")
        while len(list(tmp_path.glob("??/*"))) < 2 * batch_size:
            assert process.is_alive()
        process.kill()
        process.join()
    num_kept = len(list(tmp_path.glob("??/*")))
    assert 2 * batch_size <= num_kept < NUM_IMAGES
    with child(fill, tmp_path, batch_size) as (_, pipe):
        pipe.recv()
        pipe.send("go")
        calls, stats = pipe.recv()
    assert (calls, stats.hits, stats.misses) == (NUM_IMAGES - num_kept, num_kept, NUM_IMAGES - num_kept)


# --- together


def together(pipes):
    """Let processes that are ready begin at one moment; return what they send at the end."""
    for pipe in pipes:
        assert pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    return [pipe.recv() for pipe in pipes]


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_that_fill_the_same_encode_each_image_once(tmp_path, num_processes, batch_size):
    with ExitStack() as stack:
        children = [stack.enter_context(child(fill, tmp_path, batch_size)) for _ in range(num_processes)]
        done = together([pipe for _, pipe in children])
    assert sum(calls for calls, _ in done) == NUM_IMAGES
    assert all(stats.hits + stats.misses == NUM_IMAGES for _, stats in done)
    assert sum(stats.misses for _, stats in done) == NUM_IMAGES
    assert all(stats.corrupted == stats.write_failures == 0 for _, stats in done)
    events = []
    with FeatureCache(tmp_path, on_event=events.append) as cache:
        plain, cached = encoder(), CachedEncoder(encoder(), cache)
        for image, regions in items():
            expected = plain.encode([image], [regions]).features[0]
            torch.testing.assert_close(cached.one(image, regions)["visual_features"], expected, atol=1e-5, rtol=0)
        assert cache.num_entries == NUM_IMAGES
        assert cached.calls == 0
    assert events == []


def contend(pipe, folder, seed):
    """Read, write and evict the same few keys as others do."""
    draw = random.Random(seed)
    wrong = 0
    with FeatureCache(folder, BOUND) as cache:
        pipe.send("ready")
        pipe.recv()
        for _ in range(150):
            key = f"{draw.randrange(20):08x}"
            found = cache.get(key) if draw.random() < 0.5 else None
            if found is None:
                cache.put(key, tensors_of(key))
            else:
                wrong += not is_right(key, found)
        pipe.send((wrong, cache.stats))


def test_processes_that_evict_what_others_read(tmp_path):
    with ExitStack() as stack:
        done = together([stack.enter_context(child(contend, tmp_path, seed))[1] for seed in range(3)])
    for wrong, stats in done:
        assert (wrong, stats.corrupted, stats.write_failures) == (0, 0, 0)
    assert sum(stats.evicted for _, stats in done) > 0
    assert check_after_kill(tmp_path) == 0


def fork_inside(pipe, folder):
    """Use one cache in a process and, after a fork, in its child; then in the process again."""
    with FeatureCache(folder) as cache:
        cache.put("00000001", tensors_of("00000001"))
        cache.get("00000001")
        pid = os.fork()
        if pid == 0:
            right = is_right("00000001", cache.get("00000001"))
            right = cache.put("00000002", tensors_of("00000002")) and right
            right = right and len(list((folder / "writers").glob("*.lock"))) == 2  # each writes under its own name
            right = right and len(_cache_index._INHERITED) == 1  # sqlite: never use a connection across a fork
            cache.close()
            del cache
            os._exit(0 if right else 1)
        status = os.waitpid(pid, 0)[1]
        alive = FeatureCache(folder)  # were the parent's lock lost, this would take it for dead
        part = len(list((folder / "writers").glob("*.lock")))
        right = is_right("00000002", cache.get("00000002")) and cache.put("00000003", tensors_of("00000003"))
        pipe.send((status, part, right, alive.num_entries))
        alive.close()


def test_a_cache_that_goes_through_a_fork(tmp_path):
    with child(fork_inside, tmp_path) as (_, pipe):
        assert pipe.recv() == (0, 1, True, 3)
