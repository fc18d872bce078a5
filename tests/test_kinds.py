"""Both kinds of data offer what kinds.py describes, and nobody else asks which one it serves."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

from bernoulli_diffusion import kinds
from bernoulli_diffusion.bits.data import BitStrings
from bernoulli_diffusion.config import Config
from bernoulli_diffusion.kinds import KINDS
from bernoulli_diffusion.numbers.data import RealVectors

RNG = np.random.default_rng(0)
DATA = {
    "bernoulli": BitStrings.from_bits(RNG.integers(2, size=(20, 3))),
    "gaussian": RealVectors(RNG.normal(size=(20, 3))),
}


def offered() -> list[tuple[type, object]]:
    """Each Protocol with a thing that has to follow it."""
    pairs = []
    for name, kind in KINDS.items():
        config, data = Config(), DATA[name]
        process = kind.new_process(config, data, "cpu")
        pairs += [
            (kinds.Kind, kind),
            (kinds.Samples, data),
            (kinds.Batches, kind.Batches(data, 4, 0)),
            (kinds.Measures, kind.Measures(data, data, config, data)),
            (kinds.Process, process),
        ]
        pairs += [(kinds.Flips, process.flips)] if process.flips else []
        pairs += [(kinds.BesideSteps, process.beside_steps)] if process.beside_steps else []
    return pairs


def methods_of(protocol: type) -> dict:
    methods = {name: m for name, m in vars(protocol).items() if inspect.isfunction(m)}
    return {name: m for name, m in methods.items() if name == "__len__" or not name.startswith("_")}


@pytest.mark.parametrize(
    ("protocol", "thing"), [pytest.param(p, t, id=f"{p.__name__}-{t}"[:40]) for p, t in offered()]
)
def test_kinds_have_what_the_contract_says(protocol, thing):
    for name in protocol.__annotations__:
        assert hasattr(thing, name), name
    for name, method in methods_of(protocol).items():
        wanted = list(inspect.signature(method).parameters.values())[1:]  # without self
        given = inspect.signature(getattr(thing, name)).parameters
        by_place = [p for p in wanted if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        required = [p for p in given.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL]
        assert len(required) <= len(by_place) <= len(given), name
        for parameter in wanted:
            if parameter.default is not parameter.empty and parameter.name != "noise":
                assert given[parameter.name].default == parameter.default, name


def test_what_only_one_kind_has_is_none_with_the_other():
    bits, numbers = (kind.new_process(Config(), DATA[name], "cpu") for name, kind in KINDS.items())
    for name in ("flips", "beside_steps", "deterministic_step"):
        assert (getattr(bits, name) is None) != (getattr(numbers, name) is None)
    assert torch.equal(bits.flips.max_flip_probability()[:2], torch.tensor([0.0, 1.0]).double())


# ----------------------------------------------------------------------------- nobody else asks

PACKAGE = Path(kinds.__file__).parent
OUTSIDE = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in ("bits", "numbers", "kinds.py")
]
OF_OLD_FILES = PACKAGE / "results" / "record.py"  # 1.0 did not say what its results are of
CAPABILITIES = {"flips", "deterministic_step", "beside_steps", "simple_loss"}
OF_A_KIND = {"BitStrings", "RealVectors", "BernoulliDiffusionProcess", "GaussianDiffusionProcess"}
ASK_THE_PROCESS = {"sampling.py", "conditioning.py", "diffusion.py", "likelihood.py"}


def asks_which_kind(tree: ast.Module, may_ask_process: bool) -> list[str]:
    """What in a file finds out which kind of data it serves: line and reason."""
    found = []

    def note(node: ast.AST, reason: str) -> None:
        found.append(f"line {node.lineno}: {reason}")

    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(s, ast.Constant) and s.value in KINDS for s in sides):
                note(node, "compares with the name of a kind")
            if any(isinstance(s, ast.Attribute) and s.attr == "process" for s in sides):
                note(node, "compares model.process")
            attributes = {s.attr for s in sides if isinstance(s, ast.Attribute)}
            if attributes & CAPABILITIES and not may_ask_process:
                note(node, f"asks for {attributes & CAPABILITIES}")
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
            for name in names & OF_A_KIND:
                note(node, f"isinstance of {name}")
        name = getattr(node, "attr", getattr(node, "id", getattr(node, "name", "")))
        if name in ("is_real", "has_flips"):
            note(node, name)
        if isinstance(node, ast.Constant) and node.value in ("proportions", "energy_distance"):
            note(node, f"knows a measure of one kind, {node.value}")
    return found


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nobody_asks_which_kind_it_is(path):
    if path == OF_OLD_FILES:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not asks_which_kind(tree, path.name in ASK_THE_PROCESS)


def test_questions_are_found():
    asked = """
if config.model.process == name: pass
if kind == "gaussian": pass
if isinstance(strings, (int, BitStrings)): pass
x = results["proportions"]
if process.flips is not None: pass
def is_real(results): pass
"""
    assert len(asks_which_kind(ast.parse(asked), False)) == 6
