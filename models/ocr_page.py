"""Pages to read: invoices drawn with Pillow, of which every line of text is known."""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from veltair.models.source import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

PAGE_PIXELS = 640
FONT_PIXELS = 34  # half of it is left after the page is shrunk to the detector's 320: still readable
LINE_GAP_PIXELS = 78  # lines further apart than this never melt into one box
MARGIN_PIXELS = 36

BUYERS = ("Maria Keller", "Jonas Weber", "Alice Martin", "Peter Novak", "Laura Rossi", "Omar Haddad", "Ingrid Olsen", "Tom Baker")
GOODS = ("Green tea", "Desk lamp", "Notebook", "Coffee beans", "Paper clips", "Wall clock", "Garden hose", "Winter coat")
CITIES = ("Hamburg", "Vienna", "Lisbon", "Geneva", "Dublin", "Krakow", "Antwerp", "Helsinki")


@dataclass(frozen=True, slots=True)
class Page:
    image: Tensor  # height x width x 3, uint8, channels in OpenCV's order (blue first)
    lines: tuple[str, ...]  # from top to bottom


def invoice_lines(random: Random) -> tuple[str, ...]:
    count, price_cents = random.randint(2, 9), random.randint(150, 9_900)
    day, month = random.randint(10, 28), random.randint(10, 12)
    return (
        f"Invoice {random.randint(1_000, 9_999)}",
        f"Date {day}.{month}.{random.randint(2020, 2026)}",
        random.choice(BUYERS),
        f"{random.choice(CITIES)} {random.randint(10_000, 99_999)}",
        f"{count} {random.choice(GOODS)}",
        f"Total {count * price_cents / 100:.2f} EUR",
    )


def draw_page(seed: int) -> Page:
    lines = invoice_lines(Random(seed))
    picture = _blank(PAGE_PIXELS, PAGE_PIXELS, shade=Random(seed).randint(232, 255))
    for row, text in enumerate(lines):
        _write(picture, text, (MARGIN_PIXELS + 12 * (row % 2), MARGIN_PIXELS + row * LINE_GAP_PIXELS + 40), FONT_PIXELS)
    return Page(_blue_first(picture), lines)


def draw_line(text: str, font_pixels: int = FONT_PIXELS) -> Tensor:
    """A picture just large enough for `text`, as a detector's crop would be."""
    width, height = _extent(text, font_pixels)
    pad = font_pixels // 5
    picture = _blank(width + 2 * pad, height + 2 * pad, shade=245)
    _write(picture, text, (pad, pad), font_pixels)
    return _blue_first(picture)


def _font(pixels: int) -> "FreeTypeFont":
    from PIL import ImageFont

    font = ImageFont.load_default(size=pixels)  # Pillow carries this one: no font need be installed
    assert isinstance(font, ImageFont.FreeTypeFont), "asked for a size, Pillow gives its scalable font"
    return font


def _extent(text: str, font_pixels: int) -> tuple[int, int]:
    left, top, right, bottom = _font(font_pixels).getbbox(text, anchor="la")
    return round(right - min(left, 0)), round(bottom - min(top, 0))


def _blank(width: int, height: int, shade: int) -> "Image":
    import PIL.Image

    return PIL.Image.new("RGB", (width, height), (shade, shade, shade))


def _write(picture: "Image", text: str, at: tuple[int, int], font_pixels: int) -> None:
    from PIL import ImageDraw

    ImageDraw.Draw(picture).text(at, text, fill=(24, 24, 40), font=_font(font_pixels), anchor="la")


def _blue_first(picture: "Image") -> Tensor:
    return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
