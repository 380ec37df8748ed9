"""A byte-level BPE tokenizer trained on given texts, for models with random initial weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from umie.errors import UmieError

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2, as in T5


def check_vocabulary(tokenizer: Any, size: int | None, place: str) -> None:
    """Raise UmieError if a tokenizer has a token beyond the embeddings of a model; ``size`` None is no limit."""
    largest = max(tokenizer.get_vocab().values(), default=0)
    if size is not None and largest >= size:
        raise UmieError(f"{place}: its tokenizer has a token {largest}, but the model has only {size} embeddings")


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on texts; decoding restores any string exactly.

    Args:
        texts: the texts to learn merges from.
        vocab_size: number of tokens, at least 259 (256 bytes and 3 special tokens); smaller if the texts are few.
    """
    tokenizer = Tokenizer(models.BPE())
    # One token per digit, so that O1 and O12 share their letter and digits.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # "</s>" in a text is plain text
    )
