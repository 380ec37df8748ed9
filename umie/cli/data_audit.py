"""`umie data audit`, `clean` and `fingerprint`: overlaps of splits, and versions of data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from umie.cli.console import out
from umie.cli.options import Format, FormatOptions, Images, Regions, source_of, tell
from umie.cli.progress import counting
from umie.errors import UmieError

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
    from umie.cli.data_audit_report import print_audit

    given = {"train": train, "dev": dev, "test": test}
    splits = {
        name: source_of(path, format_name, images, None, format_option)
        for name, path in given.items()
        if path is not None
    }
    if not splits:
        raise UmieError("nothing to audit: use --train, --dev or --test")
    others = [source_of(path, against_format or format_name, against_images) for path in against or []]
    with counting("reading") as count:
        result = audit_splits(splits, others, threshold=threshold, versions=versions, progress=count)
    report = result.summary()
    print_audit(report)
    if json_file is not None:
        from umie.files import atomic_write

        with atomic_write(json_file) as file:
            json.dump(report, file, ensure_ascii=False, indent=2)
        out.print(f"Written: {json_file}", highlight=False, markup=False, soft_wrap=True)


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
    from umie.audit.cleaning import clean_file

    source = source_of(file, format_name, images, regions, format_option)
    others = [source_of(path, against_format or format_name, against_images) for path in against]
    with counting("comparing") as count:
        result = clean_file(source, others, output, match=match or ("near",), threshold=threshold, progress=count)
    for identifier, reason in result.removed:
        tell(f"removed: {identifier} ({reason})")
    written = result.num_records - len(result.removed)
    out.print(f"records: {result.num_records:,}; removed: {len(result.removed):,}; written: {written:,} to {output}",
              highlight=False, markup=False, soft_wrap=True)  # fmt: skip


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
    from umie.audit.known_versions import known_versions, to_json

    names = name or [str(file) for file in files]
    if len(names) != len(files) or len(set(names)) != len(names):
        raise UmieError(f"--name: {len(names)} names for {len(files)} files: use one unique name per file")
    found = []
    with counting("reading", len(files), unit="files") as count:
        for label, file in zip(names, files, strict=True):
            found.append(fingerprint_of(source_of(file, format_name, images, None, format_option).named(), label))
            count()
    if add_to is None:
        typer.echo(to_json(found), nl=False)
        return
    table = {item.name: item for item in (known_versions(add_to) if add_to.exists() else [])}
    table |= {item.name: item for item in found}
    from umie.files import atomic_write

    with atomic_write(add_to) as stream:
        stream.write(to_json(table.values()))
    out.print(f"{len(found)} added, {len(table)} versions in {add_to}", highlight=False, markup=False, soft_wrap=True)
