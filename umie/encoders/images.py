"""Opening images: as displayed, in RGB, or a clear error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TypeAlias

from PIL import ExifTags, Image

from umie.errors import UmieError

ImageSource: TypeAlias = Image.Image | str | Path

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(image: ImageSource) -> Image.Image:
    """Return an image in RGB, turned as its EXIF orientation says; transparency is laid on white.

    Args:
        image: a PIL image or a path.

    Raises:
        UmieError: there is no such file, or it is not an image that can be decoded.
    """
    if not isinstance(image, Image.Image | str | Path):
        raise UmieError(f"an image is a PIL image or a path, not {type(image).__name__}")
    name = "image" if isinstance(image, Image.Image) else str(image)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # of damaged metadata, which an image can be shown without
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            if isinstance(image, Image.Image):
                return _as_displayed(image)
            with Image.open(image) as opened:
                return _as_displayed(opened)
    except FileNotFoundError as error:
        raise UmieError(f"{name}: no such image") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UmieError(f"{name}: refused, {error}") from error
    except Exception as error:  # the decoders of PIL raise what they like: NotImplementedError, struct.error, ...
        raise UmieError(f"{name}: not a readable image ({error or type(error).__name__})") from error


def _as_displayed(image: Image.Image) -> Image.Image:
    if not min(image.size):
        raise ValueError(f"it is {image.width} x {image.height} pixels")
    turn = _turn(image)
    return _rgb(image) if turn is None else _rgb(image).transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF makes PIL raise nearly anything; it shall not cost the image
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 or 32 bit grey, which PIL clips to 8 bit instead of scaling it
        wide = image.convert("I")
        extrema = wide.getextrema()
        if image.mode != "I" or extrema[1] > 255:  # type: ignore[operator] # one band has numbers, not tuples
            wide = wide.point(lambda value: value * (1 / 257))
        return wide.convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
