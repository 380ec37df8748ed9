"""The feature cache with killed writers and several processes."""

import multiprocessing
import random
import time
from contextlib import ExitStack, contextmanager

import pytest
import torch
from PIL import Image

from umie.encoders import registry
from umie.encoders.cache.cached_encoder import CachedEncoder
from umie.encoders.cache.store import FeatureCache

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["umie.encoders.cache.cached_encoder", "umie.encoders.tiny"])

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
NUM_IMAGES = 24


def tensors_of(key):
    """Return tensors determined by their key, about 40 to 400 KB."""
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
    """Run ``target(pipe, ...)`` in a child process; yield the process and the other end of the pipe."""
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


def together(pipes):
    """Let processes that are ready start at the same moment; return their final messages."""
    for pipe in pipes:
        assert pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    return [pipe.recv() for pipe in pipes]


def keep_writing(pipe, folder, seed):
    draw = random.Random(seed)
    cache = FeatureCache(folder, on_event=lambda event: None)
    pipe.send("begun")
    while True:
        key = f"{draw.randrange(40):08x}"
        found = cache.get(key) if draw.random() < 0.5 else None
        right = cache.put(key, tensors_of(key)) if found is None else is_right(key, found)
        if not right:
            pipe.send(f"entry {key} was {'not stored' if found is None else 'read wrong'}")


@pytest.mark.slow
def test_killed_writers_leave_only_intact_entries(tmp_path):
    draw = random.Random(0)
    with child(keep_writing, tmp_path, 100) as (lasting, lasting_pipe):
        lasting_pipe.recv()
        for seed in range(10):
            with child(keep_writing, tmp_path, seed) as (process, pipe):
                assert pipe.recv() == "begun"
                time.sleep(draw.random() * 0.08)
                process.kill()
                process.join()
                with pytest.raises(EOFError):
                    pytest.fail(pipe.recv())
        assert lasting.is_alive()
        assert not lasting_pipe.poll()
    cache = FeatureCache(tmp_path, on_event=pytest.fail)
    files = list(tmp_path.glob("??/*.safetensors"))
    assert files
    for file in files:
        assert is_right(file.stem, cache.get(file.stem))
    assert cache.stats.corrupted == 0


def fill(pipe, folder, batch_size, num_images=NUM_IMAGES, pause=0.0):
    cache = FeatureCache(folder)
    cached = CachedEncoder(encoder(), cache)
    pipe.send("ready")
    pipe.recv()
    cached.fill(items()[:num_images], batch_size=batch_size, on_item=lambda number: time.sleep(pause))
    pipe.send((cached.calls, cache.stats))


def test_a_killed_fill_resumes(tmp_path):
    batch_size = 4
    with child(fill, tmp_path, batch_size, NUM_IMAGES, 0.05) as (process, pipe):
        pipe.recv()
        pipe.send("go")
        while len(list(tmp_path.glob("??/*.safetensors"))) < 2 * batch_size:
            assert process.is_alive()
        process.kill()
        process.join()
    num_kept = len(list(tmp_path.glob("??/*.safetensors")))
    assert 2 * batch_size <= num_kept < NUM_IMAGES
    with child(fill, tmp_path, batch_size) as (_, pipe):
        ((calls, stats),) = together([pipe])
    assert (calls, stats.hits, stats.misses) == (NUM_IMAGES - num_kept, num_kept, NUM_IMAGES - num_kept)


@pytest.mark.parametrize(("num_processes", "batch_size"), [(2, 1), (3, 5)])
def test_processes_that_fill_one_cache_encode_each_image_once(tmp_path, num_processes, batch_size):
    with ExitStack() as stack:
        children = [stack.enter_context(child(fill, tmp_path, batch_size)) for _ in range(num_processes)]
        done = together([pipe for _, pipe in children])
    assert sum(calls for calls, _ in done) == NUM_IMAGES
    assert all(stats.hits + stats.misses == NUM_IMAGES for _, stats in done)
    assert sum(stats.misses for _, stats in done) == NUM_IMAGES
    assert all(stats.corrupted == stats.write_failures == 0 for _, stats in done)
    cache = FeatureCache(tmp_path, on_event=pytest.fail)
    plain, cached = encoder(), CachedEncoder(encoder(), cache)
    for image, regions in items():
        expected = plain.encode([image], [regions]).features[0]
        torch.testing.assert_close(cached.one(image, regions)["visual_features"], expected, atol=1e-5, rtol=0)
    assert cache.size()[0] == NUM_IMAGES
    assert cached.calls == 0
