"""ACE 2005 in the JSON lines written by the preprocessing of OneIE: sentences with entities, relations and events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from umie.data import registry
from umie.data.ace_events import event_type
from umie.data.reading import OnError, OptionalPath, Tokens, field, parsed_lines, refuse_regions
from umie.errors import UmieError, shown
from umie.files import parse_json
from umie.records import Argument, Entity, Event, Record, Relation, Span

LICENSE = "LDC2006T06: members and licensees of the LDC only; redistribution prohibited"
ENTITY_TYPES = {
    "PER": "person",
    "ORG": "organization",
    "GPE": "geopolitical entity",
    "LOC": "location",
    "FAC": "facility",
    "VEH": "vehicle",
    "WEA": "weapon",
}
RELATION_TYPES = {
    "PHYS": "physical",
    "PART-WHOLE": "part whole",
    "PER-SOC": "personal social",
    "ORG-AFF": "organization affiliation",
    "ART": "agent artifact",
    "GEN-AFF": "general affiliation",
}
EVENT_TYPES = (
    "be born", "marry", "divorce", "injure", "die", "transport", "transfer ownership", "transfer", "start org",
    "merge org", "declare bankruptcy", "end org", "attack", "demonstrate", "meet", "phone write", "start position",
    "end position", "nominate", "elect", "arrest jail", "release parole", "trial hearing", "charge indict", "sue",
    "convict", "sentence", "fine", "execute", "extradite", "acquit", "appeal", "pardon",
)  # fmt: skip
ROLES = (
    "Person", "Place", "Buyer", "Seller", "Beneficiary", "Price", "Artifact", "Origin", "Destination", "Giver",
    "Recipient", "Money", "Org", "Agent", "Victim", "Instrument", "Entity", "Attacker", "Target", "Defendant",
    "Adjudicator", "Prosecutor", "Plaintiff", "Vehicle", "Crime", "Position", "Sentence",
)  # fmt: skip
_SCHEMA = {
    "mner": tuple(ENTITY_TYPES.values()),
    "mre": tuple(RELATION_TYPES.values()),
    "med": EVENT_TYPES,
    "meae": ROLES,
}


@registry.register("ace")
def read(
    path: str | Path, *, images: OptionalPath = None, regions: OptionalPath = None, on_error: OnError | None = None
) -> Iterator[Record]:
    """Yield one record per sentence; the text is the tokens joined by single spaces.

    Source: OneIE (Lin et al. 2020), the files ``{train,dev,test}.oneie.json``: one JSON object per line with
    ``tokens``, ``entity_mentions`` (``id``, ``text``, ``entity_type``, token offsets ``start`` and ``end``),
    ``relation_mentions`` (``relation_type``, two ``arguments`` with ``entity_id`` and ``role`` Arg-1 or Arg-2), and
    ``event_mentions`` (``event_type``, ``trigger`` with token offsets, ``arguments`` with ``entity_id`` and
    ``role``); other fields are ignored. Event types are named as in M2E2: 'Conflict:Attack' becomes 'attack',
    'Transaction:Transfer-Money' becomes 'transfer'. A type that is not in ACE is lowercased; the label schema remains
    that of ACE.

    Raises:
        UmieError: the file cannot be read, or ``images`` or ``regions`` is given; without ``on_error``, a line is not
            such an object, an offset is outside the text, or an argument refers to an unknown entity.
    """
    path = Path(path)
    refuse_regions(path, regions, "ace")
    if images is not None:
        raise UmieError(f"{path}: the format 'ace' has no images; leave images out")
    yield from parsed_lines(path, lambda number, line: _record(line, path, number), on_error)


def _record(line: str, path: Path, number: int) -> Record:
    data = parse_json(line)
    tokens = Tokens(field(data, "tokens", list, "the line"))
    spans: dict[str, Span] = {}
    entities = []
    for mention in field(data, "entity_mentions", list, "the line"):
        name = field(mention, "entity_type", str, "the entity")
        span = tokens.mention(mention, f"the entity {shown(name)}")
        entities.append(Entity(_named(name, ENTITY_TYPES), span))
        spans[field(mention, "id", str, "the entity")] = span
    identifier = data.get("sent_id", data.get("wnd_id"))
    return Record(
        text=tokens.text,
        entities=tuple(entities),
        relations=tuple(_relation(item, spans) for item in field(data, "relation_mentions", list, "the line")),
        events=tuple(_event(item, spans, tokens) for item in field(data, "event_mentions", list, "the line")),
        id=identifier if isinstance(identifier, str) and identifier else f"{path.name}:{number}",
        tasks=("mner", "mre", "med", "meae"),
        source=f"ACE-2005: {path.name}",
        license=LICENSE,
        labels=_SCHEMA,
    )


def _relation(data: object, spans: Mapping[str, Span]) -> Relation:
    name = field(data, "relation_type", str, "the relation")
    owner = f"the relation {shown(name)}"
    ends = dict(_arguments(data, spans, owner))
    if set(ends) != {"Arg-1", "Arg-2"}:
        raise UmieError(f"{owner} has the arguments {shown(sorted(ends))}: expected Arg-1 and Arg-2")
    return Relation(_named(name.partition(":")[0], RELATION_TYPES), ends["Arg-1"], ends["Arg-2"])


def _event(data: object, spans: Mapping[str, Span], tokens: Tokens) -> Event:
    name = event_type(field(data, "event_type", str, "the event"))
    owner = f"the event {shown(name)}"
    trigger = tokens.mention(field(data, "trigger", dict, owner), f"the trigger of {shown(name)}")
    return Event(name, trigger, tuple(Argument(role, span) for role, span in _arguments(data, spans, owner)))


def _arguments(data: object, spans: Mapping[str, Span], owner: str) -> Iterator[tuple[str, Span]]:
    for item in field(data, "arguments", list, owner):
        identifier = field(item, "entity_id", str, f"an argument of {owner}")
        if identifier not in spans:
            raise UmieError(f"an argument of {owner} is the unknown entity {shown(identifier)}")
        yield field(item, "role", str, f"an argument of {owner}"), spans[identifier]


def _named(name: str, names: Mapping[str, str]) -> str:
    return names.get(name) or name.lower().replace("-", " ")
