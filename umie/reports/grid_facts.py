"""The setup of a grid's results: data sets, weights, decoding, training and versions."""

from __future__ import annotations

from pathlib import Path

from umie import registries
from umie.experiments.parts import unnamed_regions
from umie.experiments.reference import paper
from umie.experiments.scheduler import GridRun

MIN_IMAGE_SHARE = 0.5  # with fewer images, the report warns that the data is not evidence about fusion


def data_facts(run: GridRun) -> str:
    """Return the setup as a Markdown list."""
    facts = _sets(run)
    missing = run.grid.first.missing_images
    facts.append(f"- images that are missing or cannot be read: `{missing}`")
    for name, one in run.data.sets.items():
        for split, reasons in one.unreadable.items():
            if reasons:
                kept = "their records are excluded" if missing == "skip" else "their records are used as text only"
                reason = next(iter(reasons.values()))
                facts.append(
                    f"- images of {_place(run, name, split)} that cannot be read: {len(reasons)}; {kept}; e.g. {reason}"
                )
    facts += _weights(run)
    facts += _encoded(run)
    facts += _dropped_boxes(run)
    warning = unnamed_regions([cell.config for cell in run.cells], run.data.tasks)
    facts += [f"- **warning**: {warning}"] if warning else []
    facts.append(f"- decoding: {_decoding(run)}")
    facts += _trainings(run)
    lines = [line for line in run.results.values() if line["status"] == "ok"]
    truncated = {
        f"{name.replace('_', ' ')} ({split})": max(line["counts"].get(split, {}).get(name, 0) for line in lines)
        for split in ("train", run.grid.first.evaluation.split)
        for name in ("truncated_inputs", "truncated_targets")
        if lines
    }
    facts += [f"- {name}: {count}" for name, count in truncated.items() if count]
    evaluated = run.grid.first.evaluation.split
    for name in dict.fromkeys(one.data_set for one in run.scored):
        one = run.data.sets[name]
        images, records = one.num_images[evaluated], one.num_records[evaluated]
        if images < MIN_IMAGE_SHARE * records:
            facts.append(
                f"- only {images} of {records} records of {_place(run, name, evaluated)} have an image: too few to be "
                "evidence about fusion"
            )
    environments = {
        f"device {line['device']}, {line['threads']} threads per cell; "
        + ", ".join(f"{name} {version}" for name, version in line["versions"].items())
        for line in lines
    }
    facts += [f"- {environment}" for environment in sorted(environments)]
    return "\n".join(facts)


def _trainings(run: GridRun) -> list[str]:
    """Return the training options that were set, by variant if the variants differ."""
    by_options: dict[str, dict[str, None]] = {}
    for cell in run.cells:
        shown = ", ".join(f"{name} {value}" for name, value in cell.training.items()) or "defaults"
        by_options.setdefault(shown, {})[cell.variant] = None
    if len(by_options) == 1:
        return [f"- training: {next(iter(by_options))}"]
    return [f"- training of {'; '.join(variants)}: {options}" for options, variants in by_options.items()]


def _sets(run: GridRun) -> list[str]:
    """Return the size of each data set compared with the paper's, and its overlap with the training data."""
    published = paper()["sizes"]
    facts = []
    for name, one in run.data.sets.items():
        for split, count in one.num_records.items():
            size = published.get(name, {}).get(split) if run.grid.reference else None
            compared = "" if size is None else f" (the paper: {size:,})"
            facts.append(
                f"- {_place(run, name, split)}: {count} records, {one.num_images[split]} with an image{compared}"
            )
        if one.num_excluded:
            facts.append(
                f"- {one.num_excluded} training records{_of(run, name)} were excluded: their texts occur in an "
                "evaluation split"
            )
    facts += [
        f"- {count} records of {_place(run, name, split)} also occur in train; scores are inflated"
        for name, one in run.data.sets.items()
        for split, count in one.num_seen.items()
        if count
    ]
    scored = {one.data_set for one in run.scored}
    for name, one in run.data.sets.items():
        if name not in scored:
            facts.append(f"- {name} is not scored: it has no annotated {run.grid.first.evaluation.split} records")
        if not run.data.is_single and not one.tasks_in("train"):
            facts.append(f"- {name} is not trained on: it has no training records")
    if not run.data.is_single:
        sampling = run.data.sampling
        how = f"temperature {sampling.temperature:g}" if sampling.strategy == "temperature" else sampling.strategy
        facts.append(f"- sampling of the data sets in training: {how}")
        for cell in {cell.variant: cell for cell in run.cells}.values():
            shares = run.results.get(cell.hash, {}).get("shares")
            if shares:
                listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
                facts.append(f"- training shares of {cell.variant}: {listed}")
    return facts


def _place(run: GridRun, name: str, split: str) -> str:
    return split if run.data.is_single else f"{name} {split}"


def _of(run: GridRun, name: str) -> str:
    return "" if run.data.is_single else f" of {name}"


def _weights(run: GridRun) -> list[str]:
    """Return the origin of the weights of decoders and encoders, with warnings about useless encoders."""
    from umie.composition import checkpoint_of

    facts: dict[str, None] = {}
    warnings: dict[str, None] = {}
    for cell in run.cells:
        decoder, encoder = cell.parts["decoder"], dict(cell.parts["encoder"])
        checkpoint = checkpoint_of(decoder)
        origin = f"the checkpoint {checkpoint}" if checkpoint else "random weights"
        warm = ", then a text-only warm start" if cell.config.warm_start is not None else ""
        facts[f"- decoder {decoder.get('source', decoder['name'])}: {origin}{warm}"] = None
        name = encoder.pop("name")
        part = registries.encoders.get(name)
        config = part.Config(**encoder)  # type: ignore[attr-defined] # every encoder has one
        if getattr(part, "reads_features", False):
            origin = f"precomputed features from {Path(str(encoder.get('path', ''))).name}"
        else:
            named = getattr(config, config.weights_option) if config.weights_option else None
            origin = "random weights" if named is None else f"weights {Path(str(named)).name}"
            origin += ", trained" if config.trainable else ", frozen"
        facts[f"- encoder {name}: {origin}"] = None
        if config.has_random_weights and not config.trainable:
            warnings[
                f"- **warning**: the frozen encoder {name} has random weights, different in each cell; its features "
                "carry no information"
            ] = None
    return [*facts, *warnings]


def _encoded(run: GridRun) -> list[str]:
    """Return how often images were encoded by frozen encoders with stored features."""
    stored = [
        line["images"]
        for line in run.results.values()
        if line["status"] == "ok" and line.get("images", {}).get("features") == "stored"
    ]
    if not stored:
        return []
    calls = sum(images["encoder_calls"] for images in stored)
    different = len({images["encoder"] for images in stored})
    most = max(images["readable"] for images in stored)
    return [
        f"- frozen encoders: {different} (by options and weights); cells: {len(stored)}; images: {most:,}; encoder "
        f"calls: {calls:,}, all other features came from the feature store"
    ]


def _dropped_boxes(run: GridRun) -> list[str]:
    """Return the number of boxes of precomputed features that could not be used."""
    counts = [line["images"]["boxes"] for line in run.results.values() if line.get("images", {}).get("boxes")]
    reasons = {reason for boxes in counts for reason in boxes if reason != "boxes"}
    dropped = {reason: max(boxes.get(reason, 0) for boxes in counts) for reason in sorted(reasons)}
    listed = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in dropped.items())
    return [f"- dropped boxes of precomputed features: {listed}"] if listed else []


def _decoding(run: GridRun) -> str:
    evaluation = run.grid.first.evaluation
    options = ", ".join(f"{name} {value}" for name, value in evaluation.generation.items()) or "greedy"
    return f"{'constrained' if evaluation.constrained else 'free'}, {options}"
