"""UmieModel: a visual encoder, a fusion and a decoder as one transformers model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from umie import decoders, encoders, fusion
from umie.constrained import Constraint
from umie.errors import UmieError
from umie.fusion import VisualEmbedding, VisualEmbeddingConfig
from umie.registry import Registry
from umie.types import FEATURES, FusedStates, VisualFeatures

DEFAULT_NEW_TOKENS = 128  # the paper's longest output


@strict
class UmieConfig(PreTrainedConfig):
    """The whole variant: for each slot the registered name and the options of its part.

    Args:
        encoder: e.g. ``{"name": "tiny", "crop_size": 10}``.
        visual_embedding: options of VisualEmbeddingConfig; widths come from the encoder and the decoder.
        fusion: e.g. ``{"name": "gated", "residual": "paper"}``; widths come from the decoder.
        decoder: e.g. ``{"name": "t5", "source": "tiny"}``; a saved model carries the full shape.
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
    """What a forward pass gives.

    Args:
        loss: mean cross-entropy over the labels, where labels were given.
        logits: ``[B, L, vocabulary]``.
        gate: ``[B]``, where the fusion has a gate; 0 for an example without an image.
        text_states: ``[B, T, D]`` before the fusion.
        visual_states: ``[B, V, D]``, where there are slots that the fusion looks at.
        fused_states: ``[B, T', D]``.
        fused_mask: bool ``[B, T']``.
        attention: ``[B, H, T, V]``, where asked for.
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
    """A variant: images to visual features, text to states, both fused, and decoded.

    ``save_pretrained`` writes every weight, those of a frozen encoder too, so that the folder is complete.
    A fusion that does not look at the image is built without an encoder (``.encoder`` is None).
    """

    config_class = UmieConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    accepts_loss_kwargs = False  # keeps the Trainer from passing its own keywords to forward
    supports_gradient_checkpointing = True  # of the language model's blocks

    def __init__(self, config: UmieConfig) -> None:
        super().__init__(config)
        self.decoder = _construct(decoders.registry, config.decoder or {})
        widths = dict(self.decoder.widths)
        self.fusion = _construct(fusion.registry, config.fusion or {}, widths)
        self._preprocessor = encoders.build_preprocessor(config.encoder or {})
        self.encoder: encoders.VisualEncoder | None = None
        self.visual_embedding: VisualEmbedding | None = None
        if self.fusion.uses_image:
            self.encoder = _construct(encoders.registry, config.encoder or {})
            config.encoder = {**(config.encoder or {}), **self.encoder.saved_options()}
            try:
                options = {"feature_dim": self.encoder.feature_dim, **widths, **(config.visual_embedding or {})}
                self.visual_embedding = VisualEmbedding(VisualEmbeddingConfig(**options))
            except (TypeError, UmieError) as error:
                raise UmieError(f"visual_embedding: {error}") from error
        config.decoder = {"name": (config.decoder or {})["name"], **self.decoder.saved_options()}
        self.post_init()
        inside = [part for part in self.decoder.modules() if isinstance(part, PreTrainedModel)]
        self._no_split_modules = sorted(
            {name for part in inside for name in part._no_split_modules or ()}
        )  # FSDP's units

    def _init_weights(self, module: Any) -> None:
        """Leave the weights alone: every part draws its own when it is built."""

    def get_input_embeddings(self) -> None:
        """Return None: the language model's embedding is shared by its halves, so FSDP must not part it from them."""

    def get_output_embeddings(self) -> None:
        """Return None, see ``get_input_embeddings``."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a saved model; see transformers. A folder that lacks weights raises UmieError."""
        wanted = kwargs.pop("output_loading_info", False)
        try:
            model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        except UmieError:
            raise
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise UmieError(f"{args[0] if args else 'the checkpoint'} cannot be loaded: {reason}") from error
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise UmieError(
                f"{args[0] if args else 'the checkpoint'} lacks {len(missing)} weights of this variant, e.g. "
                f"{missing[0]}; is it complete, and saved from the same configuration?"
            )
        return (model, info) if wanted else model

    def load_part_weights(self) -> None:
        """Load the pretrained weights that the options of encoder and decoder name, if any."""
        self.decoder.load_weights()
        if self.encoder is not None:
            self.encoder.load_weights()

    @property
    def visual_input_names(self) -> tuple[str, ...]:
        """Names of the tensors of a batch that the visual encoder takes; FEATURES may stand in place of its own."""
        return ("boxes", "visual_mask", *self._preprocessor.no_tensors())

    def embed_visual(self, visual: VisualFeatures | None, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Return visual states ``[B, V, D]`` and their mask, or None where there is nothing to look at."""
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
                raise TypeError(f"unexpected input {name!r}; the images of this variant come as {names}")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        text = self.decoder.encode_text(input_ids, attention_mask)
        text_mask = attention_mask.bool()
        embedded = self.embed_visual(visual, inputs)
        if embedded is None:
            nothing = text.new_zeros(text.shape[0], 1, text.shape[2]), text_mask.new_zeros(text.shape[0], 1)
            return self.fusion(text, text_mask, *nothing, output_attention=output_attention), text, None
        fused = self.fusion(text, text_mask, *embedded, output_attention=output_attention)
        return fused, text, embedded[0]

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
            visual: features, in place of images.
            labels: ``[B, L]``, -100 where the loss shall not count.
            decoder_input_ids: ``[B, L]``, in place of the shifted labels.
            output_attention: return the attention over the visual slots.
            inputs: the tensors of the encoder's ``preprocess``; none of them for text alone.
        """
        fused, text, visual_states = self.fuse(
            input_ids, attention_mask, visual, output_attention=output_attention, **inputs
        )
        decoded = self.decoder(fused, labels=labels, decoder_input_ids=decoder_input_ids)
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
            visual: features, in place of images.
            labels: not looked at, so that a training batch can be passed as it is.
            constraint: lets only well-formed answers through; from ``UmieProcessor.constraint``.
            inputs_and_options: the tensors of ``preprocess``; anything else goes to transformers' generate
                (``max_new_tokens``, ``num_beams``, ``do_sample``, ...).
        """
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
        """Let the fusion set weights from a first batch; see ``Fusion.initialize``. Never done by itself."""
        embedded = self.embed_visual(visual, inputs)
        if embedded is None:
            return {}
        text = self.decoder.encode_text(input_ids, attention_mask)
        measured: dict[str, float] = self.fusion.initialize(text, attention_mask.bool(), *embedded)
        return measured


def _construct(registry: Registry[Any], options: Mapping[str, Any], widths: Mapping[str, Any] | None = None) -> Any:
    if widths and "d_model" in options:
        raise UmieError(f"{registry.kind}: d_model is the decoder's and cannot be set")
    options = {**(widths or {}), **options}
    name = options.pop("name")
    return registry.construct(name, options)


AutoConfig.register("umie", UmieConfig)
AutoModel.register(UmieConfig, UmieModel)
