"""Loading a saved variant and its processor onto a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from umie import encoders
from umie.composition import LIMITS, check_end
from umie.errors import UmieError, UnknownNameError, at, check_choice, check_kind, shown
from umie.files import read_json
from umie.hub import find_file
from umie.model import UmieModel
from umie.model_parts import ENCODER_SLOTS
from umie.processor import FILE, UmieProcessor
from umie.registries import ALL
from umie.tokenization import check_vocabulary
from umie.weights import reason_of

DTYPES = ("float32", "bfloat16", "float16")


def load(
    name: str | Path, device: str | None = None, dtype: str = "float32", *, revision: str | None = None
) -> tuple[UmieModel, UmieProcessor]:
    """Return the model, in evaluation mode, and the processor that ``save_pretrained`` wrote to one directory.

    Args:
        name: the directory, or the name of a repository on the Hugging Face Hub, ``owner/model``.
        device: e.g. ``cpu`` or ``cuda:1``; by default a GPU if there is one.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        revision: branch, tag or commit of the repository; by default its main branch.

    Raises:
        UmieError: there is no such directory or repository, a file is missing, the model and the processor do not
            belong together, a part is registered by a plugin that is not loaded, or the device cannot be used.
    """
    check_kind("name", name, str | Path, "pass a directory or the name of a repository")
    check_choice("dtype", dtype, DTYPES)
    options = {} if revision is None else {"revision": revision}
    try:
        processor = UmieProcessor.from_pretrained(name, **options)
        _check_encoders(processor, find_file(name, "config.json", **options))
        model: UmieModel = UmieModel.from_pretrained(str(name), dtype=getattr(torch, dtype), **options)
    except UnknownNameError as error:
        if any(f"Unknown {registry.kind} " in str(error) for registry in ALL.values()):
            place = "" if str(name) in str(error) else f"{name}: "
            raise UmieError(
                f"{place}{error} If a plugin file registers it, use --plugin FILE, or umie.registry.load_plugins."
            ) from error
        raise
    with at(str(name)):
        _check_decoders(processor, model)
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a device that does not exist
        raise UmieError(
            f"device {device!r} cannot be used: {reason_of(error)}; use cpu or an existing device"
        ) from error
    return model.eval(), processor


def _check_encoders(processor: UmieProcessor, path: Path) -> None:
    """Raise UmieError if an encoder of the processor differs from that in a model's config.json.

    Options that do not change the tensors may differ: weights, paths, and what is only about training.
    """
    values = read_json(path, "the configuration of a saved model")
    options = values.get("encoder") if isinstance(values, dict) else None
    if not isinstance(options, dict) or not isinstance(options.get("name", ""), str):
        return  # loading the model says what is wrong
    for medium, slot in ENCODER_SLOTS.items():
        options, saved = values.get(slot), processor.encoders.get(slot)
        with at(str(path.parent)):
            if (options is None) != (saved is None):
                _check_equal(slot, {"name": (saved or {}).get("name")}, {"name": (options or {}).get("name")})
            if isinstance(options, dict) and saved is not None:
                _check_encoder(slot, saved, processor.preprocessors[medium].config, options)


def _check_encoder(slot: str, saved: Mapping[str, Any], own: Any, options: Mapping[str, Any]) -> None:
    given = {"name": "tiny", **options}
    name = given.pop("name")
    found = {"name": saved["name"]}
    expected = {"name": name}
    if found == expected:
        encoders.registry.check(name, given)
        part: Any = encoders.registry.get(name)
        theirs: Any = part.Config(**given)
        excluded = {*own.FINGERPRINT_EXCLUDE, own.weights_option} - {"max_regions"}
        for field in (one.name for one in dataclasses.fields(own) if one.name not in excluded):
            # what is unset can be derived, e.g. from the weights, and is saved with the model
            if field in saved or getattr(own, field) is not None:
                found[field], expected[field] = getattr(own, field), getattr(theirs, field)
    _check_equal(slot, found, expected)


def _check_decoders(processor: UmieProcessor, model: UmieModel) -> None:
    """Raise UmieError if a processor does not belong to the decoder of a model."""
    decoder = model.decoder
    own, theirs = processor.candidates, decoder.candidates
    if (own is None) != (theirs is None):
        kinds = ("scores candidates", "generates answers")
        raise UmieError(
            f"{FILE} is for a decoder that {kinds[own is None]}, but that of config.json {kinds[theirs is None]}: "
            "restore the file that was changed, or save model and processor again"
        )
    if own is not None and theirs is not None:
        _check_equal("candidates", dataclasses.asdict(type(theirs)(**own)), dataclasses.asdict(theirs))
    for name, limit in zip(LIMITS, decoder.max_lengths, strict=True):
        length = getattr(processor, name)
        if limit is not None and length > limit:
            raise UmieError(f"{FILE}: {name} is {length}: the decoder has only {limit} positions: lower it")
    check_vocabulary(processor.tokenizer, decoder.vocab_size, "the processor")
    check_end(processor.tokenizer, decoder)
    _check_equal("decoder", {"prompt": processor.prompt}, {"prompt": decoder.prompt})


def _check_equal(what: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in found.items():
        if value != expected[name]:
            raise UmieError(
                f"{FILE} and config.json disagree: {what}.{name} is {shown(value)} and {shown(expected[name])}: "
                "restore the file that was changed, or save model and processor again"
            )
