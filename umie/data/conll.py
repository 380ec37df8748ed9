"""`conll`: any file with one tagged token per line, in the columns, separators and tag schemes in use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

from umie.data import registry
from umie.data.columns import find_columns, is_range
from umie.data.consistency import RecordIds
from umie.data.reading import OnError, OptionalPath, refuse_regions, report
from umie.data.tagged import OUTSIDE, Sentence, Tag, sentences
from umie.errors import UmieError, UnknownNameError, at, check_choice, shown
from umie.records import Entity, Record

Scheme = Literal["auto", "bio", "bioes", "bilou", "io", "suffix"]

_PREFIXES = {
    "auto": "BIMOESLU", "bio": "BIO", "bioes": "BIMOES", "bilou": "BILOU", "io": "IO", "suffix": "BIMOESLU",
}  # fmt: skip
_TYPE = re.compile(r"[^\W_][\w./&+:-]*")  # what a tag without a prefix may be unless its scheme is named
_AT_THE_END = re.compile(r"(.+)([-_])([BIMESLU])")
_SEPARATORS = {"tab": "\t", "space": None, "comma": ","}
_DOCUMENT = "-DOCSTART-"
_SAMPLE = 500  # sentences that show what the columns are


@registry.register("conll")
def read(
    path: str | Path,
    *,
    images: OptionalPath = None,
    regions: OptionalPath = None,
    on_error: OnError | None = None,
    tags: Scheme = "auto",
    columns: Sequence[str] | None = None,
    separator: str | None = None,
    join: str = " ",
    ignore_tags: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Yield the sentences of a tagged file as MNER records; a blank line ends a sentence.

    Lines without a token are skipped: ``-DOCSTART-``, and comments at the beginning of a sentence (``# id ...``). A
    header ``IMGID:<id>`` names the image ``<id>.jpg`` of its sentence.

    Args:
        path: the file.
        images: the directory of the images.
        regions: not supported.
        on_error: see ``umie.data``.
        tags: the scheme of the tags: ``bio`` (also with I- at the beginning of entities, as in CoNLL-2003), ``bioes``
            (M- is read as I-), ``bilou``, ``io`` (types alone), or ``suffix`` (``PER-B``). ``auto`` reads all but the
            last, and the type of a tag is what comes after ``B-``, ``I-``, ...; name the scheme to have other tags
            reported. Tags with and without prefixes in one file are an error in ``auto``.
        columns: the names of all columns, among them ``token`` and ``tag``; by default, the last column is the tag, and
            the first one the token, or the second if the first counts the tokens, as in CoNLL-U.
        separator: ``tab``, ``space`` (any whitespace), ``comma``, or another string. By default, a line with a tab is
            separated by tabs, and any other by whitespace.
        join: what is between two tokens in the text; "" for languages without spaces.
        ignore_tags: tags (``B-MISC``) or types (``MISC``) that are not entities.
        labels: the label of each type, such as ``PER: person``; other types are then errors. By default, types are the
            labels.

    Raises:
        UmieError: the file cannot be read, or an option is wrong; without ``on_error``, a line has too few columns, a
            tag is not of the scheme, or a type has no label.
    """
    path = Path(path)
    refuse_regions(path, regions, "conll")
    check_choice("tags", tags, get_args(Scheme))
    for name, value in (("separator", separator or " "), ("join", join)):
        if not isinstance(value, str):
            raise UmieError(f"{name} is {shown(value)}: use a string")
    columns = _names("columns", columns)
    if columns is not None and (columns.count("token"), columns.count("tag")) != (1, 1):
        raise UmieError(f"columns is {shown(list(columns))}: name all columns, one of them 'token' and one 'tag'")
    if labels is not None and not (
        isinstance(labels, Mapping) and all(isinstance(x, str) and x for pair in labels.items() for x in pair)
    ):
        raise UmieError(f"labels is {shown(labels)}: use a mapping from the types of the file to labels")
    parser = _Parser(tags, columns, separator, set(_names("ignore_tags", ignore_tags) or ()), labels)
    if columns is None:
        with at(str(path)):
            parser.find_columns(path)
    schema = None if labels is None else {"mner": tuple(dict.fromkeys(labels.values()))}
    ids = RecordIds()
    for sentence in sentences(path, parser, on_error):
        try:
            text, found = sentence.annotated(join)
            has_image = images is not None and sentence.image_id is not None
            record = Record(
                text=text,
                image=sentence.image_name if has_image else None,
                image_folder=None if images is None else str(images),
                entities=tuple(Entity(kind if labels is None else labels[kind], span) for kind, span in found),
                id=ids.unique(sentence.image_id or f"{path.name}:{sentence.line}"),
                tasks=("mner",),
                source=f"CoNLL: {path.name}",
                labels=schema,
            )
        except UmieError as error:
            report(error, on_error, f"{path}:{sentence.line}")
            continue
        yield record


class _Parser:
    """Splits a line into token and tag; the first line with a token determines the number of columns."""

    def __init__(
        self,
        scheme: Scheme,
        columns: Sequence[str] | None,
        separator: str | None,
        ignored: set[str],
        labels: Mapping[str, str] | None,
    ) -> None:
        self.scheme, self.separator, self.ignored, self.labels = scheme, separator, ignored, labels
        self.token_column, self.tag_column = (0, -1) if columns is None else map(columns.index, ("token", "tag"))
        self.num_columns = None if columns is None else len(columns)
        self.has_index = False  # whether the first column counts the tokens
        self.first_tags: dict[bool, str] = {}  # the first tag with a prefix, and the first one without

    def __call__(self, line: str, sentence: Sentence | None) -> tuple[str, Tag] | None:
        parts = self._split(line, sentence)
        if parts is None or (self.has_index and is_range(parts[0].strip())):
            return None
        if len(parts) < 2 or len(parts) != (self.num_columns or len(parts)):
            expected = f"{self.num_columns} columns" if self.num_columns else "a token and a tag"
            raise UmieError(f"the line splits into {shown(parts)}: expected {expected}; see separator and columns")
        tag = self.tag(parts[self.tag_column].strip())
        self.num_columns = len(parts)
        return parts[self.token_column].strip(), tag

    def find_columns(self, path: Path) -> None:
        """Find the column of the tokens in the first sentences of a file."""
        found: list[list[Sequence[str]]] = []

        def collect(line: str, sentence: Sentence | None) -> tuple[str, Tag] | None:
            parts = self._split(line, sentence)
            if parts is None:
                return None
            if sentence is None or not sentence.tokens:
                found.append([])
            found[-1].append(parts)
            return parts[0], OUTSIDE

        for _ in islice(sentences(path, collect, lambda _: None), _SAMPLE):
            pass
        self.token_column, self.has_index = find_columns(found)

    def _split(self, line: str, sentence: Sentence | None) -> Sequence[str] | None:
        """Return the columns of a line, None if it has no token."""
        separator = self.separator or ("tab" if "\t" in line else "space")
        parts = line.split(_SEPARATORS.get(separator, separator))
        while self.num_columns and len(parts) > self.num_columns and not parts[-1].strip():  # separators at the end
            parts.pop()
        if parts[0] == _DOCUMENT or (not (sentence and sentence.tokens) and self._is_comment(line, parts)):
            return None
        return parts

    def _is_comment(self, line: str, parts: Sequence[str]) -> bool:
        """Return whether the first line of a sentence is a comment, and not the token # with its tag."""
        if not line.startswith("# " if " = " not in line else "#"):
            return False
        wrong_number = len(parts) < 2 or len(parts) != (self.num_columns or len(parts))
        return wrong_number or not re.fullmatch("O|[BIMESLU][-_].+", parts[self.tag_column].strip()) or " = " in line

    def tag(self, written: str) -> Tag:
        """Return the prefix and the type of a tag; raise UmieError if it is not of the scheme or has no label."""
        if written == "O" or written in self.ignored:
            return OUTSIDE
        tag = _AT_THE_END.sub(r"\3\2\1", written) if self.scheme == "suffix" else written
        prefix, kind = tag[:1], tag[2:]
        has_prefix = tag[1:2] in ("-", "_") and bool(kind) and prefix in _PREFIXES[self.scheme]
        if not has_prefix or (self.scheme == "suffix" and tag == written):
            if self.scheme not in ("auto", "io") or not written:
                allowed = ", ".join(f"{one}-" for one in _PREFIXES[self.scheme] if one != "O")
                raise UmieError(f"tag {shown(written)} is not of the scheme {self.scheme} ({allowed} and a type, or O)")
            prefix, kind = "I", written
        if self.scheme == "auto":
            self._check(written, has_prefix)
        if kind in self.ignored:
            return OUTSIDE
        if self.labels is not None and kind not in self.labels:
            raise UnknownNameError("entity type", kind[:80], self.labels)
        return ("I" if prefix == "M" else prefix), kind

    def _check(self, written: str, has_prefix: bool) -> None:
        """Raise UmieError for a tag that would be a type by mistake."""
        if not has_prefix and not _TYPE.fullmatch(written):
            raise UmieError(
                f"tag {shown(written)} is neither O nor a type: see the options separator, columns and tags"
            )
        if not has_prefix and _AT_THE_END.fullmatch(written):
            raise UmieError(
                f"tag {shown(written)}: set tags to suffix if its last letter is B, I, ..., or to io if not"
            )
        other = self.first_tags.get(not has_prefix)
        if other is not None:
            raise UmieError(
                f"tag {shown(written)} has {'a' if has_prefix else 'no'} prefix, but tag {shown(other)} has "
                f"{'none' if has_prefix else 'one'}: set ignore_tags, or name the scheme in tags"
            )
        self.first_tags.setdefault(has_prefix, written)


def _names(option: str, value: object) -> tuple[str, ...] | None:
    """Return names that are given as a list or as one string with commas."""
    given = value.split(",") if isinstance(value, str) else value
    if given is not None and not (isinstance(given, list | tuple) and all(isinstance(name, str) for name in given)):
        raise UmieError(f"{option} is {shown(value)}: use a list of names")
    return None if given is None else tuple(str(name).strip() for name in given)
