"""Audits of data sets before they are used: checks, statistics, overlaps, known versions, leaks in prompts.

Nothing here edits a file; ``clean_file`` writes a cleaned copy.
"""

from umie.audit.audit import Audit, Cleaning, audit_splits, clean_file
from umie.audit.checks import Finding, check_record, validate
from umie.audit.fingerprints import Comparison, Fingerprint, compare, fingerprint, known_versions
from umie.audit.overlap import Overlap, Split, overlaps, read_split
from umie.audit.prompts import PromptReport, examine_prompts
from umie.audit.statistics import Statistics
from umie.audit.texts import near_duplicates, normalize

__all__ = [
    "Audit",
    "Cleaning",
    "Comparison",
    "Finding",
    "Fingerprint",
    "Overlap",
    "PromptReport",
    "Split",
    "Statistics",
    "audit_splits",
    "check_record",
    "clean_file",
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
