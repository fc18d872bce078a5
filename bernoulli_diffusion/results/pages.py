"""What report.html and the page of compare are made with: templates, pictures inside the page, texts.

A page is one file that needs no other. Whatever comes from a run is escaped by the templates.
"""

import ast
import base64
import functools
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np

TEMPLATES = Path(__file__).with_name("templates")
MAX_PICTURE_BYTES = 4 << 20  # a larger file is named, not shown
MAX_TEXT = 200_000  # characters of config.yaml and reverse_model.py

LOW, MIDDLE, HIGH = (0, 114, 178), (250, 250, 250), (213, 94, 0)  # Okabe and Ito's blue and red
WHITE, BLACK = (255, 255, 255), (30, 30, 30)


@functools.cache
def _environment():
    import jinja2  # here, because the tables of compare need none of it

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def rendered(template: str, **values) -> bytes:
    """A page as UTF-8, from a file of templates/."""
    return _environment().get_template(template).render(values).encode("utf-8", "replace")


def read_text(path: Path) -> str:
    """A text file, or "" if it cannot be read. The end of a very long one is left out."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_TEXT)
    except OSError:
        return ""


def network_name(source: str) -> str:
    """What a reverse_model.py says that it is: the first line of its class's docstring.

    Else that of the file's; "reverse_model.py" if it says nothing. The file is read, not run.
    """
    try:
        tree = ast.parse(source)
        classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "ReverseModel"]
        texts = [ast.get_docstring(node) for node in [*classes, tree]]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        texts = []
    lines = [text.strip().splitlines()[0] for text in texts if text and text.strip()]
    return lines[0].rstrip(".") if lines else "reverse_model.py"


def duration(seconds: float) -> str:
    """Seconds for a person: 62 s, 12.5 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------- pictures


class PictureFile(NamedTuple):
    """A picture of the results folder; if it cannot be shown, what is missing says why."""

    name: str
    alt: str
    source: str
    missing: str


class Cells(NamedTuple):
    """A picture of a few thousand cells; width and height as it is shown, in pixels."""

    source: str
    width: int
    height: int
    caption: str


def uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def picture_file(path: Path, alt: str) -> PictureFile:
    """A PNG or GIF file."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_PICTURE_BYTES else None
    except OSError:
        return PictureFile(path.name, alt, "", "is not drawn yet.")
    if data is None:
        return PictureFile(
            path.name, alt, "", "is too large to stand here; it is beside this page."
        )
    return PictureFile(path.name, alt, uri(data, path.suffix.removeprefix(".")), "")


def cells(pixels: np.ndarray, caption: str, side: int = 320) -> Cells:
    """(H, W, 3) uint8 cells, each as large as fits into `side` pixels."""
    from PIL import Image

    height, width, _ = pixels.shape
    scale = max(1, min(side // max(width, height), 24))
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG", optimize=True)
    return Cells(uri(png.getvalue(), "png"), scale * width, scale * height, caption)


def heat_map(values: np.ndarray, most: float) -> np.ndarray:
    """(H, W) values from -most to most as (H, W, 3) colours: blue, white, red."""
    share = np.clip(values / most, -1, 1)[..., None]  # (H, W, 1)
    end = np.where(share < 0, LOW, HIGH)
    return np.round(MIDDLE + abs(share) * (end - np.array(MIDDLE))).astype(np.uint8)


def grey_map(values: np.ndarray) -> np.ndarray:
    """(H, W) values from 0 to 1 as (H, W, 3) greys, white to black as bits are drawn."""
    white, black = np.array(WHITE), np.array(BLACK)
    return np.round(white + values[..., None] * (black - white)).astype(np.uint8)
