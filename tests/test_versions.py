"""Versions of libraries and digests of files."""

import hashlib
import platform

import pytest

import umie
from umie.errors import UmieError
from umie.versions import file_digest, versions


def test_versions():
    found = versions("pytest", "no-such-library")
    assert found == {
        "umie": umie.__version__,
        "python": platform.python_version(),
        "pytest": pytest.__version__,
        "no-such-library": None,
    }


def test_file_digest(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\x00weights" * 1000)
    assert file_digest(path) == file_digest(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["absent.bin", "."])
def test_a_file_that_cannot_be_read(tmp_path, name):
    with pytest.raises(UmieError, match="cannot read"):
        file_digest(tmp_path / name)
