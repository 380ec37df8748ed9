"""Files for other tools: brat, CoNLL and Label Studio."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from umie.errors import UmieError
from umie.files import atomic_folder, atomic_write, json_text
from umie.records import Event, Record, Span
from umie.records.no_relation import is_no_relation

_WORD = re.compile(r"(?:\w[\u0300-\u036f\u0900-\u0dff\u200d]*)+|[^\w\s]")  # letters keep their marks
_ODD = re.compile(r"[^\w-]+")  # what the name of a type in brat cannot have
_BRAT = re.compile(r"\d{6,}\.(txt|ann)|annotation\.conf|records\.tsv")  # what an earlier output consists of
MENTION, ARGUMENT = "mention", "argument"  # in brat, the types of spans that are ends of relations or fill roles only


def export(
    records: Iterable[Record], output: str | Path, form: str, *, url: str = "", overwrite: bool = False
) -> Counter[str]:
    """Write records in the format of another tool; return how many of each kind of item were written and left out.

    Args:
        records: the records.
        output: the file to write; for brat, the directory.
        form: ``conll`` (entities as BIO tags), ``brat`` (entities, relations, events), or ``label-studio`` (all of it,
            and the boxes of items).
        url: for Label Studio, what comes before the names of images in their addresses.
        overwrite: replace an earlier output. A directory with other files than those of brat is never replaced.

    Raises:
        UmieError: the form is unknown, or the output exists or has a wrong name.
    """
    if form not in FORMS:
        raise UmieError(f"--to is {form!r}: use one of {', '.join(FORMS)}")
    _check_output(Path(output), form, overwrite)
    counts: Counter[str] = Counter()
    FORMS[form](records, Path(output), url, counts)
    return counts


def _check_output(output: Path, form: str, overwrite: bool) -> None:
    """Raise UmieError if writing would replace something that is no earlier output."""
    if form == "label-studio" and output.suffix == ".xml":
        raise UmieError(f"{output}: the labeling interface is written to this name: use another ending, e.g. .json")
    written = [output, *([output.with_suffix(".xml")] if form == "label-studio" else [])]
    for path in written:
        if path.exists() and not overwrite:
            raise UmieError(f"{path} exists: use another --output, or --overwrite")
    if form == "brat" and output.exists():
        others = [one.name for one in output.iterdir() if not _BRAT.fullmatch(one.name)] if output.is_dir() else ["it"]
        if others:
            raise UmieError(f"{output}: {others[0]} is not a file that brat was given: use another directory")
    elif output.is_dir():
        raise UmieError(f"{output} is a directory: use the name of a file")


def _write_conll(records: Iterable[Record], output: Path, _: str, counts: Counter[str]) -> None:
    with atomic_write(output) as file:
        for record in records:
            counts["records"] += 1
            counts["relations left out"] += sum(not is_no_relation(one.type) for one in record.relations)
            counts["events left out"] += len(record.events)
            if isinstance(record.image, str):
                file.write(f"IMGID:{Path(record.image).stem}\n")
            file.writelines(f"{token}\t{tag}\n" for token, tag in _tagged(record, counts))
            file.write("\n")


def _tagged(record: Record, counts: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield the tokens of a text with BIO tags; an entity inside another one, or without a span, is left out."""
    chosen: list[tuple[Span, str]] = []
    for entity in sorted(record.entities, key=lambda one: 0 if one.span is None else one.span[0] - one.span[1]):
        span = entity.span
        is_blank = span is not None and not record.surface(span).strip()
        if span is None or is_blank or any(span[0] < end and start < span[1] for (start, end), _ in chosen):
            counts["entities left out"] += 1
            continue
        counts["entities"] += 1
        chosen.append((span, entity.type))
    edges = {edge for span, _ in chosen for edge in span}
    for found in _WORD.finditer(record.text):
        inner = sorted(edge for edge in edges if found.start() < edge < found.end())
        for start, end in zip([found.start(), *inner], [*inner, found.end()], strict=True):
            own = next(((span, kind) for span, kind in chosen if span[0] <= start < span[1]), None)
            tag = "O" if own is None else f"{'I' if record.text[own[0][0] : start].strip() else 'B'}-{own[1]}"
            yield record.text[start:end], re.sub(r"\s", "_", tag)


def _write_brat(records: Iterable[Record], output: Path, _: str, counts: Counter[str]) -> None:
    kinds: dict[str, dict[str, None]] = {"entities": {}, "relations": {}, "events": {}, "roles": {}}
    with atomic_folder(output) as folder:
        names = []
        for number, record in enumerate(records, 1):
            named = (record.id or "", record.image if isinstance(record.image, str) else "")
            names.append("\t".join([f"{number:06d}", *(re.sub(r"\s", " ", one) for one in named)]) + "\n")
            counts["records"] += 1
            text = re.sub(r"\s", " ", record.text)  # a span may not cross lines
            (folder / f"{number:06d}.txt").write_text(f"{text}\n", encoding="utf-8")
            lines = "".join(f"{line}\n" for line in _standoff(record, text, kinds, counts))
            (folder / f"{number:06d}.ann").write_text(lines, encoding="utf-8")
        (folder / "records.tsv").write_text("".join(names), encoding="utf-8")
        roles = ", ".join(f"{role}*:<ANY>" for role in kinds["roles"])
        parts = {
            "entities": list(kinds["entities"]),
            "relations": [f"{name}\tArg1:<ANY>, Arg2:<ANY>" for name in kinds["relations"]],
            "events": [f"{name}\t{roles}".rstrip() for name in kinds["events"]],
            "attributes": [],
        }
        config = "".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in parts.items())
        (folder / "annotation.conf").write_text(config, encoding="utf-8")


def _standoff(record: Record, text: str, kinds: Mapping[str, dict[str, None]], counts: Counter[str]) -> Iterator[str]:
    """Yield the lines of an .ann file; items without a span are left out."""
    ids: dict[tuple[str, Span], str] = {}
    made: list[str] = []

    def name(kind: str, label: str) -> str:
        written = _ODD.sub("_", label) or "_"
        kinds[kind][written] = None
        return written

    def mark(label: str, span: Span, kind: str = "entities") -> str:
        if (label, span) not in ids:
            ids[label, span] = f"T{len(ids) + 1}"
            made.append(f"{ids[label, span]}\t{name(kind, label)} {span[0]} {span[1]}\t{text[span[0] : span[1]]}")
        return ids[label, span]

    def of(span: Span, other: str) -> str:
        """Return the mark of the entity with this span, or a mark of another kind."""
        return mark(_type_of(record, span, other), span)

    def count(kind: str, is_written: bool) -> bool:
        counts[kind if is_written else f"{kind} left out"] += 1
        return is_written

    for entity in record.entities:
        if count("entities", entity.span is not None) and entity.span is not None:
            mark(entity.type, entity.span)
    for number, relation in enumerate(one for one in record.relations if not is_no_relation(one.type)):
        head, tail = relation.head, relation.tail
        if count("relations", None not in (head, tail)) and head is not None and tail is not None:
            ends = f"Arg1:{of(head, MENTION)} Arg2:{of(tail, MENTION)}"
            made.append(f"R{number + 1}\t{name('relations', relation.type)} {ends}")
    for number, event in enumerate(record.events):
        if count("events", event.trigger is not None) and event.trigger is not None:
            trigger = mark(event.type, event.trigger, "events")
            roles, seen = "", Counter[str]()
            for argument in event.arguments:
                if count("arguments", argument.span is not None) and argument.span is not None:
                    role = name("roles", argument.role)
                    seen[role] += 1  # the second agent is Agent2
                    roles += f" {role}{seen[role] if seen[role] > 1 else ''}:{of(argument.span, ARGUMENT)}"
            made.append(f"E{number + 1}\t{name('events', event.type)}:{trigger}{roles}")
        else:
            counts["arguments left out"] += len(event.arguments)
    yield from made


def _write_label_studio(records: Iterable[Record], output: Path, url: str, counts: Counter[str]) -> None:
    labels: dict[str, dict[str, None]] = {"text": {}, "box": {}, "relation": {}}
    has_image = False
    with atomic_write(output) as file:
        file.write("[\n")
        for number, record in enumerate(records):
            counts["records"] += 1
            has_image |= isinstance(record.image, str)
            file.write(("" if number == 0 else ",\n") + json_text(_task(record, url, labels, counts)))
        file.write("\n]\n")

    def listed(tag: str, kind: str) -> str:
        return "".join(f"<{tag} value={quoteattr(label)}/>" for label in labels[kind])

    config = (
        f'<Labels name="label" toName="text">{listed("Label", "text")}</Labels>\n<Text name="text" value="$text"/>\n'
    )
    if has_image:
        config += f'<RectangleLabels name="box" toName="image">{listed("Label", "box")}</RectangleLabels>\n'
        config += '<Image name="image" value="$image"/>\n'
    if labels["relation"]:
        config += f"<Relations>{listed('Relation', 'relation')}</Relations>\n"
    with atomic_write(output.with_suffix(".xml")) as file:
        file.write(f"<View>\n{config}</View>\n")


def _task(record: Record, url: str, labels: Mapping[str, dict[str, None]], counts: Counter[str]) -> dict[str, Any]:
    """Return a record as a task of Label Studio, its items as a prediction."""
    results: list[dict[str, Any]] = []
    ids: dict[tuple[str, Span | tuple[str, int]], str] = {}

    def span_of(label: str, span: Span) -> str:
        if (label, span) not in ids:
            ids[label, span] = f"s{len(ids)}"
            labels["text"][label] = None
            value = {"start": span[0], "end": span[1], "text": record.text[span[0] : span[1]], "labels": [label]}
            results.append(_result(ids[label, span], "label", "text", "labels", value))
        return ids[label, span]

    def box_of(label: str, region: int) -> str | None:
        found = record.regions[region]
        if found.image or not isinstance(record.image, str):  # the view has one image, with a name
            counts["boxes left out"] += 1
            return None
        key = (label, ("O", region))
        if key not in ids:
            ids[key] = f"b{len(ids)}"
            labels["box"][label] = None
            x1, y1, x2, y2 = (100 * edge for edge in found.box)
            value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0, "rectanglelabels": [label]}
            results.append(_result(ids[key], "box", "image", "rectanglelabels", value))
        return ids[key]

    def marks(label: str, span: Span | None, regions: Sequence[int]) -> list[str]:
        """Return the marks of an item, its span first; its boxes are related to it."""
        own = [] if span is None else [span_of(label, span)]
        boxes = [one for one in (box_of(label, region) for region in regions) if one is not None]
        if own:
            for box in boxes:
                relate(own[0], box, "shown by")
        return own or boxes

    related: set[tuple[str, str, str]] = set()

    def relate(start: str, end: str, label: str) -> None:
        if (start, end, label) in related:
            return
        related.add((start, end, label))
        labels["relation"][label] = None
        results.append({"type": "relation", "from_id": start, "to_id": end, "direction": "right", "labels": [label]})

    for entity in record.entities:
        found = marks(entity.type, entity.span, entity.regions)
        counts["entities" if found else "entities left out"] += 1
    for relation in (one for one in record.relations if not is_no_relation(one.type)):
        head = marks(_type_of(record, relation.head, MENTION), relation.head, relation.head_places.regions)
        tail = marks(_type_of(record, relation.tail, MENTION), relation.tail, relation.tail_places.regions)
        counts["relations" if head and tail else "relations left out"] += 1
        if head and tail:
            relate(head[0], tail[0], relation.type)
    for event in record.events:
        _add_event(event, record, marks, relate, counts)
    data = {
        "text": record.text,
        "image": f"{url}{record.image}" if isinstance(record.image, str) else "",
        "id": record.id,
    }
    return {"data": {name: one for name, one in data.items() if one is not None}, "predictions": [{"result": results}]}


def _add_event(
    event: Event,
    record: Record,
    marks: Callable[[str, Span | None, Sequence[int]], list[str]],
    relate: Callable[[str, str, str], None],
    counts: Counter[str],
) -> None:
    trigger = marks(event.type, event.trigger, event.regions)
    counts["events" if trigger else "events left out"] += 1
    for argument in event.arguments:
        filler = marks(_type_of(record, argument.span, argument.role), argument.span, argument.regions)
        counts["arguments" if filler and trigger else "arguments left out"] += 1
        if filler and trigger:
            relate(trigger[0], filler[0], argument.role)


def _type_of(record: Record, span: Span | None, other: str) -> str:
    """Return the type of the entity with this span, or another word if there is none."""
    return next((entity.type for entity in record.entities if span is not None and entity.span == span), other)


def _result(id: str, source: str, target: str, kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id, "from_name": source, "to_name": target, "type": kind, "value": dict(value)}


FORMS: Mapping[str, Callable[[Iterable[Record], Path, str, Counter[str]], None]] = {
    "conll": _write_conll,
    "brat": _write_brat,
    "label-studio": _write_label_studio,
}
