"""Draw explorer.png, the page of `umie explore`: two variants and the annotation of an example.

Run from the root of a clone, with Chromium and ChromeDriver, after training both variants as docs/explorer.md says:

    python docs/figures/explorer.py GATED/best TEXT_ONLY/best GATED/data-*/test.jsonl
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

sys.path.insert(0, "tests")
from browser import open_page

from umie.data.source import Source, draw_records
from umie.explorer import Explorer, LoadedVariant, read_examples
from umie.explorer.server import served
from umie.extraction import Extractor

OUTPUT = Path(__file__).with_suffix(".png")
WIDTH, CHOSEN = 1280, 4  # pixels; the example that is shown


def draw(gated: str, text_only: str, data: str) -> None:
    """Draw the page of two variants with examples from a file."""
    models = {"gated": gated, "text_only": text_only}
    variants = [LoadedVariant(name, Extractor.from_pretrained(path, device="cpu")) for name, path in models.items()]
    records = [(f"test.jsonl:{number}", record) for number, record in draw_records(Source(Path(data)), 12)]
    with TemporaryDirectory() as name, open_page() as page:
        folder = Path(name)
        with served(Explorer(variants, read_examples(records, folder)), folder) as address:
            page.resize(WIDTH)
            page.open(address)
            page.wait_for("return document.querySelector('.ux-annotated')")  # of the first example
            page.click(f"[data-index='{CHOSEN}']")
            page.wait_for(
                f"return document.querySelector('.ux-annotated h2')?.textContent.endsWith({records[CHOSEN][0]!r})"
            )
            page.run("document.activeElement.blur()")
            time.sleep(1)  # the answer fades in
            page.save_picture(folder / "page.png")
        Image.open(folder / "page.png").convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            OUTPUT, optimize=True
        )


if __name__ == "__main__":
    draw(*sys.argv[1:])
