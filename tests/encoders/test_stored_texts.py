"""A frozen text encoder encodes each text once, and gives what it gives without the store."""

import pytest
import torch

from umie.decoders.span import SpanDecoder
from umie.encoders import FeatureCache, StoredTexts
from umie.model import UmieModel
from umie.training.parts import freeze

DROPOUT = {
    "span": {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5},
    "t5": {"dropout_rate": 0.5},
}
LENGTHS = (5, 3, 1)


def model_of(name, fusion="concat"):
    torch.manual_seed(0)
    decoder = {"name": name, "source": "tiny", "overrides": DROPOUT[name]}
    return UmieModel.from_parts(None, {"name": fusion}, decoder)


def texts(width=6):
    """Return three texts in a batch of a width, with garbage in the padding."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 90, (length,), generator=generator) for length in LENGTHS]
    ids = torch.full((len(rows), width), 7)
    mask = torch.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return ids, mask


@pytest.mark.parametrize("name", list(DROPOUT))
def test_each_text_is_encoded_once(name, tmp_path):
    model = model_of(name).eval()
    expected = model.decoder.encode_text(*texts())
    freeze(model, ["text"])
    model.train()
    calls = []
    model.decoder.text_model.register_forward_hook(lambda *_: calls.append(1))
    stored = model.stored_texts = StoredTexts(model.decoder, FeatureCache(tmp_path))
    for width in (6, 6, 9):  # the second and third time nothing is encoded
        ids, mask = texts(width)
        found = model.encode_text(ids, mask)
        assert not found.requires_grad
        assert not found[mask == 0].any()
        torch.testing.assert_close(found[mask == 1], expected[texts()[1] == 1], atol=1e-5, rtol=1e-5)
        assert (len(calls), stored.num_encoded) == (3, 3)
    assert all(module.training for module in model.decoder.text_model.modules())  # as before
    ids, mask = texts()
    mask[1] = 0  # a row without a text
    assert not model.encode_text(ids, mask)[1].any()

    other = model_of(name, "cross_attention")  # the same weights in another variant, which finds the states on the disk
    freeze(other, ["text"])
    other.stored_texts = StoredTexts(other.decoder, FeatureCache(tmp_path))
    assert torch.equal(other.encode_text(*texts()), model.encode_text(*texts()))
    assert other.stored_texts.num_encoded == 0

    with torch.no_grad():
        next(other.decoder.text_model.parameters()).add_(0.5)
    assert not torch.allclose(other.encode_text(*texts()), found[:, :6])
    assert other.stored_texts.num_encoded == 3  # other weights
    with torch.autocast("cpu", torch.bfloat16):
        other.encode_text(*texts())
    assert other.stored_texts.num_encoded == 6  # another precision


@pytest.mark.parametrize("name", list(DROPOUT))
def test_a_frozen_text_encoder_has_no_dropout(name, tmp_path):
    model = model_of(name).train()
    model.stored_texts = StoredTexts(model.decoder, FeatureCache(tmp_path))
    one, two = (model.encode_text(*texts()) for _ in range(2))
    assert one.requires_grad
    assert not torch.equal(one, two)  # dropout of an encoder that is trained, which is not stored
    assert model.stored_texts.num_encoded == 0
    model.stored_texts = None
    freeze(model, ["text"])
    one, two = (model.encode_text(*texts()) for _ in range(2))
    assert torch.equal(one, two)


def test_a_decoder_without_a_text_encoder_is_not_stored(tmp_path):
    model = UmieModel.from_parts(None, {"name": "concat"}, {"name": "causal", "source": "tiny"})
    assert model.decoder.text_model is None
    freeze(model, ["text"])
    model.stored_texts = StoredTexts(model.decoder, FeatureCache(tmp_path))
    expected = model.decoder.encode_text(*texts())
    assert torch.equal(model.encode_text(*texts()), expected)
    assert model.stored_texts.num_encoded == 0


class Halved(SpanDecoder):
    """A decoder of a plugin."""

    def _text_states(self, input_ids, attention_mask):
        return super()._text_states(input_ids, attention_mask) / 2


def test_what_the_states_depend_on(tmp_path):
    torch.manual_seed(0)
    plain = SpanDecoder(SpanDecoder.Config())
    halved = Halved(Halved.Config())
    halved.load_state_dict(plain.state_dict())
    cache = FeatureCache(tmp_path)
    assert StoredTexts(plain, cache).fingerprint() != StoredTexts(halved, cache).fingerprint()
    other = SpanDecoder(SpanDecoder.Config(overrides=DROPOUT["span"]))
    other.load_state_dict(plain.state_dict())
    assert StoredTexts(plain, cache).fingerprint() == StoredTexts(other, cache).fingerprint()


def test_a_text_that_another_process_encodes_is_not_encoded_again(tmp_path, monkeypatch):
    one, two = (StoredTexts(model_of("span").eval().decoder, FeatureCache(tmp_path)) for _ in range(2))
    with torch.no_grad():

        def missed(key):
            one(*texts())  # while the other one waits for the lock

        monkeypatch.setattr(two, "_stored", missed)
        assert torch.equal(two(*texts()), one(*texts()))
    assert (one.num_encoded, two.num_encoded) == (len(LENGTHS), 0)


@pytest.mark.parametrize("name", list(DROPOUT))
def test_a_compiled_model_uses_the_store(name, tmp_path):
    model = model_of(name)
    freeze(model, ["text"])
    model.stored_texts = StoredTexts(model.decoder, FeatureCache(tmp_path))
    compiled = torch.compile(model.encode_text, backend="eager", dynamic=True)
    for width in (6, 9, 7):
        ids, mask = texts(width)
        torch.testing.assert_close(compiled(ids, mask), model.encode_text(ids, mask))
    assert model.stored_texts.num_encoded == len(LENGTHS)
