"""What the fuzzers share: choose a target by the first byte, run it, and let libFuzzer (atheris) look for new paths.

A fuzzer is a script that hands its targets to ``run``; see fuzz_readers.py. Nothing here is collected by pytest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

Target = Callable[[bytes], None]


def run(targets: Mapping[str, Target], seeds: Iterable[tuple[str, bytes]]) -> None:
    """Fuzz until libFuzzer's own options say stop, or a target raises.

    Args:
        targets: what to call with arbitrary bytes, by name; to raise anything is a finding.
        seeds: valid inputs, by the name of their target; written into the first folder on the command line.
    """
    import atheris

    names = sorted(targets)

    def one_input(data: bytes) -> None:
        if data:
            targets[names[data[0] % len(names)]](data[1:])

    for folder in [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")][:1]:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (name, content) in enumerate(seeds):
            (folder / f"seed-{number:03d}").write_bytes(bytes([names.index(name)]) + content)
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
