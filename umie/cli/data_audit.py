"""`umie data audit`, `clean` and `fingerprint`: what splits share, and which version of a data set a file is."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from umie.cli.console import out
from umie.cli.options import Format, Images, Regions, counting, tell
from umie.errors import UmieError, check_choice
from umie.files import check_distinct

if TYPE_CHECKING:
    from umie.audit.overlap import Split

MATCHES = {"text": ("text",), "near": ("text", "near_text"), "image": ("image_name", "image_bytes")}

Against = Annotated[
    list[Path] | None, typer.Option(help="A file of another data set to compare with; may be given again.")
]
AgainstFormat = Annotated[str | None, typer.Option(help="The format of --against; by default that of the splits.")]
AgainstImages = Annotated[Path | None, typer.Option(help="Folder of the images of --against.")]
Threshold = Annotated[
    float,
    typer.Option(help="Least Jaccard similarity, over 5 characters at a time, of texts that are nearly the same."),
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
    threshold: Threshold = 0.8,
    versions: Annotated[
        Path | None, typer.Option(help="A table of known versions in place of the library's; see fingerprint.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure and id there too.")] = None,
) -> None:
    """Report what the splits of a data set share, with each other and with other sets; nothing is edited.

    Texts, the same but for spaces, case and links, or nearly the same; images, by name, by bytes and by looks
    (--images names them); copies of known versions whose labels or texts were edited; prompts that give the answer
    away. --against answers, for instance, which test records of Twitter-17 occur in SNAP's training set;
    `umie data clean` writes a copy without them.

    Example:
        umie data audit --train train.jsonl --dev dev.jsonl --test test.jsonl --json audit.json
        umie data audit --test twitter2017/test.txt --against snap/train.txt --format twitter
    """
    from umie.audit.fingerprints import fingerprint as take
    from umie.audit.known_versions import compare, known_versions
    from umie.audit.overlap import overlaps, read_split
    from umie.audit.prompts import examine_prompts, schema_of
    from umie.cli.data_audit_report import print_audit
    from umie.data.source import Source

    own = {name: path for name, path in (("train", train), ("dev", dev), ("test", test)) if path is not None}
    if not own:
        raise UmieError("nothing to audit: give --train, --dev or --test")
    check_distinct([*own.values(), *(against or [])])
    sources = {name: Source(path, format_name, images) for name, path in own.items()}
    others = {
        name: Source(path, against_format or format_name, against_images)
        for name, path in _short_names(against or [], taken=own).items()
    }
    table = known_versions(versions)
    with counting("reading") as count:
        splits = [read_split(name, source, count) for name, source in (sources | others).items()]
        found = [take(source.named(), name) for name, source in (sources | others).items()]
        schema = schema_of(record for source in sources.values() for record in source.records())
        prompts = examine_prompts((record for source in sources.values() for record in source.records()), schema)
    compared = overlaps(splits, threshold=threshold, pairs=_pairs(len(own), len(others)))
    report: dict[str, Any] = {
        "threshold": threshold,
        "splits": [split.summary() for split in splits],
        "overlaps": [overlap.summary() for overlap in compared],
        "versions": {item.name: [asdict(result) for result in compare(item, table)] for item in found},
        "prompts": [item.summary() for item in prompts],
    }
    print_audit(report)
    if json_file is not None:
        from umie.files import atomic_write

        with atomic_write(json_file) as file:
            json.dump(report, file, ensure_ascii=False, indent=2)
        out.print(f"Written: {json_file}", highlight=False, markup=False, soft_wrap=True)


def _short_names(paths: Iterable[Path], taken: Container[str]) -> dict[str, Path]:
    """Name files by as much of the end of their paths as tells them apart."""
    names: dict[str, Path] = {}
    different = list(dict.fromkeys(paths))
    for path in different:
        for length in range(2, len(path.parts) + 2):
            name = "/".join(path.parts[-length:])
            if name not in taken and sum("/".join(other.parts[-length:]) == name for other in different) == 1:
                break
        names[name] = path
    return names


def _pairs(num_own: int, num_others: int) -> list[tuple[int, int]]:
    """Return later splits against earlier ones, each against itself, then own ones and others both ways."""
    pairs = [(right, left) for right in range(num_own) for left in range(right)]
    pairs += [(split, split) for split in range(num_own)]
    for other in range(num_own, num_own + num_others):
        for split in range(num_own):
            pairs += [(split, other), (other, split)]
    return pairs


def clean(
    file: Annotated[Path, typer.Argument(help="The file to take records from, such as a training set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSONL file to write; never the input.")],
    against: Annotated[list[Path], typer.Option(help="What the copy may not hold, such as a test set; repeatable.")],
    match: Annotated[
        list[str] | None,
        typer.Option(help="What makes two records the same: text, near (text included), image; repeatable."),
    ] = None,
    format_name: Format = "jsonl",
    against_format: AgainstFormat = None,
    images: Images = None,
    against_images: AgainstImages = None,
    regions: Regions = None,
    threshold: Threshold = 0.8,
) -> None:
    """Write a copy of a file without the records that occur in other files, and list what was left out.

    The paper takes 319 test samples of Twitter-17 out of SNAP's training set; this is that rule for any two sets.

    Example:
        umie data clean snap/train.txt --format twitter --against twitter2017/test.txt --output snap/clean.jsonl
    """
    from umie.audit.overlap import overlaps, read_split
    from umie.data.source import Source
    from umie.records import write_jsonl

    match = match or ["near"]
    for name in match:
        check_choice("--match", name, MATCHES)
    check_distinct([file, *against])
    for path in (file, *against):
        if output.exists() and path.exists() and output.samefile(path):
            raise UmieError(f"{output}: is an input: give --output another name")
    source = Source(file, format_name, images, regions)
    others = [Source(path, against_format or format_name, against_images) for path in against]
    with counting("comparing") as count:
        names = list(_short_names([file, *against], taken=()))
        splits: list[Split] = [
            read_split(name, item, count) for name, item in zip(names, (source, *others), strict=True)
        ]
    pairs = [(0, other) for other in range(1, len(splits))]
    removed: dict[int, str] = {}
    for overlap in overlaps(splits, threshold=threshold, pairs=pairs):
        for kind in (kind for name in match for kind in MATCHES[name]):
            for position, ids in overlap.matches[kind].items():
                removed.setdefault(position, f"{kind.replace('_', ' ')} of {ids[0]} in {overlap.right}")
    kept = (record for position, record in enumerate(source.records()) if position not in removed)
    write_jsonl(output, kept)
    for position in sorted(removed):
        tell(f"left out: {splits[0].ids[position]} ({removed[position]})")
    total = len(splits[0].ids)
    out.print(f"records: {total:,}; left out: {len(removed):,}; written: {total - len(removed):,} to {output}",
              highlight=False, markup=False, soft_wrap=True)  # fmt: skip


def fingerprint(
    files: Annotated[list[Path], typer.Argument(help="The files, one for each version.")],
    name: Annotated[
        list[str] | None, typer.Option(help="What each file's version is called; by default its path. One a file.")
    ] = None,
    format_name: Format = "jsonl",
    images: Images = None,
    add_to: Annotated[
        Path | None, typer.Option(help="A table of versions to add to; it is created if need be.")
    ] = None,
) -> None:
    """Print the fingerprints of files: sums of hashes that tell copies and edited labels, and hold no text.

    --add-to collects them in a table, which `umie data audit --versions` compares with. An entry of the same name
    is replaced.

    Example:
        umie data fingerprint tw17/train.txt tw17/test.txt --format twitter --name "Tw-17 train" --name "Tw-17 test"
          --add-to versions.json
    """
    from umie.audit.fingerprints import fingerprint as take
    from umie.audit.known_versions import known_versions, to_json
    from umie.data.source import Source

    names: Sequence[str] = name or [str(file) for file in files]
    if len(names) != len(files) or len(set(names)) != len(names):
        raise UmieError(f"--name: {len(names)} names for {len(files)} files: give each file a name of its own")
    with counting("reading") as count:
        found = []
        for label, file in zip(names, files, strict=True):
            found.append(take(Source(file, format_name, images).named(), label))
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
