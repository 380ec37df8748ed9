"""Spoken text: annotated texts as speech, in which the segments of their mentions are known exactly."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from umie.data.media_folder import copy_media
from umie.data.sounds import save_sound
from umie.errors import UmieError, at, check_whole
from umie.media.speech import Speaker, SpokenWord
from umie.records import Entity, Places, Record, Segment, Span
from umie.records.model import annotated_spans, moved_places
from umie.records.notes import take_note
from umie.records.places import Interval

GROUP = 2  # words of a segment that is no mention
_UNSPOKEN = "mentions without a sound, such as punctuation, which have no segment"


def speak_records(
    records: Iterable[Record],
    speaker: Speaker,
    folder: Path,
    name: str,
    *,
    group: int = GROUP,
    keep_text: bool = True,
    shuffle: random.Random | None = None,
    labels: bool = False,
    on_left_out: Callable[[str], None] = lambda message: None,
    written: list[Path] | None = None,
) -> Iterator[Record]:
    """Yield records with their text as speech, ``NAME/1.wav`` and so on; their other media are copied to the folder.

    Records of whose text nothing is said, and those that make espeak-ng crash or hang, are left out.

    Args:
        records: the annotated texts.
        speaker: the voice.
        folder: the folder that the paths of the new records are relative to.
        name: the folder of the sounds inside it.
        group: see ``spoken_record``.
        keep_text: whether the text stays; without it, places are the whole answer.
        shuffle: puts the segments of a record into random order; by default, they are in temporal order.
        labels: whether each segment has what it says as its label, as if a recognizer had heard it.
        on_left_out: called with a message for each record that is left out.
        written: gets the path of each new file, so that a caller can remove them after an error.

    Raises:
        UmieError: a record has a sound already, or proposed places, or a medium that cannot be copied.
    """
    check_whole("group", group, 1)
    (folder / name).mkdir(parents=True, exist_ok=True)
    copied: set[tuple[Path, Path]] = set()
    written = [] if written is None else written
    for number, record in enumerate(records, start=1):
        owner = f"record {record.id or number}"
        if record.audio is not None:
            raise UmieError(f"{owner}: has a sound, {record.audio}: use records without")
        if record.gold is not None:  # scores compare with it, and it has no segments of this sound
            raise UmieError(f"{owner}: its places are proposed (it has gold): use speak before proposing places")
        try:
            speech = speaker.speak(record.text)
        except UmieError as error:
            on_left_out(f"{owner}: {error}")
            continue
        if not speech.words:
            on_left_out(f"{owner}: nothing of its text is said")
            continue
        with at(owner):
            copy_media(record, record.media, folder, copied, written)
        path = f"{name}/{number}.wav"
        written.append(folder / path)
        save_sound(speech.sound, written[-1])
        spoken = spoken_record(record, path, speech.words, group=group, shuffle=shuffle, labels=labels)
        yield replace(spoken if keep_text else without_text(spoken), image_folder=str(folder))


def spoken_record(
    record: Record,
    audio: str,
    words: Sequence[SpokenWord],
    *,
    group: int = GROUP,
    shuffle: random.Random | None = None,
    labels: bool = False,
) -> Record:
    """Return a record with a sound, with segments of the sound, and with the segments of all annotated mentions.

    A mention is one segment, from its first to its last word. The words of no mention are segments of up to ``group``
    words in a row, so that pointing at a mention requires to hear where it is. With ``labels``, each has what it says
    as its label.
    """
    spans = {span for _, span in annotated_spans(record.entities, record.relations, record.events)}
    heard: dict[Span, Interval] = {}
    others = set(range(len(words)))
    for start, end in spans:
        own = [index for index, word in enumerate(words) if word.span[0] < end and start < word.span[1]]
        if own:
            heard[start, end] = (words[own[0]].interval[0], words[own[-1]].interval[1])
            others.difference_update(own)
    intervals = {*heard.values(), *_groups(words, others, group)}
    order = sorted(intervals)
    if shuffle is not None:
        shuffle.shuffle(order)
    index = {interval: number for number, interval in enumerate(order)}

    def shown(span: Span | None, places: Places) -> Places:
        if span is not None and span not in heard:
            take_note(_UNSPOKEN)
        return places if span not in heard else places._replace(segments=(index[heard[span]],))

    segments = tuple(Segment(interval, _said(record, words, interval) if labels else None) for interval in order)
    return replace(record, audio=audio, segments=segments, **moved_places(record, shown))


def _said(record: Record, words: Sequence[SpokenWord], interval: Interval) -> str:
    """Return the text from the first to the last word that is said in an interval."""
    spans = [word.span for word in words if interval[0] <= word.interval[0] and word.interval[1] <= interval[1]]
    return record.surface((min(start for start, _ in spans), max(end for _, end in spans)))


def without_text(record: Record) -> Record:
    """Return a record without its text: its items have only places, and those without a place are left out."""
    return replace(
        record,
        text="",
        entities=tuple(Entity(item.type, None, "", *item.places) for item in record.entities if item.places),
        relations=tuple(
            replace(item, head=None, tail=None) for item in record.relations if item.head_places and item.tail_places
        ),
        events=tuple(
            replace(
                event,
                trigger=None,
                arguments=tuple(replace(item, span=None) for item in event.arguments if item.places),
            )
            for event in record.events
        ),
    )


def _groups(words: Sequence[SpokenWord], others: set[int], group: int) -> Iterator[Interval]:
    """Yield the intervals of up to ``group`` consecutive words."""
    run: list[int] = []
    for index in range(len(words) + 1):
        if run and (index not in others or len(run) == group):
            yield words[run[0]].interval[0], words[run[-1]].interval[1]
            run = []
        if index in others:
            run.append(index)
