"""Fuzz every reader of feature files: pip install atheris; python tests/fuzz/fuzz_features.py CORPUS_FOLDER.

The first byte of an input chooses the layout (tests/encoders/feature_samples.py), the second what the boxes are
declared to be and what represents the whole image; the rest takes the place of its first file. A finding is any
exception but UmieError, a message of more than one line, features that are not finite or a box that is not inside
the image, or ten seconds for one input. ``-max_total_time=300`` ends it, ``-max_len=8192`` lets the inputs grow;
``PYTHONPATH`` must hold umie.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "encoders"))  # where feature_samples.py lies

import atheris  # after the path

with atheris.instrument_imports(include=["umie.encoders.precomputed"]):
    from umie import encoders
    from umie.encoders.precomputed import encoder as precomputed
    from umie.encoders.precomputed.files import BOXES, WHOLE
    from umie.errors import UmieError

import feature_samples as samples  # after the instrumented imports
import harness
import numpy as np

CHOICES = [(boxes, whole) for boxes in BOXES for whole in (None, *WHOLE)]


def target(path: Path) -> harness.Target:
    """Return what replaces the first feature file of a layout and reads all images."""
    file = path if path.is_file() else min(path.iterdir())

    def read(content: bytes) -> None:
        if not content:
            return
        boxes, whole = CHOICES[content[0] % len(CHOICES)]
        file.write_bytes(content[1:])
        options = {"name": "precomputed", "path": str(path), "boxes": boxes, "whole": whole, "format": None}
        preprocessor = encoders.build_preprocessor(options)
        assert isinstance(preprocessor, precomputed.PrecomputedPreprocessor)
        for name in samples.NAMES:
            try:
                found = preprocessor.read(f"{name}.jpg")
            except UmieError as error:
                assert len(str(error).splitlines()) == 1, str(error)
            else:
                assert found.features.shape == (len(found.boxes), len(found.whole))
                assert np.isfinite(found.features).all()
                assert np.isfinite(found.whole).all()
                assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
                assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()

    return read


def main() -> None:
    """Fuzz all layouts."""
    warnings.simplefilter("ignore")  # numpy and zipfile warn of odd contents
    zipfile.ZipExtFile._update_crc = lambda self, data: None  # its check would hide everything after it
    with tempfile.TemporaryDirectory() as folder:
        targets = {}
        seeds = []
        for layout in samples.LAYOUTS:
            path = layout(Path(folder, layout.__name__))
            targets[layout.__name__] = target(path)
            content = (path if path.is_file() else min(path.iterdir())).read_bytes()
            seeds += [(layout.__name__, bytes([number]) + content) for number in range(len(CHOICES))]
        harness.run(targets, seeds)


if __name__ == "__main__":
    main()
