"""StoredTexts: a frozen text encoder that encodes each text once."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor

from umie.encoders.base import code_of, hash_tensors
from umie.encoders.cache.cached_encoder import state_of
from umie.encoders.cache.store import FeatureCache

FORMAT = 1  # increment it when the same text and encoder give other states or are stored in another way
MAX_BYTES = 1 << 30  # of states in memory; others are read from the cache each time
STATES = "states"


class StoredTexts:
    """The text states of a decoder whose text encoder is frozen; set it as ``UmieModel.stored_texts``.

    A text is encoded by itself, so that its states do not depend on the texts next to it. Variants that differ only in
    their fusion share a cache, and the first that needs a text encodes it; the others wait for it. ``num_encoded``
    counts the texts that were really encoded. If the weights of the encoder change, as PyTorch counts changes (not
    those of ``parameter.data``), texts are encoded again.

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

    @torch.compiler.disable  # type: ignore[untyped-decorator] # a compiled model calls it as it is
    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the text states ``[B, T, D]``, zero in padding; ``attention_mask [B, T]``, 1 = real."""
        real, fingerprint = attention_mask.bool(), self.fingerprint()
        texts = [row[own] for row, own in zip(input_ids, real, strict=True)]
        keys = [hashlib.sha256(f"{fingerprint} {text.tolist()}".encode()).hexdigest() for text in texts]
        found = {key: self._stored(key) for key, text in zip(keys, texts, strict=True) if len(text)}
        if any(states is None for states in found.values()):
            with self.cache.lock(fingerprint.split()[0]):
                for key, text in zip(keys, texts, strict=True):
                    if key in found and found[key] is None:
                        found[key] = self._encoded(key, text)
        some = next((states for states in found.values() if states is not None), None)
        width = self.decoder.widths["d_model"] if some is None else some.shape[-1]
        filled = torch.zeros(*input_ids.shape, width, dtype=None if some is None else some.dtype)
        for row, own, key in zip(filled, real.cpu(), keys, strict=True):
            if key in found:
                row[own] = found[key]
        return filled.to(input_ids.device)

    def fingerprint(self) -> str:
        """Return a hash of everything the states depend on except the text: options, weights, code; and the precision.

        Dropouts are left out, because a frozen encoder has none.
        """
        tensors = [*self.decoder.text_model.parameters(), *self.decoder.text_model.buffers()]
        if self._state != (state := state_of(tensors)):
            config = self.decoder.saved_options().get("config") or {}
            options = {name: value for name, value in config.items() if "drop" not in name}
            parts = [FORMAT, [code_of(part) for part in type(self.decoder).__mro__[:-1]], options]
            digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
            hash_tensors(digest, self.decoder.text_model.state_dict())
            self._state, self._fingerprint = state, digest.hexdigest()
        device = tensors[0].device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensors[0].dtype
        return f"{self._fingerprint} {precision}"

    def _stored(self, key: str) -> Tensor | None:
        """Return the states ``[T, D]`` of a text, on the CPU, if they are known."""
        if key in self._held:
            return self._held[key]
        found = self.cache.get(key)
        return None if found is None else self._kept(key, found[STATES])

    def _encoded(self, key: str, token_ids: Tensor) -> Tensor:
        """Return the states of a text that another process may have stored while this one waited."""
        found = self.cache.get_after_miss(key)
        if found is None:
            self.num_encoded += 1
            encoded = self.decoder.encode_text(token_ids[None], torch.ones_like(token_ids)[None])[0]
            found = {STATES: encoded.detach().cpu().clone()}
            self.cache.put(key, found)
        return self._kept(key, found[STATES])

    def _kept(self, key: str, states: Tensor) -> Tensor:
        if self._held_bytes + states.nbytes <= MAX_BYTES:
            self._held_bytes += states.nbytes
            self._held[key] = states
        return states
