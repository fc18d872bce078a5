"""docs/architecture.md says how the package is built; the imports agree."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
_spec = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
architecture = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(architecture)


def circle(uses: dict[str, set[str]]) -> list[str] | None:
    """Names that use each other in a round, or None."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return None
        for other in sorted(uses.get(name, ())):
            if found := visit(other, [*way, name]):
                return found
        done.add(name)
        return None

    return next((found for name in uses if (found := visit(name, []))), None)


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_no_module_imports_itself_in_a_round():
    assert circle(architecture.graph(lazy=False)) is None


def test_no_room_uses_itself_in_a_round():
    assert circle(architecture.rooms()) is None


def test_every_module_is_on_the_page():
    """The tree names every room, and every module at the top that is not a command."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    tree = page.split("```")[1]
    for name in {architecture.room(m) for m in architecture.modules()} - {"version"}:
        assert name in {"algorithm", "commands"} or f"{name}/" in tree or f"{name}.py" in tree
    for name in architecture.ALGORITHM:
        assert f"{name}.py" in tree
