import struct

import pytest
from PIL import Image

from umie.errors import UmieError
from umie.images import decode_image, displayed_size, image_digest, open_image, read_image_bytes
from umie.media import open_clip

RED, WHITE = (255, 0, 0), (255, 255, 255)


def pixels(image):
    return [image.getpixel((x, y)) for y in range(image.height) for x in range(image.width)]


def grey16(values, mode="I;16", form="<"):
    return Image.frombytes(mode, (len(values), 1), struct.pack(f"{form}{len(values)}H", *values))


@pytest.fixture
def save(tmp_path):
    def write(image, name, **options):
        path = tmp_path / name
        image.save(path, **options)
        return path

    return write


def test_transparent_pixels_of_a_png_named_jpg_are_white(save):
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    opened = open_image(save(image, "image.jpg", format="PNG"))
    assert opened.mode == "RGB"
    assert pixels(opened) == [RED, WHITE]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff\xff"])
def test_palette_with_transparency(save, transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([9, 9, 9, 255, 0, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    path = save(image, "palette.png", transparency=transparency)
    assert pixels(open_image(path)) == [WHITE, RED, (0, 0, 255)]


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBa"])
def test_other_modes_with_transparency(mode):
    assert pixels(open_image(Image.new("RGBA", (1, 1), (0, 0, 0, 0)).convert(mode))) == [WHITE]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [("CMYK", (0, 255, 255, 0), RED), ("1", 1, WHITE), ("L", 7, (7, 7, 7)), ("F", 7.0, (7, 7, 7))],
)
def test_other_modes(mode, color, expected):
    assert pixels(open_image(Image.new(mode, (1, 1), color))) == [expected]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_of_16_bits_is_scaled_by_its_range(save, suffix):
    path = save(grey16([0, 257 * 100, 65535]), f"grey.{suffix}")
    assert pixels(open_image(path)) == [(0, 0, 0), (100, 100, 100), WHITE]


def test_grey_of_16_bits_does_not_depend_on_the_rest_of_the_image():
    assert pixels(open_image(grey16([65535, 65535]))) == [WHITE, WHITE]
    assert pixels(open_image(grey16([200, 250]))) == [(0, 0, 0), (0, 0, 0)]
    assert pixels(open_image(grey16([65535], "I;16B", ">"))) == [WHITE]


def test_grey_of_16_bits_with_transparency(save):
    assert pixels(open_image(save(grey16([0, 65535]), "grey.png", transparency=0))) == [(0, 0, 0), WHITE]


def test_grey_of_32_bits():
    image = Image.new("I", (2, 1), 100)
    assert pixels(open_image(image)) == [(100, 100, 100)] * 2
    image.putpixel((0, 0), 65535)
    assert pixels(open_image(image)) == [WHITE, (0, 0, 0)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(save, orientation):
    upright = Image.new("RGB", (48, 32), "blue")
    upright.paste((255, 255, 0), (0, 0, 16, 16))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(stored, "rotated.png", exif=exif)
    assert displayed_size(path) == (48, 32)
    opened = open_image(path)
    assert opened.size == (48, 32)
    assert pixels(opened) == pixels(upright)
    assert pixels(decode_image(path.read_bytes(), "rotated.png")) == pixels(upright)
    assert pixels(open_image(opened)) == pixels(upright)  # rotated once only


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02A\0\0\0\0\0\0\0",
    ],
)
def test_damaged_exif_does_not_cost_the_image(save, exif):
    path = save(Image.new("RGB", (4, 2)), "damaged.jpg", exif=exif)
    assert open_image(path).size == (4, 2)


def test_the_size_of_a_file_that_is_not_an_image(tmp_path):
    assert displayed_size(tmp_path / "absent.jpg") is None
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UmieError, match=r"text\.jpg: not a readable image \(unknown format\)"):
        displayed_size(tmp_path / "text.jpg")


def test_bytes_of_files(tmp_path):
    for path, message in ((tmp_path, "not a regular file"), ("nul\0.png", "null"), (tmp_path / "absent", "no such")):
        with pytest.raises(UmieError, match=message):
            read_image_bytes(path)
        with pytest.raises(UmieError, match=message):
            image_digest(path)


def test_one_pixel(save):
    assert pixels(open_image(save(Image.new("RGB", (1, 1), RED), "dot.png"))) == [RED]


def test_the_given_image_is_not_modified():
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    open_image(image)
    assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (0, 0, 0, 0))


def test_missing_file(tmp_path):
    with pytest.raises(UmieError, match=r"none\.png: no such image"):
        open_image(tmp_path / "none.png")


def test_truncated_file(save):
    path = save(Image.effect_noise((64, 64), 50), "cut.jpg")
    path.write_bytes(path.read_bytes()[:800])
    with pytest.raises(UmieError, match=r"cut\.jpg: not a readable image \(.*truncated"):
        open_image(str(path))


@pytest.mark.parametrize("content", [b"", b"this is no image", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images(tmp_path, content):
    path = tmp_path / "text.jpg"
    path.write_bytes(content)
    with pytest.raises(UmieError, match=r"text\.jpg: not a readable image"):
        open_image(path)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "MPO", "AVIF"])
def test_formats_are_read_whatever_the_name_says(tmp_path, name):
    if name not in (Image.init() or Image.SAVE):
        pytest.skip(f"Pillow was built without {name}")
    Image.new("RGB", (8, 4), "red").save(tmp_path / "a.eps", format=name)
    assert open_image(tmp_path / "a.eps").size == decode_image((tmp_path / "a.eps").read_bytes(), "a").size == (8, 4)
    assert displayed_size(tmp_path / "a.eps") == (8, 4)
    assert open_clip(tmp_path / "a.eps", 1).frames[0].size == (8, 4)


@pytest.mark.parametrize("name", ["EPS", "TGA", "PCX", "SGI", "ICO", "JPEG2000", "QOI"])
def test_other_formats_of_pillow_are_refused(tmp_path, name):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png", format=name)
    for read in (open_image, lambda path: decode_image(path.read_bytes(), "a.png"), displayed_size):
        with pytest.raises(UmieError, match=r"a\.png: not a readable image \(unknown format\) \(use PNG, JPEG, "):
            read(tmp_path / "a.png")


def test_a_folder(tmp_path):
    with pytest.raises(UmieError, match="not a readable image"):
        open_image(tmp_path)


def test_decompression_bomb(save, monkeypatch):
    path = save(Image.new("1", (20, 15)), "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 300 pixels: beyond twice the limit PIL raises
    with pytest.raises(UmieError, match=r"bomb\.png: refused"):
        open_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # and up to it PIL only warns
    with pytest.raises(UmieError, match=r"bomb\.png: refused"):
        open_image(path)


def test_no_pixels():
    with pytest.raises(UmieError, match="0 x 3 pixels"):
        open_image(Image.new("RGB", (0, 3)))


def test_neither_image_nor_path():
    with pytest.raises(UmieError, match="expected a PIL image or a path, not int"):
        open_image(3)
    with pytest.raises(UmieError, match="image: not a readable image"):  # the bytes of a file, not its name
        open_image(b"image.png")


@pytest.mark.parametrize("full", [1.0, 255.0, 65535.0])
def test_floats_are_scaled_by_their_range(save, full):
    values = [0.0, 0.25 * full, 0.5 * full, full]
    image = Image.frombytes("F", (4, 1), struct.pack("4f", *values))
    for given in (image, save(image, "image.tiff")):
        assert [red for red, _, _ in pixels(open_image(given))] == [0, 63, 127, 255]


def test_floats_may_overshoot_as_after_resampling():
    image = Image.frombytes("F", (4, 1), struct.pack("4f", -0.02, 0, 0.5, 1.05))
    assert [red for red, _, _ in pixels(open_image(image))] == [0, 0, 127, 255]


@pytest.mark.parametrize(
    ("mode", "form", "values"),
    [("F", "4f", (0, 0.5, float("nan"), 1)), ("F", "4f", (0, 1, float("inf"), 1)), ("F", "4f", (-1, 1, 0, 0)),
     ("F", "4f", (0, 1e6, 0, 0)), ("I", "4i", (0, 70_000, 0, 0)), ("I", "4i", (-5, 1, 0, 0))],
)  # fmt: skip
def test_values_that_are_no_gray_are_refused(save, mode, form, values):
    path = save(Image.frombytes(mode, (4, 1), struct.pack(form, *values)), "image.tiff")
    with pytest.raises(UmieError, match=r"image\.tiff: not a readable image \(its values are .* convert it"):
        open_image(path)
