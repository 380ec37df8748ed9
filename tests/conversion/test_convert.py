"""Conversion of published checkpoints: the values of the published code and of plain equations."""

import collections
import json
from pathlib import Path

import pytest
import torch
from published_model import CONFIG, OTHER, inputs, state_dict, values
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from umie.cli.convert import convert as command
from umie.conversion import convert_released
from umie.errors import UmieError
from umie.model import UmieModel
from umie.processor import UmieProcessor
from umie.records import Record
from umie.types import VisualFeatures

RELEASED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "released_tiny"
OUTPUTS = ("text_states", "visual_states", "gate", "fused_states", "logits")
UNUSED = {"encoder.gate.feat.weight", "proj_t.weight", "proj_t_2.weight", "proj_v.weight", "proj_v_2.weight"}


def write(folder, state=None, config=CONFIG, name="state.pth", **options):
    """Write a state dict and its configuration; return both paths."""
    state = state_dict(config) if state is None else state
    if name.endswith(".pth"):
        torch.save(collections.OrderedDict(state), folder / name, **options)
    else:
        save_file({key: value.clone() for key, value in state.items()}, folder / name)
    (folder / "config.json").write_text(json.dumps({**config, "note": "made by a test"}))
    return folder / name, folder / "config.json"


def run(folder, given):
    model = UmieModel.from_pretrained(folder)
    mask = torch.ones(given["boxes"].shape[:2], dtype=torch.bool)
    with torch.no_grad():
        return model(
            input_ids=given["input_ids"],
            attention_mask=torch.ones_like(given["input_ids"]),
            visual=VisualFeatures(given["features"], given["boxes"], mask),
            decoder_input_ids=given["decoder_input_ids"],
        )


def assert_near(output, expected, tolerance):
    """Compare values relative to the scale of their tensor: differences near 0 are rounding errors."""
    for name in OUTPUTS:
        found, wanted = getattr(output, name).double(), expected[name].double()
        assert found.shape == wanted.shape, name
        error = float((found - wanted).abs().max() / wanted.abs().max())
        assert error <= tolerance, f"{name}: {error:.1e} of its scale"


@pytest.mark.skipif(not RELEASED.exists(), reason="../shared/data/released_tiny is not there")
@pytest.mark.parametrize("name", ["state_dict.pth", "state_dict.safetensors"])
def test_values_of_the_published_code(tmp_path, name):
    source = RELEASED / "state_dict.pth"
    if name.endswith(".safetensors"):
        state = torch.load(source, weights_only=True)
        source = tmp_path / name
        save_file({key: value.clone() for key, value in state.items()}, source)
    result = convert_released(source, RELEASED / "config.json", tmp_path / "out")
    assert set(result.unused) == UNUSED
    given = load_file(RELEASED / "io.safetensors")
    output = run(tmp_path / "out", {**given, "boxes": given["boxes_xyxy"]})
    assert_near(output, given, 1e-4)
    for state in ("text_states", "visual_states", "fused_states", "logits"):
        torch.testing.assert_close(getattr(output, state), given[state], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, OTHER], ids=["long buckets", "short buckets"])
def test_values_of_plain_equations(tmp_path, config):
    state, given = state_dict(config), inputs(config)
    result = convert_released(*write(tmp_path, state, config), tmp_path / "out")
    expected = values(state, config, given)
    assert expected["gate"].max() > 0.05  # otherwise the values would not depend on the image
    assert_near(run(tmp_path / "out", given), expected, 1e-5)
    assert set(result.unused) == UNUSED
    assert result.ignored_options == ["note"]
    assert result.used == len(state) - len(UNUSED)


def test_a_separate_slot_embedding_is_used(tmp_path):
    """As of a vocabulary that was enlarged after the visual embedding was built."""
    state, given = state_dict(), inputs()
    state["encoder.visual_embedding.obj_order_embedding.weight"] = torch.randn(40, CONFIG["d_model"])
    convert_released(*write(tmp_path, state), tmp_path / "out")
    assert_near(run(tmp_path / "out", given), values(state, CONFIG, given), 1e-5)


def test_every_kind_of_file_gives_the_same_weights(tmp_path):
    state = state_dict()
    shared = dict(state)
    for name in ("encoder.embed_tokens", "decoder.embed_tokens", "encoder.visual_embedding.obj_order_embedding"):
        del shared[f"{name}.weight"]  # save_model leaves out tensors that share memory
    without = {name: value for name, value in state.items() if name not in UNUSED}
    wrapped = {f"module.{name}": value for name, value in state.items()}
    cases = [
        ("mapped.pth", state, {}),
        ("old.pth", state, {"_use_new_zipfile_serialization": False}),
        ("all.safetensors", state, {}),
        ("shared.safetensors", shared, {}),
        ("without.pth", without, {}),
        ("wrapped.pth", wrapped, {}),
    ]
    found = []
    for name, weights, options in cases:
        convert_released(*write(tmp_path, weights, name=name, **options), tmp_path / name[:-4])
        found.append(load_file(tmp_path / name[:-4] / "model.safetensors"))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(value, found[0][name]) for name, value in other.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_kept(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in state_dict().items()}
    assert convert_released(*write(tmp_path, state), tmp_path / "out").dtype == str(dtype).removeprefix("torch.")
    assert UmieModel.from_pretrained(tmp_path / "out").decoder.seq2seq.shared.weight.dtype == dtype


def test_head_and_embedding_differ_after_every_way_of_loading(tmp_path):
    state = state_dict()
    convert_released(*write(tmp_path, state), tmp_path / "out")
    model = UmieModel.from_pretrained(tmp_path / "out")
    model.save_pretrained(tmp_path / "again")
    for loaded in (model, UmieModel.from_pretrained(tmp_path / "again")):
        t5 = loaded.decoder.seq2seq
        assert torch.equal(t5.shared.weight, state["shared.weight"])
        assert torch.equal(t5.lm_head.weight, state["lm_head.weight"])
        assert not torch.equal(t5.lm_head.weight, t5.shared.weight)
        assert t5.encoder.embed_tokens.weight is t5.shared.weight
        assert t5.decoder.embed_tokens.weight is t5.shared.weight


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"])
def test_different_embeddings_are_refused(tmp_path, name):
    state = state_dict()
    state[name] = state[name].clone()
    state[name][3, 2] += 0.01
    refused(tmp_path, f"{name} differs from shared.weight", state)


def refused(folder, message, state=None, config=CONFIG, **options):
    """Expect a one-line error that names the file, and no trace of an output."""
    files = write(folder, state, config)
    with pytest.raises(UmieError) as error:
        convert_released(*files, folder / "out", **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert any(str(file) in str(error.value) for file in files)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "state.pth"]


def test_unmatched_keys_are_refused(tmp_path):
    state = state_dict()
    del state["encoder.gate.proj_v_2.weight"], state["lm_head.weight"]
    state["encoder.gate.more.weight"] = state["decoder.block.0.layer.3.bias"] = torch.zeros(3)
    with pytest.raises(UmieError) as error:
        convert_released(*write(tmp_path, state), tmp_path / "out")
    message = str(error.value)
    assert "2 weights of the published model are missing" in message
    assert all(name in message for name in ("encoder.gate.proj_v_2.weight", "lm_head.weight"))
    assert "2 weights are not in a published model" in message
    assert all(name in message for name in ("encoder.gate.more.weight", "decoder.block.0.layer.3.bias"))
    refused(tmp_path, "2 weights of the published model are missing", state, allow_unmatched=True)


@pytest.mark.parametrize(
    "name", ["encoder.visual_embedding.img_order_embedding.weight", "encoder.block.1.layer.0.layer_norm.weight"]
)
def test_one_missing_key(tmp_path, name):
    state = state_dict()
    del state[name]
    refused(tmp_path, f"1 weights of the published model are missing: {name};", state)


def test_unmatched_keys_can_be_left_out(tmp_path):
    state = {**state_dict(), "encoder.gate.more.weight": torch.zeros(3)}
    refused(tmp_path, "encoder.gate.more.weight", state)
    result = convert_released(*write(tmp_path, state), tmp_path / "out", allow_unmatched=True)
    assert result.left_out == ["encoder.gate.more.weight"]
    given = inputs()
    assert_near(run(tmp_path / "out", given), values(state, CONFIG, given), 1e-5)


def test_shapes_that_differ(tmp_path):
    state = state_dict()
    name = "decoder.block.0.layer.2.DenseReluDense.wo.weight"
    state[name] = state[name][:, :-1].clone()
    refused(tmp_path, f"{name} has shape [24, 19], but should have [24, 20]", state)
    refused(
        tmp_path,
        "shared.weight has shape [61, 24], but should have [62, 24]",
        config={**CONFIG, "vocab_size": 62},
        state=state_dict(),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_kv": None}, "d_kv missing"),
        ({"num_layers": 3}, "encoder.block.2.layer.0.SelfAttention.q.weight"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_heads": "3"}, "num_heads is '3'"),
        ({"feature_dim": 8}, "feature_dim is 8 but encoder.visual_embedding.feat_embedding.0.weight has width 7"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj is 'relu'"),
        ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon is 1e-05"),
        ({"dropout_rate": 2.0}, "dropout probability has to be between 0 and 1"),
    ],
)
def test_configurations_that_do_not_fit(tmp_path, change, message):
    config = {name: value for name, value in {**CONFIG, **change}.items() if value is not None}
    refused(tmp_path, message, state_dict(), config)


class Command:
    """A call in a pickle."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: torch.save({"a": Command()}, path), "cannot be read as weights (UnpicklingError"),
        (lambda path: torch.save({"epoch": 3, "model": {}}, path), "'epoch' is int, not a tensor"),
        (lambda path: torch.save([1, 2], path), "contains [1, 2], not a state dict"),
        (lambda path: path.write_bytes(b"nothing of the kind"), "cannot be read as weights (UnpicklingError"),
        (lambda path: path.write_bytes(b""), "cannot be read as weights"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4000]), "cannot be read as weights"),
    ],
)
def test_files_that_are_not_a_state_dict(tmp_path, capsys, content, message):
    source, config = write(tmp_path)
    content(source)
    with pytest.raises(UmieError, match="state.pth") as error:
        convert_released(source, config, tmp_path / "out")
    assert message in str(error.value)
    assert "unpickled" not in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_absent_files(tmp_path):
    source, config = write(tmp_path)
    with pytest.raises(UmieError, match="none.pth: no such weight file"):
        convert_released(tmp_path / "none.pth", config, tmp_path / "out")
    with pytest.raises(UmieError, match="none.json: cannot read"):
        convert_released(source, tmp_path / "none.json", tmp_path / "out")
    config.write_text("[1]")
    with pytest.raises(UmieError, match="not a JSON object"):
        convert_released(source, config, tmp_path / "out")


def test_existing_folders(tmp_path):
    files = write(tmp_path)
    output = tmp_path / "out"
    output.mkdir()
    convert_released(*files, output)  # an empty one may exist
    before = (output / "model.safetensors").read_bytes()
    with pytest.raises(UmieError, match="out: contains an earlier conversion"):
        convert_released(*files, output)
    write(tmp_path, state_dict(seed=3))
    convert_released(*files, output, overwrite=True)
    after = (output / "model.safetensors").read_bytes()
    assert after != before
    write(tmp_path, {"shared.weight": torch.zeros(2, 2)})
    with pytest.raises(UmieError):
        convert_released(*files, output, overwrite=True)
    assert (output / "model.safetensors").read_bytes() == after
    (output / "conversion.json").unlink()
    with pytest.raises(UmieError, match="is not an earlier conversion"):
        convert_released(*files, output, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UmieError, match="file: not a directory"):
        convert_released(*files, tmp_path / "file", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "file", "out", "state.pth"]


def test_with_a_tokenizer_the_result_is_complete(tmp_path, tokenizer):
    config = {**CONFIG, "vocab_size": len(tokenizer)}
    files = write(tmp_path, state_dict(config), config)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    options = {"tokenizer": tmp_path / "tokenizer", "style": "structured"}
    assert not convert_released(*files, tmp_path / "out", **options).notes
    processor, model = UmieProcessor.from_pretrained(tmp_path / "out"), UmieModel.from_pretrained(tmp_path / "out")
    assert processor.task("mner").style.name == "structured"
    record = Record("Ann Lee likes Rome")
    batch = processor(record, "mner")
    visual = VisualFeatures(torch.randn(1, 3, 7), torch.rand(1, 3, 4), torch.ones(1, 3, dtype=torch.bool))
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    answer = model.generate(**text, visual=visual, constraint=processor.constraint(record, "mner"), max_new_tokens=8)
    assert len(processor.decode(answer, record, "mner")) == 1


def test_a_tokenizer_that_cannot_write_the_style(tmp_path):
    words = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "Rome": 3}, unk_token="<unk>"))
    few = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    few.save_pretrained(tmp_path / "few")
    result = convert_released(*write(tmp_path), tmp_path / "out", tokenizer=tmp_path / "few")
    assert len(result.notes) == 1
    assert "<extra_id_0>" in result.notes[0]


def test_a_head_that_equals_the_embedding_is_noted(tmp_path):
    state = state_dict()
    state["lm_head.weight"] = state["shared.weight"]
    assert "lm_head.weight equals shared.weight" in convert_released(*write(tmp_path, state), tmp_path / "out").notes[0]
    given = inputs()
    assert_near(run(tmp_path / "out", given), values(state, CONFIG, given), 1e-5)


def test_a_tokenizer_that_does_not_fit(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    files = write(tmp_path)
    with pytest.raises(UmieError, match=f"has {len(tokenizer)} tokens, but the model has 61 embeddings"):
        convert_released(*files, tmp_path / "out", tokenizer=tmp_path / "tokenizer")
    with pytest.raises(UmieError, match="nowhere: no such directory"):
        convert_released(*files, tmp_path / "out", tokenizer=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_the_command_lists_the_keys(tmp_path, capsys):
    state = {**state_dict(), "encoder.gate.more.weight": torch.zeros(3)}
    source, config = write(tmp_path, state)
    command(tmp_path / "out", source, config, features=tmp_path / "here", boxes="absolute", allow_unmatched=True)
    out = capsys.readouterr().out
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert set(lines["unused in the published model"].split(", ")) == UNUSED
    assert lines["left out"] == "encoder.gate.more.weight"
    assert lines["used"] == f"{len(state) - len(UNUSED) - 1} weights, float32"
    assert lines["ignored options"] == "note"
    saved = json.loads((tmp_path / "out" / "config.json").read_text())["encoder"]
    assert saved["path"] == str(tmp_path / "here")
    assert (saved["boxes"], saved["feature_dim"]) == ("absolute", 7)
