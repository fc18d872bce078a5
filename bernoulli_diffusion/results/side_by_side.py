"""config.yaml and reverse_model.py of two runs in two columns."""

import difflib
import itertools
from pathlib import Path

from ..system.errors import printable
from .pages import read_text
from .runs import find_results


def side_by_side(a: str, b: str, width: int, context: int = 3) -> list[str]:
    """Two texts in two columns; < > | between them mark lines that are gone, new, changed.

    Of lines that are the same, only `context` around a change are shown.
    """
    left, right = ([printable(line.expandtabs(4)) for line in text.splitlines()] for text in (a, b))
    half = max(20, (width - 3) // 2)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    lines, at = [], (0, 0)
    for block in matcher.get_grouped_opcodes(context):
        skipped = block[0][1] - at[0]
        lines += [f"... {skipped} equal lines"] if skipped else []
        for kind, i1, i2, j1, j2 in block:
            mark = {"equal": " ", "delete": "<", "insert": ">", "replace": "|"}[kind]
            for x, y in itertools.zip_longest(left[i1:i2], right[j1:j2], fillvalue=None):
                sign = mark if x is not None and y is not None else "<" if y is None else ">"
                lines.append(f"{_cut(x or '', half):{half}} {sign} {_cut(y or '', half)}".rstrip())
        at = block[-1][2], block[-1][4]
    rest = len(left) - at[0]
    if not lines:
        return ["the same"]
    return [*lines, f"... {rest} equal lines"] if rest else lines


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def difference(first: Path, second: Path, width: int) -> str:
    """config.yaml and reverse_model.py of two results folders (of run folders, the latest)."""
    a, b = (find_results(path)[-1] for path in (first, second))
    half = max(20, (width - 3) // 2)
    lines = [f"{_cut(printable(a), half):{half}}   {_cut(printable(b), half)}".rstrip()]
    for name in ("config.yaml", "reverse_model.py"):
        texts = read_text(a / name), read_text(b / name)
        lines += ["", f"--- {name}", *side_by_side(*texts, width)]
    return "\n".join(lines)
