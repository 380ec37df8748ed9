"""The options of a grid and their combinations: linked, conditional and excluded options, and the cells to run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from umie import registries
from umie.configs import ConfigError, as_list, as_mapping, errors_of
from umie.errors import UmieError, UnknownNameError, at, check_keys, shown
from umie.experiments.choices import instruction_label, train_on_label
from umie.experiments.config import PARTS, RunConfig

SLOTS = (
    "train_on", "instruction", "encoder", "video_encoder", "audio_encoder", "visual_embedding", "fusion", "decoder",
    "grounders", "training",
)  # fmt: skip
"""The keys that a grid can vary, in the order of the table."""

ENCODERS = ("encoder", "video_encoder", "audio_encoder")  # of each of MEDIA
SEEING = (*ENCODERS, "visual_embedding")  # which a fusion without image does not use
SEED, WHEN = "seed", "when"
ZIP, EXCLUDE = "zip", "exclude"
MAX_SEEDS = 10_000

Rule = Mapping[str, frozenset[str]]
"""The labels that a cell must have, by slot; also its seed, as text."""


@dataclass(frozen=True)
class Choice:
    """One of the options of a slot."""

    value: Any  # as in the file, without its conditions
    label: str  # its name in tables
    name: str | None = None  # of the part
    when: Rule | None = None  # what the other options must be

    def applies(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels of a combination, by slot, are those that the option needs."""
        return self.when is None or fits(self.when, labels)


Combination = Mapping[str, Choice | None]
"""The choice of each slot; None where none of the slot's conditional options applies."""


@dataclass(frozen=True)
class Options:
    """The options of all slots of a grid, and the rules that connect them.

    Raises:
        ConfigError: options that are linked differ in number, or a rule names a slot or an option that does not exist.
    """

    choices: Mapping[str, Sequence[Choice]]
    zipped: Sequence[Sequence[str]] = ()
    excluded: Sequence[Rule] = ()

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Options:
        """Return the options in the values of a grid file."""
        errors: list[str] = []
        choices = {slot: _choices(slot, values.get(slot), values.get("data")) for slot in SLOTS}
        errors += [f"{slot} is empty: choose one, or a list to vary" for slot, own in choices.items() if not own]
        options = cls(choices)
        zipped: list[list[str]] = []
        excluded: list[Rule] = []
        try:
            zipped = _read_zip(values.get(ZIP), choices)
        except UmieError as error:
            errors += errors_of(error)
        for number, rule in enumerate(as_list(values.get(EXCLUDE))):
            try:
                excluded.append(options.rule(rule, f"{EXCLUDE}[{number}]"))
            except UmieError as error:
                errors += errors_of(error)
        conditional: dict[str, list[Choice]] = {slot: [] for slot in SLOTS}
        for slot, own in choices.items():
            for choice, given in zip(own, options_of_slot(slot, values.get(slot)), strict=True):
                try:
                    is_conditional = isinstance(given, dict) and WHEN in given
                    rule = options.rule(given[WHEN], f"{slot}.{WHEN}", without=slot) if is_conditional else None
                    conditional[slot].append(replace(choice, when=rule))
                except UmieError as error:
                    errors += errors_of(error)
        if errors:
            raise ConfigError(errors)
        return cls(conditional, zipped, excluded)

    @property
    def varied(self) -> list[str]:
        """The slots that have several options."""
        return [slot for slot, own in self.choices.items() if len(own) > 1]

    def naming(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the labels that name a variant: of linked slots, the first one whose labels differ is enough."""
        named = {slot: labels[slot] for slot in self.varied if slot in labels}
        for group in self.zipped:
            distinct = [slot for slot in named if slot in group and _are_distinct(self.choices[slot])]
            named = {
                slot: label for slot, label in named.items() if slot not in group or slot in (distinct or group)[:1]
            }
        return named or {"fusion": labels.get("fusion", "default")}

    def rule(self, value: Any, where: str, *, without: str | None = None) -> Rule:
        """Return a rule: labels by slot, or names of parts, which are all options of this part without that label.

        Args:
            value: a mapping from slots to one or several labels or names; ``seed`` is also allowed.
            where: the place of the rule, for error messages.
            without: the slot of the option that the rule is a condition of, which it cannot name; nor can it the seed.

        Raises:
            UmieError: a slot or an option does not exist.
        """
        given = as_mapping(where, value)
        if not given:
            raise UmieError(f"{where} is empty: name a slot and its options, as in {{fusion: gated}}")
        known = [slot for slot in (*SLOTS, SEED) if without is None or slot not in (without, SEED)]
        check_keys(f"slot in {where}:", given, known)
        return {slot: self._labels(slot, as_list(one) or [None], f"{where}.{slot}") for slot, one in given.items()}

    def rules_of(self, texts: Iterable[str]) -> Rule:
        """Return the rule of ``--only`` options, each ``slot=label,label``; those of one slot add up.

        Raises:
            UmieError: an option has another form, or a slot or a label does not exist.
        """
        found: dict[str, frozenset[str]] = {}
        for text in texts:
            slot, equals, wanted = text.partition("=")
            if not equals or not wanted.strip():
                raise UmieError(f"--only {text}: use slot=option,option, for example fusion=gated,concat")
            with at(f"--only {text}"):
                check_keys("slot:", [slot], (*SLOTS, SEED))
                named = read_seeds(wanted) if slot == SEED else self._split(slot, wanted)
                found[slot] = found.get(slot, frozenset()) | self._labels(slot, named, slot)
        return found

    def _split(self, slot: str, text: str) -> list[str]:
        """Split a list of labels at commas; a label may contain some."""
        names = {name for choice in self.choices[slot] for name in (choice.label, choice.name)}
        parts, found = text.split(","), []
        while parts:
            for size in range(len(parts), 0, -1):
                if (joined := ",".join(parts[:size]).strip()) in names or size == 1:
                    found.append(joined)
                    del parts[:size]
                    break
        return found

    def _labels(self, slot: str, wanted: Sequence[Any], where: str) -> frozenset[str]:
        if slot == SEED:
            for one in wanted:
                if type(one) is not int or one < 0:
                    raise UmieError(f"{where} is {shown(one)}: use whole numbers, 0 or more")
            return frozenset(map(str, wanted))
        labels: set[str] = set()
        for one in wanted:
            text = "none" if one is None else str(one)
            fitting = {choice.label for choice in self.choices[slot] if choice.label == text}
            fitting = fitting or {choice.label for choice in self.choices[slot] if choice.name == text}
            if not fitting:
                raise UnknownNameError(f"option in {where}:", text, [choice.label for choice in self.choices[slot]])
            labels |= fitting
        return frozenset(labels)

    def combinations(self) -> Iterator[Combination]:
        """Yield the combinations of options whose conditions hold, including those that are excluded for some seeds.

        If all options of a slot are conditional and none applies, the slot has its default.
        """
        axes: list[list[dict[str, Choice | None]]] = []
        optional: list[str] = []
        for slot, own in self.choices.items():
            group = next((group for group in self.zipped if slot in group), None)
            if group is None:
                axes.append([{slot: choice} for choice in own])
                if all(choice.when is not None for choice in own):
                    optional.append(slot)
                    axes[-1].append({slot: None})
            elif slot == min(group, key=SLOTS.index):
                linked = zip(*(self.choices[one] for one in group), strict=True)
                axes.append([dict(zip(group, together, strict=True)) for together in linked])
        for parts in itertools.product(*axes):
            merged = {slot: choice for part in parts for slot, choice in part.items()}
            chosen = {slot: merged[slot] for slot in SLOTS}
            labels = labels_of(chosen)
            if all(choice is None or choice.applies(labels) for choice in chosen.values()) and not any(
                chosen[slot] is None and any(choice.applies(labels) for choice in self.choices[slot])
                for slot in optional
            ):
                yield chosen

    def is_excluded(self, labels: Mapping[str, str], seed: int) -> bool:
        """Return whether the cell of some labels by slot and a seed is left out."""
        return any(fits(rule, labels, seed) for rule in self.excluded)


def labels_of(chosen: Combination) -> dict[str, str]:
    """Return the label of each slot that has an option."""
    return {slot: choice.label for slot, choice in chosen.items() if choice is not None}


def fits(rule: Rule, labels: Mapping[str, str], seed: int | None = None) -> bool:
    """Return whether a cell has the labels of a rule."""
    return all((str(seed) if slot == SEED else labels.get(slot)) in wanted for slot, wanted in rule.items())


def read_seeds(text: str) -> list[int]:
    """Return the seeds of a text such as ``0-4`` or ``0,2,5-7``; raise UmieError if it has another form."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part, re.ASCII)
        if not found:
            raise UmieError(f"the seeds {shown(text)}: use numbers and ranges, for example 0-4 or 0,2,5-7")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= MAX_SEEDS:
            raise UmieError(f"the seeds {shown(part.strip())}: use a range of 1 to {MAX_SEEDS:,} seeds, such as 0-4")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def uses_image(fusion: Any) -> bool:
    """Return whether a choice of ``fusion`` uses the image; one that is no known fusion is reported elsewhere."""
    name = fusion.get("name") if isinstance(fusion, dict) else fusion
    if not isinstance(name, str) or name not in registries.fusions:
        return True
    return bool(getattr(registries.fusions.get(name), "uses_image", True))


def options_of_slot(slot: str, value: Any) -> list[Any]:
    """Return the options of a slot, which is a list or a single option; None is the default."""
    is_list = isinstance(value, list | tuple)
    if slot == "train_on" and is_list and value and all(isinstance(name, str) and name != "all" for name in value):
        return [value]  # the names of the data sets of one choice
    return list(value) if is_list else [value]


def _choices(slot: str, value: Any, data: Any) -> list[Choice]:
    found = []
    for one in options_of_slot(slot, value):
        plain = {key: item for key, item in one.items() if key != WHEN} if isinstance(one, dict) else one
        try:
            label = _label(slot, plain, data)
        except UmieError:  # reported when the option is read
            label = shown(plain)
        name = plain.get("name", plain.get("source")) if isinstance(plain, dict) else plain
        found.append(Choice(plain, label, name if slot in PARTS and isinstance(name, str) else None))
    return found


def _are_distinct(choices: Sequence[Choice]) -> bool:
    return len({choice.label for choice in choices}) == len(choices)


def _read_zip(value: Any, choices: Mapping[str, Sequence[Choice]]) -> list[list[str]]:
    """Return the groups of slots whose options advance together."""
    given = as_list(value)
    groups = [given] if given and all(isinstance(one, str) for one in given) else given
    seen: set[str] = set()
    for group in groups:
        if not isinstance(group, list) or len(group) < 2 or not all(isinstance(slot, str) for slot in group):
            raise UmieError(f"{ZIP} has {shown(group)}: use a list of two or more slots, such as [decoder, training]")
        check_keys(f"slot in {ZIP}:", group, SLOTS)
        for slot in group:
            if slot in seen:
                raise UmieError(f"{ZIP}: {slot} appears twice: name each slot once")
            seen.add(slot)
        if len({len(choices[slot]) for slot in group}) > 1:
            sizes = ", ".join(f"{slot} has {len(choices[slot])}" for slot in group)
            raise UmieError(f"{ZIP}: {sizes} options, which cannot advance together: use lists of the same length")
    return groups


def _label(slot: str, value: Any, data: Any) -> str:
    """Return the name of an option in tables: its ``label``, or name and options, e.g. ``gated(gate=0.05)``."""
    if slot == "train_on":
        names = list(data["sets"]) if isinstance(data, dict) and isinstance(data.get("sets"), dict) else ["data"]
        return train_on_label(value, names)
    if slot == "instruction":
        return instruction_label(value)
    if value is None and slot in ("video_encoder", "audio_encoder", "grounders"):
        return "none"
    if value is None:
        value = RunConfig.model_fields[slot].default if slot in PARTS else {}
    options = {"name": value} if isinstance(value, str) else dict(as_mapping(slot, value))
    if slot != "training":
        options.pop("training", None)
    if "label" in options:
        return str(options["label"])
    if slot == "grounders":
        return ", ".join(f"{medium}={_label('encoder', part, data)}" for medium, part in options.items())
    images = options.pop("images", "own")
    blind = as_list(options.pop("blind", None))
    name = str(options.pop("name", "t5" if slot == "decoder" else slot))
    if slot == "decoder" and "source" in options and name == "t5":
        name = str(options.pop("source"))
    short = {key: Path(item).name or item if isinstance(item, str) else item for key, item in options.items()}
    inner = ", ".join(f"{key}={item}" for key, item in short.items())
    controls = "" if images == "own" else f", {images} images"
    controls += f", without {' and '.join(map(str, blind))}" if blind else ""
    return (f"{name}({inner})" if inner else name) + controls
