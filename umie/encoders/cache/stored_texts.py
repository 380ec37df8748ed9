"""StoredTexts: a frozen text encoder that encodes each text once."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from umie.encoders.base import hash_tensors
from umie.encoders.cache.cached_encoder import state_of
from umie.encoders.cache.store import FeatureCache

FORMAT = 1  # increment it when the same text and encoder give other states or are stored in another way
MAX_BYTES = 1 << 30  # of states in memory; others are read from the cache each time
STATES = "states"


class StoredTexts:
    """The text states of a decoder whose text encoder is frozen; set it as ``UmieModel.stored_texts``.

    A text is encoded by itself, so that its states do not depend on the texts next to it. Variants that differ only in
    their fusion share a cache: a text is encoded by the first of them. ``num_encoded`` counts the texts that were
    really encoded. If the weights of the encoder change, texts are encoded again.

    Args:
        decoder: the decoder; its ``text_model`` alone computes text states.
        cache: where the states are kept.
    """

    def __init__(self, decoder: Any, cache: FeatureCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.num_encoded = 0
        self._held: dict[str, Tensor] = {}
        self._held_bytes = 0
        self._state: list[tuple[int, int]] = []
        self._fingerprint = ""

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the text states ``[B, T, D]``, zero in padding; ``attention_mask [B, T]``, 1 = real."""
        real = attention_mask.bool()
        fingerprint = self.fingerprint()
        rows = [self._states(fingerprint, row[own]) for row, own in zip(input_ids, real, strict=True)]
        states = rows[0].new_zeros(*input_ids.shape, rows[0].shape[-1])
        states[real.cpu()] = torch.cat(rows)
        return states.to(input_ids.device)

    def fingerprint(self) -> str:
        """Return a hash of everything the states depend on except the text: options, weights, precision."""
        tensors = [*self.decoder.text_model.parameters(), *self.decoder.text_model.buffers()]
        if self._state != (state := state_of(tensors)):
            options = [FORMAT, type(self.decoder).__qualname__, self.decoder.saved_options().get("config")]
            digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
            hash_tensors(digest, self.decoder.text_model.state_dict())
            self._state, self._fingerprint = state, digest.hexdigest()
        device = tensors[0].device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensors[0].dtype
        return f"{self._fingerprint} {precision}"

    def _states(self, fingerprint: str, token_ids: Tensor) -> Tensor:
        """Return the states ``[T, D]`` of the tokens of a text, on the CPU."""
        key = hashlib.sha256(f"{fingerprint} {token_ids.tolist()}".encode()).hexdigest()
        if key in self._held:
            return self._held[key]
        found = self.cache.get(key)
        if found is None:
            self.num_encoded += 1
            encoded = self.decoder.encode_text(token_ids[None], torch.ones_like(token_ids)[None])[0]
            found = {STATES: encoded.detach().cpu().clone()}
            self.cache.put(key, found)
        states = found[STATES]
        if self._held_bytes + states.nbytes <= MAX_BYTES:
            self._held_bytes += states.nbytes
            self._held[key] = states
        return states
