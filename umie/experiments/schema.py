"""JSON schemas of run and grid files, for editors; ``python -m umie.experiments.schema`` writes both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from umie import registries
from umie.data.embedded import EMBEDDED
from umie.experiments.combine import EXCLUDE, SEED, SLOTS, ZIP
from umie.experiments.config import PARTS, RunConfig
from umie.experiments.engines import ENGINES
from umie.experiments.expand import PRESETS
from umie.files import atomic_write, json_text
from umie.records import MEDIA

FOLDER = Path(__file__).with_name("schemas")
_OBJECT: dict[str, Any] = {"type": "object"}
_TEXT: dict[str, Any] = {"type": "string"}


def run_schema() -> dict[str, Any]:
    """Return the JSON schema of the config file of a run."""
    schema = RunConfig.model_json_schema()
    used = {name: value for name, value in schema["$defs"].items() if name not in ("DataConfig", "SetConfig")}
    texts = {"type": "array", "items": _TEXT}
    properties = schema["properties"]
    for slot, registry in PARTS.items():
        known = {"enum": registry.names()}
        properties[slot] = {"anyOf": [known, _TEXT, {**_OBJECT, "properties": {"name": known}}]}
    formats = {"enum": [*EMBEDDED, *registries.data_formats.names()]}
    properties["data"] = {"anyOf": [_TEXT, {**_OBJECT, "properties": {"format": formats, "sets": _OBJECT}}]}
    properties["tasks"] = {"anyOf": [_TEXT, texts, _OBJECT]}
    properties["train_on"] = {"anyOf": [_TEXT, texts, _OBJECT, {"type": "null"}]}
    properties["instruction"] = {"anyOf": [_TEXT, _OBJECT, {"type": "null"}]}
    known = {"enum": registries.grounders.names()}
    grounder = {"anyOf": [known, {**_OBJECT, "required": ["name"], "properties": {"name": known}}]}
    properties["grounders"] = {
        "anyOf": [
            {**_OBJECT, "properties": dict.fromkeys(MEDIA, grounder), "additionalProperties": False},
            {"type": "null"},
        ]
    }
    properties["preset"] = {"enum": [*PRESETS, None]}
    for name in ("notes", "plugins", "mean_over"):
        properties[name] = {"anyOf": [_TEXT, texts]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "umie run",
        "description": "The config file of `umie train`; see docs/training.md.",
        "type": "object",
        "additionalProperties": False,
        "required": ["data", "tasks"],
        "properties": properties,
        "$defs": used,
    }


def grid_schema() -> dict[str, Any]:
    """Return the JSON schema of a grid file: that of a run, with lists in the slots that it varies."""
    schema = run_schema()
    properties = schema["properties"]
    seed = properties.pop("seed")
    linked = {"type": "array", "items": {"enum": list(SLOTS)}, "minItems": 2}
    rule = {**_OBJECT, "properties": {key: {} for key in (*SLOTS, SEED)}, "additionalProperties": False}
    labeled = properties["grounders"]["anyOf"][0]
    labeled["properties"] = {**labeled["properties"], "label": _TEXT, "when": {}}
    for slot in SLOTS:
        one = {"anyOf": [properties[slot], _OBJECT]}
        properties[slot] = {"anyOf": [properties[slot], {"type": "array", "items": one}]}
    properties |= {
        "seeds": {"anyOf": [seed, {"type": "array", "items": seed, "minItems": 1}]},
        "workers": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
        "engine": {"anyOf": [{"enum": [*ENGINES, None]}, *(one.model_json_schema() for one in ENGINES.values())]},
        "time_limit": {"anyOf": [_TEXT, {"type": "null"}]},
        "memory_limit": {"anyOf": [_TEXT, {"type": "null"}]},
        "reference": {"anyOf": [_TEXT, {"type": "array"}, _OBJECT, {"type": "null"}]},
        "report_to": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}, {"type": "null"}]},
        "compare_with": {"anyOf": [_TEXT, {"type": "null"}]},
        "question": {"anyOf": [_TEXT, {"type": "null"}]},
        ZIP: {"anyOf": [linked, {"type": "array", "items": linked}, {"type": "null"}]},
        EXCLUDE: {"anyOf": [rule, {"type": "array", "items": rule}, {"type": "null"}]},
    }
    return {**schema, "title": "umie grid", "description": "The grid file of `umie ablate`; see docs/grids.md."}


def main() -> None:
    """Write both schemas into the package."""
    for name, schema in (("run", run_schema()), ("grid", grid_schema())):
        with atomic_write(FOLDER / f"{name}.json") as file:
            file.write(json_text(schema, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
