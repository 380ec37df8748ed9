"""UmieModel: a visual encoder, a fusion and a decoder as one transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from umie import encoders
from umie.checkpoints import (
    check_checkpoint,
    check_manifest,
    check_num_parameters,
    is_model_file,
    local_only,
    write_manifest,
)
from umie.constrained import Constraint
from umie.decoders.base import GeneratingDecoder
from umie.errors import UmieError, shown
from umie.files import read_json
from umie.hub import HUB_OPTIONS, check_saved, hub_folder
from umie.language_models.sources import no_warnings
from umie.model_parts import CONTRACTS, REGISTRIES, Part, build_part, build_visual_embedding, options_of
from umie.types import FEATURES, FusedStates, VisualFeatures, bool_mask
from umie.weights import check_finite, reason_of

DEFAULT_NEW_TOKENS = 128  # the paper's longest output


# the folder that a model is loaded from: its weight files limit the parameters, before these take memory
_largest: ContextVar[Path | None] = ContextVar("_largest", default=None)


@strict
class UmieConfig(PreTrainedConfig):
    """A whole variant: for each slot the registered name and the options of its part.

    Args:
        encoder: e.g. ``{"name": "tiny", "crop_size": 10}``.
        visual_embedding: options of VisualEmbeddingConfig; widths come from the encoder and the decoder.
        fusion: e.g. ``{"name": "gated", "residual": "paper"}``; widths come from the decoder.
        decoder: e.g. ``{"name": "t5", "source": "tiny"}``; a saved model contains the full shape.
    """

    model_type = "umie"

    encoder: dict[str, Any] | None = None
    visual_embedding: dict[str, Any] | None = None
    fusion: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.encoder = {"name": "tiny", **(self.encoder or {})}
        self.visual_embedding = dict(self.visual_embedding or {})
        self.fusion = {"name": "gated", **(self.fusion or {})}
        self.decoder = {"name": "t5", **(self.decoder or {})}
        super().__post_init__(**kwargs)


@dataclass
class UmieOutput(ModelOutput):
    """The output of a forward pass.

    Args:
        loss: mean cross-entropy over the labels; None without labels.
        logits: ``[B, L, vocabulary]``, or ``[B, S + R + 1, C]`` of a decoder that scores candidates.
        gate: ``[B]``, 0 for an example without an image; None if the fusion has no gate.
        text_states: ``[B, T, D]`` before the fusion.
        visual_states: ``[B, V, D]``; None without visual slots, or if the fusion does not use the image.
        fused_states: ``[B, T', D]``.
        fused_mask: bool ``[B, T']``, True = real.
        attention: ``[B, H, T, V]``, if requested and if the fusion attends.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    gate: Tensor | None = None
    text_states: Tensor | None = None
    visual_states: Tensor | None = None
    fused_states: Tensor | None = None
    fused_mask: Tensor | None = None
    attention: Tensor | None = None


class UmieModel(PreTrainedModel):
    """A variant: encode the text and the images, fuse both, and decode.

    ``save_pretrained`` writes all weights, including those of a frozen encoder, so the directory is complete.
    A fusion that does not use the image is built without an encoder (``.encoder`` is None).

    Args:
        config: name and options of each part.
        modules: built modules by slot, used instead of building the slot from ``config``; see ``from_parts``.
    """

    config_class = UmieConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    accepts_loss_kwargs = False  # keeps the Trainer from passing its own keywords to forward
    supports_gradient_checkpointing = True  # for the blocks of the language model

    def __init__(self, config: UmieConfig, *, modules: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__(config)
        modules = modules or {}
        self.decoder = build_part("decoder", config.decoder, modules)
        widths = dict(self.decoder.widths)
        self.fusion = build_part("fusion", config.fusion, modules, widths)
        given: Any = modules.get("encoder")
        self._preprocessor: encoders.Preprocessor = (
            encoders.build_preprocessor(config.encoder or {}) if given is None else given.preprocess
        )
        self.encoder: encoders.VisualEncoder | None = None
        self.visual_embedding: nn.Module | None = None
        visual_widths: dict[str, Any] = {}
        if self.fusion.uses_image:
            self.encoder = build_part("encoder", config.encoder, modules)
            visual_widths = {"feature_dim": self.encoder.feature_dim, **widths}
            self.visual_embedding = build_visual_embedding(config.visual_embedding, modules, visual_widths)
        inherited = {"fusion": widths, "visual_embedding": visual_widths}
        self._given_slots = frozenset(modules)
        self._unregistered: dict[str, str] = {}
        for slot, module in modules.items():
            options = options_of(slot, module, inherited.get(slot, {}))
            if options is None:
                self._unregistered[slot] = f"{type(module).__module__}.{type(module).__qualname__}"
            setattr(config, slot, {"name": self._unregistered.get(slot)} if options is None else options)
        if self.encoder is not None:
            config.encoder = {**(config.encoder or {}), **self.encoder.saved_options()}
        config.decoder = {"name": (config.decoder or {})["name"], **self.decoder.saved_options()}
        folder = _largest.get()
        if folder is not None:
            check_num_parameters(sum(parameter.numel() for parameter in self.parameters()), folder)
        self.post_init()
        inner_models = [module for module in self.decoder.modules() if isinstance(module, PreTrainedModel)]
        self._no_split_modules = sorted(
            {name for module in inner_models for name in module._no_split_modules or ()}
        )  # the units that FSDP shards

    @classmethod
    def from_parts(
        cls,
        encoder: Part | None,
        fusion: Part | None,
        decoder: Part | None,
        visual_embedding: Part | None = None,
    ) -> UmieModel:
        """Return a model of built modules, of options, or of both.

        ``UmieModel(config)`` is the special case in which every part is built from its options.

        Args:
            encoder: an ``umie.encoders.VisualEncoder``, or a mapping with ``name`` and options; None for the default.
            fusion: an ``umie.fusion.Fusion``, or as above. Options take their widths from the decoder.
            decoder: an ``umie.decoders.Decoder``, or as above.
            visual_embedding: a module from VisualFeatures to ``[B, V, D]``, or options of VisualEmbeddingConfig.

        Returns:
            The model, with the modules themselves as its parts. Their weights stay as they are, and their options are
            in its config. A module whose class is not registered works, but the model cannot be saved.

        Raises:
            UmieError: a module does not implement the contract of its slot, or the widths of two modules differ.
        """
        parts = {"encoder": encoder, "visual_embedding": visual_embedding, "fusion": fusion, "decoder": decoder}
        modules = {slot: part for slot, part in parts.items() if isinstance(part, nn.Module)}
        for slot, module in modules.items():
            if not isinstance(module, CONTRACTS[slot]):
                contract = CONTRACTS[slot]
                raise UmieError(
                    f"the {slot} is a {type(module).__qualname__}: pass a {contract.__module__}.{contract.__qualname__}"
                )
        options = {slot: dict(part) for slot, part in parts.items() if isinstance(part, Mapping)}
        return cls(UmieConfig(**options), modules=modules)

    def _init_weights(self, module: Any) -> None:
        """Leave the weights unchanged: every part initializes its own when it is built."""

    def get_input_embeddings(self) -> None:
        """Return None: both halves of the language model share its embedding, so FSDP must not wrap it separately."""

    def get_output_embeddings(self) -> None:
        """Return None, see ``get_input_embeddings``."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a saved model; see transformers. Only safetensors are read; nothing leads outside of a directory.

        Raises:
            UmieError: the directory does not exist, cannot be read, differs from its manifest, or its weights do not
                fit its configuration or are not finite.
        """
        source = pretrained_model_name_or_path
        folder = None
        if source is not None:
            check_saved(source)
            folder = Path(source) / (kwargs.get("subfolder") or "")
            if not folder.is_dir():
                folder = hub_folder(source, weights=True, **kwargs)
                kwargs = {key: value for key, value in kwargs.items() if key not in (*HUB_OPTIONS, "_commit_hash")}
                pretrained_model_name_or_path = folder
            _check_saved_model(folder)
        output_loading_info = kwargs.pop("output_loading_info", False)
        kwargs |= {"trust_remote_code": False, "use_safetensors": True}
        limit = _largest.set(folder)
        try:
            with local_only(folder or ""), no_warnings():
                name = pretrained_model_name_or_path
                model, info = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        except UmieError:
            raise
        except Exception as error:  # a damaged checkpoint makes transformers raise nearly anything
            raise UmieError(f"{source} cannot be loaded: {reason_of(error)}: copy or save the model again") from error
        finally:
            _largest.reset(limit)
        for problem, names in (
            ("is missing {} weights of this variant", info["missing_keys"]),
            ("has {} weights that this variant does not have", info["unexpected_keys"]),
        ):
            if names:
                raise UmieError(
                    f"{source} {problem.format(len(names))}, e.g. {min(names)}: check that it is complete and was "
                    "saved with the same configuration"
                )
        check_finite(model, str(source))
        return (model, info) if output_loading_info else model

    def check_can_be_saved(self) -> None:
        """Raise UmieError if the class of a part is not registered, so that a saved model could not be loaded again."""
        for slot, name in self._unregistered.items():
            hint = "only umie.fusion.VisualEmbedding can be loaded again"
            if slot in REGISTRIES:
                decorator = f"@{REGISTRIES[slot].package}.registry.register(NAME)"
                hint = f"add {decorator} and a Config to the class, then build the model again with from_parts"
            raise UmieError(f"the model cannot be saved: its {slot}, {name}, is not registered: {hint}")

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Write the configuration, all weights and their checksums; see transformers.

        Raises:
            UmieError: see ``check_can_be_saved``.
        """
        self.check_can_be_saved()
        super().save_pretrained(*args, **kwargs)
        folder = Path(args[0] if args else kwargs["save_directory"])
        if kwargs.get("is_main_process", True):
            names = [path.name for path in folder.iterdir() if path.is_file() and is_model_file(path.name)]
            write_manifest(folder, names, replaces=is_model_file)

    def load_part_weights(self) -> None:
        """Load the pretrained weights that the options of encoder and decoder name, if any.

        Modules passed to ``from_parts`` keep their weights.
        """
        for slot in ("decoder", "encoder"):
            module: Any = getattr(self, slot)
            if module is not None and slot not in self._given_slots:
                module.load_weights()

    @property
    def visual_input_names(self) -> tuple[str, ...]:
        """Names of the tensors of a batch that the visual encoder takes; FEATURES may replace the encoder's own."""
        return ("boxes", "visual_mask", *self._preprocessor.no_tensors())

    def embed_visual(self, visual: VisualFeatures | None, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Return visual states ``[B, V, D]`` and their mask, or None without visual slots or without an encoder."""
        if self.encoder is None or self.visual_embedding is None:
            return None
        if visual is None and "visual_mask" in inputs and inputs["visual_mask"].shape[1]:
            if FEATURES in inputs:
                visual = VisualFeatures(inputs[FEATURES], inputs["boxes"], inputs["visual_mask"])
            else:
                visual = self.encoder(**{name: inputs[name] for name in self.visual_input_names})
        if visual is None or not visual.mask.shape[1]:
            return None
        return self.visual_embedding(visual), visual.mask

    def fuse(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visual: VisualFeatures | None = None,
        *,
        output_attention: bool = False,
        **inputs: Any,
    ) -> tuple[FusedStates, Tensor, Tensor | None]:
        """Return the fused states, the text states ``[B, T, D]`` and the visual states ``[B, V, D]``."""
        for name in inputs:
            if name not in (*self.visual_input_names, FEATURES):
                names = ", ".join(self.visual_input_names)
                raise TypeError(f"unexpected input {name!r}: the image inputs of this variant are {names}")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        text_mask = bool_mask("attention_mask", attention_mask)
        text = self.decoder.encode_text(input_ids, attention_mask)
        embedded = self.embed_visual(visual, inputs)
        if embedded is None:
            nothing = text.new_zeros(text.shape[0], 1, text.shape[2]), text_mask.new_zeros(text.shape[0], 1)
            return self.fusion(text, text_mask, *nothing, output_attention=output_attention), text, None
        fused = self.fusion(text, text_mask, *embedded, output_attention=output_attention)
        return replace(fused, visual=embedded[0], num_text=text.shape[1]), text, embedded[0]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visual: VisualFeatures | None = None,
        labels: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        output_attention: bool = False,
        **inputs: Tensor,
    ) -> UmieOutput:
        """Run the variant with teacher forcing.

        Args:
            input_ids: ``[B, T]``, instruction and text.
            attention_mask: ``[B, T]``, 1 = real; all ones if left out.
            visual: precomputed features, used instead of images.
            labels: ``[B, L]``, -100 at positions to leave out of the loss.
            decoder_input_ids: ``[B, L]``, used instead of the shifted labels.
            output_attention: return the attention over the visual slots.
            inputs: the tensors of the encoder's ``preprocess``, none for text only; and the other inputs of the decoder
                (``decoder.input_names``).
        """
        given = {"labels": labels, "decoder_input_ids": decoder_input_ids, **inputs}
        own = {name: given[name] for name in self.decoder.input_names if given.get(name) is not None}
        seen = {name: value for name, value in inputs.items() if name not in own}
        fused, text, visual_states = self.fuse(
            input_ids, attention_mask, visual, output_attention=output_attention, **seen
        )
        decoded = self.decoder(fused, **own)
        return UmieOutput(
            loss=decoded.loss,
            logits=decoded.logits,
            gate=fused.gate,
            text_states=text,
            visual_states=visual_states,
            fused_states=fused.states,
            fused_mask=fused.mask,
            attention=fused.attention,
        )

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        visual: VisualFeatures | None = None,
        labels: Tensor | None = None,
        constraint: Constraint | None = None,
        **inputs_and_options: Any,
    ) -> Any:
        """Generate token ids ``[B, L]``.

        Args:
            input_ids: ``[B, T]``, as in forward.
            attention_mask: ``[B, T]``, as in forward.
            visual: precomputed features, used instead of images.
            labels: ignored, so that a training batch can be passed as is.
            constraint: admits only well-formed answers; from ``UmieProcessor.constraint``.
            inputs_and_options: the tensors of ``preprocess``; everything else is passed to transformers' generate
                (``max_new_tokens``, ``num_beams``, ``do_sample``, ...).
        """
        if not isinstance(self.decoder, GeneratingDecoder):
            raise UmieError(
                f"the decoder {type(self.decoder).__name__} scores candidates and does not generate: use "
                "UmieProcessor.answers, or umie.Extractor"
            )
        names = (*self.visual_input_names, FEATURES)
        tensors = {name: value for name, value in inputs_and_options.items() if name in names}
        options = {name: value for name, value in inputs_and_options.items() if name not in names}
        fused, _, _ = self.fuse(input_ids, attention_mask, visual, output_attention=False, **tensors)
        if not {"max_new_tokens", "max_length", "generation_config"} & options.keys():
            options["max_new_tokens"] = DEFAULT_NEW_TOKENS
        return self.decoder.generate(fused, constraint, **options)

    @torch.no_grad()
    def initialize_fusion(
        self, input_ids: Tensor, attention_mask: Tensor, visual: VisualFeatures | None = None, **inputs: Any
    ) -> dict[str, float]:
        """Let the fusion set weights from a first batch; see ``Fusion.initialize``. Never called automatically."""
        embedded = self.embed_visual(visual, inputs)
        if embedded is None:
            return {}
        text = self.decoder.encode_text(input_ids, attention_mask)
        measured: dict[str, float] = self.fusion.initialize(text, attention_mask, *embedded)
        return measured


def _check_saved_model(folder: Path) -> None:
    """Raise UmieError unless a folder has the files of a saved model, as its manifest lists them."""
    check_checkpoint(folder)
    check_manifest(folder, is_model_file)
    path = folder / "config.json"
    values = read_json(path, "the configuration of a saved model")
    if values.get("model_type") != UmieConfig.model_type:
        raise UmieError(f"{path}: model_type is {shown(values.get('model_type'))}: not a model that umie saved")
    for slot in CONTRACTS:
        if not isinstance(values.get(slot), dict):
            raise UmieError(f"{path}: {slot} is {shown(values.get(slot))}: expected a mapping of options")
    if not any(folder.glob("*.safetensors")):
        raise UmieError(f"{folder}: has no .safetensors files, the only weights that are read: save the model again")


AutoConfig.register("umie", UmieConfig)
AutoModel.register(UmieConfig, UmieModel)
