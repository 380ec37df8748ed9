"""Looking at data sets before they are trusted: checks, statistics, overlaps, known versions, telling prompts.

Everything here reports; nothing edits a file. ``umie data clean`` writes a cleaned copy beside the original, and only
when it is asked to.
"""

from umie.audit.checks import Finding, check_record
from umie.audit.fingerprints import Fingerprint, fingerprint
from umie.audit.known_versions import Comparison, compare, known_versions
from umie.audit.overlap import Overlap, Split, overlaps, read_split
from umie.audit.prompts import PromptReport, examine_prompts
from umie.audit.statistics import Statistics
from umie.audit.texts import near_duplicates, normalize
from umie.audit.validation import validate
from umie.data.source import Source

__all__ = [
    "Comparison",
    "Finding",
    "Fingerprint",
    "Overlap",
    "PromptReport",
    "Source",
    "Split",
    "Statistics",
    "check_record",
    "compare",
    "examine_prompts",
    "fingerprint",
    "known_versions",
    "near_duplicates",
    "normalize",
    "overlaps",
    "read_split",
    "validate",
]
