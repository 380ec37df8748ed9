"""`umie data audit`, `clean` and `fingerprint`: overlaps of splits, and versions of data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from umie.cli.console import number_table, out, print_json, print_line, print_note, show
from umie.cli.options import Format, FormatOptions, Images, Regions, source_of
from umie.cli.progress import counting
from umie.errors import UmieError
from umie.files import atomic_write, json_text

_KINDS = {
    "text": "same\ntext",
    "near_text": "near\ntext",
    "image_name": "image\nname",
    "image_bytes": "image\nbytes",
    "image_looks": "image\nlooks",
}
_PROMPTS = {
    "queries": "queries",
    "label_dependent": "gold\nlabel",
    "span_dependent": "gold\nspan",
    "only_gold_lists": "gold\nlist",
    "answer_in_instruction": "answer",
    "answer_in_text": "answer\nin text",
    "gold_label_in_text": "gold\nin text",
    "other_label_in_text": "other\nin text",
}
_SPLITS = {
    "records": "records",
    "distinct_texts": "distinct\ntexts",
    "records_repeating_a_text": "repeated",
    "records_repeating_a_text_to_the_letter": "identical",
    "distinct_image_names": "images",
    "images_at_hand": "found",
}

Against = Annotated[list[Path] | None, typer.Option(help="File of another data set to compare with; repeatable.")]
AgainstFormat = Annotated[str | None, typer.Option(help="Format of --against; by default, that of the splits.")]
AgainstImages = Annotated[Path | None, typer.Option(help="Directory of the images of --against.")]
Threshold = Annotated[
    float, typer.Option(help="Minimum Jaccard similarity of character 5-grams of near-duplicate texts.")
]


def audit(
    train: Annotated[Path | None, typer.Option(help="The training split.")] = None,
    dev: Annotated[Path | None, typer.Option(help="The dev split.")] = None,
    test: Annotated[Path | None, typer.Option(help="The test split.")] = None,
    against: Against = None,
    format_name: Format = "jsonl",
    against_format: AgainstFormat = None,
    images: Images = None,
    against_images: AgainstImages = None,
    format_option: FormatOptions = None,
    threshold: Threshold = 0.8,
    versions: Annotated[
        Path | None, typer.Option(help="Table of known versions instead of the built-in one; see fingerprint.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all results to this JSON file.")] = None,
) -> None:
    """Report overlaps of the splits of a data set, with each other and with other data sets.

    The report covers duplicate and near-duplicate texts (ignoring whitespace, case and links); images with the same
    name, bytes or appearance (requires --images); copies of known versions with edited labels or texts; and prompts
    that reveal the answer. Nothing is edited; `umie data clean` writes a copy without overlapping records.

    Example:
        umie data audit --train train.jsonl --dev dev.jsonl --test test.jsonl
        umie data audit --test test.txt --format twitter --against train.txt
    """
    from umie.audit.audit import audit_splits

    given = {"train": train, "dev": dev, "test": test}
    files = {name: path for name, path in given.items() if path is not None}
    splits = {name: source_of(path, format_name, images, None, format_option) for name, path in files.items()}
    if not splits:
        raise UmieError("nothing to audit: use --train, --dev or --test")
    others = [source_of(path, against_format or format_name, against_images) for path in against or []]
    with counting("reading") as count:
        result = audit_splits(splits, others, threshold=threshold, versions=versions, progress=count)
    report = result.summary()
    _print_audit(report)
    if json_file is not None:
        with atomic_write(json_file) as file:
            file.write(json_text(report, indent=2))
        print_line(f"Written: {json_file}")


def clean(
    file: Annotated[Path, typer.Argument(help="The file to clean, such as a training set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write; not an input.")],
    against: Annotated[
        list[Path], typer.Option(help="File whose records are removed, such as a test set; repeatable.")
    ],
    match: Annotated[
        list[str] | None,
        typer.Option(help="Criterion of equal records: text, near (includes text) or image; repeatable."),
    ] = None,
    format_name: Format = "jsonl",
    against_format: AgainstFormat = None,
    images: Images = None,
    against_images: AgainstImages = None,
    regions: Regions = None,
    format_option: FormatOptions = None,
    threshold: Threshold = 0.8,
) -> None:
    """Write a copy of a file without the records that occur in other files, and list the removed records.

    The paper removes 319 test samples of Twitter-17 from the training set of SNAP; this command does the same for any
    two data sets.

    Example:
        umie data clean train.jsonl --against test.jsonl --output clean.jsonl
    """
    from umie.audit.audit import clean_file

    source = source_of(file, format_name, images, regions, format_option)
    others = [source_of(path, against_format or format_name, against_images) for path in against]
    with counting("comparing") as count:
        result = clean_file(source, others, output, match=match or ("near",), threshold=threshold, progress=count)
    for identifier, reason in result.removed:
        print_note(f"removed: {identifier} ({reason})")
    written = result.num_records - len(result.removed)
    print_line(f"records: {result.num_records:,}; removed: {len(result.removed):,}; written: {written:,} to {output}")


def fingerprint(
    files: Annotated[list[Path], typer.Argument(help="The files, one per version.")],
    name: Annotated[
        list[str] | None, typer.Option(help="Name of the version of each file; by default, its path; repeatable.")
    ] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    format_option: FormatOptions = None,
    add_to: Annotated[
        Path | None, typer.Option(help="Table of versions to extend; created if it does not exist.")
    ] = None,
) -> None:
    """Print fingerprints of files, which identify copies and edited labels without containing texts.

    --add-to collects them in a table for `umie data audit --versions`; an entry with the same name is replaced.

    Example:
        umie data fingerprint train.txt --format mnre --name "MNRE-2 train"
        umie data fingerprint *.txt --format twitter --add-to versions.json
    """
    from umie.audit.fingerprints import fingerprint as fingerprint_of
    from umie.audit.fingerprints import known_versions, to_json

    names = name or [str(file) for file in files]
    if len(names) != len(files) or len(set(names)) != len(names):
        raise UmieError(f"--name: {len(names)} names for {len(files)} files: use one unique name per file")
    found = []
    with counting("reading", len(files), unit="files") as count:
        for label, file in zip(names, files, strict=True):
            found.append(fingerprint_of(source_of(file, format_name, images, None, format_option).named(), label))
            count()
    if add_to is None:
        print_json(json.loads(to_json(found)), indent=1)
        return
    table = {item.name: item for item in (known_versions(add_to) if add_to.exists() else [])}
    table |= {item.name: item for item in found}
    with atomic_write(add_to) as stream:
        stream.write(to_json(table.values()))
    print_line(f"{len(found)} added, {len(table)} versions in {add_to}")


def _print_audit(report: Mapping[str, Any]) -> None:
    """Print tables, and a sentence for each problem."""
    sizes = {split["name"]: split["records"] for split in report["splits"]}
    splits = _table("Files", *_SPLITS.values())
    for split in report["splits"]:
        splits.add_row(escape(split["name"]), *(f"{split[key]:,}" for key in _SPLITS))
    overlaps = _table("Records with a copy", "of", *_KINDS.values())
    for overlap in report["overlaps"]:
        left, right = overlap["left"], overlap["right"]
        name = f"within {left}" if left == right else f"{left} in {right}"
        counts = [overlap["records"][kind] for kind in _KINDS]
        overlaps.add_row(escape(name), f"{sizes[left]:,}", *(f"{count:,}" if count else "-" for count in counts))
    prompts = _table("Prompts", *_PROMPTS.values())
    for prompt in report["prompts"]:
        prompts.add_row(escape(prompt["task"]), *(_value(prompt[key]) for key in _PROMPTS))
    for table in (splits, overlaps, _versions(report["versions"]), prompts):
        if table.row_count:
            show(table)
            out.print()
    for sentence in _findings(report, sizes):
        print_line(f"- {sentence}")


def _table(title: str, *columns: str) -> Table:
    return number_table("", *columns, title=title, title_justify="left", title_style="bold", box=None)


def _value(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{100 * value:.1f}%"


def _versions(versions: Mapping[str, Any]) -> Table:
    table = _table("Known versions", "version", "verdict", "other\ntexts", "other\nrecords", "shared\ntexts")
    for column in table.columns[1:3]:
        column.justify = "left"
    for file, results in versions.items():
        if not results:
            table.add_row(escape(file), "none", "", "", "", "")
        for result in results:
            share = result["shared"]  # only estimated, from 128 hashes; --against counts exactly
            shared = "all" if share >= 1 else "few" if share < 0.25 else "some" if share < 0.75 else "most"
            numbers = (_about(result["texts"]), _about(result["annotations"]))
            table.add_row(escape(file), escape(result["name"]), result["verdict"], *numbers, shared)
    return table


def _about(number: int | None) -> str:
    if number is None:
        return "many"
    return f"about {number:,}" if number else "0"


def _findings(report: Mapping[str, Any], sizes: Mapping[str, int]) -> Iterator[str]:
    for overlap in report["overlaps"]:
        left, right, counts = overlap["left"], overlap["right"], overlap["records"]
        total = counts["text"] + counts["near_text"]
        if total and left != right:
            yield (
                f"{total:,} of {sizes[left]:,} records of {left} ({100 * total / sizes[left]:.1f}%) have a text that "
                f"is also in {right}, {counts['near_text']:,} of them a near duplicate"
            )
    for name, results in report["versions"].items():
        for result in results:
            if result["verdict"] == "edited labels":
                labels = [
                    f"{task} {label} {before:,} -> {after:,}"
                    for task, changes in result["labels"].items()
                    for label, (before, after) in changes.items()
                ]
                yield (
                    f"{name} has the texts of {result['name']}, but other labels: "
                    f"{_about(result['annotations'])} records differ; "
                    f"{'; '.join(labels) or 'the number of uses of each label is the same'}"
                )
    for prompt in report["prompts"]:
        if prompt["label_dependent"]:
            yield (
                f"{prompt['task']}: {prompt['label_dependent']:,} of {prompt['queries']:,} instructions contain a gold "
                "label, so these scores are oracle scores: predict the label first, or report them as such"
            )
        if prompt["answer_in_instruction"] or prompt["only_gold_lists"]:
            yield f"{prompt['task']}: instructions reveal the answer, see the table"
