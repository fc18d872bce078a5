"""report.html, the page of a run: python -m bernoulli_diffusion.report_page RESULTS_DIR...

One file that needs no other: pictures are inside, nothing is loaded. Made from results.json and the
files beside it, so that it can be made again at any time. The text around is report_template.html,
the looks are page_style.css. Whatever comes from a run is escaped.
"""

import ast
import base64
import html
import json
import math
import shlex
import struct
import zlib
from pathlib import Path
from string import Template

import numpy as np

from ..system.errors import UserError, cannot_open
from ..system.files import write_atomically
from .verdict import best_bounds, findings

FILE_NAME = "report.html"
TEMPLATES = Path(__file__).with_name("templates")
DAMAGED = (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError)
MAX_PICTURE_BYTES = 4 << 20  # a larger file is named, not shown
MAX_TEXT = 200_000  # characters of config.yaml and reverse_model.py
MAX_LINE = 128  # bits; longer strings take several lines
MAX_SHOWN = 100  # strings
MAX_DOTS = 2000  # bits in the picture of single bits

ZERO, ONE, GAP = (255, 255, 255), (30, 30, 30), (200, 205, 210)
LOW, MIDDLE, HIGH = (0, 114, 178), (250, 250, 250), (213, 94, 0)  # Okabe and Ito's blue and red


# ---------------------------------------------------------------------------------------- reading


def read_results(folder: Path) -> dict:
    """results.json of a results folder. Raises UserError."""
    path = folder / "results.json"
    try:
        results = json.loads(path.read_bytes())
    except OSError as error:
        raise cannot_open(path, error, "expected a results folder of train.py") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON; was it edited?") from None
    if not isinstance(results, dict):
        raise UserError(f"{path}: not the results of a run")
    return results


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


# ---------------------------------------------------------------------------------------- pictures


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a PNG file; a picture of a few thousand cells needs no library."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter, 0
    rows[:, 1:] = pixels.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def cells(pixels: np.ndarray, caption: str, side: int = 320) -> str:
    """A figure of (H, W, 3) cells, each as large as fits into `side` pixels. caption is HTML."""
    height, width, _ = pixels.shape
    scale = max(1, min(side // max(width, height), 24))
    return (
        f'<figure><img class="cells" alt="" width="{scale * width}" height="{scale * height}"'
        f' src="{uri(png(pixels), "png")}"><figcaption>{caption}</figcaption></figure>'
    )


def heat_map(values: np.ndarray, most: float) -> np.ndarray:
    """(H, W) values from -most to most as (H, W, 3) colours: blue, white, red."""
    share = np.clip(values / most, -1, 1)[..., None]  # (H, W, 1)
    end = np.where(share < 0, LOW, HIGH)
    return np.round(MIDDLE + abs(share) * (end - np.array(MIDDLE))).astype(np.uint8)


def grey_map(values: np.ndarray) -> np.ndarray:
    """(H, W) values from 0 to 1 as (H, W, 3) greys, white to black as bits are drawn."""
    ends = np.array(ZERO), np.array(ONE)
    return np.round(ends[0] + values[..., None] * (ends[1] - ends[0])).astype(np.uint8)


def picture_file(path: Path, alt: str) -> str:
    """A PNG or GIF file as a figure; says so if it is not there (yet) or too large."""
    name = html.escape(path.name)
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_PICTURE_BYTES else None
    except OSError:
        return f'<p class="muted">{name} is not drawn yet.</p>'
    if data is None:
        return f'<p class="muted">{name} is too large to stand here; it lies beside this page.</p>'
    kind = path.suffix.removeprefix(".")
    source = uri(data, kind)
    return f'<figure class="wide"><img class="picture" alt="{html.escape(alt)}" src="{source}"></figure>'


def strings_picture(strings: list[str], shape: list[int] | None) -> np.ndarray:
    """Strings of 0 and 1 as (H, W, 3) cells: images of that shape, or else a line each."""
    bits = np.array([[c == "1" for c in s] for s in strings[:MAX_SHOWN]], np.int8)  # (N, L)
    if is_image(shape, bits.shape[1]) and len(shape) == 3:
        colours = [_sheet(bits[:, colour::3], shape[:2]) for colour in range(3)]
        bright = [np.array([0, 255, gap], np.uint8) for gap in GAP]
        return np.stack(
            [levels[sheet] for levels, sheet in zip(bright, colours, strict=True)], axis=-1
        )
    return np.array([ZERO, ONE, GAP], np.uint8)[_sheet(bits, shape)]


def is_image(shape: list[int] | None, length: int) -> bool:
    """Whether strings of so many bits are drawn as images of this shape."""
    return bool(shape) and min(shape) > 1 and math.prod(shape) == length


def _sheet(bits: np.ndarray, shape: list[int] | None) -> np.ndarray:
    """(N, L) bits side by side on one sheet, (H, W): 0 and 1, and -1 between them."""
    N, L = bits.shape
    if is_image(shape, L):
        rows, columns = shape
        across = int(np.ceil(np.sqrt(N * (rows + 1) / (columns + 1))))
    else:
        rows, columns, across = -(-L // MAX_LINE), min(L, MAX_LINE), 1
    gap = int(rows > 1)
    down = -(-N // across)
    sheet = np.full((across * down, rows + gap, columns + (across > 1)), -1, np.int8)
    padded = np.full((N, rows * columns), -1, np.int8)
    padded[:, :L] = bits
    sheet[:N, :rows, :columns] = padded.reshape(N, rows, columns)
    _, height, width = sheet.shape
    sheet = sheet.reshape(down, across, height, width).swapaxes(1, 2)
    return sheet.reshape(down * height, across * width)[: down * height - gap]


def bits_chart(bits) -> str:
    """The share of ones at each bit: a line with its noise for the data, dots for the samples."""
    left, width, height = 42, 720, 180
    L = len(bits.data)
    chosen = np.linspace(0, L - 1, min(L, MAX_DOTS)).round().astype(int)
    x = left + (chosen + 0.5) / L * (width - left)

    def y(share: np.ndarray) -> np.ndarray:
        return 8 + (1 - np.clip(share, 0, 1)) * (height - 16)

    def points(x, y) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    data, noise = bits.data[chosen], 2 * bits.noise[chosen]
    band = points([*x, *x[::-1]], [*y(data + noise), *y(data - noise)[::-1]])
    radius = min(3.5, max(1.0, 250 / L))
    dots = "".join(
        f'<circle class="samples" cx="{a:.1f}" cy="{b:.1f}" r="{radius:.1f}"/>'
        for a, b in zip(x, y(bits.samples[chosen]), strict=True)
    )
    lines = "".join(
        f'<line class="grid" x1="{left}" x2="{width}" y1="{h:.1f}" y2="{h:.1f}"/>'
        f'<text x="{left - 6}" y="{h + 4:.1f}" text-anchor="end">{100 * share:.0f}%</text>'
        for share, h in zip((0, 0.5, 1), y(np.array([0, 0.5, 1])), strict=True)
    )
    return (
        f'<svg viewBox="0 0 {width} {height + 18}" role="img" aria-label="share of ones at each bit">'
        f'{lines}<polygon class="band" points="{band}"/>'
        f'<polyline class="data" points="{points(x, y(data))}"/>{dots}'
        f'<text x="{left}" y="{height + 14}">bit 1</text>'
        f'<text x="{width}" y="{height + 14}" text-anchor="end">bit {L:,}</text></svg>'
    )


# ---------------------------------------------------------------------------------------- sections


def verdict_section(results: dict) -> str:
    return "\n".join(
        f'<div class="finding {finding.tone}"><strong>{html.escape(finding.claim)}</strong>'
        f"{html.escape(finding.evidence)}</div>"
        for finding in findings(results)
    )


def _tiles(results: dict) -> str:
    bound, tiles = results["bound"], []
    best = best_bounds(results)
    if best:
        judged_by, point = next(iter(best.items()))
        value = f"{point.bits:.3f} ± {point.error:.3f} bits"
        tiles.append((value, f"best bound on {judged_by}, epoch {point.epoch:,}"))
        for name in ("val", "train") if results["has_val"] else ("train",):
            value = f"{bound[name][-1]:.3f} ± {bound[f'{name}_standard_error'][-1]:.3f} bits"
            tiles.append((value, f"last bound on {name}"))
    on = "_val" if results["has_val"] else "_train"
    for name, bits in results["baselines"].items():
        if bits is not None and (name == "uniform" or name.endswith(on)):
            label = name.removesuffix(on).replace("_", " ")
            tiles.append((f"{bits:.3f} bits", f"baseline: {label}"))
    if best:
        tiles.append(samples_in_short(results))
        tiles.append((duration(results["seconds"][-1]), "training, validations included"))
    if results.get("samples_per_second"):
        tiles.append((f"{results['samples_per_second']:,.0f} a second", "samples"))
    tiles.append((f"{results['num_parameters']:,}", "parameters"))
    return "\n".join(
        f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>'
        for value, label in tiles
    )


def samples_in_short(results: dict) -> tuple[str, str]:
    """How the last samples compare with the data, and what that is."""
    if "proportions" in results:
        shares = (results["proportions"][name][-1] for name in ("train", "val", "other"))
        value = "/".join(f"{100 * share:.1f}" for share in shares)
        return f"{value}%", "samples in train / val / neither"
    distance, floor = results["energy_distance"][-1], results["data"]["energy_floor"]
    return f"{distance:.4f}", f"energy distance of the samples; {floor:.4f} by chance"


def _samples_section(results: dict, folder: Path, shape: list[int] | None) -> str:
    if is_real(results):
        return picture_file(folder / "samples.png", "samples beside data")
    parts = []
    legend = "in colour" if shape and len(shape) == 3 else "black is 1"
    examples = results["examples_per_epoch"]
    source = "val.txt" if results["has_val"] else "train.txt"
    for strings, caption in (
        (examples[-1] if examples else [], "samples of the last validation"),
        (results.get("data_examples") or [], f"strings of {source}"),
    ):
        if not strings:
            parts.append(f'<p class="muted">No {caption} yet.</p>')
            continue
        parts.append(cells(strings_picture(strings, shape), f"{caption}; {legend}", side=480))
    return "\n".join(parts)


def is_real(results: dict) -> bool:
    """Whether the data are real numbers, not bits."""
    return results.get("process") == "gaussian"


def _statistics_section(results: dict, folder: Path, shape: list[int] | None) -> str:
    if is_real(results):
        return picture_file(folder / "forward_process.png", "data on their way to noise")
    from ..bits.measures import compare_bits, compare_pairs, correlations, square

    counts = results.get("statistics")
    if not counts:
        return '<p class="muted">Not measured yet.</p>'
    n, m = counts["samples"]["strings"], counts["data"]["strings"]
    L = len(counts["data"]["ones"])
    source = "val.txt" if results["has_val"] else "train.txt"
    bits, parts = compare_bits(counts), []
    parts.append(
        f"<p>{n:,} samples against {m:,} strings of {source}. The noise floor is what two drawings of"
        f" one distribution, {n:,} and {m:,} strings, would differ by.</p>"
    )
    rows = [("share of ones at a bit", bits, 100, "%")]
    if len(counts["bits_of_pairs"]) > 1:
        rows.append(("covariance of two bits", compare_pairs(counts), 1, ""))
    parts.append('<div class="wide"><table class="plain"><tr><th>statistic</th>')
    parts.append(
        '<th class="number">difference, rms</th><th class="number">noise floor</th><th>says</th></tr>'
    )
    for name, comparison, unit, sign in rows:
        difference, noise = (unit * value for value in comparison.rms())
        parts.append(
            f'<tr><td>{name}</td><td class="number">{difference:.3g}{sign}</td>'
            f'<td class="number">{noise:.3g}{sign}</td><td>{_says(difference, noise)}</td></tr>'
        )
    parts.append("</table></div>")
    parts.append("<h3>Single bits</h3>")
    if is_image(shape, L):
        shape = shape[0], L // shape[0]  # the colours of a pixel beside each other
        difference = heat_map(bits.z.reshape(shape), 4)
        parts.append(
            _triple(
                (grey_map(bits.data.reshape(shape)), f"share of ones in {source}; black is 100%"),
                (grey_map(bits.samples.reshape(shape)), "in samples"),
                (difference, "difference in standard errors, from −4 (blue) to 4 (red)"),
            )
        )
    else:
        chart = f'<div class="wide chart">{bits_chart(bits)}</div>'
        parts.append(f"<figure>{chart}<figcaption>Line: {source}, with a band of two")
        parts.append("standard errors of the difference; dots: samples.</figcaption></figure>")
    if len(rows) > 1:
        B = len(counts["bits_of_pairs"])
        which = "all bits" if B == L else f"{B} evenly spaced bits of {L:,}"
        parts.append(f"<h3>Pairs of bits</h3><p>Correlations among {which}.</p>")
        in_data, in_samples = (heat_map(correlations(counts, k), 1) for k in ("data", "samples"))
        difference = heat_map(square(rows[1][1].z, B), 4)
        parts.append(
            _triple(
                (in_data, f"in {source}: from −1 (blue) to 1 (red)"),
                (in_samples, "in samples"),
                (difference, "difference of the covariances in standard errors, from −4 to 4"),
            )
        )
    return "\n".join(parts)


def what_lines_are(results: dict) -> str:
    """strings of 20 bits; samples of 2 numbers."""
    words = "samples of {:,} numbers" if is_real(results) else "strings of {:,} bits"
    return words.format(results["length"])


def _says(difference: float, noise: float) -> str:
    if noise == 0:
        return "the same" if difference == 0 else "differs"
    ratio = difference / noise
    return "no more than noise" if ratio <= 1.5 else f"{ratio:.1f} times the noise"


def _triple(*maps: tuple[np.ndarray, str]) -> str:
    figures = "".join(cells(pixels, caption, side=256) for pixels, caption in maps)
    return f'<div class="triple">{figures}</div>'


def _commands(results: dict, folder: Path) -> str:
    run_dir = folder.parent.parent
    quoted = {
        "run": shlex.quote(str(run_dir)),
        "results": shlex.quote(str(folder)),
        "best": shlex.quote(str(folder / "checkpoints" / "model_best.pt")),
        "test": shlex.quote(str(run_dir / ("val.txt" if results["has_val"] else "train.txt"))),
        "again": shlex.quote(f"{run_dir}_again"),
    }
    data = " ".join(
        shlex.quote(str(run_dir / f"{name}.txt"))
        for name in (("train", "val") if results["has_val"] else ("train",))
    )
    lines = [
        "# 10 samples, and how probable given data are",
        "python generate.py {best} 10",
        "python -m bernoulli_diffusion.evaluate {best} {test}",
        "",
        "# go on where it stopped; with --set training.epochs=N beyond its end",
        "python train.py {run} --resume {results}",
        "",
        "# the same run once more, from its own config and network",
        "mkdir {again}",
        f"cp {data} {{results}}/config.yaml {{results}}/reverse_model.py {{again}}",
        "python train.py {again}",
    ]
    return html.escape("\n".join(line.format(**quoted) for line in lines))


def _origin(results: dict, folder: Path) -> str:
    data = results["data"]
    rows = [("results", folder), ("status", results["status"])]
    for name in ("train", "val"):
        if data[name]:
            lines, sha256 = f"{data[name]['lines']:,} lines", data[name]["sha256"]
            rows.append((f"{name}.txt", f"{lines}, sha256 {sha256}"))
    rows += [
        ("reverse_model.py", f"sha256 {results['reverse_model_sha256']}"),
        ("seed", results["seed"]),
        ("device", results["device"]),
        ("versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())),
    ]
    return "\n".join(
        f'<tr><th>{name}</th><td class="break">{html.escape(str(value))}</td></tr>'
        for name, value in rows
    )


def duration(seconds: float) -> str:
    """Seconds for a person: 62 s, 12.5 min, 3.4 h."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------- the page


def fill(template: str, **values: str) -> str:
    """A template of the package with the common style and these values put in."""
    text = (TEMPLATES / template).read_text(encoding="utf-8")
    style = (TEMPLATES / "page_style.css").read_text(encoding="utf-8")
    return Template(text).substitute(style=style, **values)


def page(results: dict, folder: Path, shape: list[int] | None = None) -> str:
    """The page of a run as HTML; shape: data.shape, which draws strings as images.

    Raises one of DAMAGED if results are not those of a run.
    """
    data, run_dir = results["data"], folder.resolve().parent.parent
    val = f"{data['val']['lines']:,} held out in val.txt" if results["has_val"] else "no val.txt"
    done = results["validated_epochs"][-1] if results["validated_epochs"] else 0
    source = read_text(folder / "reverse_model.py")
    name = html.escape(network_name(source))
    return fill(
        "report_template.html",
        title=html.escape(f"{run_dir.name}: {folder.resolve().name}"),
        name=html.escape(run_dir.name),
        subtitle=html.escape(f"{folder.resolve().name} · {results['status']} · epoch {done:,}"),
        data=(f"{name}, trained on {data['train']['lines']:,} {what_lines_are(results)}; {val}."),
        verdict=verdict_section(results),
        tiles=_tiles(results),
        curves="\n".join(
            f'<div class="curve">{picture_file(folder / file, alt)}</div>'
            for file, alt in (
                ("loss_curve.png", "the bounds on train and val against the epoch"),
                ("validation.png", "shares of the samples against the epoch"),
            )
        ),
        samples=_samples_section(results, folder, shape),
        animations="\n".join(
            picture_file(folder / file, alt)
            for file, alt in (
                ("sample_evolution_throughout_training.gif", "samples while training"),
                ("reverse_process.gif", "samples on their way from noise"),
            )
        ),
        statistics_title=(
            "From data to noise" if is_real(results) else "Single bits and pairs of bits"
        ),
        statistics=_statistics_section(results, folder, shape),
        network=f"{name}: {results['num_parameters']:,} parameters.",
        source=html.escape(source),
        commands=_commands(results, folder),
        origin=_origin(results, folder),
        config=html.escape(read_text(folder / "config.yaml")),
        footer="± is one standard error. All numbers are those of results.json.",
    )


def write(results: dict, folder: Path, shape: list[int] | None = None) -> None:
    """Bring folder's report.html up to date. Raises OSError, and what page raises."""
    text = page(results, folder, shape)
    write_atomically(folder / FILE_NAME, text.encode("utf-8", "replace"))
