"""A small trained tokenizer of every family that constraints support, and one of an unsupported family."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, T5Tokenizer

from umie import tasks
from umie.composition import default_tokenizer
from umie.data.synthetic import SyntheticConfig, scenes

PRINTABLE = "".join(map(chr, range(32, 127)))
MARKERS = ["<extra_id_0>", "<extra_id_1>", "<extra_id_5>", "<extra_id_6>", "<spot>"]


def texts() -> Iterator[str]:
    """Yield the training texts of the tokenizers, including all labels and printable ASCII characters."""
    for scene in scenes(SyntheticConfig(train=300), "train"):
        yield scene.record.text
        yield f"[person: {scene.record.text}] = O1 |[ |] ||"
    for name in tasks.ordered():
        yield " ".join(tasks.registry.build(name).labels)
    yield f"{PRINTABLE} O2 O3 ]2"


def unigram() -> PreTrainedTokenizerBase:
    """SentencePiece Unigram, like T5: characters outside the vocabulary are unknown, white space is collapsed."""
    trained = Tokenizer(models.Unigram())
    trained.normalizer = normalizers.NFKC()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always", split=True)]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=700, unk_token="<unk>", special_tokens=["<pad>", "</s>", "<unk>"], show_progress=False
    )
    trained.train_from_iterator(list(texts()), trainer)
    pieces = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
    pieces += [(f"<extra_id_{index}>", 0.0) for index in range(99, -1, -1)]
    tokenizer = T5Tokenizer(vocab=pieces)
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_tokens(["<spot>"], special_tokens=True)
    return tokenizer


def wordpiece() -> PreTrainedTokenizerBase:
    """WordPiece without upper case and accents, like BERT; ``[CLS]`` before a text, ``[SEP]`` after it."""
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained.train_from_iterator(
        list(texts()), trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def byte_level() -> PreTrainedTokenizerBase:
    """Byte-level BPE, like BART; ``<s>`` before a text, ``</s>`` after it, and the styles' markers as tokens."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(list(texts()), trainer)
    trained.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_tokens(MARKERS, special_tokens=True)
    return tokenizer


def byte_fallback() -> PreTrainedTokenizerBase:
    """SentencePiece BPE with byte fallback for rare characters, like Llama."""
    trained = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trained.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", "<pad>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        list(texts()), trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    trained.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=trained, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def end_of_word() -> PreTrainedTokenizerBase:
    """BPE with end-of-word suffixes, like CLIP and XLM, without upper case."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=900, end_of_word_suffix="</w>", special_tokens=["<unk>", "</s>", "<pad>"], show_progress=False
    )
    trained.train_from_iterator(list(texts()), trainer)
    trained.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=trained, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def words() -> PreTrainedTokenizerBase:
    """Only whole words: their spelling of a text is unknown."""
    trained = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "Ann": 2}, unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="</s>", unk_token="<unk>")


FAMILIES: Mapping[str, Callable[[], PreTrainedTokenizerBase]] = {
    "project": cache(lambda: default_tokenizer({"source": "tiny"})),
    "unigram": cache(unigram),
    "wordpiece": cache(wordpiece),
    "byte_level": cache(byte_level),
    "byte_fallback": cache(byte_fallback),
    "end_of_word": cache(end_of_word),
    "bytes": cache(ByT5Tokenizer),
}
LOWER_CASE = ("wordpiece", "end_of_word")
