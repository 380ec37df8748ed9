"""Reading images: as displayed, in RGB, or a clear error."""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from PIL import ExifTags, Image, UnidentifiedImageError

from umie.errors import UmieError

ImageSource: TypeAlias = Image.Image | str | Path

# EXIF orientation to the transpose that displays the image upright. (`PIL.ImageOps.exif_transpose` also rewrites the
# EXIF data, so it fails on images whose EXIF is damaged elsewhere.)
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


def open_image(image: ImageSource) -> Image.Image:
    """Return an image in RGB, rotated according to its EXIF orientation, with transparency over white.

    Args:
        image: a PIL image or a path.

    Raises:
        UmieError: the file does not exist or cannot be decoded.
    """
    if isinstance(image, Image.Image):
        with _readable("image"):
            return _as_displayed(image)
    with _readable(_name(image)), Image.open(image) as opened:
        return _as_displayed(opened)


def decode_image(data: bytes, name: str) -> Image.Image:
    """Return the image in the bytes of a file, as ``open_image`` does; errors call it ``name``.

    Raises:
        UmieError: the bytes cannot be decoded.
    """
    with _readable(name), Image.open(io.BytesIO(data)) as opened:
        return _as_displayed(opened)


def read_image_bytes(path: str | Path) -> bytes:
    """Return the bytes of an image file; raise UmieError if it is not a regular file or cannot be read."""
    name = _name(path)
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # reading a pipe would block
            raise UmieError(f"{name}: not a readable image (not a regular file)")
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UmieError(f"{name}: no such image") from error
    except OSError as error:
        raise UmieError(f"{name}: not a readable image ({error.strerror})") from error
    except UmieError:
        raise
    except ValueError as error:  # a NUL character in the name
        raise UmieError(f"{name}: not a readable image ({error})") from error


def image_digest(image: ImageSource | bytes) -> str:
    """Return a hash of everything in an image that features can depend on.

    Args:
        image: a path, or the bytes of a file, for a hash of the bytes; a PIL image for a hash of the pixels that
            ``open_image`` makes of it, so that palette, transparency and orientation count.

    Raises:
        UmieError: the file cannot be read, or the PIL image cannot be decoded.
    """
    if isinstance(image, Image.Image):
        image = open_image(image)
        return hashlib.sha256(f"RGB {image.width} {image.height} ".encode() + image.tobytes()).hexdigest()
    return hashlib.sha256(image if isinstance(image, bytes) else read_image_bytes(image)).hexdigest()


def displayed_size(path: Path) -> tuple[int, int] | None:
    """Return width and height of an image file as displayed, without decoding it; None if there is no such file."""
    with _readable(str(path)):
        if not path.exists():
            return None
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if _orientation(image) in SIDEWAYS else (width, height)


def _name(image: object) -> str:
    if not isinstance(image, str | Path):
        raise UmieError(f"expected a PIL image or a path, not {type(image).__name__}")
    return str(image)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Raise whatever PIL raises or warns about as a UmieError that names the image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # damaged metadata, which does not affect the pixels
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            yield
    except FileNotFoundError as error:
        raise UmieError(f"{name}: no such image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UmieError(f"{name}: refused, {error}") from error
    except UnidentifiedImageError as error:
        raise UmieError(f"{name}: not a readable image (unknown format)") from error
    except Exception as error:  # PIL's decoders raise nearly anything: NotImplementedError, struct.error, ...
        raise UmieError(f"{name}: not a readable image ({error or type(error).__name__})") from error


def _as_displayed(image: Image.Image) -> Image.Image:
    if not min(image.size):
        raise ValueError(f"it is {image.width} x {image.height} pixels")
    transpose = UPRIGHT.get(_orientation(image))
    displayed = _rgb(image) if transpose is None else _rgb(image).transpose(transpose)
    displayed.info.clear()  # its EXIF orientation would be applied again the next time the image is opened
    return displayed


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF makes PIL raise nearly anything; the pixels are still good
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 or 32-bit gray, which PIL clips to 8 bits instead of scaling it
        wide = image.convert("I")
        extrema = wide.getextrema()
        if image.mode != "I" or extrema[1] > 255:  # type: ignore[operator] # a single band has numbers, not tuples
            wide = wide.point(lambda value: value * (1 / 257))
        return wide.convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
