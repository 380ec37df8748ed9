"""Noun phrases of a short text, without a model: runs of content words, names kept whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

MAX_PHRASES = 16
MAX_WORDS = 5  # a longer run is a sentence without stop words rather than a phrase, and is split
MAX_CHARACTERS = 60  # a longer word is an identifier, or in a script that does not separate words

_SKIPPED = re.compile(r"(?:https?://|www\.)\S+|@\s?\w+|&\w+;")  # URLs, mentions, HTML entities
_TOKEN = re.compile(r"#\s?\w+|\w+(?:['’&-]\w+)*|[^\w\s]")
_HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\da-zA-Z]+")
_CAMEL = re.compile(r"(?<=[a-z]{3})(?=[A-Z][a-z]{2})")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s?$")
_SENTENCE_ENDS = frozenset('.!?:;|…"“”')
_LINKS = frozenset({"of", "de", "la", "del", "van", "von", "der", "al", "bin", "&"})
_ARTICLES = frozenset({"the"})  # after a link: University of the West
# determiners, pronouns, prepositions, conjunctions, auxiliaries, common verbs, adverbs, Twitter jargon
_STOP_WORDS = """
a an the this that these those some any each every no all both half such what which who whom whose one ones i me my
mine myself you your yours yourself he him his himself she her hers herself it its itself we us our ours they them
their theirs there here everyone everybody someone somebody anyone nobody everything something nothing about above
across after against along among around as at before behind below beside between beyond by despite down during except
for from in inside into like near of off on onto out outside over past per since than through throughout to toward
towards under until up upon via vs with within without and but or nor so yet because although though while if unless
when whenever where wherever how why whether am is are was were be been being have has had having do does did doing
done can could will would shall should may might must ought get gets got getting go goes going gone went come comes
came coming make makes made making take takes took taken taking give gives gave given giving see sees saw seen seeing
say says said saying know knows knew think thinks thought want wants wanted need needs needed let lets look looks
looked looking show shows showed shown watch watches watched watching meet meets met meeting join joins joined joining
find finds found feel feels felt keep keeps kept tell tells told ask asks asked try tries tried use uses used using
call calls called leave leaves left become becomes became love loves loved thank thanks win wins won not never always
often sometimes just only even still also too very really quite almost already ever again once now then today tonight
tomorrow yesterday soon later ago away back well much many more most less least few lot lots yes yeah oh ok okay
please lol omg rt amp im ive dont cant wont didnt isnt thats hes shes youre theyre gonna n't s t m re ve ll d u ur
didn doesn don isn wasn aren weren wouldn couldn shouldn hasn haven hadn ain
"""
_STOP = frozenset(_STOP_WORDS.split())


def noun_phrases(text: str, most: int = MAX_PHRASES) -> list[str]:
    """Return likely noun phrases in the order of the text, without duplicates (ignoring case).

    A phrase is a run of at most five words between stop words, punctuation, URLs and mentions; adjacent capitalized
    words form a phrase of their own, also across "of". Hashtags and CamelCase words are split into words. The stop
    words are English. Parts of speech are not analyzed, so verbs that are not stop words are included.
    """
    found: dict[str, str] = {}
    for run, starts_sentence in _runs(_SKIPPED.sub(" . ", text)):
        for phrase in _parted(run, starts_sentence):
            joined = " ".join(phrase)
            if len(joined) <= MAX_CHARACTERS and any(map(str.isalpha, joined)):
                found.setdefault(joined.casefold(), joined)
            if len(found) >= most:
                return list(found.values())[:most]
    return list(found.values())


def _runs(text: str) -> Iterator[tuple[list[str], bool]]:
    """Yield runs of content words, and whether they start a sentence; "of" is kept between names."""
    run: list[str] = []
    links: list[str] = []  # seen since the last word of the run
    starts = fresh = True
    for token in _TOKEN.findall(text):
        if token[0] == "#" and len(token) > 1:
            yield run, starts
            yield _HUMPS.findall(token[1:]), False
            run, links, fresh = [], [], True  # the word after a hashtag is capitalized like the start of a sentence
            continue
        word = _POSSESSIVE.sub("", token)
        if run and _is_name(run[-1]) and (word.lower() in _LINKS or (links and word.lower() in _ARTICLES)):
            links.append(word)
            continue
        if not word[0].isalnum() or word.casefold() in _STOP:
            yield run, starts
            run, links, fresh = [], [], not word[0].isalnum() and word in _SENTENCE_ENDS
            continue
        if links and not _is_name(word):
            yield run, starts
            run = []
        elif links:
            run += links
        starts = starts if run else fresh
        run += _CAMEL.sub(" ", word).split()
        links, fresh = [], False
        if word != token:
            yield run, starts
            run = []
    yield run, starts


def _is_name(word: str) -> bool:
    return word[:1].isupper()


def _parted(run: list[str], starts_sentence: bool) -> Iterator[list[str]]:
    """Yield the phrases of a run: names separated from other words, none longer than MAX_WORDS."""
    in_name = [_is_name(word) or word.lower() in _LINKS | _ARTICLES for word in run]
    for index, word in enumerate(run):
        if word[0].isdigit():  # a number belongs to the word before it, or the one after: Euro 2016, 5th Avenue
            in_name[index] = in_name[index - 1] if index else in_name[1:2] == [True]
    if starts_sentence and in_name[1:2] == [False]:
        in_name[0] = False  # the first word of a sentence is always capitalized
    for _, group in groupby(zip(in_name, run, strict=True), key=lambda pair: pair[0]):
        words = [word for _, word in group]
        for start in range(0, len(words), MAX_WORDS):
            yield words[start : start + MAX_WORDS]
