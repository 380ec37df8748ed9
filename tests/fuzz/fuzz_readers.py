"""Fuzz every reader: pip install atheris; python tests/fuzz/fuzz_readers.py CORPUS_FOLDER -max_total_time=600.

The first byte of an input chooses the sample (tests/data/samples.py), the second which of its files is replaced by
the rest. A finding is any exception but UmieError, a message of more than one line, or ten seconds for one input.
``-max_len=4096`` lets the inputs grow beyond the seeds; ``PYTHONPATH`` must hold umie.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))  # where samples.py lies

import atheris  # after the path

with atheris.instrument_imports(include=["umie"]):
    from umie import data
    from umie.errors import UmieError
    from umie.records import Record

    data.registry.names()  # imports every reader

import harness  # after the instrumented imports
from samples import IDS, SAMPLES, Sample


def target(sample: Sample, folder: Path) -> harness.Target:
    """Return what replaces one file of a sample and reads it."""
    path, options = sample.write(folder)
    names = list(sample.files)

    def read(content: bytes) -> None:
        if not content:
            return
        name = names[content[0] % len(names)]
        (folder / name).write_bytes(content[1:])
        try:
            errors: list[UmieError] = []
            try:
                for record in data.read(sample.format, path, **options, on_error=errors.append):
                    assert isinstance(record, Record)
            except UmieError as error:
                errors.append(error)
            for error in errors if sample.format != "jsonl" else ():  # its messages are those of umie.records
                assert len(str(error).splitlines()) == 1, str(error)
        finally:
            (folder / name).write_bytes(sample.files[name])

    return read


def main() -> None:
    """Fuzz all readers."""
    warnings.simplefilter("ignore")  # Pillow warns of odd images
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        targets = {}
        seeds = []
        for identifier, sample in zip(IDS, SAMPLES, strict=True):
            own = Path(folder, identifier)
            own.mkdir()
            targets[identifier] = target(sample, own)
            seeds += [(identifier, bytes([index]) + content) for index, content in enumerate(sample.files.values())]
        harness.run(targets, seeds)


if __name__ == "__main__":
    main()
