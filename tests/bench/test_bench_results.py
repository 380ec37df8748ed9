"""Ratios within rounds, the JSON format, the report, the figure, and changes between two results."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.artist import Artist

from umie.bench.compare import changes, differences
from umie.bench.ratios import Spread, ratio, spread
from umie.bench.results import CANNOT, DONE, WRONG, Results, Row, file_name
from umie.bench.shapes import read_lengths
from umie.bench.table import blocks_of
from umie.data.synthetic import SyntheticConfig, scenes
from umie.errors import UmieError
from umie.records import write_jsonl
from umie.reports import bench as bench_report
from umie.reports.bench import bench_page, draw_bench

ENVIRONMENT = {
    "device": "cpu",
    "device_name": "A",
    "processor": "A",
    "threads": 2,
    "load": 0.1,
    "date": "2026-01-02T03:04:05+00:00",
    "versions": {"umie": "0.1.0", "torch": "2.15.0+cpu", "xformers": None},
}
positive = st.floats(1e-6, 1e3)


def row(name, seconds, block="released", kind="ours", direction="forward", batch=8, **options):
    widths = {"size": "base", "batch": batch, "tokens": 256, "slots": 37, "ragged": False}
    status = options.pop("status", DONE)
    return Row(
        shape=f"base B={batch}", widths=widths, dtype="float32", direction=direction, block=block, name=name, kind=kind,
        chosen=name == "umie auto" or name == "umie", seconds=list(seconds), status=status, **options,
    )  # fmt: skip


def results(*rows, **environment):
    return Results(environment={**ENVIRONMENT, **environment}, options={"rounds": 3}, rows=list(rows))


def cells(page, name):
    """The cells of the row of a Markdown page that begins with a name."""
    (found,) = (line for line in page.splitlines() if line.startswith(f"| {name} "))
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_ratio_is_taken_within_each_round():
    """A round that is slow for all cancels out; the ratio of the medians would be 1.5 or more."""
    found = ratio([1.0, 10.0, 3.0, 40.0], [2.0, 20.0, 6.0, 80.0])
    assert found == Spread(0.5, 0.5, 0.5)
    assert ratio([1.0, 2.0, 9.0], [1.0, 1.0, 3.0]) == Spread(2.0, 1.5, 2.5)
    assert ratio([1.0, 2.0, 8.0], [1.0, 1.0]) == Spread(1.5, 1.25, 1.75)  # the last round was interrupted


@given(st.lists(positive, min_size=1, max_size=9), positive)
def test_quartiles_enclose_the_median(values, factor):
    found = spread(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.times(factor).median == found.median * factor
    assert not found.is_apart(found)


def test_a_row_is_compared_with_the_fastest_peer_and_its_limit():
    found = results(
        row("umie auto", [2, 4, 6], peak_bytes=90),
        row("bare products", [1, 2, 3], kind="limit"),
        row("plain released", [4, 8, 12], kind="peer", peak_bytes=100),
        row("fast", [1, 2.5, 4], kind="peer"),
        row("faster, wrong", [], kind="peer", status=WRONG, reason="wrong: error 3e-2"),
    )
    (block,) = blocks_of(found)
    entry = block.timed[0]
    assert (entry.row.name, block.peer.name, len(block.timed)) == ("umie auto", "fast", 4)
    assert entry.of_limit.median == 2
    assert entry.of_peer.median == 1.6  # the median of 2, 1.6 and 1.5
    assert entry.of_plain_memory == 0.9


def test_a_failed_memory_measurement_keeps_the_time():
    text = bench_page(results(row("umie auto", [0.001], reason="peak memory: MemoryError: 9 GB")), "umie bench")
    assert cells(text, "umie auto")[1] == "1 (1-1)"
    assert cells(text, "released: umie auto")[1] == "peak memory: MemoryError: 9 GB"


def test_json_round_trip_and_damaged_files(tmp_path):
    found = results(
        row("umie auto", [0.1, 0.2], error=1e-7, gradient_error=2e-7, peak_bytes=5),
        row("xformers", [], status=CANNOT, reason="no CUDA"),
        row("wrong", [], status=WRONG, reason="wrong: error nan", error=math.nan),
    )
    path = tmp_path / "found.json"
    found.write(path)
    again = Results.read(path)
    assert again.rows[:2] == found.rows[:2]
    assert again.rows[2].error is None
    assert (again.environment, again.options, again.complete) == (found.environment, found.options, True)
    data = json.loads(path.read_text())
    broken = [
        "{",
        "[]",
        json.dumps({**data, "format": 0}),
        json.dumps({**data, "rows": [{"name": 1}]}),
        json.dumps({**data, "rows": [{**data["rows"][0], "seconds": [0]}]}),
        json.dumps({**data, "rows": [{**data["rows"][0], "seconds": ["1"]}]}),
        json.dumps({**data, "rows": 3}),
    ]
    for text in broken:
        path.write_text(text)
        with pytest.raises(UmieError, match=r"found\.json: .*(measure again|umie bench)") as caught:
            Results.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UmieError, match="cannot read"):
        Results.read(tmp_path / "none.json")


def test_the_file_name_has_device_dtype_and_version():
    assert file_name(ENVIRONMENT, ["float32"]) == "fusion_torch2.15.0_cpu_2threads_float32"
    on_gpu = {**ENVIRONMENT, "device": "cuda:0", "device_name": "NVIDIA H200"}
    assert file_name(on_gpu, ["bfloat16"]) == "fusion_torch2.15.0_nvidia-h200_bfloat16"


def test_the_report_shows_what_was_measured_and_what_was_not(tmp_path):
    found = results(
        row("umie auto", [0.001, 0.002, 0.003], peak_bytes=1 << 20),
        row("bare products", [0.001, 0.001, 0.001], kind="limit"),
        row("peer", [0.002, 0.002, 0.002], kind="peer", note="no gate"),
        row("umie xformers", [], status=CANNOT, reason="only on CUDA"),
    )
    text = bench_page(found, "umie bench")
    assert cells(text, "umie auto")[1:] == ["2 (1.5-2.5)", "2 (1.5-2.5)", "1 (0.75-1.25)", "1", "-"]
    assert cells(text, "released: umie xformers")[1] == "only on CUDA"
    assert cells(text, "released: peer")[1] == "no gate"
    assert "2 threads" in text
    assert "torch 2.15.0+cpu" in text
    assert "**Interrupted**" in bench_page(dataclasses.replace(found, complete=False), "umie bench")
    assert draw_bench(found, tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
    assert not draw_bench(results(row("umie auto", [1.0])), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("directions", [["forward"], ["forward", "forward+backward"]])
def test_no_text_of_the_figure_is_cut(tmp_path, monkeypatch, directions):
    outside = []

    def saved(figure, *_):
        figure.canvas.draw()
        texts = [*figure.texts, figure._suptitle, *figure.legends]
        for axes in filter(Artist.get_visible, figure.axes):
            texts += [*axes.texts, *axes.get_yticklabels(), axes.title, axes.xaxis.label]
        boxes = [(text, text.get_window_extent()) for text in texts]
        outside.extend(text for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1)

    monkeypatch.setattr(bench_report, "save_figure", saved)
    listed = [
        row(name, [seconds], kind=kind, direction=direction)
        for direction in directions
        for name, kind, seconds in (
            ("umie auto", "ours", 1.0),
            ("transformers T5 with FFN, eager", "peer", 9.0),
            ("bare products", "limit", 1.0),
        )
    ]
    other = row("umie", [1.0], block="concat")
    found = results(*listed, other, device_name="AMD EPYC 9B45 128-Core Processor")
    assert draw_bench(found, tmp_path / "found.png")
    assert not outside


def verdicts(old, new, **options):
    return [(change.row.name, change.verdict) for change in changes(results(*old), results(*new), **options)]


def test_a_change_needs_quartiles_apart_and_more_than_the_tolerance():
    calm = row("a", [1.0, 1.01, 1.02])
    assert verdicts([calm], [row("a", [1.2, 1.21, 1.22])]) == [("a", "slower")]
    assert verdicts([calm], [row("a", [0.8, 0.81, 0.82])]) == [("a", "faster")]
    assert verdicts([calm], [row("a", [1.03, 1.035, 1.04])]) == []  # apart but within the tolerance
    assert verdicts([calm], [row("a", [1.03, 1.035, 1.04])], tolerance=0.01) == [("a", "slower")]
    assert verdicts([row("a", [0.5, 1.0, 2.0])], [row("a", [0.9, 1.5, 2.5])]) == []  # not apart
    assert verdicts([calm], [calm]) == []


def test_rows_that_are_new_gone_broken_or_larger():
    old = [
        row("a", [1.0], peak_bytes=100),
        row("b", [1.0]),
        row("c", [1.0]),
        row("d", [], status=WRONG, reason="wrong"),
    ]
    new = [
        row("a", [1.0], peak_bytes=102),
        row("c", [], status=WRONG, reason="wrong"),
        row("d", [1.0]),
        row("e", [1.0]),
    ]
    found = verdicts(old, new)
    assert sorted(found) == [("a", "more memory"), ("b", "gone"), ("c", "broken"), ("d", "fixed"), ("e", "new")]
    worse = {change.row.name for change in changes(results(*old), results(*new)) if change.is_worse}
    assert worse == {"a", "c"}
    with pytest.raises(UmieError, match="no row in common"):
        changes(results(row("a", [1.0])), results(row("b", [1.0])))


def test_by_limit_a_busier_machine_changes_nothing():
    old = [row("a", [1.0, 1.0]), row("bare products", [0.5, 0.5], kind="limit")]
    new = [row("a", [3.0, 3.0]), row("bare products", [1.5, 1.5], kind="limit")]
    assert verdicts(old, new, of_limit=True) == [("bare products", "slower")]
    assert verdicts(old, new) == [("a", "slower"), ("bare products", "slower")]


def test_other_devices_threads_and_dtypes_are_reported():
    one = results(row("a", [1.0]))
    assert differences(one, one) == []
    assert differences(one, results(row("a", [1.0]), threads=4)) == ["threads was 2, is 4"]
    other = dataclasses.replace(row("a", [1.0]), dtype="bfloat16")
    assert differences(one, results(other)) == ["dtypes were float32, are bfloat16"]


def test_lengths_are_those_of_the_queries(tmp_path):
    path = tmp_path / "records.jsonl"
    records = [scene.record for scene in scenes(SyntheticConfig(test=4), "test")]
    write_jsonl(path, [dataclasses.replace(record, image=None) for record in records])
    found = read_lengths(path)
    assert len(found) >= len(records)
    assert min(found) > min(len(record.text.split()) for record in records)
    write_jsonl(path, [dataclasses.replace(records[0], image=None, tasks=())])
    with pytest.raises(UmieError, match=r"records\.jsonl: no record yields a query"):
        read_lengths(path)
