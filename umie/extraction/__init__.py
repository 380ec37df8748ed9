"""Extraction with a trained variant: from a text and its image to typed items with offsets and boxes."""

from umie.extraction.extractor import Extractor
from umie.extraction.file import FileSummary, extract_file
from umie.extraction.result import Extraction, ExtractionAnswer, Notice

__all__ = ["Extraction", "ExtractionAnswer", "Extractor", "FileSummary", "Notice", "extract_file"]
