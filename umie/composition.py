"""``compose``: build a model and its processor from names, options, Config objects, or modules."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from torch import nn
from transformers import PreTrainedTokenizerBase

from umie import decoders, encoders
from umie import tasks as all_tasks
from umie.candidates import check_no_calls
from umie.constrained import encode
from umie.data.synthetic import LABELS, SyntheticConfig, scenes
from umie.decoders.t5 import T5Decoder
from umie.errors import UmieError, UnknownNameError, check_keys, check_kind, check_whole, shown
from umie.framing import framing_of
from umie.language_models.sources import load_tokenizer
from umie.model import UmieModel
from umie.model_parts import ENCODER_SLOTS, REGISTRIES, check_medium
from umie.processor import UmieProcessor
from umie.records import MEDIA, Medium, Record
from umie.records.places import PLACES
from umie.tasks import Task
from umie.tokenization import check_vocabulary, train_tokenizer

Part: TypeAlias = str | Mapping[str, Any] | Any
"""A registered name, a mapping with ``name`` and options, a Config object, or a module."""

EMBEDDED_VOCAB_SIZE = 1024
PROCESSOR_OPTIONS = ("max_input_tokens", "max_target_tokens", "missing_images", "grounders")
LIMITS = ("max_input_tokens", "max_target_tokens")


def compose(
    encoder: Part = "tiny",
    fusion: Part = "gated",
    decoder: Part = "tiny",
    *,
    visual_embedding: Mapping[str, Any] | nn.Module | None = None,
    tasks: Mapping[str, Mapping[str, Any]] | Sequence[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    video_encoder: Part | None = None,
    audio_encoder: Part | None = None,
    **processor_options: Any,
) -> tuple[UmieModel, UmieProcessor]:
    """Build a variant: a model, with the pretrained weights that its parts name, and its processor.

    Args:
        encoder: the encoder of images: a registered name; a mapping with ``name`` and options; a Config object of a
            registered class; or a module, which keeps its weights.
        fusion: same forms as ``encoder``. Names and mappings take their widths from the decoder.
        decoder: same forms as ``encoder``, or a preset, checkpoint directory or hub name for ``t5``.
        visual_embedding: options of the visual embedding, or a module.
        tasks: the options of each task, e.g. ``{"mner": {"labels": ("person", "place")}}``, or only their names.
            Tasks that are not among them keep their defaults, and can be used, too.
        tokenizer: the decoder's tokenizer. By default, that of the checkpoint; for a preset, a byte-level tokenizer
            trained on the embedded data set.
        video_encoder: same forms as ``encoder``; None for a variant that does not use video.
        audio_encoder: same forms as ``encoder``; None for a variant that does not use sound.
        processor_options: ``max_input_tokens``, ``max_target_tokens``, ``missing_images`` (``error``,
            ``text_only`` or ``skip``), ``grounders``; see UmieProcessor.

    Returns:
        The model, in evaluation mode, and its processor.

    Raises:
        UmieError: a name or option is unknown, a checkpoint cannot be read, or a module does not implement the
            contract of its slot.
    """
    others = [name for name in inspect.signature(compose).parameters if name != "processor_options"]
    check_keys("argument of compose:", processor_options, (*PROCESSOR_OPTIONS, *others))
    task_options = _task_options(tasks)
    _check_arguments(tokenizer, visual_embedding, processor_options)
    media = {"video_encoder": video_encoder, "audio_encoder": audio_encoder}
    given: dict[str, Any] = {"encoder": encoder, "fusion": fusion, "decoder": decoder}
    given |= {slot: part for slot, part in media.items() if part is not None}
    modules = {slot: built for slot, part in given.items() if (built := _module_of(slot, part)) is not None}
    named = {slot: _DEFAULTS[slot] if slot in modules else part for slot, part in given.items()}
    parts: dict[str, Any] = resolve_parts(**named)
    source = modules.get("decoder")
    if tokenizer is None:
        tokenizer = default_tokenizer(parts["decoder"] if source is None else _source_of(source))
    tokenizer = with_markers(tokenizer, task_options)
    decoder_class: Any = decoders.registry.get(parts["decoder"]["name"])
    if source is None and hasattr(decoder_class, "fit_tokenizer"):
        parts["decoder"] = decoder_class.fit_tokenizer(parts["decoder"], tokenizer)
    model = UmieModel.from_parts(**{**parts, **modules}, visual_embedding=visual_embedding)
    size = model.decoder.vocab_size
    if size is not None and len(tokenizer) > size:
        raise UmieError(
            f"the tokenizer has {len(tokenizer)} tokens, but the decoder has only {size} embeddings: increase "
            "vocab_size in the decoder's overrides, or use another tokenizer; styles 'paper' and 'released' may add "
            "tokens"
        )
    check_vocabulary(tokenizer, size, "the decoder")
    check_end(tokenizer, model.decoder)
    processor_options = _fitting(processor_options, model.decoder)
    model.load_part_weights()
    model.eval()
    encoder_options: dict[str, Any] = {}
    for slot in ENCODER_SLOTS.values():
        module: Any = modules.get(slot)
        is_known = module is None or encoders.registry.name_of(type(module)) is not None
        encoder_options[slot] = getattr(model.config, slot) if is_known else module.preprocess
    candidates = model.decoder.candidates
    if candidates is not None:
        processor_options["candidates"] = dataclasses.asdict(candidates)
    if model.decoder.prompt is not None:
        processor_options["prompt"] = model.decoder.prompt
    processor = UmieProcessor(tokenizer, task_options=task_options or None, **encoder_options, **processor_options)
    _check_calls(processor)
    if candidates is None:
        _warn_of_labels(processor)
        slots = getattr(getattr(model.visual_embedding, "config", None), "num_slot_embeddings", None)
        asked = map(processor.task, processor.task_options)
        grounded = [task for task in asked if task.config.grounded and task.style.calls is None]
        if slots == 0 and (warning := unnamed_places(grounded, list(model.media_encoders))):
            warnings.warn(warning, stacklevel=2)
    return model, processor


def _check_calls(processor: UmieProcessor) -> None:
    """Raise UmieError for grounders without calls, or calls of a decoder that does not write."""
    asked = [processor.task(name) for name in processor.task_options]
    if processor.grounders and not any(task.style.calls for task in asked):
        raise UmieError(
            "grounders carry out calls, and no task has any: set grounded to True and style to 'reamo' for one of tasks"
        )
    for task in asked if processor.candidates is not None else ():
        check_no_calls(task)


def _warn_of_labels(processor: UmieProcessor) -> None:
    """Warn of labels that the tokenizer cannot write, so that a model cannot answer with them."""
    for name in processor.task_options:
        for label in processor.task(name).labels:
            if missing := processor.cannot_write(label):
                warnings.warn(
                    f"the tokenizer cannot write {shown(''.join(missing))} of the label {label!r} of {name}: rename it "
                    "or use a tokenizer that writes any text (ByT5, mT5), or the decoder span",
                    stacklevel=3,
                )


def unnamed_places(tasks: Iterable[Task[Any]], media: Collection[Medium]) -> str | None:
    """Return a warning if tasks name places in media by number, for a variant whose inputs do not contain the numbers.

    Neither attention over visual slots nor the cross-attention of T5 depends on the number of a slot. A decoder that
    scores candidates needs no numbers.
    """
    named = {
        task.name: [medium for medium in media if task.config.grounded or medium == "image"]
        for task in tasks
        if task.names_places
    }
    names = [name for name, own in named.items() if own]
    if not names:
        return None
    kinds = [PLACES[medium] for medium in MEDIA if any(medium in own for own in named.values())]
    tasks_named, kinds_named = (" and ".join(filter(None, [", ".join(some[:-1]), some[-1]])) for some in (names, kinds))
    return (
        f"{tasks_named} name{'s' if len(names) == 1 else ''} {kinds_named} by number, and "
        "visual_embedding.num_slot_embeddings is 0: the numbers are not in the input; set it to 1 + the largest number "
        "of places in a medium"
    )


def _task_options(tasks: Any) -> dict[str, Mapping[str, Any]]:
    """Return the options of each given task; raise UmieError if they are neither a mapping nor names."""
    if isinstance(tasks, list | tuple) and all(isinstance(name, str) for name in tasks):
        if repeated := [name for name, count in Counter(tasks).items() if count > 1]:
            raise UmieError(f"tasks names {repeated[0]!r} twice: name each task once")
        return {name: {} for name in tasks}
    example = "pass the options of each task, such as {'mner': {'labels': ['person', 'place']}}, or names: ['mner']"
    check_kind("tasks", tasks, Mapping | None, example)
    given: dict[str, Any] = dict(tasks or {})
    for name, options in given.items():
        check_kind(f"tasks[{name!r}]", options, Mapping, example)
    return given


def _check_arguments(tokenizer: Any, visual_embedding: Any, processor_options: Mapping[str, Any]) -> None:
    check_kind("tokenizer", tokenizer, PreTrainedTokenizerBase | None, "pass a tokenizer of transformers")
    kinds = (Mapping, nn.Module, type(None))
    check_kind("visual_embedding", visual_embedding, kinds, "pass options as a mapping, or a module")
    for name in LIMITS:
        if name in processor_options:
            check_whole(name, processor_options[name], 2)


_DEFAULTS = {
    "encoder": "tiny", "video_encoder": "tiny_video", "audio_encoder": "tiny_audio",
    "fusion": "text_only", "decoder": "tiny",
}  # fmt: skip


def _module_of(slot: str, part: Part) -> nn.Module | None:
    """Return a part given as a module, or the module built from a Config object; None for a name or a mapping."""
    if isinstance(part, nn.Module):
        return part
    if isinstance(part, str | Mapping):
        return None
    registry = REGISTRIES[slot]
    fitting = [name for name in registry.known() if getattr(registry.get(name), "Config", None) is type(part)]
    if len(fitting) == 1:
        module: Any = registry.get(fitting[0])(part)
        if hasattr(module, "load_weights"):
            module.load_weights()
        built: nn.Module = module
        return built
    if fitting:
        raise UmieError(
            f"{', '.join(fitting)} have the config {type(part).__name__}: use a name with options, or a module"
        )
    raise UmieError(
        f"the {slot} is a {type(part).__name__}: use a name, a mapping with name and options, a Config object of a "
        "registered class, or a module"
    )


def _source_of(decoder: nn.Module) -> dict[str, Any]:
    """Return the name and source of a decoder module, which locate its tokenizer."""
    name = decoders.registry.name_of(type(decoder))
    source = getattr(getattr(decoder, "config", None), "source", None)
    return {} if name is None or source is None else {"name": name, "source": source}


def resolve_parts(
    encoder: Part,
    fusion: Part,
    decoder: Part,
    *,
    video_encoder: Part | None = None,
    audio_encoder: Part | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the name and options of the given parts, checked against their registries, without building them."""
    names = decoders.registry.names()
    if isinstance(decoder, str) and decoder not in names:  # a checkpoint
        try:
            T5Decoder.checkpoint(decoder)
        except UnknownNameError as error:
            raise UmieError(f"{error} Or the name of a decoder: {', '.join(names)}.") from error
        decoder = {"name": "t5", "source": decoder}
    parts = {}
    given = {"encoder": encoder, "video_encoder": video_encoder, "audio_encoder": audio_encoder}
    given |= {"fusion": fusion, "decoder": decoder}
    for slot, part in given.items():
        if part is None:
            continue
        registry = REGISTRIES[slot]
        options = {"name": part} if isinstance(part, str) else dict(part)
        if slot == "decoder":
            options = {"name": "t5", **options}
            default_source = getattr(decoders.registry.get(options["name"]), "default_source", None)
            if default_source is not None:
                options = {"source": default_source, **options}
        elif "name" not in options:
            known = ", ".join(registry.names())
            raise UmieError(f"the {slot} {options} has no name: add 'name', one of {known}, next to its options")
        registry.check(options["name"], {key: value for key, value in options.items() if key != "name"})
        if slot in ENCODER_SLOTS.values():
            check_medium(slot, registry.get(options["name"]))
        parts[slot] = options
    return parts


def checkpoint_of(decoder: Mapping[str, Any]) -> str | None:
    """Return the directory or hub name of a decoder's weights and tokenizer; None for a preset, which has neither.

    Raises:
        UmieError: the decoder does not know the source.
    """
    part: Any = decoders.registry.get(decoder.get("name", "t5"))
    source = decoder.get("source")
    if source is None or not hasattr(part, "checkpoint"):
        return None
    found: str | None = part.checkpoint(source)
    return found


def default_tokenizer(decoder: Mapping[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a decoder's checkpoint, or for a preset one trained on the embedded data set."""
    if checkpoint_of(decoder) is not None:
        return load_tokenizer("decoder", decoder["source"])
    return copy.deepcopy(_embedded_tokenizer())  # a caller may add tokens


@functools.cache
def _embedded_tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(_embedded_texts(), EMBEDDED_VOCAB_SIZE)


def check_end(tokenizer: PreTrainedTokenizerBase, decoder: decoders.Decoder) -> None:
    """Raise UmieError if the end token of the tokenizer differs from that of the decoder."""
    written, ends = framing_of(tokenizer, decoder.prompt).end, decoder.end_token_ids
    if ends and written not in ends:
        raise UmieError(
            f"the tokenizer ends a text with token {written}, but the decoder ends an answer with token "
            f"{' or '.join(map(str, ends))}: use the decoder's tokenizer, or set overrides: eos_token_id"
        )


def _fitting(options: Mapping[str, Any], decoder: decoders.Decoder) -> dict[str, Any]:
    """Return the processor's options with default lengths limited to the decoder's positions.

    Raises:
        UmieError: a given length exceeds the positions.
    """
    fitting = dict(options)
    limits = decoder.max_lengths
    if decoder.shares_positions and limits[0] is not None:
        given = [options.get(name, 0) for name in LIMITS]
        if sum(given) > limits[0]:
            raise UmieError(
                f"{' + '.join(LIMITS)} is {sum(given)}: text and answer share the {limits[0]} positions of the decoder"
            )
        kept = given if any(given) else [limits[0] // 2] * 2
        limits = limits[0] - kept[1], limits[0] - kept[0]
    for name, limit in zip(LIMITS, limits, strict=True):
        default = inspect.signature(UmieProcessor).parameters[name].default
        if limit is not None and options.get(name, 0) > limit:
            raise UmieError(f"{name} is {options[name]}: the decoder has only {limit} positions")
        if limit is not None:
            fitting.setdefault(name, min(default, limit))
    return fitting


def with_markers(
    tokenizer: PreTrainedTokenizerBase, task_options: Mapping[str, Mapping[str, Any]]
) -> PreTrainedTokenizerBase:
    """Return a tokenizer with tokens for the markers of the tasks' output styles: T5's has no ``<`` for ``<spot>``."""
    markers: dict[str, None] = {}
    for name, options in task_options.items():
        markers |= dict.fromkeys(all_tasks.registry.build(name, **options).style.markers)
    unknown = [marker for marker in markers if tokenizer.unk_token_id in encode(tokenizer, marker)]
    unknown = [marker for marker in unknown if marker not in tokenizer.get_vocab()]
    if unknown:
        tokenizer = copy.deepcopy(tokenizer)  # do not change the caller's tokenizer
        tokenizer.add_tokens(unknown, special_tokens=True)
    return tokenizer


def tokenizer_texts(records: Iterable[Record], tasks: Iterable[Task[Any]]) -> Iterator[str]:
    """Yield the training texts of a tokenizer for some records: texts, targets, and each instruction once."""
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
    built = [all_tasks.registry.build(name) for name in sorted(LABELS)]  # without tasks of plugins
    return tokenizer_texts((scene.record for scene in scenes(SyntheticConfig(), "train")), built)
