"""Extraction with a trained variant: from a text and its image to typed items with offsets and boxes."""

from umie.extraction.attention import Attention
from umie.extraction.calibration import Calibration, calibrate, judged_items
from umie.extraction.explain import Effect, Explanation, effects, explain_many
from umie.extraction.extractor import Extractor
from umie.extraction.file import FileSummary, extract_file, extract_stream
from umie.extraction.result import Extraction, ExtractionAnswer, Notice
from umie.extraction.rows import records_from_rows

__all__ = [
    "Attention",
    "Calibration",
    "Effect",
    "Explanation",
    "Extraction",
    "ExtractionAnswer",
    "Extractor",
    "FileSummary",
    "Notice",
    "calibrate",
    "effects",
    "explain_many",
    "extract_file",
    "extract_stream",
    "judged_items",
    "records_from_rows",
]
