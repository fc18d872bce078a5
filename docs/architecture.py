"""docs/architecture.png, drawn from the imports of the package: python docs/architecture.py

Also the part of tests/test_architecture.py that knows which room uses which.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "bernoulli_diffusion"
PICTURE = Path(__file__).with_name("architecture.png")


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
    """The folder of a module; at the top, the algorithm and the commands are rooms of their own."""
    first, _, inner = module.partition(".")
    if inner or (PACKAGE / first).is_dir():
        return first
    if not module:
        return "version"
    text = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    return "commands" if 'if __name__ == "__main__"' in text else "algorithm"


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


def draw() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    uses = rooms()
    known = modules()
    levels = floors(uses)
    figure = Figure(figsize=(10, 1.35 * len(levels)), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    axes.set_axis_off()
    place = {}
    for floor, names in enumerate(levels):
        for k, name in enumerate(names):
            place[name] = ((k + 1) / (len(names) + 1) + 0.06 * (-1) ** floor, float(floor))
    for name, used in uses.items():
        for other in used:
            (x, y), (u, v) = place[name], place[other]
            bend = 0.0 if abs(y - v) <= 1 else 0.15
            axes.annotate(
                "", (u, v + 0.27), (x, y - 0.27),
                arrowprops={"arrowstyle": "->", "color": "#0072B2", "alpha": 0.45, "lw": 1.1,
                            "connectionstyle": f"arc3,rad={bend}"},
            )  # fmt: skip
    for name, (x, y) in place.items():
        members = sorted(m.split(".")[-1] for m in known if m and room(m) == name and m != name)
        lines, line = [], ""
        for member in members:
            if len(line) + len(member) > 34:
                lines.append(line)
                line = ""
            line += ("  " if line else "") + member
        text = "\n".join([*lines, line]) if members else ""
        axes.text(
            x, y, f"{name}\n{text}", ha="center", va="center", fontsize=7.5, linespacing=1.25,
            bbox={"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": "#767676"},
        )  # fmt: skip
    axes.set_xlim(-0.02, 1.1)
    axes.set_ylim(-0.6, len(levels) - 0.4)
    figure.savefig(PICTURE)


if __name__ == "__main__":
    draw()
    print(PICTURE)
