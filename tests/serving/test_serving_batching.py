"""The batcher: what is answered together, what fails by itself, what is skipped."""

import time

import pytest

from umie.errors import UmieError
from umie.extraction import Extractor
from umie.records import Record
from umie.serving import Batcher, Limits
from umie.serving.batching import WARM_UP, Question
from umie.serving.limits import Memory, RequestError


def asked(*texts, **options):
    return [Question(Record(text), **options) for text in texts]


@pytest.fixture
def held(serve):
    """A batcher that is answering one text until its extractor is set free."""

    def start(**limits):
        batcher = serve(**limits).batcher
        batcher.extractor.hold()
        batcher.submit(asked("first"))
        assert batcher.extractor.started.wait(20)
        return batcher

    return start


def test_records_with_equal_options_are_answered_together_and_the_oldest_first(held):
    batcher = held(batch_size=2)
    names = {"tasks": ("mner",)}
    futures = batcher.submit([*asked("a", **names), *asked("b"), *asked("c", **names), *asked("d", "e")])
    batcher.extractor.free.set()
    assert [future.result(20).text for future in futures] == ["a", "b", "c", "d", "e"]
    assert batcher.extractor.batches == [["first"], ["a", "c"], ["b", "d"], ["e"]]
    assert [future.result().record.tasks == ("mner",) for future in futures] == [True, False, True, False, False]


def test_a_batch_waits_for_others_but_not_for_long(parts):
    batcher = Batcher(Extractor(*parts), Limits(max_wait_ms=150, batch_size=3)).start()
    sizes = []
    batcher.on_batch = sizes.append
    first = batcher.submit(asked("a"))
    time.sleep(0.02)
    second = batcher.submit(asked("b"))
    for future in (*first, *second):
        future.result(20)
    assert sizes == [2]
    began = time.monotonic()
    for future in batcher.submit(asked("a", "b", "c")):
        future.result(20)
    assert time.monotonic() - began < 0.15 or sizes == [2, 3]  # a full batch does not wait
    assert batcher.close(20)


def test_a_bad_record_does_not_fail_its_neighbors(held, extractor):
    batcher = held()
    bad = Record("Bob", "missing.png")
    futures = batcher.submit([*asked("Ann met Bob"), Question(bad), *asked("Rome")])
    batcher.extractor.free.set()
    assert futures[0].result(20) == extractor.extract("Ann met Bob")
    assert futures[2].result(20) == extractor.extract("Rome")
    with pytest.raises(UmieError, match="missing.png: no such image"):
        futures[1].result(20)
    texts = ["Ann met Bob", "Bob", "Rome"]
    assert batcher.extractor.batches == [["first"], texts, *([text] for text in texts)]


def test_what_nobody_waits_for_is_skipped_and_makes_room(held):
    batcher = held(max_queue=2)
    gone, _ = batcher.submit(asked("a", "b"))
    with pytest.raises(RequestError, match="the queue is full") as caught:
        batcher.submit(asked("c"))
    assert caught.value.status == 503
    gone.cancel()
    (last,) = batcher.submit(asked("c"))
    batcher.extractor.free.set()
    assert last.result(20).text == "c"
    assert batcher.extractor.batches == [["first"], ["b", "c"]]


def test_what_nobody_waits_for_holds_no_memory(held):
    batcher = held()
    futures = batcher.submit(asked("a", "b", "c"))
    futures[1].cancel()
    assert batcher.waiting == 2
    batcher.extractor.free.set()
    assert [futures[place].result(20).text for place in (0, 2)] == ["a", "c"]


def test_closing_answers_what_waits(held):
    batcher = held()
    futures = batcher.submit(asked("a", "b"))
    batcher.drain()
    assert not batcher.is_ready
    batcher.extractor.free.set()
    assert batcher.close(20)
    assert [future.result(0).text for future in futures] == ["a", "b"]
    with pytest.raises(RequestError, match="shutting down"):
        batcher.submit(asked("c"))


def test_closing_is_bounded(held):
    batcher = held()
    (waiting,) = batcher.submit(asked("a"))
    assert not batcher.close(0.05)
    assert waiting.cancelled()


def test_a_variant_is_warm_before_it_is_ready(parts, serve):
    assert serve().batcher.extractor.batches == [[WARM_UP]]
    assert not Batcher(Extractor(*parts)).is_ready


def test_memory_is_shared_and_returned():
    memory = Memory(100)
    with memory.share() as mine, memory.share() as other:
        mine.take(60)
        with pytest.raises(RequestError) as caught:
            other.take(50)
        assert caught.value.status == 503
        other.take(40)
    with pytest.raises(RequestError):  # by a thread that did not know that the request is over
        mine.take(1)
    with memory.share() as alone:
        alone.take(100)
        with pytest.raises(RequestError) as caught:
            alone.take(1)
        assert caught.value.status == 413


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"timeout_s": 0}, {"max_wait_ms": -1}, {"max_text": 1_000_000}])
def test_limits_are_checked(wrong):
    with pytest.raises(UmieError, match=next(iter(wrong))):
        Limits(**wrong)
