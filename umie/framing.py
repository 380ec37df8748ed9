"""The tokens around queries and answers: how a query becomes the input of a decoder, and how its answer ends."""

from __future__ import annotations

from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Any

from transformers import PreTrainedTokenizerBase

from umie.errors import UmieError, one_line, shown

CHAT = "chat"
QUERY = "{query}"
MAX_CHARACTERS = 100_000  # of what a chat template writes
MAX_SECONDS = 5  # to write it
_RARE = "\u0c85\ua015\U0001f9ff"  # characters that only byte-level vocabularies and byte fallback write


@dataclass(frozen=True)
class Framing:
    """The token ids around a query and around its answer.

    Args:
        before_query: e.g. BERT's ``[CLS]``, or the header of a chat.
        after_query: e.g. T5's ``</s>``, or what makes a causal model begin its answer.
        before_answer: the tokens that targets begin with; generated answers may have them.
        end: the token that ends an answer; None if the tokenizer has none.
    """

    before_query: tuple[int, ...]
    after_query: tuple[int, ...]
    before_answer: tuple[int, ...]
    end: int | None

    @property
    def around_query(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens before and after a query."""
        return self.before_query, self.after_query

    @property
    def around_answer(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens before and after an answer."""
        return self.before_answer, () if self.end is None else (self.end,)


def framing_of(tokenizer: PreTrainedTokenizerBase, prompt: str | None = None) -> Framing:
    """Return the framing of a tokenizer's queries and answers.

    Args:
        tokenizer: the decoder's tokenizer.
        prompt: the prompt of a causal decoder: a text with ``{query}`` in it, or ``chat`` for the tokenizer's own chat
            template, with the query as the user's message. None for a decoder whose encoder reads the query: the
            tokenizer then frames queries and answers alike.

    Raises:
        UmieError: the prompt has no ``{query}`` or cannot be written, or the tokenizer has no end token or no usable
            chat template.
    """
    around: list[int] = tokenizer("").input_ids
    bos = around[:1] if around and around[0] == tokenizer.bos_token_id else []
    if prompt is None:
        if around == bos:  # a tokenizer of causal models, which begins texts but does not end them
            return Framing(tuple(bos), (), tuple(bos), tokenizer.eos_token_id)
        return Framing(tuple(around[:-1]), tuple(around[-1:]), tuple(around[:-1]), around[-1])
    if tokenizer.eos_token_id is None:
        raise UmieError("the tokenizer has no eos_token, which ends an answer: set it")
    before, after = expanded(tokenizer, prompt).split(QUERY)
    start = _template_ids(tokenizer, before)
    if start[: len(bos)] != bos:  # a chat template writes it itself
        start = [*bos, *start]
    ending = _template_ids(tokenizer, f"x{after}")[len(_template_ids(tokenizer, "x")) :]  # as it is after a word
    unknown = unknown_token_of(tokenizer)
    if unknown is not None and unknown in (*start, *ending):
        raise UmieError(f"prompt is {shown(prompt)}: the tokenizer cannot write all of it: use other characters")
    return Framing(tuple(start), tuple(ending), (), tokenizer.eos_token_id)


def check_prompt(prompt: Any) -> None:
    """Raise UmieError unless a prompt is ``chat`` or a text with one ``{query}``."""
    if not isinstance(prompt, str) or (prompt != CHAT and prompt.count(QUERY) != 1):
        raise UmieError(
            f"prompt is {shown(prompt)}: use a text in which {QUERY} stands for the query, such as '{QUERY}\\n', or "
            f"{CHAT!r} for the tokenizer's chat template"
        )


def expanded(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """Return a prompt with ``{query}`` in place of ``chat``: what the tokenizer's chat template writes.

    A saved model has this text, so that nobody runs its template again, which may write the date.

    Raises:
        UmieError: as for ``framing_of``.
    """
    check_prompt(prompt)
    if prompt != CHAT:
        return prompt
    if tokenizer.chat_template is None:
        raise UmieError(f"the tokenizer has no chat template: set prompt to a text with {QUERY}")
    message = [{"role": "user", "content": QUERY}]
    results: Queue[str | Exception] = Queue()

    def render() -> None:
        try:
            results.put(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template may raise anything
            results.put(error)

    Thread(target=render, daemon=True).start()
    try:
        written = results.get(timeout=MAX_SECONDS)
    except Empty:
        written = TimeoutError(f"it takes more than {MAX_SECONDS} seconds")
    if isinstance(written, Exception):
        raise UmieError(f"the tokenizer's chat template fails: {one_line(written)}: set prompt to a text") from written
    if written.count(QUERY) != 1 or len(written) > MAX_CHARACTERS:
        raise UmieError("the tokenizer's chat template does not write the message as it is: set prompt to a text")
    return written


def _template_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the tokens of a part of a template, in which special tokens such as ``<|im_end|>`` are meant."""
    found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=False).input_ids if text else []
    return found


def unknown_token_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the token of what is not in the vocabulary; None if the tokenizer can write any text.

    GPT-2, whose byte-level vocabulary writes any text, names its end token also as the unknown one.
    """
    unknown: int | None = tokenizer.unk_token_id
    if unknown is None or unknown not in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        return unknown
    written: list[int] = tokenizer(_RARE, add_special_tokens=False).input_ids
    return unknown if unknown in written else None
