"""The printed report of `umie data audit`: tables, and one sentence per problem."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from umie.cli.console import out
from umie.cli.options import show

_KINDS = {
    "text": "same\ntext",
    "near_text": "near\ntext",
    "image_name": "image\nname",
    "image_bytes": "image\nbytes",
    "image_looks": "image\nlooks",
}


def print_audit(report: Mapping[str, Any]) -> None:
    """Print the report."""
    sizes = {split["name"]: split["records"] for split in report["splits"]}
    for table in (_splits(report), _overlaps(report, sizes), _versions(report), _prompts(report)):
        if table.row_count:
            show(table)
            out.print()
    for sentence in _findings(report, sizes):
        out.print(f"- {sentence}", highlight=False, markup=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left", title_style="bold", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _splits(report: Mapping[str, Any]) -> Table:
    table = _table("Files", "", "records", "distinct\ntexts", "repeated", "identical", "images", "found")
    keys = (
        "records", "distinct_texts", "records_repeating_a_text", "records_repeating_a_text_to_the_letter",
        "distinct_image_names", "images_at_hand",
    )  # fmt: skip
    for split in report["splits"]:
        table.add_row(escape(split["name"]), *(f"{split[key]:,}" for key in keys))
    return table


def _overlaps(report: Mapping[str, Any], sizes: Mapping[str, int]) -> Table:
    table = _table("Records with a copy", "", "of", *_KINDS.values())
    for overlap in report["overlaps"]:
        left, right = overlap["left"], overlap["right"]
        name = f"within {left}" if left == right else f"{left} in {right}"
        counts = [overlap["records"][kind] for kind in _KINDS]
        table.add_row(escape(name), f"{sizes[left]:,}", *(f"{count:,}" if count else "-" for count in counts))
    return table


def _versions(report: Mapping[str, Any]) -> Table:
    table = _table(
        "Known versions",
        "",
        "version",
        "verdict",
        "other\ntexts",
        "other\nrecords",
        "shared\ntexts",
    )
    for column in table.columns[1:3]:
        column.justify = "left"
    for name, results in report["versions"].items():
        if not results:
            table.add_row(escape(name), "none", "", "", "", "")
        for result in results:
            table.add_row(
                escape(name),
                escape(result["name"]),
                result["verdict"],
                _about(result["texts"]),
                _about(result["annotations"]),
                _shared(result["shared"]),
            )
    return table


def _shared(share: float) -> str:
    """Return a word for a share that is only estimated, from 128 hashes; ``--against`` counts exactly."""
    if share >= 1:
        return "all"
    return "few" if share < 0.25 else "some" if share < 0.75 else "most"


def _about(number: int | None) -> str:
    if number is None:
        return "many"
    return f"about {number:,}" if number else "0"


def _prompts(report: Mapping[str, Any]) -> Table:
    columns = {
        "queries": "queries",
        "label_dependent": "gold\nlabel",
        "span_dependent": "gold\nspan",
        "only_gold_lists": "gold\nlist",
        "answer_in_instruction": "answer",
        "answer_in_text": "answer\nin text",
        "gold_label_in_text": "gold\nin text",
        "other_label_in_text": "other\nin text",
    }
    table = _table("Prompts", "", *columns.values())
    for prompt in report["prompts"]:
        table.add_row(escape(prompt["task"]), *(_value(prompt[key]) for key in columns))
    return table


def _value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f} %"


def _findings(report: Mapping[str, Any], sizes: Mapping[str, int]) -> Iterator[str]:
    for overlap in report["overlaps"]:
        left, right, counts = overlap["left"], overlap["right"], overlap["records"]
        total = counts["text"] + counts["near_text"]
        if total and left != right:
            yield (
                f"{total:,} of {sizes[left]:,} records of {left} ({100 * total / sizes[left]:.1f} %) have a text that "
                f"is also in {right}, {counts['near_text']:,} of them a near duplicate"
            )
    for name, results in report["versions"].items():
        for result in results:
            if result["verdict"] == "edited labels":
                yield (
                    f"{name} has the texts of {result['name']}, but other labels: "
                    f"{_about(result['annotations'])} records differ; {_changes(result['labels'])}"
                )
    for prompt in report["prompts"]:
        if prompt["label_dependent"]:
            yield (
                f"{prompt['task']}: {prompt['label_dependent']:,} of {prompt['queries']:,} instructions contain a gold "
                "label, so these scores are oracle scores: predict the label first, or report them as such"
            )
        if prompt["answer_in_instruction"] or prompt["only_gold_lists"]:
            yield f"{prompt['task']}: instructions reveal the answer, see the table"


def _changes(labels: Mapping[str, Mapping[str, Any]]) -> str:
    parts = [
        f"{task} {label} {before:,} -> {after:,}"
        for task, changes in labels.items()
        for label, (before, after) in changes.items()
    ]
    return "; ".join(parts) if parts else "the number of uses of each label is the same"
