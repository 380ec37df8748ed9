"""The model card of a trained variant, README.md: what it is, how well it does, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from umie.errors import printable
from umie.experiments.config import PARTS
from umie.experiments.run import RunResult
from umie.experiments.scored_tasks import f1_name, scored_tasks
from umie.files import atomic_write, json_text
from umie.processor import FILE as PROCESSOR
from umie.reports.tables import markdown_table, shown_interval
from umie.versions import versions

CARD = "README.md"
_HINTS = {"mner": "entities", "mre": "relations", "med": "events", "meae": "events"}


def write_model_card(run: RunResult, folder: Path) -> None:
    """Write the card of a run's best model into its directory, in the form that the Hugging Face Hub reads.

    It names no paths of this machine: of weights and data, only the last part of the name.
    """
    from huggingface_hub import EvalResult, ModelCardData  # here, because it is slow to import

    sets = run.corpus.sets
    results = [
        EvalResult(
            task_type=one.task,
            dataset_type=sets[one.data_set].format,
            dataset_name=sets[one.data_set].format if run.corpus.is_single else one.data_set,
            dataset_config=None if run.corpus.is_single else one.data_set,  # the hub merges results of equal types
            dataset_split=split,
            metric_type="f1",
            metric_name=f"{one.title}, {f1_name(run.config)}",
            metric_value=round(metrics[one.key]["f1"], 4),
        )
        for split, metrics in run.metrics.items()
        for one in scored_tasks(run.config, run.corpus, split)
        if one.key in metrics
    ]
    data = ModelCardData(
        library_name="umie",
        tags=["information-extraction", "multimodal", *run.corpus.tasks],
        model_name=run.config.name,
        eval_results=results or None,
    )
    with atomic_write(folder / CARD) as file:
        file.write(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(_page(run, _trained_places(folder))))


def _trained_places(folder: Path) -> list[str]:
    """Return the media whose places the saved variant was trained with."""
    found: list[str] = json.loads((folder / PROCESSOR).read_text(encoding="utf-8")).get("trained_places", [])
    return found


def _page(run: RunResult, trained_places: Collection[str]) -> Iterator[str]:
    config = run.config
    yield f"# {printable(config.name)}\n"
    parts = {slot: _named(part) for slot in PARTS if (part := getattr(config, slot)) is not None}
    yield "A variant of umie, for multimodal information extraction.\n"
    yield f"{markdown_table(['part', 'name and options'], [[slot, json_text(part)] for slot, part in parts.items()])}\n"
    rows = [[name.upper(), ", ".join(one["labels"])] for name, one in run.corpus.task_options.items()]
    yield f"{markdown_table(['task', 'labels'], rows)}\n"
    yield "## Use\n"
    yield "```python\nimport umie\n"
    yield 'extractor = umie.Extractor.from_pretrained("FOLDER")  # this directory, or its name on the Hub'
    media = [slot.removesuffix("_encoder") for slot in ("video_encoder", "audio_encoder") if slot in parts]
    image = ', "kids.jpg"' if config.fusion["name"] != "text_only" else ""
    if image and "image" in trained_places:
        yield "boxes = [(0.1, 0.2, 0.5, 0.9)]  # relative to the image size; the model was trained with regions"
        image += ", regions=boxes"
    yield f'found = extractor.extract("Kids at the Salvation Army"{image})'
    kinds = dict.fromkeys(_HINTS[name] for name in run.corpus.tasks if name in _HINTS)
    yield f"print({', '.join(f'found.{kind}' for kind in kinds) or 'found.record'})\n```\n"
    if media:
        yield f"It also uses {' and '.join(media)}: `extract(text, {', '.join(f'{one}=...' for one in media)})`.\n"
    if config.plugins:
        named = ", ".join(f"`{Path(one).name}`" for one in config.plugins)
        yield f"Its parts are registered by {named}: load them first, with `umie.registry.load_plugins`.\n"
    yield "## Scores\n"
    for split, metrics in run.metrics.items():
        scores = [
            [run.titles.get(key, key), shown_interval(one), one["gold"], one["predicted"]]
            for key, one in metrics.items()
        ]
        yield f"On **{split}**: {f1_name(config)} with its 95% bootstrap interval over records.\n"
        yield f"{markdown_table(['', 'F1', 'annotated', 'found'], scores)}\n"
    if not run.metrics:
        yield "It was not scored.\n"
    yield "## Training\n"
    for name, one in run.corpus.sets.items():
        sizes = ", ".join(f"{split} {count:,}" for split, count in one.num_records.items())
        yield f"- data {printable(one.format if run.corpus.is_single else name)}: records {sizes}"
    training = config.training.model_dump(mode="json", exclude_defaults=True)
    yield f"- {run.measured['steps']:,} steps, seed {config.seed}; {json_text(training)}"
    yield f"- {', '.join(f'{name} {version}' for name, version in versions('torch', 'transformers').items())}"
    for note in config.notes:
        yield f"- {printable(note)}"
    yield "\nOne seed is one draw: compare variants with a grid of several seeds, not with this score."
    yield ""


def _named(value: Any) -> Any:
    """Return options with names in place of paths."""
    if isinstance(value, Mapping):
        return {key: _named(one) for key, one in value.items()}
    is_path = isinstance(value, str) and ("/" in value or "\\" in value) and (Path(value).exists() or value[0] in "/~.")
    return Path(value).name if is_path else value
