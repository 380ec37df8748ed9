"""Which columns of a tagged file are the token and the tag, if its reader is not told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain

from umie.errors import UmieError, shown
from umie.records.notes import take_note

Sentence = Sequence[Sequence[str]]  # the columns of its lines
_TAG = re.compile(r"O|[BIMESLU][-_](.+)|(.+)[-_][BIMESLU]")
_RANGE = re.compile(r"\d+[-.]\d+")  # of CoNLL-U: a word of several tokens, or one that is only understood


def find_columns(sentences: Sequence[Sentence]) -> tuple[int, bool]:
    """Return the column of the tokens, and whether it comes after one that counts them; the last column is the tag.

    Args:
        sentences: the first sentences of a file.

    Raises:
        UmieError: the last column is not the only one that may be the tags.
    """
    (width, _), *_ = Counter(len(line) for lines in sentences for line in lines).most_common(1) or [(0, 0)]
    rows = [[line for line in lines if len(line) == width] for lines in sentences]
    first = [[line[0].strip() for line in lines] for lines in rows if lines]
    has_index = width > 2 and (_counts(first) or _counts([list(chain(*first))]))
    if width > 2 and not has_index:
        _check_tokens([line for lines in rows for line in lines], width)
    token = int(has_index)
    types = {column: _types([line[column].strip() for lines in rows for line in lines]) for column in range(width)}
    last = types.get(width - 1)
    for column in range(token + 1, width - 1):
        others = types[column]
        if others and (last is None or others & last):
            example = next(line[-1] for lines in rows for line in lines)
            problem = f"has other values, such as {shown(example)}" if last is None else "has tags of the same types"
            raise UmieError(
                f"column {column + 1} of {width} has tags, and the last one {problem}: set columns to the names of "
                f"all columns, such as {_names(width, token, column)}"
            )
        if others and not last:
            take_note(f"column {column + 1} of {width} has tags, but only the last one is read; see the option columns")
    if has_index:
        take_note("column 1 counts the tokens, so column 2 was read as the tokens")
    return token, has_index


def _check_tokens(rows: Sequence[Sequence[str]], width: int) -> None:
    """Raise UmieError if the first column holds numbers beside words, a name that repeats, or tags, but no tokens."""
    values, second = ([line[column].strip() for line in rows] for column in (0, 1))
    what = "tags" if _types(values) else None
    has_words = any(character.islower() for value in second for character in value)  # and not parts of speech: CD
    if has_words and sum(any(map(str.isdigit, value)) for value in values) > 0.9 * len(values):
        what = "numbers"
    elif len(values) > 20 and len(set(values)) == 1:
        what = "always the same"
    if what is not None:
        raise UmieError(
            f"column 1 of {width} is {what}, not the tokens: set columns to the names of all columns, such as "
            f"{_names(width, 1, width - 1)}"
        )


def is_range(index: str) -> bool:
    """Return whether an index is that of several tokens (``3-4``), or of a word that is not written (``8.1``)."""
    return _RANGE.fullmatch(index) is not None


def _counts(columns: Sequence[Sequence[str]]) -> bool:
    """Return whether the numbers in a column count the lines of each sentence, all from 0 or all from 1."""
    counted = [numbers for column in columns if (numbers := [index for index in column if not is_range(index)])]
    return any(len(numbers) > 1 for numbers in counted) and any(
        all(numbers == [str(start + place) for place in range(len(numbers))] for numbers in counted) for start in (0, 1)
    )


def _types(values: Sequence[str]) -> set[str] | None:
    """Return the types of the tags in a column, if all have a prefix or suffix; None if it cannot hold tags."""
    found = [_TAG.fullmatch(value) for value in values]
    if None in found:
        return set() if "O" in values else None
    return {match[1] or match[2] for match in found if match is not None and match[0] != "O"}


def _names(width: int, token: int, tag: int) -> str:
    names = [f"other{column + 1}" for column in range(width)]
    names[token], names[tag] = "token", "tag"
    return ",".join(names)
