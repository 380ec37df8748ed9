"""What the tests of regions share."""

import pytest

from umie.errors import UmieError
from umie.records import Record


@pytest.fixture
def image(tmp_path, noise):
    """The path of an image of 200 x 100 pixels, in a folder of its own."""
    path = tmp_path / "images" / "1.jpg"
    path.parent.mkdir()
    noise(200, 100).save(path)
    return path


@pytest.fixture
def record(image):
    """Make a record with the image: ``record(*regions, name=..., **fields)``."""

    def make(*regions, name="1.jpg", **fields):
        return Record("a text", image=name, image_folder=str(image.parent), regions=regions, **fields)

    return make


@pytest.fixture(scope="session")
def error():
    """Return the message, of one line, of the UmieError that a call raises: ``error(function, *arguments)``."""

    def message(call, *arguments, **options):
        with pytest.raises(UmieError) as caught:
            list(call(*arguments, **options))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message
