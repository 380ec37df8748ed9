"""A small valid input of every format, with invented texts, for tests and fuzzing."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

TWEETS = """\
IMGID:17
Ann\tB-PER
Lee\tI-PER
likes\tO
Rome\tB-LOC

IMGID:O_18
Halo\tB-{other}
by\tO
NASA\tB-ORG
"""
FINE_TWEETS = """\
IMGID:17
Ann\tB-person\tB-athlete
Lee\tI-person\tI-athlete
likes\tO\tO
Rome\tB-location\tB-city

IMGID:O_18
Halo\tB-art\tB-film_and_television_works
by\tO\tO
NASA\tB-organization\tB-government_agency
"""
BOXES = """\
<annotation><size><width>200</width><height>100</height></size>
<object><name>Ann Lee</name><bndbox><xmin>20</xmin><ymin>10</ymin><xmax>120</xmax><ymax>100</ymax></bndbox></object>
</annotation>"""
PAIR: dict[str, Any] = {
    "token": ["Ann", "Lee", "joins", "NASA"],
    "h": {"name": "Ann Lee", "pos": [0, 2]},
    "t": {"name": "NASA", "pos": [3, 4]},
    "img_id": "17.jpg",
    "relation": "/per/org/member_of",
}
NEWS: list[dict[str, Any]] = [
    {
        "sentence_id": "S_1",
        "words": ["Police", "held", "two", "men", "in", "Rome", "."],
        "golden-event-mentions": [
            {
                "event_type": "Justice:Arrest-Jail",
                "trigger": {"start": 1, "end": 2, "text": "held"},
                "arguments": [{"role": "Person", "start": 2, "end": 4, "text": "two men"}],
            }
        ],
    },
    {"sentence_id": "S_2", "words": ["Nothing", "."], "golden-event-mentions": []},
]
NEWS_IMAGES: dict[str, Any] = {
    "P_1": {
        "role": {"Person": [["1", 20, 10, 60, 50], ["0", 0, 0, 201, 100]], "Agent": [["1", 100, 0, 200, 100]]},
        "event_type": "Justice:Arrest-Jail",
    },
    "P_2": {"role": {"Entity": [["1", 1, 1, 10, 10]]}, "event_type": "Contact:Meet"},
}
SITUATIONS: dict[str, Any] = {
    "arresting_1.jpg": {
        "verb": "arresting",
        "width": 200,
        "height": 100,
        "bb": {"place": [-1, -1, -1, -1], "agent": [20, 10, 60, 50], "suspect": [100, 0, 200, 100]},
        "frames": [
            {"place": "n0", "agent": "n1", "suspect": ""},
            {"place": "", "agent": "n2", "suspect": "n3"},
            {"place": "", "agent": "n2", "suspect": "n3"},
        ],
    },
    "knitting_2.jpg": {
        "verb": "knitting",
        "width": 50,
        "height": 50,
        "bb": {"agent": [1, 1, 49, 49]},
        "frames": [{"agent": "n1"}],
    },
}
CAPTIONS = """\
[/EN#5/people Two tall men] wave at [/EN#0/notvisual it] , [/EN#6/other/scene a red tower] .
[/EN#7/people/other Nobody] waves .
"""
CAPTION_BOXES = """\
<annotation><size><width>200</width><height>100</height></size>
<object><name>5</name><bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>100</ymax></bndbox></object>
<object><name>5</name><name>6</name>
<bndbox><xmin>70</xmin><ymin>10</ymin><xmax>120</xmax><ymax>100</ymax></bndbox></object>
<object><name>9</name><scene>1</scene><nobox>0</nobox></object>
<object><name>8</name><nobox>1</nobox></object></annotation>"""
CAPTION: dict[str, Any] = {
    "image": "17.jpg",
    "caption_tokens": ["two", "men", "wave", "."],
    "width_height": [200, 100],
    "phrases": [
        {"text": "two men", "span": [0, 2], "boxes_xyxy": [[20, 10, 60, 100], [70, 10, 120, 101]]},
        {"text": "tower", "span": None, "boxes_xyxy": [[1, 1, 9, 9]]},
    ],
}
RECEIPT: dict[str, Any] = {
    "id": "17",
    "width_height": [200, 100],
    "lines": [
        {"box_xyxy": [10, 10, 60, 20], "text": "Tea & Co."},
        {"box_xyxy": [10, 20, 60, 30], "text": "1,Old Road"},
        {"box_xyxy": [10, 30, 60, 40], "text": "Rome 160.30"},
        {"box_xyxy": [10, 40, 60, 50], "text": "SUM 60.30 60.30"},
    ],
    "entities": {
        "company": {"text": "TEA & CO", "lines": [0]},
        "address": {"text": "1, Old Road, Rome", "lines": [1, 2]},
        "total": {"text": "60.30", "lines": []},
        "date": None,
    },
}
RECEIPT_BOXES = """\
10,10,60,10,60,20,10,20,Tea & Co.
10,20,60,20,60,30,10,30,1,Old Road
10,30,60,30,60,40,10,40,Rome 160.30
10,40,60,40,60,50,10,50,SUM 60.30 60.30
"""
MAPPING = "arresting\tagent\tJustice||Arrest|Jail\tAgent\narresting\tsuspect\tJustice||Arrest|Jail\tPerson\n"
SENTENCE: dict[str, Any] = {
    "doc_id": "D",
    "sent_id": "D-1",
    "tokens": ["Ann", "Lee", "shot", "Bo", "in", "Rome", "."],
    "sentence": "Ann Lee shot Bo in Rome.",
    "entity_mentions": [
        {"id": "E1", "text": "Ann Lee", "entity_type": "PER", "mention_type": "NAM", "start": 0, "end": 2},
        {"id": "E2", "text": "Bo", "entity_type": "PER", "mention_type": "NAM", "start": 3, "end": 4},
        {"id": "E3", "text": "Rome", "entity_type": "GPE", "mention_type": "NAM", "start": 5, "end": 6},
    ],
    "relation_mentions": [
        {
            "id": "R1",
            "relation_type": "PHYS",
            "relation_subtype": "PHYS:Located",
            "arguments": [
                {"entity_id": "E2", "text": "Bo", "role": "Arg-1"},
                {"entity_id": "E3", "text": "Rome", "role": "Arg-2"},
            ],
        }
    ],
    "event_mentions": [
        {
            "id": "V1",
            "event_type": "Conflict:Attack",
            "trigger": {"text": "shot", "start": 2, "end": 3},
            "arguments": [
                {"entity_id": "E1", "text": "Ann Lee", "role": "Attacker"},
                {"entity_id": "E2", "text": "Bo", "role": "Target"},
            ],
        }
    ],
}
LINE: dict[str, Any] = {
    "id": "1",
    "text": "Ann is in Rome .",
    "image": "1.jpg",
    "regions": [{"box": [0, 0.25, 0.5, 1], "label": "Ann"}],
    "entities": [{"type": "person", "span": [0, 3], "text": "Ann"}],
    "relations": [{"type": "locate at", "head": [0, 3], "tail": {"span": [10, 14]}}],
    "events": [{"type": "meet", "trigger": [4, 6], "arguments": [{"role": "Entity", "region": 0}]}],
    "tasks": ["mner"],
    "source": "a book",
    "labels": {"mner": ["person"]},
}


@dataclass(frozen=True)
class Sample:
    """An input.

    Args:
        format: name of the format.
        files: the files by name; the first one is read.
        options: options of the reader; ``images`` and ``regions`` are set to the directory if listed.
        num_records: how many records it has.
        broken: content that adds one malformed record when put before the first record.
        json_like: whether the main file is one JSON value.
        more: further options of the reader.
    """

    format: str
    files: dict[str, bytes]
    num_records: int
    options: tuple[str, ...] = ()
    broken: bytes = b""
    json_like: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def main(self) -> str:
        """The file that is read."""
        return next(iter(self.files))

    def with_broken(self) -> bytes:
        """Return the main file with a malformed record before all others."""
        content = self.files[self.main]
        return content[:1] + self.broken + content[1:] if self.json_like else self.broken + content

    def write(self, folder: str | Path, changed: Mapping[str, bytes] | None = None) -> tuple[Path, dict[str, Any]]:
        """Write the files, some of them changed; return the path and the options for the reader."""
        for name, content in {**self.files, **(changed or {})}.items():
            Path(folder, name).parent.mkdir(exist_ok=True)
            Path(folder, name).write_bytes(content)
        return Path(folder, self.main), {**dict.fromkeys(self.options, str(folder)), **self.more}


def image() -> bytes:
    """Return a JPEG of 200 x 100 pixels."""
    content = io.BytesIO()
    Image.new("RGB", (200, 100)).save(content, "jpeg")
    return content.getvalue()


def dumped(value: object) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value).encode()


def _samples() -> list[Sample]:
    both = ("images", "regions")
    boxes = {"17.xml": BOXES.encode()}
    broken_tweet = b"IMGID:99\nBo\tB-NOBODY\nLee\tI-PER\n\n"
    tweets = [
        Sample(name, {"train.txt": TWEETS.format(other=other).encode(), **boxes}, 2, both, broken_tweet)
        for name, other in (("twitter", "OTHER"), ("gmner", "OTHER"), ("snap", "MISC"))
    ]
    news = {"crossmedia_coref.txt": b"S_1\tP_1.jpg\tJustice:Arrest-Jail", "P_1.jpg": image()}
    situations = {"train.json": dumped(SITUATIONS), "ace_sr_mapping.txt": MAPPING.encode()}
    return [
        *tweets,
        Sample(
            "conll",
            {"train.txt": TWEETS.format(other="OTHER").replace("IMGID:17\n", "\n").encode()},
            2,
            ("images",),
            b"IMGID:99\nBo B-PER\nLee\n\n",
            more={"labels": {"PER": "person", "LOC": "location", "ORG": "organization", "OTHER": "other"}},
        ),
        Sample("fmnerg", {"train.txt": FINE_TWEETS.encode(), **boxes}, 2, both, broken_tweet),
        Sample("mnre", {"train.txt": f"{PAIR}\n{PAIR}\n".encode()}, 2, ("images",), b"{'token': 5}\n"),
        Sample("mnre", {"train.json": dumped([PAIR, PAIR])}, 2, ("images",), b'{"token": 5}, ', True),
        Sample(
            "m2e2",
            {"text.json": dumped(NEWS), **news, "image_multimedia_event.json": dumped(NEWS_IMAGES)},
            2,
            ("images",),
            b'{"sentence_id": "S_9"}, ',
            True,
        ),
        Sample("m2e2", {"image.json": dumped(NEWS_IMAGES), "P_1.jpg": image()}, 2, ("images",), b'"P_9": 5, ', True),
        Sample("swig", situations, 2, ("images",), b'"x.jpg": {"verb": "x"}, ', True),
        Sample("ace", {"train.oneie.json": dumped(SENTENCE) + b"\n" + dumped(SENTENCE)}, 2, (), b'{"tokens": 5}\n'),
        Sample(
            "flickr_entities",
            {"train.txt": b"17\n", "Sentences/17.txt": CAPTIONS.encode(), "Annotations/17.xml": CAPTION_BOXES.encode()},
            2,
            ("images",),
            b"../18\n",
        ),
        Sample(
            "flickr_entities", {"a.jsonl": dumped(CAPTION) + b"\n" + dumped(CAPTION)}, 2, ("images",), b'{"x": 1}\n'
        ),
        Sample(
            "sroie",
            {
                "train.txt": b"17\n",
                "17.jpg": image(),
                "box/17.csv": RECEIPT_BOXES.encode(),
                "key/17.json": dumped({"company": "TEA & CO", "address": "1, Old Road, Rome", "total": "60.30"}),
            },
            1,
            ("images",),
            b"../18\n",
        ),
        Sample("sroie", {"a.jsonl": dumped(RECEIPT) + b"\n" + dumped(RECEIPT)}, 2, ("images",), b'{"lines": 1}\n'),
        Sample("jsonl", {"a.jsonl": dumped(LINE) + b"\n" + dumped(LINE)}, 2, ("images",), b'{"text": ""}\n'),
    ]


SAMPLES = _samples()
IDS = [f"{sample.format}-{sample.main}" for sample in SAMPLES]
