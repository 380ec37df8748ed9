"""Use of what was trained: from a text and an image to typed results with offsets, boxes, gates and warnings."""

from umie.extraction.extractor import Extractor
from umie.extraction.result import Answer, Extraction, Notice

__all__ = ["Answer", "Extraction", "Extractor", "Notice"]
