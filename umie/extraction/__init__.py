"""Extraction with a trained variant: from a text and its image to typed items with offsets and boxes."""

from umie.extraction.explain import Effect, Explanation, effects, explain_many
from umie.extraction.extractor import Extractor
from umie.extraction.file import FileSummary, extract_file, extract_stream
from umie.extraction.result import Extraction, ExtractionAnswer, Notice

__all__ = [
    "Effect",
    "Explanation",
    "Extraction",
    "ExtractionAnswer",
    "Extractor",
    "FileSummary",
    "Notice",
    "effects",
    "explain_many",
    "extract_file",
    "extract_stream",
]
