"""What a decoder's tokenizer does to the training queries: truncates them, or cannot write them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umie.errors import UmieError
from umie.experiments.choices import Wording
from umie.experiments.config import RunConfig
from umie.experiments.data_sets import Corpus, DataSet

if TYPE_CHECKING:
    from umie.processor import UmieProcessor

DATA_VOCAB_SIZE = 4096
MAX_CHARACTERS = 10  # that are shown


def tokenizer_of(decoder: Mapping[str, Any], sets: Sequence[DataSet], wording: Wording) -> Any:
    """Return the tokenizer of a decoder, which is trained on the data if the decoder has no checkpoint."""
    from umie.composition import checkpoint_of, default_tokenizer, tokenizer_texts
    from umie.tokenization import train_tokenizer

    if checkpoint_of(decoder) is not None or all(one.format == "synthetic" for one in sets):
        return default_tokenizer(decoder)
    read = [one.read("train") for one in sets]
    texts: list[Iterable[str]] = [
        tokenizer_texts(records, one.built(wording).values()) for one, records in zip(sets, read, strict=True)
    ]
    # In an input, the text follows the instruction and a space, which is part of the token of its first word.
    texts += [(f" {record.text}" for record in records) for records in read]
    return train_tokenizer(itertools.chain.from_iterable(texts), DATA_VOCAB_SIZE)


def check_queries(config: RunConfig, processor: UmieProcessor, number: int) -> list[str]:
    """Return sentences about truncated training queries; raise UmieError if the config does not allow them."""
    inputs, targets = processor.counts["truncated_inputs"], processor.counts["truncated_targets"]
    found = []
    if inputs:
        found.append(
            f"{inputs} of {number} training inputs have more than {processor.max_input_tokens} tokens "
            "(max_input_tokens); the end of their text is cut off"
        )
    if unreachable := processor.counts["unreachable_spans"]:
        found.append(
            f"{unreachable} annotated spans are no candidates of the decoder: they are longer than max_width words, "
            "beyond the truncated text, or inside a word"
        )
    if unreachable := processor.counts["unreachable_regions"]:
        found.append(f"{unreachable} annotated regions are no candidates: they are beyond the encoder's max_regions")
    characters = {
        what: " ".join(character for character, _ in own.most_common(MAX_CHARACTERS))
        for what, own in processor.unwritable.items()
    }
    if unwritable := processor.counts["unwritable_targets"]:
        sentence = (
            f"{unwritable} of {number} training targets have characters that the tokenizer cannot write: "
            f"{characters['targets']}"
        )
        if not config.allow_unwritable_targets:
            raise UmieError(
                f"{sentence}: use a checkpoint whose tokenizer writes any text (ByT5, mT5), or the decoder span, which "
                "does not write answers, or set allow_unwritable_targets: true"
            )
        found.append(f"{sentence} (allow_unwritable_targets)")
    if unwritable := processor.counts["unwritable_inputs"]:
        found.append(
            f"{unwritable} of {number} training inputs have characters that the tokenizer cannot write: "
            f"{characters['inputs']}; the model sees an unknown token"
        )
    if targets:
        longest = f"{targets} of {number} training targets have more than {processor.max_target_tokens} tokens"
        if not config.allow_truncated_targets:
            raise UmieError(
                f"{longest}, so their ends would be cut off: increase max_target_tokens, or set "
                "allow_truncated_targets: true"
            )
        found.append(f"{longest} and are cut off (allow_truncated_targets)")
    return found


def plan_queries(config: RunConfig, corpus: Corpus) -> list[str]:
    """Return the sentences of ``check_queries`` for a run, without its model; none if its decoder scores candidates.

    Raises:
        UmieError: as ``check_queries``; or the tokenizer cannot be loaded.
    """
    from umie import registries
    from umie.composition import with_markers
    from umie.decoders.base import ScoringDecoder
    from umie.processor import UmieProcessor

    decoder = config.parts["decoder"]
    part: Any = registries.decoders.get(decoder["name"])
    if issubclass(part, ScoringDecoder):
        return []
    sets = corpus.training_sets(config.trained_on)
    lengths = {"max_input_tokens": config.max_input_tokens, "max_target_tokens": config.max_target_tokens}
    options: dict[str, Any] = {name: value for name, value in lengths.items() if value is not None}
    if config.start_from is None:
        task_options = config.in_style(corpus.task_options)
        tokenizer = with_markers(tokenizer_of(decoder, sets, config.wording), task_options)
        prompt = part.fit_tokenizer(decoder, tokenizer).get("prompt")
        processor = UmieProcessor(tokenizer, {"name": "tiny"}, task_options, prompt=prompt, **options)
    else:
        processor = UmieProcessor.from_pretrained(config.start_from)
    number = 0
    for one in sets:
        tasks = one.built(config.wording)
        for record in one.read("train"):
            for task in tasks.values():
                for query in task.queries(record) if record.annotated_for(task.name) else ():
                    processor.encode_query(record, query, task)
                    number += 1
    return check_queries(config, processor, number)
