"""The frames of GIFs: generated strings as images or as rows of cells, and the files they go into.

No function here draws random numbers or changes a global setting.
"""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import imageio.v3 as iio
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..estimate import evenly_spaced
from ..system.files import write_atomically

MAX_FRAMES = 200  # more are thinned out: nobody waits for the end of a longer GIF
MAX_IMAGES = 64  # strings in a frame, drawn as images
MAX_ROWS = 40  # strings in a frame, drawn as rows
AREA = 640  # pixels, the side of the square that the strings of a frame are fitted into
MAX_WIDTH = 1000  # pixels, of rows of narrow cells; longer strings take several lines
MIN_WIDTH = 420  # pixels, so that the header has room
MARGIN = 14  # pixels
ZERO, ONE, BACKGROUND = 255, 30, 226  # grey levels; few of them keep GIFs sharp and small


class Grid(NamedTuple):
    """How the strings in a frame are laid out; lengths in pixels."""

    count: int  # strings shown
    across: int  # strings side by side
    rows: int  # lines of cells that one string takes
    columns: int  # cells in a line; rows * columns >= L
    cell_height: int
    cell_width: int
    gap_y: int  # between strings
    gap_x: int

    @property
    def down(self) -> int:
        return math.ceil(self.count / self.across)

    @property
    def height(self) -> int:
        return self.down * (self.rows * self.cell_height + self.gap_y) - self.gap_y

    @property
    def width(self) -> int:
        return self.across * (self.columns * self.cell_width + self.gap_x) - self.gap_x


def sample_frames(
    samples: np.ndarray,
    labels: list[str],
    title: str,
    shape: Sequence[int] | None = None,
    caption: str = "black is 1",
    unit: str = "string",
    levels: tuple[int, int] = (ZERO, ONE),
) -> np.ndarray:
    """Frames of generated strings, one for each step of their evolution: 1 is black, 0 is white.

    samples: (F, N, L) of 0 to 1, N strings at each of F steps; labels: F names of the steps, such
    as "epoch 40"; shape: (rows, columns) with rows * columns = L draws each string as an image,
    (rows, columns, 3) one in colour, 1 bright, None as a row of cells; levels: the greys of 0 and 1. Of
    many strings the first are shown, and the frames say so, with unit for what one is called.
    Returns (min(F, MAX_FRAMES), H, W) grey levels, uint8, or (.., H, W, 3) colours.
    """
    if shape is not None and len(shape) == 3:
        drawn = (samples[:, :, colour::3] for colour in range(3))
        how = shape[:2], "in colour", unit, (0, 255)
        return np.stack([sample_frames(one, labels, title, *how) for one in drawn], axis=-1)
    steps = evenly_spaced(len(samples), MAX_FRAMES)
    _, N, L = samples.shape
    # A single line of cells, or an image wider than a screen, is better drawn as rows.
    as_image = shape is not None and min(shape) > 1 and max(shape) <= MAX_WIDTH
    grid = _image_grid(N, *shape) if as_image else _row_grid(N, L)

    strings = f"{N:,} {unit}{'s' if N > 1 else ''}"
    shown = strings if grid.count == N else f"{grid.count} of {strings} shown"
    frame_width = max(grid.width + 2 * MARGIN, MIN_WIDTH)
    headers = _headers(title, [labels[i] for i in steps], f"{shown} · {caption}", frame_width)

    top, left = headers.shape[1], (frame_width - grid.width) // 2
    frames = np.full(
        (len(steps), top + grid.height + MARGIN, frame_width), BACKGROUND, dtype=np.uint8
    )
    frames[:, :top] = headers
    for frame, step in zip(frames, steps, strict=True):
        strings_drawn = _draw_strings(samples[step, : grid.count], grid, levels)
        frame[top : top + grid.height, left : left + grid.width] = strings_drawn
    return frames


def _image_grid(N: int, rows: int, columns: int) -> Grid:
    """Up to MAX_IMAGES images, fewer where they would be smaller than 64 pixels."""
    side = max(AREA, rows, columns)
    for k in range(math.isqrt(MAX_IMAGES), 0, -1):
        count = min(N, k * k)
        scale, across = _largest_cells(count, rows, columns, side, gap_y=6, gap_x=6)
        if scale >= 4 or scale * max(rows, columns) >= 64:
            break
    return Grid(count, across, rows, columns, scale, scale, 6, 6)


def _row_grid(N: int, L: int) -> Grid:
    """Up to MAX_ROWS rows, side by side where short, in several lines beyond MAX_WIDTH bits."""
    lines = math.ceil(L / MAX_WIDTH)
    columns = math.ceil(L / lines)
    count = min(N, MAX_ROWS, max(1, AREA // (lines + 3)))
    width, across = _largest_cells(count, lines, columns, AREA, gap_y=3, gap_x=24)
    if width < 2:
        width, across = MAX_WIDTH // columns, 1
    # Narrow cells become bars, as high as there is room for.
    room = ((AREA + 3) // math.ceil(count / across) - 3) // lines
    return Grid(count, across, lines, columns, max(width, min(room, 12)), width, 3, 24)


def _largest_cells(
    count: int, rows: int, columns: int, side: int, gap_y: int, gap_x: int
) -> tuple[int, int]:
    """(size, across): the largest square cells, up to 24 pixels, and the strings side by side then.

    count strings of rows x columns cells each have to fit into side x side pixels; size 0 says that
    they do not. Of several ways one without empty places is taken, the one nearest to a square.
    """

    def merit(across: int) -> tuple[int, int, int]:
        down = math.ceil(count / across)
        size = min(
            ((side + gap_x) // across - gap_x) // columns,
            ((side + gap_y) // down - gap_y) // rows,
            24,
        )
        empty = down * across - count
        width, height = across * (size * columns + gap_x), down * (size * rows + gap_y)
        return max(size, 0), -empty, -abs(width - height)

    across = max(range(count, 0, -1), key=merit)
    return merit(across)[0], across


def _draw_strings(samples: np.ndarray, grid: Grid, levels: tuple[int, int]) -> np.ndarray:
    """samples (n, L), uint8 of 0 and 1 or floats from 0 to 1 -> picture (grid.height, grid.width)."""
    (n, L), (zero, one) = samples.shape, levels
    cells = np.full((grid.down * grid.across, grid.rows * grid.columns), BACKGROUND, np.uint8)
    if samples.dtype == np.uint8:
        cells[:n, :L] = np.where(samples, np.uint8(one), np.uint8(zero))
    else:
        cells[:n, :L] = np.round(zero + (one - zero) * samples)
    # (down, rows, across, columns): the pixels in reading order
    cells = cells.reshape(grid.down, grid.across, grid.rows, grid.columns).swapaxes(1, 2)
    cells = cells.repeat(grid.cell_height, axis=1).repeat(grid.cell_width, axis=3)
    if min(grid.cell_height, grid.cell_width) >= 6:  # thin lines between cells
        cells[:, grid.cell_height - 1 :: grid.cell_height] = BACKGROUND
        cells[..., grid.cell_width - 1 :: grid.cell_width] = BACKGROUND
    gaps = [(0, 0), (0, grid.gap_y), (0, 0), (0, grid.gap_x)]
    cells = np.pad(cells, gaps, constant_values=BACKGROUND)
    return cells.reshape(cells.shape[0] * cells.shape[1], -1)[: grid.height, : grid.width]


def _headers(title: str, labels: list[str], caption: str, width: int) -> np.ndarray:
    """(F, h, width): title at the left, each frame's label at the right, the caption below."""
    for size in range(17, 10, -1):  # the largest type in which both fit
        bold, regular = _font("DejaVuSans-Bold.ttf", size), _font("DejaVuSans.ttf", size)
        room = width - 3 * MARGIN - max(regular.getlength(label) for label in labels)
        if bold.getlength(title) <= room:
            break
    while title.rstrip("…") and bold.getlength(title) > room:
        title = title.rstrip("…")[:-1] + "…"

    ink = Image.new("L", (width, 62))
    draw = ImageDraw.Draw(ink)
    draw.text((MARGIN, 26), title, font=bold, fill=255, anchor="ls")
    draw.text((MARGIN, 46), caption, font=_font("DejaVuSans.ttf", 12), fill=160, anchor="ls")
    inks = []
    for label in labels:
        frame = ink.copy()
        position = (width - MARGIN, 26)
        ImageDraw.Draw(frame).text(position, label, font=regular, fill=255, anchor="rs")
        inks.append(np.asarray(frame))
    darkness = np.round(np.stack(inks) / 51) / 5  # in six levels from 0 to 1
    return np.round(BACKGROUND + darkness * (ONE - BACKGROUND)).astype(np.uint8)


def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """The typeface of the figures: it comes with matplotlib, so it is the same on every machine."""
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def write_gif(frames: np.ndarray, path: str | os.PathLike, milliseconds: float = 120) -> None:
    """frames, (F, H, W) greys or (F, H, W, 3) colours in uint8, as a GIF that repeats for ever.

    Each frame stays for `milliseconds`, in GIF's steps of 10 and at least 20, below which viewers
    choose their own; the last one stays for 2 seconds. More than MAX_FRAMES frames are thinned out.
    path is the old file or the complete new one. Raises OSError.
    """
    frames = frames[evenly_spaced(len(frames), MAX_FRAMES)]
    duration = max(20, 10 * round(milliseconds / 10))
    durations = [duration] * (len(frames) - 1) + [max(duration, 2000)]
    # Pillow merges equal neighbours into one frame that stays as long as all of them together.
    data = iio.imwrite(
        "<bytes>",
        frames,
        extension=".gif",
        plugin="pillow",
        is_batch=True,  # else a stack of frames 2, 3 or 4 pixels wide is taken for one colour image
        duration=durations if len(frames) > 1 else durations[0],  # Pillow takes no list of one
        loop=0,
    )
    write_atomically(path, data)
