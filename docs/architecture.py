"""docs/architecture.png, drawn from the imports of the package: python docs/architecture.py

Also the part of tests/test_architecture.py that knows which room uses which.
"""

import ast
import textwrap
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "bernoulli_diffusion"
PICTURE = Path(__file__).with_name("architecture.png")
ALGORITHM = {  # at the top of the package; what else stands there are commands and what they alone use
    "reverse_model", "gaussian_reverse_model", "diffusion", "schedule", "sampling", "conditioning",
    "likelihood", "estimate", "noise", "config", "weights",
}  # fmt: skip


def modules() -> dict[str, Path]:
    """The package's modules by their dotted names below it: {"bits.data": .../bits/data.py}."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path], *, lazy: bool = True) -> set[str]:
    """The modules of the package that one of them imports. lazy: also inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [
        n for n in tree.body if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)
    ]
    tree.body = [node for node in tree.body if node not in for_types]
    nodes = ast.walk(tree) if lazy else tree.body
    package = name.split(".") if path.name == "__init__.py" and name else name.split(".")[:-1]
    used = set()
    for node in nodes:
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
        base = ".".join(part for part in base if part)
        for alias in node.names:
            inner = f"{base}.{alias.name}" if base else alias.name
            used.add(inner if inner in known else base)
    return used - {name}


def graph(*, lazy: bool = True) -> dict[str, set[str]]:
    """{module: the modules that it imports}."""
    known = modules()
    return {name: imports(name, path, known, lazy=lazy) for name, path in known.items()}


def room(module: str) -> str:
    """The folder of a module; of those at the top, the algorithm, the kinds or the commands."""
    first = module.partition(".")[0]
    if (PACKAGE / first).is_dir():
        return first or "version"
    return "algorithm" if first in ALGORITHM else "kinds" if first == "kinds" else "commands"


def rooms() -> dict[str, set[str]]:
    """{room: the rooms that it uses}."""
    uses: dict[str, set[str]] = {}
    for module, used in graph().items():
        here = uses.setdefault(room(module), set())
        here |= {room(other) for other in used}
    for here, others in uses.items():
        others -= {here, "version"}
    uses.pop("version", None)
    return uses


def floors(uses: dict[str, set[str]]) -> list[list[str]]:
    """Rooms by floors: each one uses only rooms below it, as far as there is no circle."""
    left, result = dict(uses), []
    while left:
        ground = [name for name, used in left.items() if not used & left.keys() - {name}]
        if not ground:  # rooms that use each other stand on one floor
            ground = [min(left, key=lambda name: (len(left[name] & left.keys()), name))]
        result.append(sorted(ground))
        for name in ground:
            del left[name]
    return result


def reduced(uses: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same without what follows from the rest: a uses c where a uses b and b uses c."""

    def below(name: str) -> set[str]:
        return set().union(*({other} | below(other) for other in uses[name]))

    return {
        name: {o for o in others if not any(o in below(m) for m in others - {o})}
        for name, others in uses.items()
    }


def draw() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    uses, known = reduced(rooms()), modules()
    levels = floors(rooms())
    figure = Figure(figsize=(9, 1.15 * len(levels)), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.5, len(levels) - 0.5)
    boxes = {}
    for floor, names in enumerate(levels):
        for k, name in enumerate(names):
            inside = sorted(m.split(".")[1] for m in known if m.startswith(f"{name}."))
            inside += sorted(
                m for m in known if m and "." not in m and m != name and room(m) == name
            )
            text = textwrap.fill("  ".join(dict.fromkeys(inside)), 62, break_on_hyphens=False)
            boxes[name] = axes.text(
                (k + 0.5) / len(names), floor, f"$\\bf{{{name}}}$\n{text}".strip(),
                ha="center", va="center", fontsize=8, linespacing=1.3,
                bbox={"boxstyle": "round,pad=0.5", "facecolor": "#f4f6f8", "edgecolor": "#767676"},
            )  # fmt: skip
    figure.canvas.draw()  # the boxes get their sizes
    for name, others in uses.items():
        for other in others:
            here, there = (boxes[n].get_bbox_patch() for n in (name, other))
            axes.annotate(
                "", boxes[other].get_position(), boxes[name].get_position(),
                arrowprops={"arrowstyle": "-|>", "color": "#0072B2", "lw": 1.3,
                            "patchA": here, "patchB": there},
            )  # fmt: skip
    figure.savefig(PICTURE)


if __name__ == "__main__":
    draw()
    print(PICTURE)
