"""report.html, the page of a run: python -m bernoulli_diffusion.report_page RESULTS_DIR...

Made from results.json and the files beside it, so that it can be made again at any time. The text
around is templates/report.html, and what a kind of data adds is that kind's.
"""

import json
import shlex
from pathlib import Path

from ..estimate import text
from ..system.files import write_atomically
from .pages import duration, network_name, picture_file, read_text, rendered
from .record import Results
from .verdict import best_bounds, findings

FILE_NAME = "report.html"
QUALITY = "quality.json"  # of a model of a table: tables/likeness.py writes it, and two pictures
COLUMNS, ASSOCIATIONS = "quality_columns.png", "quality_associations.png"
QUALITY_PICTURES = {
    COLUMNS: "the distribution of each column, data beside samples",
    ASSOCIATIONS: "associations of every two columns, data beside samples",
}
CURVES = {
    "loss_curve.png": "the bounds on train and val against the epoch",
    "validation.png": "what was measured of the samples against the epoch",
}
ANIMATIONS = {
    "sample_evolution_throughout_training.gif": "samples while training",
    "reverse_process.gif": "samples on their way from noise",
}


def page(results: Results, kind, folder: Path, shape: list[int] | None = None) -> bytes:
    """The page of a run as HTML; kind: as in kinds.Kind; shape: data.shape, to draw images.

    Raises ValueError, KeyError or TypeError if kind cannot read its own part of the results.
    """
    run_dir, resolved = folder.parent.parent, folder.resolve()
    source = read_text(folder / "reverse_model.py")
    data_files = ("train", "val") if results.has_val else ("train",)
    return rendered(
        kind.REPORT,
        title=f"{resolved.parent.parent.name}: {resolved.name}",
        run=resolved.parent.parent.name,
        folder_name=resolved.name,
        results=results,
        epoch=results.validated_epochs[-1] if results.validated_epochs else 0,
        findings=findings(results),
        tiles=_tiles(results),
        curves=[picture_file(folder / name, alt) for name, alt in CURVES.items()],
        animations=[picture_file(folder / name, alt) for name, alt in ANIMATIONS.items()],
        quality=_quality(folder),
        network=network_name(source),
        source=source,
        config=read_text(folder / "config.yaml"),
        origin=_origin(results, folder),
        run_dir=shlex.quote(str(run_dir)),
        folder=shlex.quote(str(folder)),
        best=shlex.quote(str(folder / "checkpoints" / "model_best.pt")),
        again=shlex.quote(f"{run_dir}_again"),
        data_files=[shlex.quote(str(run_dir / f"{name}.txt")) for name in data_files],
        **kind.report(results, folder, shape),
    )


def write(results: Results, kind, folder: Path, shape: list[int] | None = None) -> None:
    """Bring folder's report.html up to date. Raises OSError, and what page raises."""
    write_atomically(folder / FILE_NAME, page(results, kind, folder, shape))


def _quality(folder: Path) -> str:
    """What was found of a model of a table, with its pictures, as HTML; "" if nothing was."""
    text = read_text(folder / QUALITY)
    if not text:
        return ""
    pictures = [picture_file(folder / name, alt) for name, alt in QUALITY_PICTURES.items()]
    try:
        shown = json.loads(text)["shown"] | {"pictures": pictures}
        return rendered("quality.html", quality=shown).decode()
    except Exception:  # the file may hold anything, and all else on the page is as it was
        again = "<code>python -m bernoulli_diffusion.quality</code> writes it again."
        return f'<p class="muted">{QUALITY} is not as it was written. {again}</p>'


def _tiles(results: Results) -> list[tuple[str, str]]:
    """The main numbers, and what they are."""
    tiles = []
    best = best_bounds(results)
    if best:
        measured = results.recommended
        which = f"of the recommended weights, epoch {next(iter(best.values())).epoch:,}"
        date = f" (measured {measured.date})" if measured else ""
        for name, point in best.items():
            value = f"{text(point.bits, point.error)} bits"
            tiles.append((value, f"bound on {name} {which}{date}"))
        for name, bound in (results.last.bounds if results.last else {}).items():
            if bound:
                value = f"{text(bound.bits, bound.standard_error)} bits"
                epoch = f"{results.last.epoch:,}"
                tiles.append((value, f"bound on {name} of the last weights, epoch {epoch}"))
    for name, bits in results.known_baselines().items():
        tiles.append((f"{bits:.3f} bits", f"baseline: {name}"))
    if best:
        for shown in results.last_in_short():
            note = f"; {shown.note}" if shown.note else ""
            tiles.append((shown.value, f"{shown.title} of the samples{note}"))
        tiles.append((duration(results.seconds[-1]), "training, validations included"))
    if results.samples_per_second:
        tiles.append((f"{results.samples_per_second:,.0f} a second", "samples"))
    return [*tiles, (f"{results.num_parameters:,}", "parameters")]


def _origin(results: Results, folder: Path) -> list[tuple[str, object]]:
    rows = [("results", folder), ("status", results.status)]
    for name, file in (("train", results.data.train), ("val", results.data.val)):
        if file:
            rows.append((f"{name}.txt", f"{file.lines:,} lines, sha256 {file.sha256}"))
    return [
        *rows,
        ("reverse_model.py", f"sha256 {results.reverse_model_sha256}"),
        ("seed", results.seed),
        ("device", results.device),
        ("versions", ", ".join(f"{name} {version}" for name, version in results.versions.items())),
    ]
