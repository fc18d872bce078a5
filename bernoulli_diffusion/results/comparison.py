"""Runs side by side as a table for the terminal, as a page, and as a picture of their curves."""

import io
import math
import os
import textwrap
from pathlib import Path
from urllib.parse import quote

from ..estimate import decimals
from ..estimate import text as told
from ..system.errors import printable
from .pages import duration, rendered, uri
from .runs import Run, differences, marks
from .verdict import curve, findings

LEGEND = (
    "* best; = no difference to the best beyond chance, compared on the same lines and draws (in 5% of"
    " cases equal runs are told apart); ~ the same, but without such pairs, by the errors of both, so"
    " that only large differences show. Bounds in bits."
)


def header(runs: list[Run]) -> tuple[str, ...]:
    """The names of the columns, for runs on the same data: of their measures, all that any has."""
    return "", "bound", "gap", *_measured(runs), "epochs", "time", "params", "samples/s"


def _measured(runs: list[Run]) -> list[str]:
    return list(dict.fromkeys(shown.title for r in runs for shown in r.measured))


def row(run: Run, runs: list[Run]) -> tuple[str, ...]:
    """The cells below the header, without the first one."""
    measured = {shown.title: shown.value.removesuffix("%") for shown in run.measured}
    return (
        told(run.bound, run.error),
        "" if math.isnan(run.gap) else f"{run.gap:.{decimals(run.error)}f}",
        *(measured.get(title, "") for title in _measured(runs)),
        f"{run.epochs:,}",
        duration(run.seconds),
        short(run.parameters),
        "" if math.isnan(run.samples_per_second) else short(run.samples_per_second),
    )


def short(number: float) -> str:
    """About three digits: 57, 1.23k, 45.6k, 7.89M."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Lines with columns that stand below each other, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]


def text(groups: list[list[Run]], unreadable: list[str], width: int) -> str:
    """All that compare prints. width: of the terminal, in characters."""
    parts, number = [], 0
    for runs in groups:
        parts.append(f"{runs[0].data_text}; the bound is the best on {runs[0].results.judged_by}")
        rows, legend = [header(runs)], []
        for one, mark, differs in zip(runs, marks(runs), differences(runs), strict=True):
            number += 1
            rows.append((f"{mark}{number}", *row(one, runs)))
            legend += _legend(number, one, differs, width)
        parts += ["", *table(rows), "", *legend, ""]
    if any(len(runs) > 1 for runs in groups):
        parts += textwrap.wrap(LEGEND, width)
    for reason in unreadable:
        parts.append(printable(f"left out: {reason}"))
    return "\n".join(parts).rstrip("\n")


def _legend(number: int, run: Run, differs: str, width: int) -> list[str]:
    """What the row with this number is."""
    about = f"{run.network}; {run.parameters:,} parameters, source {run.source_sha256[:8]}"
    lines = [f"{number:3d}  {printable(run.folder)} ({run.status})"]
    for line in (about, differs):
        lines += textwrap.wrap(
            line, max(40, width), initial_indent=" " * 5, subsequent_indent=" " * 5
        )
    return lines


def page(groups: list[list[Run]], unreadable: list[str], base: Path) -> bytes:
    """The same as HTML, with a picture of the curves. base: the folder in which the page will lie."""
    shown, number = [], 0
    for runs in groups:
        names = [f"{number + k}" for k in range(1, len(runs) + 1)]
        rows = [
            {
                "number": name,
                "is_best": mark == "*",
                "cells": (f"{mark} {name}".strip(), *row(one, runs)),
                "claim": findings(one.results)[0].claim,
                "name": one.name,
                "link": _link(one, base),
                "status": one.status,
                "network": f"{one.network} ({one.parameters:,} parameters, {one.source_sha256[:8]})",
                "differs": differs,
            }
            for one, name, mark, differs in zip(
                runs, names, marks(runs), differences(runs), strict=True
            )
        ]
        group = {"data": runs[0].data_text, "header": header(runs), "runs": rows}
        shown.append(group | {"curves": uri(curves_picture(runs, names), "png")})
        number += len(runs)
    title = f"{number} run{'s' if number != 1 else ''} compared"
    return rendered("compare.html", title=title, legend=LEGEND, groups=shown, unreadable=unreadable)


def _link(run: Run, base: Path) -> str:
    """Where the run's report.html lies; "" if there is none."""
    target = run.folder / "report.html"
    if not target.is_file():
        return ""
    where = Path(os.path.relpath(target.resolve(), base.resolve())).as_posix()
    # "./" so that no name is taken for a scheme such as javascript:
    return "./" + quote(where, errors="surrogateescape")


def curves_picture(runs: list[Run], names: list[str]) -> bytes:
    """A PNG: the bounds by which runs are judged, against epochs and against seconds."""
    from . import plots  # importing matplotlib takes half a second

    lines = []
    for one, name in zip(runs, names, strict=True):
        points = curve(one.results, one.results.judged_by)
        seconds = one.results.seconds[-len(points) :]
        lines.append((f"{name}  {one.name}", points, seconds))
    buffer = io.BytesIO()
    figure = plots.comparison(lines, f"bound on {runs[0].results.judged_by}, bits per string")
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
