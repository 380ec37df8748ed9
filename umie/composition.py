"""compose: a model and its processor from the names of their parts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from umie import decoders, encoders
from umie import fusion as fusions
from umie import tasks as all_tasks
from umie.constrained import encode
from umie.data.synthetic import SyntheticConfig, scenes
from umie.decoders.sources import check_tokenizer
from umie.errors import UmieError, check_keys
from umie.model import UmieConfig, UmieModel
from umie.processor import UmieProcessor
from umie.records import Record
from umie.tasks import Task
from umie.tokenization import train_tokenizer

Part: TypeAlias = str | Mapping[str, Any]

EMBEDDED_VOCAB_SIZE = 1024
PROCESSOR_OPTIONS = ("max_input_tokens", "max_target_tokens", "missing_images")
LIMITS = ("max_input_tokens", "max_target_tokens")


def compose(
    encoder: Part = "tiny",
    fusion: Part = "gated",
    decoder: Part = "tiny",
    *,
    visual_embedding: Mapping[str, Any] | None = None,
    tasks: Mapping[str, Mapping[str, Any]] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    **processor_options: Any,
) -> tuple[UmieModel, UmieProcessor]:
    """Return a variant: its model, with pretrained weights where a part names some, and its processor.

    Args:
        encoder: a registered name, or a mapping with ``name`` and options.
        fusion: as above.
        decoder: as above; or a preset, checkpoint folder or hub name for ``t5``.
        visual_embedding: options of the visual embedding.
        tasks: for each task its options, e.g. ``{"mner": {"labels": ("person", "place")}}``.
        tokenizer: the decoder's; by default the checkpoint's own, and for a preset one trained on the embedded
            data set (byte-level, so that any text can be written with it).
        processor_options: ``max_input_tokens``, ``max_target_tokens``, ``missing_images`` (``error`` or
            ``text_only``); see UmieProcessor.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        UmieError: an unknown name or option, or a checkpoint that cannot be read.
    """
    check_keys("argument of compose:", processor_options, PROCESSOR_OPTIONS)
    parts = resolve_parts(encoder, fusion, decoder)
    if tokenizer is None:
        tokenizer = default_tokenizer(parts["decoder"])
    tokenizer = _with_markers(tokenizer, tasks or {})
    decoder_class: Any = decoders.registry.get(parts["decoder"]["name"])
    if hasattr(decoder_class, "fit_vocabulary"):
        parts["decoder"] = decoder_class.fit_vocabulary(parts["decoder"], len(tokenizer))
    config = UmieConfig(**parts, visual_embedding=dict(visual_embedding or {}))
    model = UmieModel(config)
    size = model.decoder.vocab_size
    if size is not None and len(tokenizer) > size:
        raise UmieError(
            f"the tokenizer has {len(tokenizer)} tokens and the decoder {size} rows for them: give a decoder with more "
            "(overrides: vocab_size), or another tokenizer; the styles 'paper' and 'released' may add tokens"
        )
    _check_end(tokenizer, model.decoder.end_token_id)
    processor_options = _fitting(processor_options, model.decoder.max_lengths)
    model.load_part_weights()
    model.eval()
    processor = UmieProcessor(tokenizer, parts["encoder"], tasks, **processor_options)
    return model, processor


def resolve_parts(encoder: Part, fusion_part: Part, decoder: Part) -> dict[str, dict[str, Any]]:
    """Return name and options of the three parts, checked against their registries; builds nothing."""
    if isinstance(decoder, str) and decoder not in decoders.registry.names():
        decoder = {"name": "t5", "source": decoder}
    parts = {}
    for slot, registry, part in (
        ("encoder", encoders.registry, encoder),
        ("fusion", fusions.registry, fusion_part),
        ("decoder", decoders.registry, decoder),
    ):
        options = {"name": part} if isinstance(part, str) else dict(part)
        if slot == "decoder":
            options = {"name": "t5", **options}
            default_source = getattr(decoders.registry.get(options["name"]), "default_source", None)
            if default_source is not None:
                options = {"source": default_source, **options}
        registry.check(options.get("name", ""), {key: value for key, value in options.items() if key != "name"})
        parts[slot] = options
    return parts


def checkpoint_of(decoder: Mapping[str, Any]) -> str | None:
    """Return the folder or hub name that holds a decoder's weights and tokenizer.

    Args:
        decoder: name and options, as ``resolve_parts`` gives them.

    Returns:
        None for a preset: random weights, and no tokenizer of its own.

    Raises:
        UmieError: the source is none that the decoder knows.
    """
    part: Any = decoders.registry.get(decoder.get("name", "t5"))
    source = decoder.get("source")
    if source is None or not hasattr(part, "checkpoint"):
        return None
    found: str | None = part.checkpoint(source)
    return found


def default_tokenizer(decoder: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a decoder's checkpoint, or the embedded data set's for a preset."""
    checkpoint = checkpoint_of(decoder)
    if checkpoint is not None:
        source = decoder["source"]
        check_tokenizer(source)
        try:
            return AutoTokenizer.from_pretrained(checkpoint)
        except (OSError, ValueError) as error:
            raise UmieError(
                f"decoder {source!r}: its tokenizer cannot be read: {str(error).splitlines()[0]}"
            ) from error
    return train_tokenizer(_embedded_texts(), EMBEDDED_VOCAB_SIZE)


def _check_end(tokenizer: PreTrainedTokenizerBase, end: int | None) -> None:
    """Raise UmieError where the tokenizer ends targets with another token than the decoder ends answers with."""
    around: list[int] = tokenizer("").input_ids
    written = around[-1] if around else tokenizer.eos_token_id
    if end is not None and written != end:
        raise UmieError(
            f"the tokenizer ends a text with token {written} and the decoder an answer with token {end}: give the "
            "decoder's own tokenizer, or overrides: eos_token_id"
        )


def _fitting(options: Mapping[str, Any], limits: tuple[int | None, int | None]) -> dict[str, Any]:
    """Return the processor's options with lengths that the decoder has positions for.

    Raises:
        UmieError: a length that was asked for is longer.
    """
    fitting = dict(options)
    for name, limit in zip(LIMITS, limits, strict=True):
        default = inspect.signature(UmieProcessor).parameters[name].default
        if limit is not None and options.get(name, 0) > limit:
            raise UmieError(f"{name} is {options[name]}: the decoder has positions for {limit} tokens")
        if limit is not None:
            fitting.setdefault(name, min(default, limit))
    return fitting


def _with_markers(
    tokenizer: PreTrainedTokenizerBase, task_options: Mapping[str, Mapping[str, Any]]
) -> PreTrainedTokenizerBase:
    """Return a tokenizer that can write what the tasks' output styles write: T5's has no ``<`` for ``<spot>``."""
    markers: dict[str, None] = {}
    for name, options in task_options.items():
        markers |= dict.fromkeys(all_tasks.registry.build(name, **options).style.markers)
    lacking = [marker for marker in markers if tokenizer.unk_token_id in encode(tokenizer, marker)]
    lacking = [marker for marker in lacking if marker not in tokenizer.get_vocab()]
    if lacking:
        tokenizer = copy.deepcopy(tokenizer)  # the caller's stays as it is
        tokenizer.add_tokens(lacking, special_tokens=True)
    return tokenizer


def tokenizer_texts(records: Iterable[Record], tasks: Iterable[Task[Any]]) -> Iterator[str]:
    """Yield what a tokenizer for these records learns from: their texts, the targets, and each instruction once."""
    tasks = list(tasks)
    instructions: dict[str, None] = {}
    for record in records:
        yield record.text
        for task in tasks:
            if record.annotated_for(task.name):
                for query in task.queries(record):
                    yield query.answer
                    instructions[query.instruction] = None
    yield from instructions


def _embedded_texts() -> Iterator[str]:
    built = [all_tasks.registry.build(name) for name in all_tasks.registry.names()]
    return tokenizer_texts((scene.record for scene in scenes(SyntheticConfig(), "train")), built)
