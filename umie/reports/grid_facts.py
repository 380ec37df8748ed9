"""The setup of a grid's results: data sets, weights, decoding, training and versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from umie import registries
from umie.decoders.base import ScoringDecoder
from umie.experiments.combine import ENCODERS
from umie.experiments.estimate import RANDOM_TEXT, has_random_frozen_text_encoder
from umie.experiments.grid_run import GridRun
from umie.experiments.parts import ignored_media, unnamed_places
from umie.experiments.reference import paper
from umie.records import MEDIA
from umie.records.places import A_MEDIUM, PLURALS

COUNTED = (
    "truncated_inputs", "truncated_targets", "unwritable_inputs", "unwritable_targets", "unreachable_spans",
    "unreachable_regions",
)  # fmt: skip
MIN_MEDIA_SHARE = 0.5  # with fewer media, the report warns that the data is not evidence about fusion


def data_facts(run: GridRun) -> Iterator[str]:
    """Yield the setup in sentences, which may have Markdown's emphasis."""
    for facts in (_data, _parts, _settings):
        yield from facts(run)


def _place(run: GridRun, name: str, split: str) -> str:
    return split if run.data.is_single else f"{name} {split}"


def _data(run: GridRun) -> Iterator[str]:
    """Yield the size of each data set compared with the paper's, its overlap with the training data, and its images."""
    sets, split, missing = run.data.sets, run.grid.first.evaluation.split, run.grid.first.missing_images
    of_images = run.data.has_only_images
    media = MEDIA[:1] if of_images else MEDIA
    for name, one in sets.items():
        for each, count in one.num_records.items():
            size = paper()["sizes"].get(name, {}).get(each) if run.grid.reference else None
            compared = "" if size is None else f" (the paper: {size:,})"
            having = ", ".join(f"{one.num_with(each, [medium])} with {A_MEDIUM[medium]}" for medium in media)
            yield f"{_place(run, name, each)}: {count} records, {having}{compared}"
        if one.num_excluded:
            of = "" if run.data.is_single else f" of {name}"
            yield f"{one.num_excluded} training records{of} were excluded: their texts occur in an evaluation split"
    for name, one in sets.items():
        for each, count in one.num_seen.items():
            if count:
                yield f"{count} records of {_place(run, name, each)} also occur in train; scores are inflated"
    scored = {one.data_set for one in run.scored}
    for name, one in sets.items():
        if name not in scored:
            yield f"{name} is not scored: it has no annotated {split} records"
        if not run.data.is_single and not one.tasks_in("train"):
            yield f"{name} is not trained on: it has no training records"
    if not run.data.is_single:
        sampling = run.data.sampling
        how = f"temperature {sampling.temperature:g}" if sampling.strategy == "temperature" else sampling.strategy
        yield f"sampling of the data sets in training: {how}"
        for cell in {cell.variant: cell for cell in run.cells}.values():
            if shares := run.results.get(cell.hash, {}).get("shares"):
                listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
                yield f"training shares of {cell.variant}: {listed}"
    what = "images" if of_images else "media"
    yield f"{what} that are missing or cannot be read: `{missing}`"
    for name, one in sets.items():
        for each, reasons in one.unreadable.items():
            if reasons:
                without = "as text only" if of_images else "without them"
                kept = f"their records are {'excluded' if missing == 'skip' else f'used {without}'}"
                facts = f"{len(reasons)}; {kept}; e.g. {next(iter(reasons.values()))}"
                yield f"{what} of {_place(run, name, each)} that cannot be read: {facts}"


def _parts(run: GridRun) -> Iterator[str]:
    """Yield the origin of the weights of decoders and encoders, useless encoders, and how often images were encoded."""
    from umie.composition import checkpoint_of

    facts: dict[str, None] = {}
    warnings: dict[str, None] = {}
    for cell in run.cells:
        decoder = cell.parts["decoder"]
        checkpoint = checkpoint_of(decoder)
        origin = f"the checkpoint {checkpoint}" if checkpoint else "random weights"
        warm = ", then a text-only warm start" if cell.config.warm_start is not None else ""
        source = f" ({decoder['source']})" if "source" in decoder else ""
        facts[f"decoder {decoder['name']}{source}: {origin}{warm}"] = None
        if has_random_frozen_text_encoder(cell.config):
            warnings[f"**warning**: the decoder {decoder['name']}: {RANDOM_TEXT}"] = None
        if cell.config.grounders is not None:
            named = ", ".join(f"{medium} {part['name']}" for medium, part in cell.config.grounders.items())
            facts[f"answers of {cell.variant} describe places, which grounders look for: {named}"] = None
        for encoder in [dict(cell.parts[slot]) for slot in ENCODERS if slot in cell.parts]:
            name = encoder.pop("name")
            part = registries.encoders.get(name)
            config = part.Config(**encoder)  # type: ignore[attr-defined] # every encoder has one
            if getattr(part, "reads_features", False):
                origin = f"reads {Path(str(encoder.get('path', ''))).name}"
            else:
                named = config.weights_source
                origin = "random weights" if named is None else f"weights {Path(str(named)).name}"
                origin += ", trained" if config.trainable else ", frozen"
            facts[f"encoder {name}: {origin}"] = None
            if config.has_random_weights and not config.trainable:
                problem = "has random weights, different in each cell; its features carry no information"
                warnings[f"**warning**: the frozen encoder {name} {problem}"] = None
    yield from facts
    yield from warnings
    lines = [(line["status"], line.get("images", {})) for line in run.results.values()]
    for medium, plural in PLURALS.items():
        seen = [images if medium == "image" else images.get(medium, {}) for status, images in lines if status == "ok"]
        stored = [one for one in seen if one.get("features") == "stored"]
        if stored:
            yield (
                f"frozen encoders: {len({one['encoder'] for one in stored})} (by options and weights); cells: "
                f"{len(stored)}; {plural}: {max(one['readable'] for one in stored):,}; encoder calls: "
                f"{sum(one['encoder_calls'] for one in stored):,}, all other features came from the feature store"
            )
    texts = [line["encoded_texts"] for line in run.results.values() if line.get("encoded_texts") is not None]
    if texts:
        yield (
            f"frozen text encoders; cells: {len(texts)}; texts encoded: {sum(texts):,}, all other text states came "
            "from the feature store"
        )
    boxes = [images["boxes"] for _, images in lines if images.get("boxes")]
    reasons = sorted({reason for counts in boxes for reason in counts if reason != "boxes"})
    dropped = [f"{max(counts.get(each, 0) for counts in boxes):,} {each.replace('_', ' ')}" for each in reasons]
    if dropped:
        yield f"dropped boxes of precomputed features: {', '.join(dropped)}"


def _settings(run: GridRun) -> Iterator[str]:
    """Yield decoding, training, what was truncated, too few images, and versions."""
    evaluation = run.grid.first.evaluation
    if warning := unnamed_places([cell.config for cell in run.cells], run.data.tasks):
        yield f"**warning**: {warning}"
    for line in ignored_media({cell.variant: cell.config for cell in run.cells}, run.data):
        yield f"**warning**: {line}"
    decoders = [registries.decoders.get(cell.parts["decoder"]["name"]) for cell in run.cells]
    if not all(isinstance(decoder, type) and issubclass(decoder, ScoringDecoder) for decoder in decoders):
        options = ", ".join(f"{name} {value}" for name, value in evaluation.generation.items()) or "greedy"
        how = {"both": "constrained, and free", True: "constrained", False: "free"}[evaluation.constrained]
        yield f"decoding: {how}, {options}"
    trainings: dict[str, dict[str, None]] = {}
    for cell in run.cells:
        shown = ", ".join(f"{name} {value}" for name, value in cell.training.items()) or "defaults"
        trainings.setdefault(shown, {})[cell.variant] = None
    for shown, variants in trainings.items():
        of = f" of {'; '.join(variants)}" if len(trainings) > 1 else ""
        yield f"training{of}: {shown}"
    lines = [line for line in run.results.values() if line["status"] == "ok"]
    for split in dict.fromkeys(("train", evaluation.split)):
        for name in COUNTED:
            if count := max((line["counts"].get(split, {}).get(name, 0) for line in lines), default=0):
                yield f"{name.replace('_', ' ')} ({split}): {count}"
    for name in dict.fromkeys(one.data_set for one in run.scored):
        one = run.data.sets[name]
        having, records = one.num_with(evaluation.split), one.num_records[evaluation.split]
        if having < MIN_MEDIA_SHARE * records:
            where = f"{records} records of {_place(run, name, evaluation.split)}"
            what = "an image" if run.data.has_only_images else "media"
            yield f"only {having} of {where} have {what}: too few to be evidence about fusion"
    environments = {
        f"device {line['device']}, {line['threads']} threads per cell{', bfloat16' if line.get('bf16') else ''}; "
        + ", ".join(f"{name} {version}" for name, version in line["versions"].items())
        for line in lines
    }
    yield from sorted(environments)
