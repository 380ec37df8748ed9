"""UmieModel: encoders of media, a fusion and a decoder as one transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from html import escape
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
from umie.encoders.base import in_evaluation_mode, no_slots
from umie.encoders.several_images import SOURCES, image_key, in_order, without_image
from umie.errors import UmieError, shown
from umie.files import read_json
from umie.hub import HUB_OPTIONS, check_saved, hub_folder
from umie.language_models.sources import no_warnings
from umie.model_parts import (
    CONTRACTS,
    ENCODER_SLOTS,
    REGISTRIES,
    Part,
    build_part,
    build_visual_embedding,
    check_medium,
    options_of,
    without_folders,
)
from umie.records import Medium
from umie.types import FEATURES, FusedStates, VisualFeatures, bool_mask, key_of
from umie.weights import check_finite, reason_of

DEFAULT_NEW_TOKENS = 128  # the paper's longest output


# the folder that a model is loaded from: its weight files limit the parameters, before these take memory
_largest: ContextVar[Path | None] = ContextVar("_largest", default=None)


@strict
class UmieConfig(PreTrainedConfig):
    """A whole variant: for each slot the registered name and the options of its part.

    Args:
        encoder: that of images, e.g. ``{"name": "tiny", "crop_size": 10}``.
        visual_embedding: options of VisualEmbeddingConfig; widths come from the encoder and the decoder.
        fusion: e.g. ``{"name": "gated", "residual": "paper"}``; widths come from the decoder.
        decoder: e.g. ``{"name": "t5", "source": "tiny"}``; a saved model contains the full shape.
        video_encoder: e.g. ``{"name": "tiny_video"}``; None for a variant that does not use video.
        audio_encoder: e.g. ``{"name": "tiny_audio"}``; None for a variant that does not use sound.
    """

    model_type = "umie"

    encoder: dict[str, Any] | None = None
    visual_embedding: dict[str, Any] | None = None
    fusion: dict[str, Any] | None = None
    decoder: dict[str, Any] | None = None
    video_encoder: dict[str, Any] | None = None
    audio_encoder: dict[str, Any] | None = None

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
        loss: the mean loss of the labels, see ``Decoder.loss``; None without labels.
        logits: ``[B, L, vocabulary]``, or ``[B, S + R + 1, C + P]`` of a decoder that scores candidates.
        gate: ``[B]``, 0 for an example without an image; None if the fusion has no gate.
        text_states: ``[B, T, D]`` before the fusion.
        visual_states: ``[B, V, D]``, the slots of images, then of videos and sounds; None without slots, or if the
            fusion does not use them.
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
    """A variant: encode the text and its media, fuse both, and decode.

    ``save_pretrained`` writes all weights, including those of a frozen encoder, so the directory is complete.
    A fusion that does not use media is built without encoders (``.encoder``, that of images, is None).

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
        self._preprocessors: dict[Medium, encoders.MediaPreprocessor] = {}
        self.encoder: encoders.VisualEncoder | None = None
        self.video_encoder: encoders.VisualEncoder | None = None
        self.audio_encoder: encoders.VisualEncoder | None = None
        self.visual_embedding: nn.Module | None = None
        self.stored_texts: encoders.StoredTexts | None = None  # used if the text encoder is frozen
        self.is_trained = False  # so that training does not initialize its fusion
        self.drop_media = 0.0  # the share of rows whose slots of a medium are hidden in training
        visual_widths: dict[str, Any] = dict(widths)
        for medium, slot in ENCODER_SLOTS.items():
            module: Any = modules.get(slot)
            options = getattr(config, slot)
            if module is None and options is None:
                continue
            if module is not None:
                check_medium(slot, module)
            self._preprocessors[medium] = encoders.build_preprocessor(options) if module is None else module.preprocess
            if self.fusion.uses_image:
                encoder = build_part(slot, options, modules)
                setattr(self, slot, encoder)
                visual_widths["feature_dim" if medium == "image" else f"{medium}_dim"] = encoder.feature_dim
        if self.fusion.uses_image:
            self.visual_embedding = build_visual_embedding(config.visual_embedding, modules, visual_widths)
        inherited = {"fusion": widths, "visual_embedding": visual_widths}
        self._given_slots = frozenset(modules)
        self._unregistered: dict[str, str] = {}
        for slot, module in modules.items():
            options = options_of(slot, module, inherited.get(slot, {}))
            if options is None:
                self._unregistered[slot] = f"{type(module).__module__}.{type(module).__qualname__}"
            setattr(config, slot, {"name": self._unregistered.get(slot)} if options is None else options)
        for medium, encoder in self.media_encoders.items():
            slot = ENCODER_SLOTS[medium]
            setattr(config, slot, {**(getattr(config, slot) or {}), **encoder.saved_options()})
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
        *,
        video_encoder: Part | None = None,
        audio_encoder: Part | None = None,
    ) -> UmieModel:
        """Return a model of built modules, of options, or of both.

        ``UmieModel(config)`` is the special case in which every part is built from its options.

        Args:
            encoder: an ``umie.encoders.VisualEncoder``, or a mapping with ``name`` and options; None for the default.
            fusion: an ``umie.fusion.Fusion``, or as above. Options take their widths from the decoder.
            decoder: an ``umie.decoders.Decoder``, or as above.
            visual_embedding: a module from VisualFeatures to ``[B, V, D]``, or options of VisualEmbeddingConfig.
            video_encoder: as ``encoder``; None for a variant that does not use video.
            audio_encoder: as ``encoder``; None for a variant that does not use sound.

        Returns:
            The model, with the modules themselves as its parts. Their weights stay as they are, and their options are
            in its config. A module whose class is not registered works, but the model cannot be saved.

        Raises:
            UmieError: a module does not implement the contract of its slot, or the widths of two modules differ.
        """
        parts = {
            "encoder": encoder,
            "visual_embedding": visual_embedding,
            "fusion": fusion,
            "decoder": decoder,
            "video_encoder": video_encoder,
            "audio_encoder": audio_encoder,
        }
        modules = {slot: part for slot, part in parts.items() if isinstance(part, nn.Module)}
        for slot, module in modules.items():
            if not isinstance(module, CONTRACTS[slot]):
                contract = CONTRACTS[slot]
                raise UmieError(
                    f"the {slot} is a {type(module).__qualname__}: pass a {contract.__module__}.{contract.__qualname__}"
                )
        options = {slot: dict(part) for slot, part in parts.items() if isinstance(part, Mapping)}
        return cls(UmieConfig(**options), modules=modules)

    def _repr_html_(self) -> str:
        """Return a table of the parts, their options and parameters, for notebooks; ``print`` shows the layers."""
        rows = ""
        for slot in (*ENCODER_SLOTS.values(), "visual_embedding", "fusion", "decoder"):
            module: Any = getattr(self, slot)
            options = dict(getattr(self.config, slot) or {})
            if module is None or (not options and not any(True for _ in module.parameters())):
                continue
            name = options.pop("name", "")
            options.pop("config", None)  # the whole configuration of a language model
            number = sum(parameter.numel() for parameter in module.parameters())
            trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
            cells = (slot, name, ", ".join(f"{key}={value}" for key, value in options.items()), f"{number:,}")
            rows += f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}<td>{trained:,}</td></tr>"
        head = "".join(f"<th>{name}</th>" for name in ("part", "name", "options", "parameters", "trained"))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"

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
        model.is_trained = True
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
        """Write the configuration, without local paths, all weights and their checksums; see transformers.

        Raises:
            UmieError: see ``check_can_be_saved``.
        """
        self.check_can_be_saved()
        given = {slot: getattr(self.config, slot) for slot in ("decoder", *ENCODER_SLOTS.values())}
        try:
            for slot, options in given.items():
                setattr(self.config, slot, without_folders(options))
            super().save_pretrained(*args, **kwargs)
        finally:
            for slot, options in given.items():
                setattr(self.config, slot, options)
        folder = Path(args[0] if args else kwargs["save_directory"])
        if kwargs.get("is_main_process", True):
            names = [path.name for path in folder.iterdir() if path.is_file() and is_model_file(path.name)]
            write_manifest(folder, names, replaces=is_model_file)

    def load_part_weights(self) -> None:
        """Load the pretrained weights that the options of encoder and decoder name, if any.

        Modules passed to ``from_parts`` keep their weights.
        """
        for slot in ("decoder", *ENCODER_SLOTS.values()):
            module: Any = getattr(self, slot)
            if module is not None and slot not in self._given_slots:
                module.load_weights()

    @property
    def visual_input_names(self) -> tuple[str, ...]:
        """Names of the tensors of a batch that the encoders take; FEATURES may replace an encoder's own.

        Batches with records of several images have them for each image, see ``umie.encoders.several_images``.
        """
        return tuple(key_of(medium, name) for medium, part in self._preprocessors.items() for name in part.nothing())

    @property
    def media_encoders(self) -> dict[Medium, encoders.VisualEncoder]:
        """The encoder of each medium that the variant uses."""
        built = {medium: getattr(self, slot) for medium, slot in ENCODER_SLOTS.items()}
        return {medium: encoder for medium, encoder in built.items() if encoder is not None}

    def embed_visual(self, visual: VisualFeatures | None, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Return visual states ``[B, V, D]`` and their mask, or None without slots or without encoders."""
        found: dict[str, VisualFeatures] = {}
        for medium in self.media_encoders:
            slots = visual if medium == "image" else None
            if slots is None:
                slots = self.encode_medium(medium, inputs)
            if slots is not None and slots.mask.shape[1]:
                found[medium] = self._dropped(slots)
        if not found or self.visual_embedding is None:
            return None
        mask = torch.cat([slots.mask for slots in found.values()], dim=1)
        image = found.pop("image", None)
        states = self.visual_embedding(image, **found) if found else self.visual_embedding(image)
        return states, mask

    def encode_medium(self, medium: Medium, inputs: Mapping[str, Tensor]) -> VisualFeatures | None:
        """Return the features of a medium, computed from the tensors of a batch or among them; None without slots.

        The encoder runs once for the first images of all records, once for the second ones, and so on.
        """
        mask = inputs.get(key_of(medium, "visual_mask"))
        if mask is None or not mask.shape[1]:
            return None
        own: dict[str, Any] = {name: inputs.get(key_of(medium, name)) for name in (*no_slots(medium), FEATURES)}
        sources = inputs.get(SOURCES) if medium == "image" else None
        features = own[FEATURES]
        if features is None:
            encoder, names = self.media_encoders[medium], self._preprocessors[medium].nothing()
            if sources is None:
                encoded: VisualFeatures = encoder(**{name: inputs[key_of(medium, name)] for name in names})
                return encoded
            parts: list[Tensor] = []
            while image_key(number := len(parts) + 1, "visual_mask") in inputs:
                encoded = encoder(**{name: inputs[image_key(number, name)] for name in names})
                parts.append(encoded.features)
            features = in_order(parts, sources)
        images = None if sources is None else sources[..., 0]
        return VisualFeatures(features, own["boxes"], mask, own.get("spans"), own.get("paths"), images)

    def _takes(self, name: str) -> bool:
        """Return whether a tensor of a batch is one of media."""
        return name == SOURCES or without_image(name) in self.visual_input_names or name.endswith(FEATURES)

    def _dropped(self, slots: VisualFeatures) -> VisualFeatures:
        """Return the slots of a medium; in training those of some rows are hidden, see ``drop_media``."""
        if not self.training or not self.drop_media:
            return slots
        kept = torch.rand(len(slots.mask), 1, device=slots.mask.device) >= self.drop_media
        return replace(slots, mask=slots.mask & kept)

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the text states ``[B, T, D]``.

        A frozen text encoder works without dropout, as a frozen encoder of images does, so that its states may be
        stored.
        """
        text_model = self.decoder.text_model
        if text_model is None or any(parameter.requires_grad for parameter in text_model.parameters()):
            states: Tensor = self.decoder.encode_text(input_ids, attention_mask)
            return states
        with torch.no_grad(), in_evaluation_mode(text_model):
            frozen: Tensor = (self.stored_texts or self.decoder.encode_text)(input_ids, attention_mask)
            return frozen

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
            if not self._takes(name):
                names = ", ".join(self.visual_input_names)
                raise TypeError(f"unexpected input {name!r}: the image inputs of this variant are {names}")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        text_mask = bool_mask("attention_mask", attention_mask)
        text = self.encode_text(input_ids, attention_mask)
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
            inputs: the tensors of the encoders' ``preprocess``, none for text only, those of videos and sounds with a
                prefix (``audio.boxes``); and the other inputs of the decoder (``decoder.input_names``).
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
        tensors = {name: value for name, value in inputs_and_options.items() if self._takes(name)}
        options = {name: value for name, value in inputs_and_options.items() if name not in tensors}
        fused, _, _ = self.fuse(input_ids, attention_mask, visual, output_attention=False, **tensors)
        if not {"max_new_tokens", "max_length", "generation_config"} & options.keys():
            options["max_new_tokens"] = DEFAULT_NEW_TOKENS
        return self.decoder.generate(fused, constraint, **options)

    @torch.no_grad()
    def initialize_fusion(
        self, input_ids: Tensor, attention_mask: Tensor, visual: VisualFeatures | None = None, **inputs: Any
    ) -> dict[str, float]:
        """Let the fusion set weights from a first batch; see ``Fusion.initialize``. ``train`` calls it."""
        embedded = self.embed_visual(visual, inputs)
        if embedded is None:
            return {}
        text = self.encode_text(input_ids, attention_mask)
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
        if slot in ("video_encoder", "audio_encoder") and values.get(slot) is None:
            continue
        if not isinstance(values.get(slot), dict):
            raise UmieError(f"{path}: {slot} is {shown(values.get(slot))}: expected a mapping of options")
    if not any(folder.glob("*.safetensors")):
        raise UmieError(f"{folder}: has no .safetensors files, the only weights that are read: save the model again")


AutoConfig.register("umie", UmieConfig)
AutoModel.register(UmieConfig, UmieModel)
