"""Reading images: as displayed, in RGB, or a clear error."""

from __future__ import annotations

import functools
import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from PIL import ExifTags, Image, UnidentifiedImageError

from umie.errors import UmieError
from umie.files import MAX_HEAD, check_content, open_regular

ImageSource: TypeAlias = Image.Image | str | Path | bytes

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
_WHITE = (1, 255, 65535)  # the value of white in floats, and in wide integers, by the largest value of an image
_OVERSHOOT = 0.1  # by which floats may be beyond black and white, as after resampling
# By their names in Pillow, which reads the last two only with a plugin. It would also try formats that nobody stores
# photographs in: some run other programs (EPS), others are rarely tested.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF", "JXL")
_OTHER_ENDINGS = (".heic", ".heif", ".avif", ".jxl")  # which Pillow knows only with a plugin or in some builds
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height


def open_image(image: ImageSource) -> Image.Image:
    """Return an image in RGB, rotated according to its EXIF orientation, with transparency over white.

    Args:
        image: a PIL image, a path, or the bytes of an image file.

    Raises:
        UmieError: the file does not exist or cannot be decoded.
    """
    if isinstance(image, bytes):
        return decode_image(image, "image")
    if isinstance(image, Image.Image):
        with _readable("image"):
            return displayed(image)
    with _readable(_name(image)), _opened(image) as opened:
        return displayed(opened)


def decode_image(data: bytes, name: str, max_pixels: int | None = None) -> Image.Image:
    """Return the image in the bytes of a file, as ``open_image`` does; errors call it ``name``.

    Raises:
        UmieError: the bytes cannot be decoded, or are an image of more than ``max_pixels``.
    """
    with _readable(name):
        check_content(data[:MAX_HEAD])
        with open_format(io.BytesIO(data)) as opened:
            if max_pixels is not None and opened.width * opened.height > max_pixels:
                raise UmieError(f"it has {opened.width:,} x {opened.height:,} pixels; the limit is {max_pixels:,}")
            return displayed(opened)


def read_image_bytes(path: str | Path) -> bytes:
    """Return the bytes of an image file; raise UmieError if it is not a regular file or cannot be read."""
    with _readable(_name(path)), open_regular(path) as file:
        return file.read()


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
    found = stored_size(path)
    if found is None:
        return None
    (width, height), orientation = found
    return (height, width) if orientation in SIDEWAYS else (width, height)


def stored_size(path: Path) -> tuple[tuple[int, int], int] | None:
    """Return width and height of an image file as stored, and its EXIF orientation; None if there is no such file."""
    with _readable(str(path)):
        if not path.exists():
            return None
        with _opened(path) as image:
            return image.size, orientation_of(image)


def image_ending(name: str) -> str:
    """Return the ending of a file name that is one of images (``.jpg``, ``.HEIC``), "" if it has none."""
    ending = Path(name).suffix
    return ending if ending.lower() in _endings() else ""


@functools.cache
def _endings() -> frozenset[str]:
    return frozenset(_OTHER_ENDINGS).union(Image.registered_extensions())


def _name(image: object) -> str:
    if not isinstance(image, str | Path):
        raise UmieError(f"expected a PIL image or a path, not {type(image).__name__}")
    return str(image)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a regular image file; PIL itself would wait for a pipe forever."""
    with open_regular(path) as file:
        check_content(file.read(MAX_HEAD))
        file.seek(0)
        with open_format(file) as image:
            yield image


def open_format(file: IO[bytes]) -> Image.Image:
    """Open an image file of one of FORMATS; raise UnidentifiedImageError for others."""
    Image.init()  # so that all formats are known; done once
    return Image.open(file, "r", [name for name in FORMATS if name in Image.OPEN])


@contextmanager
def limited_pixels() -> Iterator[None]:
    """Refuse images with more pixels than PIL's limit, about which it only warns; ignore its other warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # damaged metadata, which does not affect the pixels
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        yield


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Raise whatever PIL raises or warns about as a UmieError that names the image."""
    try:
        with limited_pixels():
            yield
    except UmieError as error:
        raise UmieError(f"{name}: not a readable image ({error})") from error
    except FileNotFoundError as error:
        raise UmieError(f"{name}: no such image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UmieError(f"{name}: refused, {error}") from error
    except UnidentifiedImageError as error:
        advice = "(use PNG, JPEG, WebP, GIF, BMP or TIFF)"
        raise UmieError(f"{name}: not a readable image (unknown format) {advice}") from error
    except Exception as error:  # PIL's decoders raise nearly anything: NotImplementedError, struct.error, ...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UmieError(f"{name}: not a readable image ({reason})") from error


def displayed(image: Image.Image, orientation: int | None = None) -> Image.Image:
    """Return the current frame of an image that PIL has opened as ``open_image`` does, without its errors.

    ``orientation`` is that of the file in EXIF, if it is known.
    """
    if not min(image.size):
        raise ValueError(f"it is {image.width} x {image.height} pixels")
    transpose = UPRIGHT.get(orientation_of(image) if orientation is None else orientation)
    upright = _rgb(image) if transpose is None else _rgb(image).transpose(transpose)
    upright.info.clear()  # its EXIF orientation would be applied again the next time the image is opened
    return upright


def orientation_of(image: Image.Image) -> int:
    """Return the orientation of an image in EXIF, 1 if it is upright."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF makes PIL raise nearly anything; the pixels are still good
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):  # PIL clips these to 8 bits instead of scaling them
        import numpy as np  # here, because most images do not need it

        wide = image if image.mode == "F" else image.convert("I")
        values = np.asarray(wide)
        low, high = float(values.min()), float(values.max())  # NaN if there is one, which no comparison accepts
        scales = _WHITE if image.mode == "F" else _WHITE[1:] if image.mode == "I" else _WHITE[2:]
        spare = _OVERSHOOT if image.mode == "F" else 0.0
        white = next((value for value in scales if high <= value * (1 + spare)), None)
        if white is None or not low >= -white * spare:
            raise ValueError(f"its values are {low:g} to {high:g}: convert it to values of 0 to 255")
        return wide.point(lambda value: value * (255 / white)).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image).convert("RGB")
    return image.convert("RGB")
